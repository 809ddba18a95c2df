/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring that another process serves, followed while it does, so that it can be taken over when
 * that process goes away. The elements that were added to both rings since the last look are
 * counted by head. Where that were as many as the ring has, or more, some were missed: what is out
 * then stays a mere number, from which each head is taken that comes back without having been
 * seen to go. A head that was seen to go and not to come back is out for sure; no other is ever
 * answered, since its buffers may be the driver's own again.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/vq_ring.h"

struct vq_trace {
	uint16_t avail, used; /* the indices up to which it was followed */
	unsigned unknown;     /* out, too, since before something was missed */
	struct {
		int16_t out;   /* how often it was made available, less how often returned */
		uint16_t came; /* the available ring's index behind it, the last time */
	} head[];
};

/* False: one is no head. */
static bool follow_avail(struct vq *q, struct vq_trace *t, uint16_t to)
{
	while (t->avail != to) {
		uint16_t head = avail_elem(q, t->avail++);

		if (head >= q->size || t->head[head].out == INT16_MAX)
			return false;
		t->head[head].out++;
		t->head[head].came = t->avail;
	}
	return true;
}

static bool follow_used(struct vq *q, struct vq_trace *t, uint16_t to)
{
	while (t->used != to) {
		uint32_t head = used_elem(q, t->used++);

		if (head >= q->size || t->head[head].out == INT16_MIN)
			return false;
		t->head[head].out--;
	}
	return true;
}

/*
 * After both: who was returned once more than he came is one of the unknown. (One of them that came
 * back and went again since the last look stays one.) False: the driver or the other process lies.
 */
static bool settle(const struct vq *q, struct vq_trace *t)
{
	for (unsigned head = 0; head < q->size; head++) {
		int out = t->head[head].out;

		if (out > 1 || out < -1 || (out < 0 && !t->unknown))
			return false;
		if (out < 0) {
			t->unknown--;
			t->head[head].out = 0;
		}
	}
	return true;
}

/*
 * Whether the elements behind these indices, which were read just now, were not written over
 * meanwhile: the one a ring's size further on is written before the index says so. Only a driver
 * whose ring is full has none to write.
 */
static bool still_there(const struct vq *q, uint16_t avail_from, uint16_t used_from)
{
	/* Pairs with the writers' release of the indices: the elements are loaded before them here.
	 */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	uint16_t avail = gwin_load16_acquire(&q->avail, RING_IDX);
	uint16_t used = gwin_load16_acquire(&q->used, RING_IDX);

	return (uint16_t)(used - used_from) < q->size &&
	       (uint16_t)(avail - avail_from) < q->size + (used == avail_from);
}

/* To these indices, with nothing missed. */
static bool follow(struct vq *q, struct vq_trace *t, uint16_t avail, uint16_t used)
{
	uint16_t avail_from = t->avail, used_from = t->used;

	return (uint16_t)(avail - avail_from) <= q->size &&
	       (uint16_t)(used - used_from) < q->size && follow_avail(q, t, avail) &&
	       follow_used(q, t, used) && still_there(q, avail_from, used_from) && settle(q, t);
}

enum vq_pace vq_follow(struct vq *q)
{
	struct vq_trace *t = q->trace;

	/* Both indices begin at 0. */
	if (!t)
		t = q->trace = calloc(1, sizeof(*t) + q->size * sizeof(t->head[0]));
	if (!t)
		return VQ_AT_REST;
	/* In this order: what was returned had been made available. */
	uint16_t used = gwin_load16_acquire(&q->used, RING_IDX);
	uint16_t avail = gwin_load16_acquire(&q->avail, RING_IDX);
	uint16_t went = (uint16_t)(used - t->used);
	bool moved = went || avail != t->avail;

	if (!follow(q, t, avail, used) || avail == used) {
		memset(t->head, 0, q->size * sizeof(t->head[0]));
		t->unknown = (uint16_t)(avail - used);
	}
	t->avail = avail;
	t->used = used;
	if (went > q->size / 4)
		return VQ_FAST;
	return moved || avail != used ? VQ_AT_WORK : VQ_AT_REST;
}

/* ------------------------------------------------------------- taking over */

static uint16_t age(const struct vq_trace *t, uint16_t head)
{
	return (uint16_t)(t->avail - t->head[head].came);
}

/* Those that are out for sure, the oldest first; their number. */
static unsigned heads_out(const struct vq *q, const struct vq_trace *t, uint16_t *ret)
{
	unsigned n = 0;

	for (unsigned head = 0; head < q->size; head++) {
		unsigned i = n;

		if (!t->head[head].out)
			continue;
		for (; i && age(t, ret[i - 1]) < age(t, (uint16_t)head); i--)
			ret[i] = ret[i - 1];
		ret[i] = (uint16_t)head;
		n++;
	}
	return n;
}

int vq_adopt(struct vq *q, struct vq_adopted *ret)
{
	uint16_t *lost = calloc(q->size, sizeof(*lost));
	const struct vq_trace *t;
	unsigned out;

	*ret = (struct vq_adopted){0};
	vq_follow(q);
	t = q->trace;
	/* Whatever comes of the rest, the ring goes on from here. */
	q->used_idx = t ? t->used : gwin_load16_acquire(&q->used, RING_IDX);
	q->avail_next = t ? t->avail : gwin_load16_acquire(&q->avail, RING_IDX);
	q->avail_seen = q->avail_next;
	out = (uint16_t)(q->avail_next - q->used_idx);
	if (out > q->size)
		vq_break(q, "2.7.13", "the available and the used index are too far apart");
	if (!lost || !t || q->broken) {
		free(lost);
		return q->broken || !out ? 0 : -ENOMEM;
	}
	q->lost = lost;
	q->nlost = heads_out(q, t, lost);
	/* More was returned than ever came: who is out for sure nobody can say. */
	if (q->nlost > out)
		q->nlost = 0;
	*ret = (struct vq_adopted){q->nlost, out - q->nlost};
	return 0;
}
