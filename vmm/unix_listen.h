/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening Unix stream socket at a path. The owner alone may connect, from the
 * first moment on. The socket of a process that died is replaced; one where somebody
 * listens, and what is no socket, is left alone and refused.
 */
#ifndef VMM_UNIX_LISTEN_H
#define VMM_UNIX_LISTEN_H

#include <sys/types.h>

#include "vmm/err.h"

struct unix_listen {
	int fd; /* non-blocking; -1: none */
	char *path;
	dev_t dev;
	ino_t ino;
};

/* 0 or a negative errno, and then there is nothing to close. @backlog: as for listen(2). */
int unix_listen_open(struct unix_listen *u, const char *path, int backlog, struct err *e);
/* Removes the path, unless it has become another's meanwhile. Fine with none open. */
void unix_listen_close(struct unix_listen *u);

#endif
