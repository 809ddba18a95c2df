/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eventfds that another process may hold as well. Whether a read or a write waits is then no
 * business of ours: O_NONBLOCK belongs to what all holders share, and any of them
 * can take it away, fill the counter and empty it, at any moment. The calls below return at once
 * whatever the others do.
 *
 * Any thread.
 */
#ifndef VMM_EVFD_H
#define VMM_EVFD_H

#include "vmm/err.h"

/* Before the first one is given to another process, on the main thread: gets what it takes from
 * the host. Again does nothing. 0 or a negative errno. */
int evfd_prepare(struct err *e);

void evfd_clear(int fd); /* empties the counter */
void evfd_add(int fd);   /* one more; when it is full it has been heard anyway */

#endif
