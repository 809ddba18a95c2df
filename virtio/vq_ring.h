/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a queue, for the files vq*.c alone. */
#ifndef VIRTIO_VQ_RING_H
#define VIRTIO_VQ_RING_H

#include "virtio/vq.h"
#include "vmm/log.h"

/* Section 2.7.5: a descriptor is 16 bytes. */
#define DESC_SIZE 16
#define DESC_F_NEXT 1
#define DESC_F_WRITE 2
#define DESC_F_INDIRECT 4

/* Sections 2.7.6 and 2.7.8. Both rings: flags, index, elements, and behind them the event index. */
#define RING_FLAGS 0
#define RING_IDX 2
#define RING_ELEMS 4
#define AVAIL_ELEM 2
#define USED_ELEM 8
#define AVAIL_F_NO_INTERRUPT 1
#define USED_F_NO_NOTIFY 1

struct vq {
	struct gmem *gm;
	struct vq_owner owner;
	unsigned index;
	uint16_t max_size, size;
	bool live, broken;
	bool event_idx, indirect;
	struct gwin desc, avail, used;
	uint16_t avail_next; /* next element of the available ring to take */
	uint16_t avail_seen; /* the driver's index when it was last read: elements before it are
				valid */
	uint16_t used_idx;
	uint32_t unsignalled;  /* chains returned since the last vq_notify */
	uint64_t quiet;        /* since when vq_notify_soon waits; 0: it does not */
	unsigned prompt;       /* calls of it that wait for nothing */
	struct vq_chain **out; /* by head: the chain in flight, or NULL */
	struct vq_chain *idle; /* for reuse, nidle of them */
	unsigned nidle;
	uint16_t *
		lost; /* heads of chains that vq_adopt found: nlost of them, the next one at lost_at
		       */
	unsigned nlost, lost_at;
	struct vq_trace *trace; /* vq_follow's, or NULL */
	uint64_t *table;        /* the copy of an indirect table: size descriptors */
	struct log_budget budget;
};

static inline uint16_t avail_elem(const struct vq *q, uint16_t index)
{
	return gwin_load16(&q->avail, RING_ELEMS + (index & (q->size - 1u)) * AVAIL_ELEM);
}

static inline uint32_t used_elem(const struct vq *q, uint16_t index)
{
	return gwin_load32(&q->used, RING_ELEMS + (index & (q->size - 1u)) * USED_ELEM);
}

#endif
