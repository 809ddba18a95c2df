/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which chains a device had taken and not returned when it went away, told from the
 * elements that its rings still hold: pure arithmetic, for vq_adopt.
 *
 * Each head was made available and returned in turn. Neither ring says how its elements
 * lie in time between those of the other, and a device may return chains in any
 * order. But a chain is returned after it was made available, is made available again
 * only after it was returned, and no more are out at once than there are heads in use. For each
 * head that leaves two readings, out or not, and where the rings contradict one of them it is the
 * other. What is open then was made available last.
 *
 * A chain that stayed out while as many others came and went as the ring has elements
 * has left no trace, and is not found.
 */
#ifndef VIRTIO_VQ_LOST_H
#define VIRTIO_VQ_LOST_H

#include <stdbool.h>
#include <stdint.h>

struct vq_history {
	uint16_t size;         /* of the queue; every head is smaller */
	const uint16_t *avail; /* the last @navail heads, the oldest first */
	const uint16_t *used;
	unsigned navail, nused; /* each at most size */
	bool whole;             /* from the first element that there ever was */
};

/* The heads, at most @n (that many are out, at most size), the oldest first. Their number, or
 * -ENOMEM. */
int vq_lost(const struct vq_history *h, unsigned n, uint16_t *ret);

#endif
