/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/unix_listen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

void unix_refuse_fds(int fd)
{
	const int off = 0;

	setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
}

/* Whether somebody listens at @un: the socket of a process that died is replaced. */
static int take_over(const struct sockaddr_un *un, struct err *e)
{
	struct stat st;
	int fd, r;

	if (lstat(un->sun_path, &st))
		return errno == ENOENT ? 0 : err_sys(e, "socket %s", un->sun_path);
	if (!S_ISSOCK(st.st_mode))
		return err_msg(e, -EEXIST, "socket %s: there is a %s of that name%s", un->sun_path,
			       S_ISDIR(st.st_mode) ? "directory" : "file",
			       S_ISDIR(st.st_mode) ? "" : " that is no socket");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, "socket");
	r = connect(fd, (const struct sockaddr *)un, sizeof(*un)) ? errno : 0;
	close(fd);
	if (r != ECONNREFUSED)
		return err_msg(e, -EADDRINUSE, "socket %s: in use by another process",
			       un->sun_path);
	if (unlink(un->sun_path))
		return err_sys(e, "socket %s: remove the old one", un->sun_path);
	return 0;
}

static int bind_at(struct unix_listen *u, const struct sockaddr_un *un, struct err *e)
{
	struct stat st;

	u->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (u->fd < 0)
		return err_sys(e, "socket");
	unix_refuse_fds(u->fd);
	/* The file gets the descriptor's mode: there is no moment when others may connect. */
	if (fchmod(u->fd, 0600) || bind(u->fd, (const struct sockaddr *)un, sizeof(*un)))
		return err_sys(e, "socket %s", un->sun_path);
	u->path = strdup(un->sun_path);
	if (!u->path) {
		unlink(un->sun_path);
		return err_msg(e, -ENOMEM, "out of memory");
	}
	if (!lstat(u->path, &st)) {
		u->dev = st.st_dev;
		u->ino = st.st_ino;
	}
	return 0;
}

int unix_listen_open(struct unix_listen *u, const char *path, int backlog, struct err *e)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int r;

	*u = (struct unix_listen){.fd = -1};
	if (strlen(path) >= sizeof(un.sun_path))
		return err_msg(e, -ENAMETOOLONG, "socket %s: path too long", path);
	strcpy(un.sun_path, path);
	r = take_over(&un, e);
	if (!r)
		r = bind_at(u, &un, e);
	if (!r && listen(u->fd, backlog))
		r = err_sys(e, "socket %s", path);
	if (r)
		unix_listen_close(u);
	return r;
}

void unix_listen_close(struct unix_listen *u)
{
	struct stat st;

	if (u->fd >= 0)
		close(u->fd);
	if (u->path && !lstat(u->path, &st) && st.st_dev == u->dev && st.st_ino == u->ino)
		unlink(u->path);
	free(u->path);
	*u = (struct unix_listen){.fd = -1};
}
