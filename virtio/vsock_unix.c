/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Unix socket of a connection. Data goes between it and the guest's buffers in one
 * copy, the host kernel's; only what a host program does not take at once is kept here.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio/vsock.h"

/* ------------------------------------------------------------- what is heard of it */

static uint32_t interest(const struct vsock_conn *c)
{
	uint32_t want = 0;

	switch (c->state) {
	case VSOCK_LINE:
		return EPOLLIN;
	case VSOCK_DRAINING:
		return EPOLLOUT;
	case VSOCK_OPEN:
		if (!c->eof && !(c->readable && c->told_readable))
			want |= EPOLLIN;
		return c->out.len ? want | EPOLLOUT : want;
	default: /* that it is gone is told in any case */
		return 0;
	}
}

/* Once there, an event is only modified: that takes no memory, so it does not fail. */
int vsock_unix_begin(struct vsock_conn *c)
{
	c->watched = interest(c);
	return loop_fd_add(c->s->v.loop, &c->src, c->fd, c->watched);
}

void vsock_unix_watch(struct vsock_conn *c)
{
	uint32_t want = interest(c);

	if (!c->src.loop || want == c->watched)
		return;
	loop_fd_mod(&c->src, want);
	c->watched = want;
}

/* The host program takes nothing more. What is on its way to it is lost, as with any socket. */
static void no_reader(struct vsock_conn *c)
{
	uint32_t lost = (uint32_t)c->out.len; /* at most buf_alloc */

	bytes_fini(&c->out);
	vsock_conn_forwarded(c, lost);
	c->host_shut |= VSOCK_SHUT_RCV;
	vsock_conn_do(c, VSOCK_DO_SHUTDOWN);
}

/* Errors of a send that say nothing about who reads. */
static bool is_for_now(int err)
{
	return err == EAGAIN || err == EINTR || err == ENOBUFS || err == ENOMEM;
}

bool vsock_unix_flush(struct vsock_conn *c)
{
	const uint8_t *p;
	size_t n;

	while ((n = bytes_peek(&c->out, &p))) {
		ssize_t done = send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (done < 0)
			return is_for_now(errno);
		bytes_drop(&c->out, (size_t)done);
		if (c->state == VSOCK_OPEN)
			vsock_conn_forwarded(c, (uint32_t)done);
	}
	return true;
}

static void open_event(struct vsock_conn *c, uint32_t events)
{
	if (c->hup || ((events & EPOLLOUT) && !vsock_unix_flush(c)))
		no_reader(c);
	if (!c->eof && (c->hup || (events & EPOLLIN))) {
		c->told_readable = c->readable;
		c->readable = true;
		vsock_conn_ready(c);
	}
	vsock_unix_settle(c);
}

void vsock_unix_event(void *arg, uint32_t events)
{
	struct vsock_conn *c = arg;
	struct vsock *s = c->s;

	/* Nobody is asked whether he wants to hear this, again and again: it is heard once. */
	if (events & (EPOLLHUP | EPOLLERR)) {
		c->hup = true;
		loop_fd_del(&c->src);
	}
	switch (c->state) {
	case VSOCK_LINE:
		vsock_host_line(c);
		break;
	case VSOCK_OPEN:
		open_event(c, events);
		break;
	case VSOCK_DRAINING:
		if (c->hup || !vsock_unix_flush(c) || !c->out.len)
			vsock_conn_free(c);
		break;
	default:
		if (c->hup)
			vsock_conn_reset(c);
	}
	vsock_rx(s);
}

void vsock_unix_settle(struct vsock_conn *c)
{
	if (c->state != VSOCK_OPEN)
		return;
	if (!c->out.len && c->guest_shut == VSOCK_SHUT_BOTH) {
		/* Section 5.10.6.5: so a clean disconnect ends. */
		vsock_conn_reset(c);
		return;
	}
	if (!c->out.len && (c->guest_shut & VSOCK_SHUT_SEND) && !c->wr_shut) {
		shutdown(c->fd, SHUT_WR);
		c->wr_shut = true;
	}
	/* Gone, and nothing left to read: also when it was the guest that would not read it. */
	if (c->hup && c->eof && c->host_shut != VSOCK_SHUT_BOTH) {
		c->host_shut = VSOCK_SHUT_BOTH;
		vsock_conn_do(c, VSOCK_DO_SHUTDOWN);
	}
	if (c->host_shut == VSOCK_SHUT_BOTH)
		vsock_conn_closing(c);
	else
		vsock_unix_watch(c);
}

