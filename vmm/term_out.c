/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/term_out.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int term_out_reopen(int fd, int access)
{
	char path[32];
	struct stat st;

	/* A regular file opened anew would begin at offset 0. */
	if (fstat(fd, &st) || !(S_ISFIFO(st.st_mode) || isatty(fd)))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

void term_out_init(struct term_out *o, int fd)
{
	struct stat st;
	int own;

	*o = (struct term_out){.fd = -1};
	if (fstat(fd, &st))
		return;
	o->fd = fd;
	o->tty = isatty(fd);
	o->kind = S_ISSOCK(st.st_mode)             ? TERM_OUT_SOCKET
		  : S_ISFIFO(st.st_mode) || o->tty ? TERM_OUT_STREAM
						   : TERM_OUT_FILE;
	own = term_out_reopen(fd, O_WRONLY);
	if (own >= 0) {
		o->fd = own;
		o->own = true;
	}
}

ssize_t term_out_write(const struct term_out *o, const uint8_t *buf, size_t n)
{
	struct pollfd p = {.fd = o->fd, .events = POLLOUT};
	ssize_t done;

	if (o->kind == TERM_OUT_STREAM && !o->own) {
		/* Shared and blocking: only as much as is sure to fit after POLLOUT (PIPE_BUF in a
		 * pipe; a terminal promises little). */
		if (poll(&p, 1, 0) != 1 || !(p.revents & (POLLOUT | POLLERR)))
			return 0;
		n = n < (o->tty ? 64u : 4096u) ? n : (o->tty ? 64u : 4096u);
	}
	if (o->kind == TERM_OUT_SOCKET)
		done = send(o->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	else
		done = write(o->fd, buf, n);
	if (done < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	return done;
}

void term_out_fini(struct term_out *o)
{
	if (o->own)
		close(o->fd);
	*o = (struct term_out){.fd = -1};
}
