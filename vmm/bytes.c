/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/bytes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define KEEP 4096 /* a buffer that never held more stays allocated */

void bytes_put(struct bytes *b, const uint8_t *data, size_t n)
{
	size_t tail, first;

	if (!n)
		return;
	if (!b->buf)
		b->buf = malloc(b->cap);
	if (!b->buf)
		return;
	if (n > b->cap) {
		data += n - b->cap;
		n = b->cap;
	}
	if (n > bytes_room(b)) {
		size_t over = n - bytes_room(b);

		b->head = (b->head + over) % b->cap;
		b->len -= over;
	}
	tail = (b->head + b->len) % b->cap;
	first = n < b->cap - tail ? n : b->cap - tail;
	memcpy(b->buf + tail, data, first);
	memcpy(b->buf, data + first, n - first);
	b->len += n;
	if (b->high < b->len)
		b->high = b->len;
}

size_t bytes_peek(const struct bytes *b, const uint8_t **ret)
{
	if (!b->len)
		return 0;
	*ret = b->buf + b->head;
	return b->len < b->cap - b->head ? b->len : b->cap - b->head;
}

void bytes_drop(struct bytes *b, size_t n)
{
	assert(n <= b->len);
	b->head = (b->head + n) % b->cap;
	b->len -= n;
	if (b->len)
		return;
	b->head = 0;
	if (b->high > KEEP)
		bytes_fini(b);
}

void bytes_fini(struct bytes *b)
{
	free(b->buf);
	b->buf = NULL;
	b->head = b->len = b->high = 0;
}
