/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passt, the host's side of --net user: a process of its own that makes the
 * guest's connections with ordinary sockets. It is started here, one for each
 * device, and ends when its socket is closed.
 *
 * Main thread, but for passt_log: under the device's loop lock.
 */
#ifndef VIRTIO_PASST_H
#define VIRTIO_PASST_H

#include <stdint.h>

#include "virtio/frames.h"
#include "vmm/config.h"
#include "vmm/err.h"

struct passt;

/*
 * Finds it in PATH, starts it, and waits until it answers or has ended. @f, zeroed:
 * what it is talked to through; the caller's to frames_fini, before passt_end, at a failure
 * too. @label: for what is logged of it; outlives it.
 */
int passt_start(struct passt **ret, struct frames *f, const struct net_config *c, const char *label,
		struct err *e);
void passt_end(struct passt *p); /* accepts NULL */

/* Where it says something, readable then; -1: no more. */
int passt_log_fd(const struct passt *p);
int passt_log(struct passt *p); /* logs what it said; negative: it will say nothing more */

#endif
