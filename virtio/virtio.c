/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "virtio/features.h"
#include "vmm/evfd.h"

#define BIT(n) (1ull << (n))

/* What a driver may set; NEEDS_RESET is the device's alone (section 2.1.2). */
#define DRIVER_BITS                                                                                \
	(VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | VIRTIO_S_DRIVER_OK | VIRTIO_S_FEATURES_OK |      \
	 VIRTIO_S_FAILED)

/* ------------------------------------------------------------- set-up */

int virtio_init(struct virtio *v, const struct virtio_ops *ops, const char *name, struct gmem *gm,
		struct loop *l)
{
	v->queue = calloc(VIRTIO_QUEUES_MAX, sizeof(*v->queue));
	if (!v->queue)
		return -ENOMEM;
	v->ops = ops;
	v->name = name;
	v->gm = gm;
	v->loop = l;
	v->offered |=
		BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC);
	if (ops->queue_start && ops->queue_stop)
		v->offered |= BIT(VIRTIO_F_RING_RESET);
	return 0;
}

static void queue_interrupt(void *arg, unsigned index)
{
	struct virtio *v = arg;

	if (v->bearer.queue_interrupt)
		v->bearer.queue_interrupt(v->bearer.t, index);
}

static void queue_broken(void *arg, unsigned index)
{
	(void)index;
	virtio_needs_reset(arg);
}

static void queue_kicked(void *arg, uint32_t events)
{
	struct virtio_queue *q = arg;

	(void)events;
	evfd_clear(q->kick_fd);
	virtio_kick(q->v, q->index);
}

static int ring_new(struct virtio *v, struct vq **ret, unsigned index, uint16_t max_size)
{
	struct vq_owner owner = {
		.interrupt = queue_interrupt,
		.broken = queue_broken,
		.arg = v,
		.name = v->name,
	};

	return vq_new(ret, v->gm, index, max_size, &owner);
}

int virtio_resize(struct virtio *v, const uint16_t *size, unsigned n)
{
	struct vq *ring[VIRTIO_QUEUES_MAX] = {NULL};
	int r = 0;

	for (unsigned i = 0; i < v->nqueues && !r; i++)
		r = ring_new(v, &ring[i], i, size[i < n ? i : n - 1]);
	for (unsigned i = 0; i < v->nqueues; i++) {
		struct vq *old = v->queue[i].vq;

		vq_free(r ? ring[i] : old);
		if (!r)
			v->queue[i].vq = ring[i];
		v->queue[i].size = vq_max_size(v->queue[i].vq);
	}
	if (!r && v->ops->resized)
		v->ops->resized(v);
	return r;
}

int virtio_add_queue(struct virtio *v, uint16_t max_size)
{
	struct virtio_queue *q;
	int r;

	if (v->nqueues == VIRTIO_QUEUES_MAX)
		return -ENOSPC;
	q = &v->queue[v->nqueues];
	r = ring_new(v, &q->vq, v->nqueues, max_size);
	if (r)
		return r;
	q->v = v;
	q->index = v->nqueues;
	q->size = max_size;
	q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->kick_fd < 0) {
		r = -errno;
		vq_free(q->vq);
		return r;
	}
	q->kick_src = (struct loop_fd){.fn = queue_kicked, .arg = q};
	r = loop_fd_add(v->loop, &q->kick_src, q->kick_fd, EPOLLIN);
	if (r) {
		close(q->kick_fd);
		vq_free(q->vq);
		return r;
	}
	v->nqueues++;
	return 0;
}

void virtio_fini(struct virtio *v)
{
	if (v->running)
		v->ops->stop(v);
	v->running = false;
	for (unsigned i = 0; i < v->nqueues; i++) {
		struct virtio_queue *q = &v->queue[i];

		loop_fd_del(&q->kick_src);
		close(q->kick_fd);
		vq_free(q->vq);
	}
	free(v->queue);
	v->queue = NULL;
	v->nqueues = 0;
}

/* ------------------------------------------------------------- what the device says */

static void config_interrupt(struct virtio *v)
{
	/* Section 2.1.2: no notifications before DRIVER_OK. */
	if ((v->status & VIRTIO_S_DRIVER_OK) && v->bearer.config_interrupt)
		v->bearer.config_interrupt(v->bearer.t);
}

