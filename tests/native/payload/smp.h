/* SPDX-License-Identifier: Apache-2.0 */
/* The other CPUs: started once, and then given work together. */
#ifndef PAYLOAD_SMP_H
#define PAYLOAD_SMP_H

#include "tests/native/payload/guest.h"

#define SMP_MAX 7 /* besides the first: as many stacks as smp.S has */

/* INIT and SIPI to all others; false when not all @n came within the time of WAIT. */
bool smp_start(unsigned n);

/* All of them call @fn with their number, 0 to n - 1, at once; for ever where it does not return.
 */
void smp_run(void (*fn)(unsigned cpu));
bool smp_wait(void); /* false: they have not all returned within the time of WAIT */

#endif
