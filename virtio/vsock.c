/* SPDX-License-Identifier: Apache-2.0 */
/* The socket device, virtio 1.2 section 5.10: see vsock.h. */
#include "virtio/vsock.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE 256
#define SECONDS 1000000000ull

/*
 * How long things may take. Who connects by hand writes his line by hand. A guest's
 * kernel that boots needs a moment until it has its driver; a client that waited for the
 * guest's program in vain must come again anyway, so it is not kept much longer.
 * An answer is due within the time that Linux gives connect() on a vsock; a shutdown is over
 * after the time for which Linux waits for that.
 */
static const uint64_t waits[VSOCK_WAITS] = {
	[VSOCK_WAIT_LINE] = 60 * SECONDS,  [VSOCK_WAIT_DRIVER] = 10 * SECONDS,
	[VSOCK_WAIT_ANSWER] = 2 * SECONDS, [VSOCK_WAIT_RETRY] = SECONDS / 50,
	[VSOCK_WAIT_RST] = 8 * SECONDS,
};

/* ------------------------------------------------------------- queues */

static void vsock_kick(struct virtio *v, unsigned q)
{
	struct vsock *s = (struct vsock *)v;

	if (q == VSOCK_TXQ)
		vsock_tx(s);
	else
		vq_kicks_off(virtio_vq(v, q)); /* buffers are of interest when they are needed */
	vsock_rx(s);
}

static void poll_begin(void *arg)
{
	struct vsock *s = arg;

	s->polled = true;
	vq_kicks_off(virtio_vq(&s->v, VSOCK_TXQ));
	vq_kicks_off(virtio_vq(&s->v, VSOCK_RXQ));
}

static bool tx_ready(struct vsock *s)
{
	return s->v.running && !s->held && vq_pending(virtio_vq(&s->v, VSOCK_TXQ));
}

static bool rx_ready(struct vsock *s)
{
	return s->v.running && vsock_rx_wanted(s) &&
	       (s->nspare || vq_pending(virtio_vq(&s->v, VSOCK_RXQ)));
}

static bool poll_ready(void *arg)
{
	struct vsock *s = arg;

	vq_notify_soon(virtio_vq(&s->v, VSOCK_TXQ), s->poll.most);
	return tx_ready(s) || rx_ready(s);
}

static uint64_t poll_run(void *arg)
{
	struct vsock *s = arg;

	if (tx_ready(s))
		vsock_tx(s);
	vsock_rx(s);
	return 0;
}

static bool poll_end(void *arg)
{
	struct vsock *s = arg;
	bool tx = !s->held && vq_kicks_on(virtio_vq(&s->v, VSOCK_TXQ));
	bool rx = vsock_rx_wanted(s) && vq_kicks_on(virtio_vq(&s->v, VSOCK_RXQ));

	s->polled = false;
	vq_notify_late(virtio_vq(&s->v, VSOCK_TXQ));
	if (tx)
		virtio_rekick(&s->v, VSOCK_TXQ);
	if (rx)
		virtio_rekick(&s->v, VSOCK_RXQ);
	return tx || rx;
}

static const struct loop_poll_ops poll_ops = {
	.begin = poll_begin,
	.ready = poll_ready,
	.run = poll_run,
	.end = poll_end,
};

/* ------------------------------------------------------------- start and stop */

static int vsock_queue_start(struct virtio *v, unsigned q)
{
	virtio_rekick(v, q); /* when it runs */
	return 0;
}

static int vsock_start(struct virtio *v)
{
	struct vsock *s = (struct vsock *)v;

	for (struct vsock_link *l = s->conns.next; l != &s->conns; l = l->next) {
		struct vsock_conn *c = VSOCK_OF(l, all);

		if (c->state == VSOCK_WAITING)
			vsock_conn_ask(c);
	}
	vsock_queue_start(v, VSOCK_RXQ);
	return vsock_queue_start(v, VSOCK_TXQ);
}

