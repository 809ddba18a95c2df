/* SPDX-License-Identifier: Apache-2.0 */
/* A device's queues and a back end's rings: virtio/vhost.h. */
#include "virtio/vhost.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/evfd.h"
#include "vmm/log.h"

static void begin(struct vhost_link *l)
{
	if (l->h->ops->begin)
		l->h->ops->begin(l->h);
}

static void say(struct vhost_link *l, const char *what, int r)
{
	/* A connection that broke was told of by who saw it break. */
	if (r != -ENOTCONN)
		log_guest(&l->v->budget, "%s: %s: %s", l->h->name, what, strerror(-r));
}

/* ------------------------------------------------------------- what the back end signals */

static void relayed(void *arg, uint32_t events)
{
	struct vhost_link_queue *lq = arg;

	(void)events;
	evfd_clear(lq->relay_fd);
	if (lq->started)
		virtio_interrupt(lq->link->v, lq->q);
}

/* The back end found in the ring what no driver may put there: section 2.1.2, as for our own. */
static void ring_broke(void *arg, uint32_t events)
{
	struct vhost_link_queue *lq = arg;
	struct virtio *v = lq->link->v;

	(void)events;
	evfd_clear(lq->err_fd);
	if (!lq->started || (v->status & VIRTIO_S_NEEDS_RESET))
		return;
	log_guest(&v->budget, "%s: queue %u is broken: the driver has to reset the device",
		  lq->link->h->name, lq->q);
	virtio_needs_reset(v);
}

/* ------------------------------------------------------------- life */

static int watch(struct loop *loop, struct loop_fd *s, int *fd)
{
	*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *fd < 0 ? -errno : loop_fd_add(loop, s, *fd, EPOLLIN);
}

int vhost_link_init(struct vhost_link *l, struct virtio *v, struct vhost *h, unsigned first)
{
	int r = 0;

	l->v = v;
	l->h = h;
	l->first = first;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		l->queue[i] = (struct vhost_link_queue){
			.relay_fd = -1,
			.err_fd = -1,
			.relay = {.fn = relayed, .arg = &l->queue[i]},
			.err = {.fn = ring_broke, .arg = &l->queue[i]},
			.link = l,
			.q = first + i,
		};
	/* The number of rings may be a peer's word. */
	if (first > VIRTIO_QUEUES_MAX || h->nrings > VIRTIO_QUEUES_MAX - first)
		return -E2BIG;
	for (unsigned i = 0; r == 0 && i < h->nrings; i++) {
		r = watch(v->loop, &l->queue[i].relay, &l->queue[i].relay_fd);
		if (r == 0)
			r = watch(v->loop, &l->queue[i].err, &l->queue[i].err_fd);
	}
	return r;
}

void vhost_link_fini(struct vhost_link *l)
{
	/* Nothing of one that was never made. */
	for (unsigned i = 0; l->v && i < VIRTIO_QUEUES_MAX; i++) {
		loop_fd_del(&l->queue[i].relay);
		loop_fd_del(&l->queue[i].err);
		if (l->queue[i].relay_fd >= 0)
			close(l->queue[i].relay_fd);
		if (l->queue[i].err_fd >= 0)
			close(l->queue[i].err_fd);
	}
	*l = (struct vhost_link){0};
}

/* ------------------------------------------------------------- one ring */

/* Sections 2.7.5, 2.7.6, 2.7.8: with the event index at the end, whether or not it was negotiated.
 */
static int place(const struct gmem *gm, const struct virtio_queue *q, struct vhost_ring *r)
{
	const uint32_t n = q->size; /* vq_start took this size and these addresses */
	struct iovec desc, avail, used;
	int ret;

	if ((ret = gmem_iov(gm, gpa(q->desc), n * 16, &desc)) ||
	    (ret = gmem_iov(gm, gpa(q->avail), 6 + n * 2, &avail)) ||
	    (ret = gmem_iov(gm, gpa(q->used), 6 + n * 8, &used)))
		return ret;
	r->size = q->size;
	r->base = 0; /* section 2.7.13: a ring comes live empty, at index 0 */
	r->desc = desc.iov_base;
	r->avail = avail.iov_base;
	r->used = used.iov_base;
	r->used_gpa = q->used;
	return 0;
}

static int call_fd(const struct vhost_link_queue *lq)
{
	int fd = virtio_queue_fd(lq->link->v, lq->q);

	return fd < 0 ? lq->relay_fd : fd;
}

