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

/*
 * From here on nobody can send @fd, or what it accepts, a descriptor (SO_PASSRIGHTS). One that
 * nobody asked for is closed by who reads the bytes beside it, asked or not, and that can wait as
 * long as the sender likes: a TCP connection that lingers, a file of his own file system. Before
 * anybody can send. Kernels before 6.16 have no such thing: there nothing happens.
 */
void unix_refuse_fds(int fd);

#endif
