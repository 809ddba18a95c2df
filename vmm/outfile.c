/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int outfile_open(struct outfile *o, const char *path, int flags, mode_t mode, struct err *e)
{
	struct stat st;
	int fd;

	*o = (struct outfile){.path = strdup(path)};
	if (!o->path)
		return err_msg(e, -ENOMEM, "out of memory");
	/* NONBLOCK: opening a FIFO that nobody reads is an error, not a wait. */
	flags |= O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
	fd = open(path, flags | O_CREAT | O_EXCL, mode);
	if (fd >= 0 && !fstat(fd, &st)) {
		o->dev = st.st_dev;
		o->ino = st.st_ino;
	}
	if (fd < 0 && errno == EEXIST)
		fd = open(path, flags);
	/* A link to what is not there yet. (Not at once: what is another's in a sticky directory
	 * can be opened only without O_CREAT.) */
	if (fd < 0 && errno == ENOENT)
		fd = open(path, flags | O_CREAT, mode);
	if (fd >= 0)
		return fd;
	int r = errno == ENXIO
			? err_msg(e, -ENXIO, "open %s: a FIFO or device without a reader", path)
			: err_sys(e, "open %s", path);
	outfile_fini(o);
	return r;
}

void outfile_undo(struct outfile *o)
{
	struct stat st;

	/* Only our own: another process may have replaced it, or put something into it. */
	if (o->path && !lstat(o->path, &st) && st.st_dev == o->dev && st.st_ino == o->ino &&
	    !st.st_size)
		unlink(o->path);
}

void outfile_fini(struct outfile *o)
{
	free(o->path);
	*o = (struct outfile){0};
}
