/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a queue over from whoever served it before. */
#include <errno.h>
#include <stdlib.h>

#include "virtio/vq_lost.h"
#include "virtio/vq_ring.h"

static bool garbage(struct vq *q, const char *section, const char *why)
{
	vq_break(q, section, why);
	return false;
}

/* A ring that was never once around has zeros in front of it, where a driver has cleared it. */
static bool is_first_round(const struct vq *q, uint16_t avail, uint16_t used)
{
	if (avail >= q->size || used > avail)
		return false;
	for (unsigned i = avail; i < q->size; i++)
		if (avail_elem(q, (uint16_t)i) || used_elem(q, (uint16_t)i))
			return false;
	return true;
}

/* Copies the heads, once: the guest may go on changing them. False: the queue is broken. */
static bool copy_history(struct vq *q, struct vq_history *h, uint16_t avail, uint16_t used)
{
	uint16_t *to_avail = (uint16_t *)h->avail, *to_used = (uint16_t *)h->used;

	h->whole = is_first_round(q, avail, used);
	h->navail = h->whole ? avail : q->size;
	h->nused = h->whole ? used : q->size;
	for (unsigned i = 0; i < h->navail; i++) {
		to_avail[i] = avail_elem(q, (uint16_t)(avail - h->navail + i));
		if (to_avail[i] >= q->size)
			return garbage(q, "2.7.6", "a chain's head is out of range");
	}
	for (unsigned i = 0; i < h->nused; i++) {
		uint32_t head = used_elem(q, (uint16_t)(used - h->nused + i));

		if (head >= q->size)
			return garbage(q, "2.7.8", "the used ring holds garbage");
		to_used[i] = (uint16_t)head;
	}
	return true;
}

/* From what the rings show. */
static int read_history(struct vq *q, uint16_t used, unsigned n, uint16_t *ret)
{
	uint16_t *room = calloc(q->size, 2 * sizeof(*room));
	struct vq_history h = {.size = q->size, .avail = room};
	int r = 0;

	if (!room)
		return -ENOMEM;
	h.used = room + q->size;
	if (copy_history(q, &h, (uint16_t)(used + n), used))
		r = vq_lost(&h, n, ret);
	free(room);
	return r;
}

int vq_adopt(struct vq *q, struct vq_adopted *ret)
{
	uint16_t used = gwin_load16_acquire(&q->used, RING_IDX);
	uint16_t avail = gwin_load16_acquire(&q->avail, RING_IDX);
	unsigned n = (uint16_t)(avail - used);
	int r;

	*ret = (struct vq_adopted){0};
	if (n > q->size) {
		vq_break(q, "2.7.13", "the available and the used index are too far apart");
		return 0;
	}
	/* Whatever comes of the rest, the ring goes on from here. */
	q->used_idx = used;
	q->avail_next = q->avail_seen = avail;
	if (!n)
		return 0;
	q->lost = calloc(q->size, sizeof(*q->lost));
	if (!q->lost)
		return -ENOMEM;
	vq_follow(q);
	r = vq_followed(q, used, q->lost, &avail);
	q->avail_next = q->avail_seen = avail;
	n = (uint16_t)(avail - used);
	if (r == -ENODATA)
		r = read_history(q, used, n, q->lost);
	if (r < 0)
		return r;
	q->nlost = (unsigned)r;
	if (!q->broken)
		*ret = (struct vq_adopted){q->nlost, n - q->nlost};
	return 0;
}
