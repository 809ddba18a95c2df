/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/chr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "vmm/chr_backend.h"
#include "vmm/log.h"

/* ------------------------------------------------------------- streams */

size_t chr_can_take(const struct chr *c)
{
	return c->bound ? c->user.room(c->user.dev) : 0;
}

static void chr_deliver(struct chr *c)
{
	uint8_t piece[512];
	const uint8_t *p;
	size_t n, room;

	/* A device that says chr_room() out of input() must not come in here twice. */
	if (c->delivering)
		return;
	c->delivering = true;
	while ((n = bytes_peek(&c->in, &p)) && (room = chr_can_take(c))) {
		if (n > room)
			n = room;
		if (n > sizeof(piece))
			n = sizeof(piece);
		memcpy(piece, p, n);
		bytes_drop(&c->in, n);
		c->user.input(c->user.dev, piece, n);
	}
	c->delivering = false;
}

static void chr_read(struct chr *c, bool hangup)
{
	uint8_t buf[4096];
	size_t room = chr_can_take(c);
	ssize_t n;

	if (c->in.len || !room)
		return;
	n = read(c->fd, buf, room < sizeof(buf) ? room : sizeof(buf));
	if (n > 0)
		c->user.input(c->user.dev, buf, (size_t)n);
	else if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	else if (n || hangup)
		c->back->lost(c, n ? errno : 0);
	else
		c->eof = true; /* shutdown(2) of one direction */
}

static void chr_event(void *arg, uint32_t events)
{
	struct chr *c = arg;

	if (events & EPOLLOUT) {
		c->blocked = false;
		chr_flush(c);
	}
	if (c->fd >= 0 && (events & EPOLLIN))
		chr_read(c, events & EPOLLHUP);
	else if (c->fd >= 0 && (events & (EPOLLHUP | EPOLLERR)))
		c->back->lost(c, 0);
	chr_watch(c);
}

void chr_watch(struct chr *c)
{
	uint32_t want = 0;

	if (c->fd < 0)
		return;
	if (c->back->reads && !c->eof && !c->in.len && chr_can_take(c))
		want |= EPOLLIN;
	if (c->blocked)
		want |= EPOLLOUT;
	/* One that is only written is not polled while nothing waits: a FIFO without a reader
	 * would report EPOLLERR for ever. */
	if (!want && !c->back->reads) {
		loop_fd_del(&c->src);
		return;
	}
	if (!c->src.loop) {
		c->src.fn = chr_event;
		c->src.arg = c;
		/* EPERM: a regular file, which is always ready. */
		if (loop_fd_add(c->loop, &c->src, c->fd, want))
			c->blocked = false;
	} else if (want != c->watched) {
		loop_fd_mod(&c->src, want);
	}
	c->watched = want;
}

void chr_drop_fd(struct chr *c)
{
	loop_fd_del(&c->src);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->blocked = c->eof = false;
}

ssize_t chr_write_fd(struct chr *c, const uint8_t *buf, size_t n)
{
	ssize_t done;

	do
		done = write(c->fd, buf, n);
	while (done < 0 && errno == EINTR);
	if (done < 0)
		return errno == EAGAIN ? 0 : -errno;
	return done;
}

static size_t chr_push(struct chr *c, const uint8_t *buf, size_t n)
{
	ssize_t done = c->back->write(c, buf, n);

	if (done < 0) {
		c->back->lost(c, (int)-done);
		return 0;
	}
	c->blocked = (size_t)done < n && c->fd >= 0;
	return (size_t)done;
}

void chr_flush(struct chr *c)
{
	const uint8_t *p;
	size_t n, done;

	while (!c->blocked && (n = bytes_peek(&c->out, &p))) {
		done = chr_push(c, p, n);
		if (!done)
			break;
		bytes_drop(&c->out, done);
	}
	chr_watch(c);
}

static void chr_flush_late(void *arg)
{
	chr_flush(arg);
}

/* ------------------------------------------------------------- nothing, file, terminal */

static int null_open(struct chr *c, const char *path, struct err *e)
{
	(void)c, (void)path, (void)e;
	return 0;
}

static void null_close(struct chr *c)
{
	(void)c;
}

static ssize_t null_write(struct chr *c, const uint8_t *buf, size_t n)
{
	(void)c, (void)buf;
	return (ssize_t)n;
}

static void null_lost(struct chr *c, int err)
{
	(void)c, (void)err;
}

static const struct chr_backend chr_null = {
	.open = null_open, .close = null_close, .write = null_write, .lost = null_lost};

static int file_open(struct chr *c, const char *path, struct err *e)
{
	int fd = outfile_open(&c->file, path, O_APPEND, 0600, e);

	c->fd = fd < 0 ? -1 : fd;
	return fd < 0 ? fd : 0;
}

