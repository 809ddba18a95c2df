/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtiofsd of our own for one shared directory. Two programs go by that name, and
 * either will do: the one in Rust, and the one in C that QEMU up to 7.2 comes with.
 *
 * Main thread.
 */
#ifndef VIRTIO_VIRTIOFSD_H
#define VIRTIO_VIRTIOFSD_H

#include "vmm/child.h"
#include "vmm/config.h"

struct virtiofsd_plan {
	bool rust;
	bool mount_ro;       /* we have to see to it that nothing is written */
	const char *sandbox; /* "namespace", "chroot" or "none" */
	char *argv[24];      /* ends with NULL */
	char *program, *dir; /* absolute */
};
/* How @program, whose --help printed @help, is to be started for @c. 0 or a negative errno;
 * virtiofsd_plan_fini after a failure, too. */
int virtiofsd_plan(struct virtiofsd_plan *p, const struct fs_config *c, const char *program,
		   const char *help, struct err *e);
void virtiofsd_plan_fini(struct virtiofsd_plan *p);

char *virtiofsd_find(void); /* its path, for the caller to free; NULL: there is none */

/* Starts one. *@ret_socket: connected to it, not blocking, the caller's. @name: "fs0". */
int virtiofsd_start(struct child **ret, int *ret_socket, const struct fs_config *c,
		    const char *name, struct err *e);

#endif
