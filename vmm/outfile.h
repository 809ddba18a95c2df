/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that the user named for output. It is opened before the machine starts,
 * so that a path that does not work is told of then; when the start fails for
 * another reason, a file that was made for it goes again.
 */
#ifndef VMM_OUTFILE_H
#define VMM_OUTFILE_H

#include <sys/types.h>

#include "vmm/err.h"

struct outfile { /* zeros: none */
	char *path;
	dev_t dev; /* which file was made; zeros when it was there before, or a link to it */
	ino_t ino;
};

/*
 * Opens @path for writing, made with @mode when it is not there; an existing one is
 * neither changed nor truncated. Returns the descriptor, O_NONBLOCK and the
 * caller's, or a negative errno.
 */
int outfile_open(struct outfile *o, const char *path, int flags, mode_t mode, struct err *e);
void outfile_undo(struct outfile *o); /* removes what outfile_open made, if it is still empty */
void outfile_fini(struct outfile *o);

#endif
