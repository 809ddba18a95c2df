/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded first-in, first-out queue of bytes, for what a console's host or
 * guest does not take yet. Memory is taken when the first byte waits. Pages
 * are touched as far as it fills up; after more than a page of bytes it is
 * given back as soon as none waits.
 *
 * One owner; no locking.
 */
#ifndef VMM_BYTES_H
#define VMM_BYTES_H

#include <stddef.h>
#include <stdint.h>

struct bytes {
	size_t cap; /* set by the owner, at least 1; the rest starts as zeros */
	uint8_t *buf;
	size_t head, len, high; /* high: the most that waited in this buffer */
};

/* Puts all of it at the end; the oldest bytes are dropped when there is no room, all when there is
 * no memory. */
void bytes_put(struct bytes *b, const uint8_t *data, size_t n);

/* The oldest bytes that lie in one piece; 0 when empty. bytes_drop removes them. */
size_t bytes_peek(const struct bytes *b, const uint8_t **ret);
void bytes_drop(struct bytes *b, size_t n);

static inline size_t bytes_room(const struct bytes *b)
{
	return b->cap - b->len;
}

void bytes_fini(struct bytes *b);

#endif