static void vsock_queue_stop(struct virtio *v, unsigned q)
{
	struct vsock *s = (struct vsock *)v;

	vq_reset(virtio_vq(v, q));
	if (q == VSOCK_RXQ)
		vsock_rx_drop(s);
	else if (q == VSOCK_TXQ)
		s->held = false;
}

/*
 * All but those who have not said yet what they want: the next driver may have it. What a host
 * program does not take at once of what was kept for it is lost: nobody waits here.
 */
static void end_all(struct vsock *s, bool lines_too)
{
	struct vsock_link *next;

	for (struct vsock_link *l = s->conns.next; l != &s->conns; l = next) {
		struct vsock_conn *c = VSOCK_OF(l, all);

		next = l->next;
		if (!lines_too && c->state == VSOCK_LINE)
			continue;
		vsock_unix_flush(c);
		vsock_conn_free(c);
	}
}

/*
 * A guest's last command says what came of it and powers off. What is in the queue then
 * goes where it was sent to, as if we had been quicker.
 */
static void last_words(struct vsock *s)
{
	struct vq *vq = virtio_vq(&s->v, VSOCK_TXQ);

	for (unsigned left = vq_max_size(vq); left && !s->held && vq_pending(vq);) {
		vsock_tx(s);
		left -= left < VSOCK_TURN ? left : VSOCK_TURN;
	}
}

static void vsock_stop(struct virtio *v)
{
	struct vsock *s = (struct vsock *)v;

	last_words(s);
	for (unsigned q = 0; q < v->nqueues; q++)
		vsock_queue_stop(v, q);
	end_all(s, false);
	s->nrst = 0;
}

static void vsock_free(struct virtio *v)
{
	struct vsock *s = (struct vsock *)v;

	loop_poll_del(&s->poll);
	virtio_fini(v);
	end_all(s, true);
	loop_fd_del(&s->listen);
	loop_timer_cancel(&s->timer);
	free(s);
}

static const struct virtio_ops vsock_ops = {
	.id = VIRTIO_ID_VSOCK,
	.start = vsock_start,
	.stop = vsock_stop,
	.queue_start = vsock_queue_start,
	.queue_stop = vsock_queue_stop,
	.kick = vsock_kick,
	.free = vsock_free,
};

/* ------------------------------------------------------------- set-up */

static void init(struct vsock *s, const struct vsock_config *c, const struct vsock_env *env)
{
	uint64_t cid = htole64(c->cid);

	s->host = env->host;
	s->cid = c->cid;
	s->room = VSOCK_ROOM;
	s->conns_max = env->host->conns_max;
	vsock_link_init(&s->conns);
	vsock_link_init(&s->ready);
	for (unsigned w = 0; w < VSOCK_WAITS; w++)
		vsock_link_init(&s->waits[w]);
	memcpy(s->wait_ns, waits, sizeof(waits));
	s->timer = (struct loop_timer){.fn = vsock_due, .arg = s};
	s->listen = (struct loop_fd){.fn = vsock_host_accept, .arg = s};
	s->poll = (struct loop_poll){.ops = &poll_ops, .arg = s};
	memcpy(s->v.config, &cid, sizeof(cid)); /* section 5.10.4 */
	s->v.config_len = sizeof(cid);
}

int vsock_new(struct virtio **ret, const struct vsock_config *c, const struct vsock_env *env,
	      struct err *e)
{
	uint16_t size = c->queue_size ? c->queue_size : QUEUE_SIZE;
	struct vsock *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_msg(e, -ENOMEM, "vsock: out of memory");
	init(s, c, env);
	r = virtio_init(&s->v, &vsock_ops, "vsock", env->gm, env->loop);
	for (unsigned q = 0; !r && q <= VSOCK_EVENTQ; q++)
		r = virtio_add_queue(&s->v, size);
	if (r < 0) {
		vsock_free(&s->v);
		return err_msg(e, r, "vsock: queues: %s", strerror(-r));
	}
	loop_poll_add(env->loop, &s->poll);
	vsock_host_watch(s);
	*ret = &s->v;
	return 0;
}
