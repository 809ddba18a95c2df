/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine boots: kernel, initramfs and command line, from the configuration. */
#ifndef VMM_PAYLOAD_H
#define VMM_PAYLOAD_H

#include <sys/uio.h>

#include "boot/initramfs.h"
#include "boot/kernel.h"
#include "vmm/config.h"

struct payload {
	struct kernel *kernel;
	struct iovec initrd; /* the user's file mapped, or cpio's bytes; iov_len 0: none */
	void *map;           /* the user's file */
	struct cpio cpio;
	char cmdline[4096];
};

int payload_open(struct payload *p, const struct config *c, struct err *e);
void payload_close(struct payload *p);

#endif
