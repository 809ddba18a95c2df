/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening Unix stream socket that serves one client at a time; the next
 * waits in the backlog. What the guest writes while nobody is there is kept
 * for the next client, within CHR_BUFFER.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/chr_backend.h"
#include "vmm/log.h"

#define CLIENTS_WAITING 4
#define RETRY_NS 1000000000ull /* until accept is tried again */

static void socket_accept(void *arg, uint32_t events);

static void socket_listen(struct chr *c)
{
	c->listen_src.fn = socket_accept;
	c->listen_src.arg = c;
	if (!c->listen_src.loop)
		loop_fd_add(c->loop, &c->listen_src, c->listen.fd, EPOLLIN);
}

static void socket_retry(void *arg)
{
	socket_listen(arg);
}

/*
 * Out of descriptors or memory. The client stays in the backlog, so polling would
 * only keep the loop busy: it is looked after again in a while.
 */
static void socket_pause(struct chr *c, int err)
{
	if (!c->reported)
		log_warn("%s: accept: %s: clients wait until it works again", c->label,
			 strerror(err));
	c->reported = true;
	loop_fd_del(&c->listen_src);
	c->retry.fn = socket_retry;
	c->retry.arg = c;
	loop_timer_set(c->loop, &c->retry, loop_now() + RETRY_NS);
}

static void socket_accept(void *arg, uint32_t events)
{
	struct chr *c = arg;

	(void)events;
	c->fd = accept4(c->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (c->fd < 0) {
		/* A client that gave up has left the backlog: the next one's turn comes at once. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			socket_pause(c, errno);
		return;
	}
	c->reported = false;
	loop_fd_del(&c->listen_src);
	chr_flush(c);
}

static int socket_open(struct chr *c, const char *path, struct err *e)
{
	int r = unix_listen_open(&c->listen, path, CLIENTS_WAITING, e);

	if (r)
		return r;
	c->path = strdup(path);
	if (!c->path)
		return err_msg(e, -ENOMEM, "out of memory");
	socket_listen(c);
	/* Always said, as a PTY's: until somebody comes, that is where the guest's words are. */
	log_warn("%s listens at %s", c->label, path);
	return 0;
}

static void socket_close(struct chr *c)
{
	chr_drop_fd(c);
	loop_fd_del(&c->listen_src);
	loop_timer_cancel(&c->retry);
	unix_listen_close(&c->listen);
}

static ssize_t socket_write(struct chr *c, const uint8_t *buf, size_t n)
{
	ssize_t done;

	if (c->fd < 0)
		return 0;
	done = send(c->fd, buf, n, MSG_NOSIGNAL);
	if (done < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	return done;
}

/* The client's last words are kept, so that the next client need not wait for the guest. */
static void socket_lost(struct chr *c, int err)
{
	uint8_t buf[512];
	ssize_t n;

	while (bytes_room(&c->in) >= sizeof(buf) && (n = recv(c->fd, buf, sizeof(buf), 0)) > 0)
		bytes_put(&c->in, buf, (size_t)n);
	log_guest_at(LOG_INFO, &c->left, "%s: client left%s%s", c->label, err ? ": " : "",
		     err ? strerror(err) : "");
	chr_drop_fd(c);
	socket_listen(c);
	chr_room(c);
}

const struct chr_backend chr_socket = {.open = socket_open,
				       .close = socket_close,
				       .write = socket_write,
				       .lost = socket_lost,
				       .reads = true};
