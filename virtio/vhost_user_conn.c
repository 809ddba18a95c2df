/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user connection: requests and their answers, the back end's channel, and the end.
 *
 * The peer is not believed: an answer has the request, the version, the flags and the
 * size that it must have, comes in time and alone, or it is the last one.
 */
#include "virtio/vhost_user_conn.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "vmm/log.h"

/* Requests of the back end in one call, and while one answer is waited for. */
#define BACK_TURN 8
#define BACK_WAIT 64

#define PATIENCE_PART 10    /* of the time may be spent in waiting: one in so many */
#define FREE_NS 20000000ull /* of an exchange are no waiting: a peer has its work */

unsigned vu_wait_ms = VHOST_WAIT_MS;
static int64_t together = INT64_MAX; /* atomic; ns that all may still wait */

void vhost_user_together(bool on)
{
	__atomic_store_n(&together, on ? (int64_t)(vu_wait_ms * 1000000ull) : INT64_MAX,
			 __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------- the end */

void vu_back_close(struct vhost_user *u)
{
	loop_fd_del(&u->back_src);
	if (u->back_fd >= 0)
		close(u->back_fd);
	u->back_fd = -1;
}

int vu_fail(struct vhost_user *u, const char *what, const char *why)
{
	if (u->fd < 0)
		return -ENOTCONN;
	snprintf(u->reason, sizeof(u->reason), "%s%s%s", what ? what : "", what ? ": " : "", why);
	loop_fd_del(&u->src);
	vu_back_close(u);
	close(u->fd);
	u->fd = -1;
	if (u->loop) {
		log_guest_at(LOG_ERROR, &u->budget, "%s: %s; the device is dead", u->name,
			     u->reason);
		loop_timer_set(u->loop, &u->died, loop_now());
	}
	return -ENOTCONN;
}

/* @r is what reading or writing failed with: whether it was the peer's end or is ours. */
static int fail_io(struct vhost_user *u, const char *what, const char *why, int r)
{
	if (u->fd >= 0)
		u->gone = r == -ECONNRESET || r == -EPIPE;
	return vu_fail(u, what, why);
}

bool vhost_user_may_write(const struct vhost_user *u)
{
	return u->fd < 0 && !u->gone && u->rings;
}

/* ------------------------------------------------------------- the back end's channel */

static int back_answer(struct vhost_user *u, uint32_t request)
{
	struct vu_msg m = {.request = request, .flags = VU_VERSION | VU_REPLY, .size = 8};
	int r = vu_send(u->back_fd, &m, NULL, 0);

	/* It closed the channel, or has gone: then the other socket says so. */
	if (r == -EPIPE || r == -ECONNRESET) {
		vu_back_close(u);
		return -ENOTCONN;
	}
	/* A peer that does not read its answers is not waited for. */
	return r ? vu_fail(u, NULL, "it does not read the answers on its channel") : 0;
}

static int back_request(struct vhost_user *u, const struct vu_msg *m)
{
	/* Nothing else was negotiated. */
	if (m->request != VU_BACKEND_CONFIG_CHANGE_MSG || m->size || (m->flags & VU_REPLY))
		return vu_fail(u, NULL, "it sent a request that it may not send");
	if (u->loop && !u->changed.loop)
		loop_timer_set(u->loop, &u->changed, u->calm);
	return m->flags & VU_NEED_REPLY ? back_answer(u, m->request) : 0;
}

/* At most @budget requests of those that are there. Whether the channel is still open. */
static bool back_serve(struct vhost_user *u, unsigned budget)
{
	const char *why;
	int r = 1;

	while (budget-- && r == 1) {
		r = vu_read(u->back_fd, &u->back, &why);
		if (r == 1 && back_request(u, &u->back.m))
			return false;
	}
	/* A back end may well have nothing to say any more. */
	if (r == -ECONNRESET)
		vu_back_close(u);
	else if (r < 0)
		vu_fail(u, NULL, why);
	return r >= 0;
}

/* ------------------------------------------------------------- requests */

static int answer_is_bad(struct vhost_user *u, const struct vu_msg *m, uint32_t request)
{
	if (m->request != request)
		return vu_fail(u, vu_request_name(request), "it answered another request");
	if (!(m->flags & VU_REPLY))
		return vu_fail(u, vu_request_name(request), "its answer is not marked as one");
	return 0;
}

/* Looks at the back end's channel meanwhile: it may wait for us before it answers. */
static int await(struct vhost_user *u, struct vu_msg *m)
{
	const uint32_t request = m->request;
	struct vu_reader r = {.got = 0};
	unsigned back = BACK_WAIT / BACK_TURN;
	const char *why;
	int n;

	while ((n = vu_read(u->fd, &r, &why)) == 0) {
		struct pollfd p[2] = {
			{.fd = u->fd, .events = POLLIN},
			{.fd = back ? u->back_fd : -1, .events = POLLIN},
		};
		uint64_t now = loop_now();

		if (now >= u->deadline)
			return vu_fail(u, vu_request_name(request), "no answer in time");
		if (poll(p, 2, (int)((u->deadline - now + 999999) / 1000000)) <= 0 || !p[1].revents)
			continue;
		back--;
		if (!back_serve(u, BACK_TURN) && u->fd < 0)
			return -ENOTCONN;
	}
	if (n < 0)
		return fail_io(u, vu_request_name(request), why, n);
	*m = r.m;
	return answer_is_bad(u, m, request);
}

static int send_it(struct vhost_user *u, struct vu_msg *m, const struct vu_fds *fds)
{
	int r;

	if (u->fd < 0)
		return -ENOTCONN;
	m->flags |= VU_VERSION;
	r = vu_send(u->fd, m, fds, u->deadline);
	if (r == 0)
		return 0;
	return fail_io(u, vu_request_name(m->request),
		       r == -ETIMEDOUT ? "it does not take requests" : strerror(-r), r);
}

/*
 * Whoever waits holds the loop's lock. A peer that is slow again and again, which a guest may bring
 * about, has a part of the time for all operations together. One that is not slow pays nothing,
 * however often it is asked.
 */
void vu_begin(struct vhost_user *u)
{
	const uint64_t most = vu_wait_ms * 1000000ull, now = loop_now();
	uint64_t more = u->begun ? (now - u->begun) / PATIENCE_PART : most;

	u->patience = u->patience + more < most ? u->patience + more : most;
	u->begun = now;
	const int64_t left = __atomic_load_n(&together, __ATOMIC_RELAXED);
	uint64_t wait = u->patience;

	if (left < (int64_t)wait)
		wait = left > 0 ? (uint64_t)left : 0;
	u->deadline = now + (wait > FREE_NS ? wait : FREE_NS);
}

/* The answer, if there is to be one, replaces @m. 0 or -ENOTCONN. */
static int exchange(struct vhost_user *u, struct vu_msg *m, const struct vu_fds *fds, bool answer)
{
	const uint64_t since = loop_now();
	int r = send_it(u, m, fds);

	if (r == 0 && answer)
		r = await(u, m);
	uint64_t took = loop_now() - since;

	took -= took < FREE_NS ? took : FREE_NS;
	u->patience -= took < u->patience ? took : u->patience;
	__atomic_sub_fetch(&together, (int64_t)took, __ATOMIC_RELAXED);
	return r;
}

int vu_ask(struct vhost_user *u, struct vu_msg *m, uint32_t size)
{
	const char *name = vu_request_name(m->request);
	int r = exchange(u, m, NULL, true);

	/* GET_CONFIG: an empty answer is an error that the connection survives. */
	if (r == 0 && m->size != size && !(m->request == VU_GET_CONFIG && !m->size))
		return vu_fail(u, name, "its answer has a wrong size");
	return r;
}

int vu_tell(struct vhost_user *u, struct vu_msg *m, const struct vu_fds *fds)
{
	const char *name = vu_request_name(m->request);
	bool ack = u->protocol & (1ull << VU_PROTOCOL_F_REPLY_ACK);
	int r;

	if (ack)
		m->flags |= VU_NEED_REPLY;
	r = exchange(u, m, fds, ack);
	if (r < 0 || !ack)
		return r;
	if (m->size != sizeof(m->u64))
		return vu_fail(u, name, "its answer has a wrong size");
	return m->u64 ? -EREMOTEIO : 0;
}

int vu_refused(struct vhost_user *u, uint32_t request)
{
	return vu_fail(u, vu_request_name(request), "it refused");
}

int vu_must(struct vhost_user *u, struct vu_msg *m, const struct vu_fds *fds)
{
	int r = vu_tell(u, m, fds);

	return r == -EREMOTEIO ? vu_refused(u, m->request) : r;
}

/* ------------------------------------------------------------- on a loop */

/* Nothing is asked now: what comes is the end, or what it should not be. */
static void on_socket(void *arg, uint32_t events)
{
	struct vhost_user *u = arg;
	struct vu_reader r = {.got = 0};
	const char *why;
	int n = vu_read(u->fd, &r, &why);

	(void)events;
	if (n < 0)
		fail_io(u, NULL, why, n);
	else if (n || r.got)
		vu_fail(u, NULL, "it sent what nobody asked for");
}

static void on_channel(void *arg, uint32_t events)
{
	(void)events;
	back_serve(arg, BACK_TURN);
}

static void on_died(void *arg)
{
	struct vhost_user *u = arg;

	if (u->owner.died)
		u->owner.died(u->owner.arg);
}

static void on_changed(void *arg)
{
	struct vhost_user *u = arg;
	const uint64_t since = loop_now();

	if (u->fd >= 0 && u->owner.config_changed)
		u->owner.config_changed(u->owner.arg);
	/* It decides how often it says so, and how long it takes to answer what is asked then. */
	u->calm = loop_now();
	u->calm += (u->calm - since) * PATIENCE_PART;
	/* It may have said it again before it answered. */
	if (u->changed.loop)
		loop_timer_set(u->loop, &u->changed, u->calm);
}

static void unbind(struct vhost_user *u)
{
	loop_fd_del(&u->src);
	loop_fd_del(&u->back_src);
	loop_timer_cancel(&u->died);
	loop_timer_cancel(&u->changed);
	u->loop = NULL;
	u->rings = 0; /* their machine is no more, and the next one's memory is another */
	u->owner = (struct vhost_user_owner){0};
}

int vhost_user_bind(struct vhost_user *u, struct loop *l, const struct vhost_user_owner *o)
{
	int r;

	unbind(u);
	if (!l)
		return 0;
	u->loop = l;
	u->owner = *o;
	snprintf(u->name, sizeof(u->name), "%s: vhost-user", o->name);
	u->src = (struct loop_fd){.fn = on_socket, .arg = u};
	u->back_src = (struct loop_fd){.fn = on_channel, .arg = u};
	u->died = (struct loop_timer){.fn = on_died, .arg = u};
	u->changed = (struct loop_timer){.fn = on_changed, .arg = u};
	if (u->fd < 0) {
		/* Between two machines, or in an earlier one: this guest's owner is told as well.
		 */
		log_guest_at(LOG_ERROR, &u->budget, "%s: %s; the device is dead", u->name,
			     u->reason);
		loop_timer_set(l, &u->died, loop_now());
		return 0;
	}
	r = loop_fd_add(l, &u->src, u->fd, EPOLLIN);
	if (r == 0 && u->back_fd >= 0)
		r = loop_fd_add(l, &u->back_src, u->back_fd, EPOLLIN);
	return r;
}
