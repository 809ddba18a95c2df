/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular files of a directory that somebody else packed. Nothing outside it is
 * read on its behalf: links are followed as long as they stay inside (where the
 * kernel has no openat2(2): not at all), and what is no regular file (a device, a
 * FIFO) is never opened.
 *
 * Set-up code, one thread.
 */
#ifndef BOOT_BENEATH_H
#define BOOT_BENEATH_H

#include <sys/stat.h>

#include "vmm/err.h"

struct beneath {
	int fd;          /* O_PATH */
	const char *dir; /* for messages; the caller's */
};

/* @dir itself may be a link. -errno. */
int beneath_init(struct beneath *b, const char *dir, struct err *e);

/* @rel: relative, without "..". Its descriptor, to be closed, and what fstat says of it; -errno. */
int beneath_open(const struct beneath *b, const char *rel, struct stat *ret, struct err *e);
void beneath_fini(struct beneath *b);

#endif
