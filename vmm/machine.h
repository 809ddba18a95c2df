/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: everything put together, run, and taken apart again; the roof
 * of the house and the only file that knows all rooms.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "vmm/config.h"

/* Exit statuses of `mvm boot`. */
#define EXIT_GUEST_OFF 0
#define EXIT_GUEST_PANIC 122
#define EXIT_GUEST_TRIPLE 123
#define EXIT_TIMED_OUT 124
#define EXIT_VMM 125
#define EXIT_USER_QUIT 130  /* Ctrl-A x */
#define EXIT_TERMINATED 143 /* SIGTERM, and the guest did not power off in time */

/* Seconds a guest has to power off after SIGTERM, SIGINT or SIGHUP. */
#define MACHINE_GRACE_S 10

/* Runs the machine, and again after each reboot, until it ends. @c was checked. Returns the exit
 * status. */
int machine_main(const struct config *c);

#endif