static int ring_start(struct vhost_link_queue *lq)
{
	struct vhost_link *l = lq->link;
	struct vhost_ring ring = {.err = lq->err_fd, .call = call_fd(lq)};
	int r = place(l->v->gm, virtio_q(l->v, lq->q), &ring);

	if (r == 0) {
		/* What an earlier life of the ring left there. */
		evfd_clear(lq->relay_fd);
		evfd_clear(lq->err_fd);
		ring.kick = virtio_lend_kicks(l->v, lq->q);
		r = l->h->ops->ring_start(l->h, lq->q - l->first, &ring);
		if (r < 0)
			virtio_return_kicks(l->v, lq->q);
	}
	if (r < 0) {
		say(l, "a ring does not start", r);
		return r;
	}
	lq->call = ring.call;
	lq->started = true;
	return 0;
}

static void ring_stop(struct vhost_link_queue *lq)
{
	struct vhost_link *l = lq->link;
	uint16_t base; /* of no use: whatever comes next is a new ring */
	int r;

	if (!lq->started)
		return;
	r = l->h->ops->ring_stop(l->h, lq->q - l->first, &base);
	if (r < 0)
		say(l, "a ring does not stop as it should", r);
	lq->started = false;
	virtio_return_kicks(l->v, lq->q);
}

/* One kick more: what came when the back end could not hear it, the driver does not repeat. */
static void ring_wake(struct vhost_link_queue *lq)
{
	if (lq->started)
		virtio_rekick(lq->link->v, lq->q);
}

static struct vhost_link_queue *linked(struct vhost_link *l, unsigned q)
{
	return l->running && vhost_link_has(l, q) ? &l->queue[q - l->first] : NULL;
}

int vhost_link_queue_start(struct vhost_link *l, unsigned q)
{
	struct vhost_link_queue *lq = linked(l, q);
	int r;

	if (!lq || lq->started)
		return 0;
	begin(l);
	r = ring_start(lq);
	if (r == 0)
		ring_wake(lq);
	return r;
}

void vhost_link_queue_stop(struct vhost_link *l, unsigned q)
{
	struct vhost_link_queue *lq = linked(l, q);

	if (!lq)
		return;
	begin(l);
	ring_stop(lq);
}

/* Of a ring that is not started the eventfd is watched here: to write to it would not end. */
void vhost_link_kick(struct vhost_link *l, unsigned q)
{
	struct vhost_link_queue *lq = linked(l, q);

	if (lq)
		ring_wake(lq);
}

void vhost_link_rewired(struct vhost_link *l, unsigned q)
{
	struct vhost_link_queue *lq = linked(l, q);
	int fd, r;

	if (!lq || !lq->started)
		return;
	fd = call_fd(lq);
	if (fd == lq->call)
		return;
	begin(l);
	r = l->h->ops->ring_call(l->h, q - l->first, fd);
	if (r == -ENOTCONN)
		return; /* its end is somebody else's to tell */
	if (r < 0) {
		say(l, "interrupts cannot be wired anew", r);
		virtio_needs_reset(l->v); /* it would hear none any more */
		return;
	}
	lq->call = fd;
	/*
	 * What the old eventfd got may have gone nowhere: one interrupt now makes up for all of it,
	 * and one too many does no harm (a driver looks at its ring and finds nothing).
	 */
	evfd_clear(lq->relay_fd);
	virtio_interrupt(l->v, q);
}

/* ------------------------------------------------------------- all of them */

static void rings_stop(struct vhost_link *l)
{
	for (unsigned i = 0; i < l->h->nrings; i++)
		ring_stop(&l->queue[i]);
}

static int rings_start(struct vhost_link *l)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < l->h->nrings; i++) {
		const struct virtio_queue *q = virtio_q(l->v, l->first + i);

		if (q && vq_live(q->vq))
			r = ring_start(&l->queue[i]);
	}
	return r;
}

int vhost_link_start(struct vhost_link *l, uint64_t features)
{
	const struct vhost_ops *ops = l->h->ops;
	const char *what = "features are refused";
	int r;

	begin(l);
	r = ops->set_features(l->h, features);
	if (r == 0) {
		what = "guest memory is refused";
		r = ops->set_memory(l->h, l->v->gm);
	}
	if (r < 0) {
		say(l, what, r);
		return r;
	}
	r = rings_start(l);
	if (r == 0 && ops->run) {
		r = ops->run(l->h, true);
		if (r < 0)
			say(l, "it does not start", r);
	}
	if (r < 0) {
		rings_stop(l);
		return r;
	}
	l->running = true;
	for (unsigned i = 0; i < l->h->nrings; i++)
		ring_wake(&l->queue[i]);
	return 0;
}

void vhost_link_stop(struct vhost_link *l)
{
	int r = 0;

	if (!l->running)
		return;
	begin(l);
	if (l->h->ops->run)
		r = l->h->ops->run(l->h, false);
	if (r < 0)
		say(l, "it does not stop as it should", r);
	rings_stop(l);
	l->running = false;
}