void virtio_needs_reset(struct virtio *v)
{
	if (v->status & VIRTIO_S_NEEDS_RESET)
		return;
	v->status |= VIRTIO_S_NEEDS_RESET;
	config_interrupt(v);
}

void virtio_config_changed(struct virtio *v)
{
	v->generation++; /* section 2.5.1; wraps */
	config_interrupt(v);
}

void virtio_rekick(struct virtio *v, unsigned q)
{
	evfd_add(v->queue[q].kick_fd); /* a reset empties it */
}

/* ------------------------------------------------------------- queues served elsewhere */

int virtio_lend_kicks(struct virtio *v, unsigned q)
{
	loop_fd_del(&v->queue[q].kick_src);
	return v->queue[q].kick_fd;
}

void virtio_return_kicks(struct virtio *v, unsigned q)
{
	struct virtio_queue *vq = &v->queue[q];

	if (!vq->kick_src.loop && loop_fd_add(v->loop, &vq->kick_src, vq->kick_fd, EPOLLIN))
		virtio_needs_reset(v); /* it would hear no kick any more */
}

int virtio_queue_fd(struct virtio *v, unsigned q)
{
	return v->bearer.queue_fd ? v->bearer.queue_fd(v->bearer.t, q) : -1;
}

void virtio_interrupt(struct virtio *v, unsigned q)
{
	queue_interrupt(v, q);
}

void virtio_rewired(struct virtio *v, unsigned q)
{
	if (v->running && v->ops->rewired && q < v->nqueues && vq_live(v->queue[q].vq))
		v->ops->rewired(v, q);
}

/* ------------------------------------------------------------- queues */

struct virtio_queue *virtio_q(struct virtio *v, unsigned q)
{
	return q < v->nqueues ? &v->queue[q] : NULL;
}

/* What the driver wrote becomes a live ring; vq keeps its own copy, so later writes change nothing.
 */
static int queue_live(struct virtio *v, struct virtio_queue *q)
{
	struct vq_setup s = {
		.size = q->size,
		.desc = gpa(q->desc),
		.avail = gpa(q->avail),
		.used = gpa(q->used),
		.event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX),
		.indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC),
	};
	int r = vq_start(q->vq, &s);

	if (r) {
		log_guest(&v->budget, "%s: queue %u cannot start: %s", v->name, q->index,
			  strerror(-r));
		virtio_needs_reset(v);
	}
	return r;
}

static void queue_clear(struct virtio_queue *q)
{
	vq_reset(q->vq);
	q->enabled = false;
	q->size = vq_max_size(q->vq);
	q->desc = q->avail = q->used = 0;
	/* A kick for the rings that are gone. */
	evfd_clear(q->kick_fd);
}

void virtio_queue_enable(struct virtio *v, unsigned q)
{
	struct virtio_queue *vq = virtio_q(v, q);
	int r;

	if (!vq || vq->enabled)
		return;
	if (!v->running) {
		vq->enabled = true;
		return;
	}
	/* Section 2.6.1.2: a queue that was reset comes back on a running device. */
	if (!v->ops->queue_start)
		return;
	vq->enabled = true;
	if (queue_live(v, vq))
		return;
	r = v->ops->queue_start(v, q);
	if (r < 0) {
		log_guest(&v->budget, "%s: queue %u cannot start: %s", v->name, q, strerror(-r));
		vq_reset(vq->vq);
		virtio_needs_reset(v);
	}
}

void virtio_queue_disable(struct virtio *v, unsigned q)
{
	struct virtio_queue *vq = virtio_q(v, q);

	if (!vq || !vq->enabled)
		return;
	if (v->running) {
		/* Without the operation the device would go on using the rings: the queue stays. */
		if (!v->ops->queue_stop)
			return;
		if (vq_live(vq->vq))
			v->ops->queue_stop(v, q);
	}
	queue_clear(vq);
}

void virtio_queue_reset(struct virtio *v, unsigned q)
{
	if (virtio_has(v, VIRTIO_F_RING_RESET) && (v->status & VIRTIO_S_FEATURES_OK))
		virtio_queue_disable(v, q);
}