static void file_close(struct chr *c)
{
	chr_drop_fd(c);
	outfile_fini(&c->file);
}

static void file_lost(struct chr *c, int err)
{
	if (!c->reported)
		log_error("%s: write %s: %s: output is lost", c->label, c->file.path,
			  strerror(err ? err : EPIPE));
	c->reported = true;
	c->blocked = false;
}

static const struct chr_backend chr_file = {
	.open = file_open, .close = file_close, .write = chr_write_fd, .lost = file_lost};

static size_t tty_room(void *arg)
{
	return chr_can_take(arg);
}

static void tty_input(void *arg, const uint8_t *buf, size_t n)
{
	struct chr *c = arg;

	c->user.input(c->user.dev, buf, n);
}

static void tty_resize(void *arg, uint16_t cols, uint16_t rows)
{
	struct chr *c = arg;

	if (c->bound && c->user.resize)
		c->user.resize(c->user.dev, cols, rows);
}

static int tty_open(struct chr *c, const char *path, struct err *e)
{
	int ret = term_open(c->loop, NULL, e);

	(void)path;
	if (ret)
		return ret;
	c->term = (struct term_user){.label = c->label,
				     .room = tty_room,
				     .input = tty_input,
				     .resize = tty_resize,
				     .arg = c};
	term_attach(&c->term);
	return 0;
}

static void tty_close(struct chr *c)
{
	term_detach(&c->term);
}

static ssize_t tty_write(struct chr *c, const uint8_t *buf, size_t n)
{
	(void)c;
	term_write(buf, n);
	return (ssize_t)n;
}

static void tty_more(struct chr *c)
{
	(void)c;
	term_room();
}

static const struct chr_backend chr_tty = {.open = tty_open,
					   .close = tty_close,
					   .write = tty_write,
					   .lost = null_lost,
					   .room = tty_more};

/* ------------------------------------------------------------- all of them */

static const struct chr_backend *const backends[] = {
	[CHAR_OFF] = &chr_null, [CHAR_NULL] = &chr_null, [CHAR_TTY] = &chr_tty,
	[CHAR_PTY] = &chr_pty,  [CHAR_FILE] = &chr_file, [CHAR_SOCKET] = &chr_socket,
};

int chr_new(struct chr **ret, struct loop *l, const struct char_config *cfg, const char *label,
	    struct err *e)
{
	struct chr *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_msg(e, -ENOMEM, "%s: out of memory", label);
	c->back = backends[cfg->mode];
	c->loop = l;
	c->fd = c->listen.fd = c->slave_fd = -1;
	c->out.cap = CHR_BUFFER;
	c->in.cap = CHR_INPUT;
	c->flush.fn = chr_flush_late;
	c->flush.arg = c;
	snprintf(c->label, sizeof(c->label), "%s", label);
	r = c->back->open(c, cfg->path, e);
	if (r) {
		err_ctx(e, "%s", label);
		chr_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void chr_free(struct chr *c)
{
	if (!c)
		return;
	loop_timer_cancel(&c->flush);
	chr_bind(c, NULL);
	chr_flush(c);
	c->back->close(c);
	bytes_fini(&c->out);
	bytes_fini(&c->in);
	free(c->path);
	free(c);
}

void chr_undo(struct chr *c)
{
	if (c)
		outfile_undo(&c->file);
}

void chr_bind(struct chr *c, const struct chr_user *u)
{
	c->bound = u != NULL;
	if (u)
		c->user = *u;
	chr_room(c);
}

void chr_write(struct chr *c, const uint8_t *buf, size_t n)
{
	/* A byte at a time comes from a UART: one system call for what a turn of the loop
	 * gathers, made on the loop's thread and not on the vCPU's. */
	if (n == 1) {
		bytes_put(&c->out, buf, 1);
		if (!c->flush.due && !c->blocked)
			loop_timer_set(c->loop, &c->flush, loop_now());
		return;
	}
	if (!c->out.len) {
		size_t done = chr_push(c, buf, n);

		buf += done;
		n -= done;
		bytes_put(&c->out, buf, n);
		chr_watch(c);
		return;
	}
	bytes_put(&c->out, buf, n);
	chr_flush(c);
}

void chr_room(struct chr *c)
{
	if (c->back->room) {
		c->back->room(c);
		return;
	}
	chr_deliver(c);
	chr_watch(c);
}

bool chr_size(const struct chr *c, uint16_t *cols, uint16_t *rows)
{
	return c->back == &chr_tty && term_size(cols, rows);
}

const char *chr_path(const struct chr *c)
{
	return c->path;
}
