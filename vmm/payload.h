/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine boots: kernel, initramfs and command line, from the configuration. */
#ifndef VMM_PAYLOAD_H
#define VMM_PAYLOAD_H

#include "boot/initramfs.h"
#include "boot/kernel.h"
#include "vmm/config.h"

struct payload {
	struct kernel *kernel;
	int initrd_fd; /* the user's file; -1: none */
	uint64_t initrd_size;
	struct cpio cpio;     /* or the one built here; len 0: none */
	size_t modules;       /* in it */
	char no_modules[512]; /* why there are none, and what to give; outlives payload_close */
	char cmdline[4096];
};

/* -E2BIG for a command line that is too long; one line each for what is wrong with a file. */
int payload_open(struct payload *p, const struct config *c, struct err *e);
/* Puts @words, which only a built machine knows, in front: what the user gave wins. -E2BIG. */
int payload_cmdline_front(struct payload *p, const char *words, struct err *e);
void payload_close(struct payload *p);

#endif