/* ------------------------------------------------------------- the guest's data */

/* How much of the batch is dealt with: the host program has it, or wants nothing any more. */
static uint32_t hand_over(struct vsock *s, struct vsock_conn *c, uint32_t total)
{
	struct msghdr m = {.msg_iov = s->iov, .msg_iovlen = (size_t)s->batch.iovs};
	ssize_t done;

	if (c->host_shut & VSOCK_SHUT_RCV)
		return total;
	if (c->out.len) /* first in, first out */
		return 0;
	done = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (done >= 0)
		return (uint32_t)done;
	if (is_for_now(errno))
		return 0;
	no_reader(c);
	return total;
}

/*
 * What the socket did not take of a packet: its data from byte @from on. The sum of
 * what is kept is at most buf_alloc, as the guest's credit was checked.
 */
static bool keep(struct vsock_conn *c, struct vq_chain *chain, uint32_t from, uint32_t len)
{
	uint8_t buf[4096];
	size_t kept = c->out.len + (len - from);

	chain_rewind(chain);
	/* Moves the cursor, over no more buffers than were counted before. */
	if (chain_pull_iov(chain, VSOCK_HDR + from, c->s->iov, VSOCK_IOVS) < 0)
		return false;
	while (from < len) {
		uint32_t n = len - from < sizeof(buf) ? len - from : sizeof(buf);

		if (chain_pull(chain, buf, n))
			return false;
		bytes_put(&c->out, buf, n);
		from += n;
	}
	return c->out.len == kept; /* else there was no memory */
}

void vsock_unix_send(struct vsock *s)
{
	struct vsock_batch *b = &s->batch;
	struct vsock_conn *c = b->c;
	uint32_t total = 0, done, left;
	bool ok = true;

	if (!c)
		return;
	for (unsigned i = 0; i < b->n; i++)
		total += b->len[i];
	left = done = hand_over(s, c, total);
	for (unsigned i = 0; i < b->n; i++) {
		if (left < b->len[i])
			ok = ok && keep(c, b->chain[i], left, b->len[i]);
		left -= left < b->len[i] ? left : b->len[i];
		vq_return(b->chain[i]);
	}
	*b = (struct vsock_batch){.c = NULL};
	vsock_conn_forwarded(c, done);
	if (ok)
		vsock_unix_settle(c);
	else
		vsock_conn_reset(c);
}

/* ------------------------------------------------------------- data for the guest */

ssize_t vsock_unix_read(struct vsock_conn *c, int n)
{
	ssize_t r = readv(c->fd, c->s->iov, n);

	return r < 0 ? -errno : r;
}

void vsock_unix_stop_reading(struct vsock_conn *c)
{
	if (c->eof)
		return;
	shutdown(c->fd, SHUT_RD);
	c->eof = true;
	c->readable = false;
}

/* ------------------------------------------------------------- its beginning */

int vsock_unix_connect(struct vsock_conn *c)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int r;

	/* config_vsock.c saw to it that it fits. */
	snprintf(un.sun_path, sizeof(un.sun_path), "%s_%u", c->s->host->at.path, c->host_port);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno == -EAGAIN ? -ENFILE : -errno;
	unix_refuse_fds(c->fd);
	r = connect(c->fd, (const struct sockaddr *)&un, sizeof(un)) ? -errno : 0;
	if (!r) {
		c->state = VSOCK_OPEN;
		r = vsock_unix_begin(c);
	}
	if (r) {
		close(c->fd);
		c->fd = -1;
		return r;
	}
	vsock_conn_wait_over(c);
	vsock_conn_do(c, VSOCK_DO_RESPONSE);
	return 0;
}

void vsock_unix_accepted(struct vsock_conn *c)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "OK %u\n", c->host_port);

	vsock_conn_wait_over(c);
	c->state = VSOCK_OPEN;
	/* Nothing was ever written there: it has room for this unless it is gone. */
	if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n) {
		vsock_conn_reset(c);
		return;
	}
	vsock_unix_watch(c);
}