void virtio_kick(struct virtio *v, unsigned q)
{
	if (v->running && q < v->nqueues && vq_live(v->queue[q].vq))
		v->ops->kick(v, q);
}

/* ------------------------------------------------------------- features and status */

uint32_t virtio_get_features(const struct virtio *v, unsigned half)
{
	return half < 2 ? (uint32_t)(v->offered >> (32 * half)) : 0;
}

void virtio_set_features(struct virtio *v, unsigned half, uint32_t bits)
{
	/* Section 3.1.1, step 5: none are accepted after FEATURES_OK. */
	if (half >= 2 || (v->status & VIRTIO_S_FEATURES_OK))
		return;
	v->acked &= ~((uint64_t)UINT32_MAX << (32 * half));
	v->acked |= (uint64_t)bits << (32 * half);
}

static bool features_ok(const struct virtio *v)
{
	return !(v->acked & ~v->offered) && virtio_has(v, VIRTIO_F_VERSION_1);
}

static void say_negotiated(struct virtio *v)
{
	char text[FEATURES_TEXT];

	if (!log_on(LOG_INFO))
		return;
	features_text(text, sizeof(text), v->ops->id, v->acked);
	log_guest_at(LOG_INFO, &v->budget, "%s negotiated: %s", v->name, text);
}

static void device_start(struct virtio *v)
{
	int r;

	/* Latched before it could start: it does nothing until it is reset, but the driver is told.
	 */
	if (v->status & VIRTIO_S_NEEDS_RESET) {
		config_interrupt(v);
		return;
	}
	for (unsigned i = 0; i < v->nqueues; i++)
		if (v->queue[i].enabled && queue_live(v, &v->queue[i]))
			goto fail;
	r = v->ops->start(v);
	if (r == 0) {
		v->running = true;
		say_negotiated(v);
		return;
	}
	log_guest(&v->budget, "%s: the device cannot start: %s", v->name, strerror(-r));
	virtio_needs_reset(v);
fail:
	for (unsigned i = 0; i < v->nqueues; i++)
		vq_reset(v->queue[i].vq);
}

static void device_reset(struct virtio *v)
{
	if (v->running)
		v->ops->stop(v);
	v->running = false;
	for (unsigned i = 0; i < v->nqueues; i++)
		queue_clear(&v->queue[i]);
	v->acked = 0;
	v->status = 0;
}

void virtio_set_status(struct virtio *v, uint8_t status)
{
	uint8_t set = status & DRIVER_BITS & (uint8_t)~v->status;

	if (!status) {
		device_reset(v);
		return;
	}
	/* Section 2.1.1: bits are only ever added; reset alone takes them away. */
	if ((set & VIRTIO_S_FEATURES_OK) && !features_ok(v)) {
		log_guest(&v->budget,
			  "%s: the driver's features %#llx are not among %#llx or lack VERSION_1",
			  v->name, (unsigned long long)v->acked, (unsigned long long)v->offered);
		set &= (uint8_t)~VIRTIO_S_FEATURES_OK;
	}
	if ((set & VIRTIO_S_DRIVER_OK) && !((v->status | set) & VIRTIO_S_FEATURES_OK))
		set &= (uint8_t)~VIRTIO_S_DRIVER_OK;
	v->status |= set;
	if (set & VIRTIO_S_DRIVER_OK) {
		v->driven = true;
		device_start(v);
	}
}

/* ------------------------------------------------------------- configuration space */

uint64_t virtio_config_read(struct virtio *v, unsigned off, unsigned size)
{
	uint64_t val = 0;

	/* @off and @size are the guest's: bytes outside config_len read as zero. */
	for (unsigned i = 0; i < size && i < 8; i++)
		if ((uint64_t)off + i < v->config_len)
			val |= (uint64_t)v->config[off + i] << (8 * i);
	return val;
}

void virtio_config_write(struct virtio *v, unsigned off, unsigned size, uint64_t val)
{
	if (v->ops->config_write && off < v->config_len && size <= v->config_len - off)
		v->ops->config_write(v, off, size, val);
}
