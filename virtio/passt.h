/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passt, the host's side of --net user: a process of its own that makes the
 * guest's connections with ordinary sockets. It is started here, one for each
 * device, and ends when its socket is closed.
 *
 * Main thread, which has to live on (vmm/child.h).
 */
#ifndef VIRTIO_PASST_H
#define VIRTIO_PASST_H

#include "virtio/frames.h"
#include "vmm/child.h"
#include "vmm/config.h"
#include "vmm/err.h"

/*
 * Finds it in PATH, starts it, and waits until it answers or has ended. @f, zeroed: what it is
 * talked to through; the caller's to frames_fini, after passt_end, at a failure too. @label: what
 * it is called in the log and in @e. 0 or a negative errno.
 */
int passt_start(struct child **ret, struct frames *f, const struct net_config *c, const char *label,
		struct err *e);
char *passt_find(void); /* its path, for the caller to free; NULL: it is not in PATH */
void passt_end(struct child *p, const struct frames *f); /* without one nothing is done */

#endif
