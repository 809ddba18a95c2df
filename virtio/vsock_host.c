/* SPDX-License-Identifier: Apache-2.0 */
/* The socket where host programs come, and the line that says where they want to go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio/vsock.h"

#define BACKLOG 1024
#define ACCEPT_TURN 16
#define ACCEPT_AGAIN_NS 200000000ull
#define FDS_REST 4096 /* for all the rest of a process: a network of 16 pairs has some 160 */

/* ------------------------------------------------------------- before there is a machine */

/* A connection takes a descriptor, and by default there are 1024. */
static unsigned raise_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l))
		return VSOCK_CONNS_MAX;
	if (l.rlim_cur < VSOCK_CONNS_MAX + FDS_REST) {
		rlim_t was = l.rlim_cur;

		l.rlim_cur = VSOCK_CONNS_MAX + FDS_REST;
		if (l.rlim_cur > l.rlim_max)
			l.rlim_cur = l.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &l))
			l.rlim_cur = was;
	}
	if (l.rlim_cur >= VSOCK_CONNS_MAX + FDS_REST)
		return VSOCK_CONNS_MAX;
	l.rlim_cur -= l.rlim_cur / 4;
	return l.rlim_cur < VSOCK_CONNS_MAX ? (unsigned)l.rlim_cur : VSOCK_CONNS_MAX;
}

int vsock_host_open(struct vsock_host **ret, const struct vsock_config *c, struct err *e)
{
	struct vsock_host *h = calloc(1, sizeof(*h)); /* the path's length: config_vsock.c */
	int r;

	if (!h)
		return err_msg(e, -ENOMEM, "--vsock: out of memory");
	r = unix_listen_open(&h->at, c->socket, BACKLOG, e);
	if (r < 0) {
		free(h);
		err_ctx(e, "--vsock");
		return r;
	}
	h->conns_max = raise_limit();
	*ret = h;
	return 0;
}

void vsock_host_close(struct vsock_host *h)
{
	if (!h)
		return;
	unix_listen_close(&h->at);
	free(h);
}

/* ------------------------------------------------------------- who comes */

void vsock_host_watch(struct vsock *s)
{
	s->accept_due = 0;
	if (!s->listen.loop && loop_fd_add(s->v.loop, &s->listen, s->host->at.fd, EPOLLIN)) {
		s->accept_due = loop_now() + ACCEPT_AGAIN_NS;
		vsock_timer(s, s->accept_due);
	}
}

/* Out of descriptors or memory. Who comes stays in the backlog, where to look at him again and
 * again would only keep the loop busy. */
static void pause_accept(struct vsock *s, int err)
{
	if (!s->accept_said)
		log_guest(&s->v.budget,
			  "vsock: accept: %s: host programs wait until it works again",
			  strerror(err));
	s->accept_said = true;
	loop_fd_del(&s->listen);
	s->accept_due = loop_now() + ACCEPT_AGAIN_NS;
	vsock_timer(s, s->accept_due);
}

void vsock_host_accept(void *arg, uint32_t events)
{
	struct vsock *s = arg;

	(void)events;
	for (unsigned i = 0; i < ACCEPT_TURN; i++) {
		int fd = accept4(s->host->at.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct vsock_conn *c;

		if (fd < 0) {
			if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
				pause_accept(s, errno);
			return;
		}
		s->accept_said = false;
		/* Else a byte out of band would be told of for ever, and MSG_PEEK not see it. */
		setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &(int){1}, sizeof(int));
		c = vsock_conn_new(s, fd, VSOCK_LINE);
		if (!c) { /* refused at once, rather than kept waiting */
			log_guest(&s->v.budget, "vsock: more than %u connections: one is refused",
				  s->conns_max);
			close(fd);
		} else if (vsock_unix_begin(c)) {
			vsock_conn_free(c);
		} else {
			vsock_conn_wait(c, VSOCK_WAIT_LINE);
		}
	}
}

/* ------------------------------------------------------------- what he says */

static const char word[] = "CONNECT ";
#define WORD (sizeof(word) - 1)

/* The line's beginning is none of ours. */
static bool is_wrong(const struct vsock_conn *c)
{
	return strncasecmp(c->line, word, c->line_len < WORD ? c->line_len : WORD) != 0;
}

/* The line is whole, its last byte is a newline. */
static bool get_port(const struct vsock_conn *c, uint32_t *ret)
{
	uint64_t port = 0;
	unsigned i = WORD;

	/* A line is short, so the number does not overflow 64 bits. */
	for (; i < c->line_len - 1 && c->line[i] >= '0' && c->line[i] <= '9'; i++)
		port = port * 10 + (uint64_t)(c->line[i] - '0');
	if (i == WORD || i != c->line_len - 1 || port > UINT32_MAX)
		return false;
	*ret = (uint32_t)port;
	return true;
}

/*
 * What follows the line is the stream's, so no more than the line is read, and what
 * is there of it is: it would be announced again and again. Length or a negative errno.
 */
static ssize_t read_some(struct vsock_conn *c, bool *ret_whole)
{
	char *at = c->line + c->line_len, *end;
	ssize_t n = recv(c->fd, at, VSOCK_LINE_MAX - c->line_len, MSG_PEEK);

	if (n <= 0)
		return n < 0 ? -errno : 0;
	end = memchr(at, '\n', (size_t)n);
	n = recv(c->fd, at, end ? (size_t)(end - at) + 1 : (size_t)n, 0);
	*ret_whole = end;
	return n < 0 ? -errno : n;
}

void vsock_host_line(struct vsock_conn *c)
{
	bool whole = false;
	ssize_t n = read_some(c, &whole);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n > 0)
		c->line_len += (unsigned)n;
	if (n <= 0 || is_wrong(c) || (!whole && c->line_len == VSOCK_LINE_MAX) || c->hup ||
	    (whole && (c->line_len <= WORD || !get_port(c, &c->guest_port)))) {
		vsock_conn_free(c);
		return;
	}
	if (!whole)
		return;
	if (c->s->v.running) {
		vsock_conn_ask(c);
		return;
	}
	c->state = VSOCK_WAITING;
	vsock_conn_wait(c, VSOCK_WAIT_DRIVER);
	vsock_unix_watch(c);
}
