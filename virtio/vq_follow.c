/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is out of a ring that another process serves, followed while it does: the elements
 * that were added to both rings since the last look are counted by head. Fewer than the
 * ring has must have been, else the count is of no use until nothing is out for once.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/vq_ring.h"

struct vq_trace {
	uint16_t avail, used; /* the indices up to which it was followed */
	bool whole;           /* nothing was missed */
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

		if (head >= q->size || t->head[head].out < 1)
			return false;
		t->head[head].out--;
	}
	return true;
}

/* Whether the elements from @from on, which were read just now, were not written over meanwhile:
 * the element at @from + size is written before the index says so. */
static bool still_there(const struct vq *q, const struct gwin *ring, uint16_t from)
{
	/* Pairs with the writer's release of the index: the elements are loaded before it here. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return (uint16_t)(gwin_load16_acquire(ring, RING_IDX) - from) < q->size;
}

bool vq_follow(struct vq *q)
{
	struct vq_trace *t = q->trace;

	if (!t) {
		t = q->trace = calloc(1, sizeof(*t) + q->size * sizeof(t->head[0]));
		if (!t)
			return false;
		t->whole = true; /* both indices begin at 0 */
	}
	/* In this order: what was returned had been made available. */
	uint16_t used = gwin_load16_acquire(&q->used, RING_IDX);
	uint16_t avail = gwin_load16_acquire(&q->avail, RING_IDX);
	uint16_t avail_from = t->avail, used_from = t->used;
	bool moved = used != used_from || avail != avail_from;

	t->whole = t->whole && (uint16_t)(avail - avail_from) < q->size &&
		   (uint16_t)(used - used_from) < q->size && follow_avail(q, t, avail) &&
		   follow_used(q, t, used) && still_there(q, &q->avail, avail_from) &&
		   still_there(q, &q->used, used_from);
	t->avail = avail;
	t->used = used;
	if (avail == used) {
		memset(t->head, 0, q->size * sizeof(t->head[0]));
		t->whole = true;
	}
	return moved || avail != used;
}

static uint16_t age(const struct vq_trace *t, uint16_t head)
{
	return (uint16_t)(t->avail - t->head[head].came);
}

int vq_followed(const struct vq *q, uint16_t used, uint16_t *ret, uint16_t *ret_avail)
{
	const struct vq_trace *t = q->trace;
	unsigned n = 0, left = 0;

	if (!t || !t->whole || t->used != used)
		return -ENODATA;
	for (unsigned head = 0; head < q->size; head++) {
		if (t->head[head].out > 1)
			return -ENODATA; /* made available twice: what else is wrong nobody knows */
		left += t->head[head].out == 1;
	}
	if (left != (uint16_t)(t->avail - used))
		return -ENODATA;
	for (unsigned head = 0; head < q->size; head++) {
		unsigned i = n;

		if (!t->head[head].out)
			continue;
		for (; i && age(t, ret[i - 1]) < age(t, (uint16_t)head); i--)
			ret[i] = ret[i - 1];
		ret[i] = (uint16_t)head;
		n++;
	}
	*ret_avail = t->avail;
	return (int)n;
}
