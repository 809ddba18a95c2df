/* SPDX-License-Identifier: Apache-2.0 */
/* A chain's bytes. What is here was validated by vq_next: no guest number is read again. */
#include <errno.h>

#include "virtio/vq.h"

/* A cursor in the readable or in the writable part. */
struct cursor {
	uint16_t *seg;
	uint32_t *off;
	uint32_t *left;
};

static struct cursor readable(struct vq_chain *c)
{
	return (struct cursor){&c->rseg, &c->roff, &c->readable};
}

static struct cursor writable(struct vq_chain *c)
{
	return (struct cursor){&c->wseg, &c->woff, &c->writable};
}

static bool have(const struct vq_chain *c, struct cursor at, uint32_t len)
{
	return !c->orphan && len <= *at.left;
}

/*
 * The next piece, at most @len bytes and within one segment. @len is at most
 * what is left, so the cursor cannot leave its part; segments are never empty.
 */
static struct vq_seg piece(const struct vq_chain *c, struct cursor at, uint32_t len)
{
	const struct vq_seg *s = &c->seg[*at.seg];
	struct vq_seg p = {gpa(s->at.v + *at.off), s->len - *at.off};

	if (p.len > len) {
		p.len = len;
		*at.off += len;
	} else {
		(*at.seg)++;
		*at.off = 0;
	}
	*at.left -= p.len;
	return p;
}

/* Section 2.7.8.2: the used length counts only bytes written from the start without a gap. */
static void wrote(struct vq_chain *c, uint32_t len)
{
	if (!c->gap)
		c->used += len;
}

int chain_pull(struct vq_chain *c, void *buf, uint32_t len)
{
	uint8_t *to = buf;

	if (!have(c, readable(c), len))
		return -EINVAL;
	while (len) {
		struct vq_seg p = piece(c, readable(c), len);

		if (gmem_read(c->gm, p.at, to, p.len))
			return -EINVAL;
		to += p.len;
		len -= p.len;
	}
	return 0;
}

int chain_push(struct vq_chain *c, const void *buf, uint32_t len)
{
	const uint8_t *from = buf;

	if (!have(c, writable(c), len))
		return -EINVAL;
	while (len) {
		struct vq_seg p = piece(c, writable(c), len);

		if (gmem_write(c->gm, p.at, from, p.len))
			return -EINVAL;
		wrote(c, p.len);
		from += p.len;
		len -= p.len;
	}
	return 0;
}

int chain_push_gap(struct vq_chain *c, uint32_t len)
{
	if (!have(c, writable(c), len))
		return -EINVAL;
	if (len)
		c->gap = true;
	while (len)
		len -= piece(c, writable(c), len).len;
	return 0;
}

/* The cursor moves only when all of @len fits into @max iovecs. */
static int take_iov(const struct vq_chain *c, struct cursor at, uint32_t len, struct iovec *iov,
		    int max)
{
	uint16_t seg = *at.seg;
	uint32_t off = *at.off, left = *at.left;
	int n = 0;

	if (!have(c, at, len))
		return -EINVAL;
	while (len) {
		struct vq_seg p;

		if (n == max)
			return -E2BIG;
		p = piece(c, (struct cursor){&seg, &off, &left}, len);
		if (gmem_iov(c->gm, p.at, p.len, &iov[n++]))
			return -EINVAL;
		len -= p.len;
	}
	*at.seg = seg;
	*at.off = off;
	*at.left = left;
	return n;
}

int chain_pull_iov(struct vq_chain *c, uint32_t len, struct iovec *iov, int max)
{
	return take_iov(c, readable(c), len, iov, max);
}

int chain_push_iov(struct vq_chain *c, uint32_t len, struct iovec *iov, int max)
{
	int n = take_iov(c, writable(c), len, iov, max);

	if (n < 0)
		return n;
	if (c->iov_from == UINT32_MAX)
		c->iov_from = c->used;
	wrote(c, len);
	return n;
}

void chain_unwritten(struct vq_chain *c)
{
	if (c->iov_from == UINT32_MAX)
		return;
	c->used = c->iov_from;
	c->gap = true;
}

void chain_written(struct vq_chain *c, uint32_t len)
{
	if (len >= c->used)
		return;
	c->used = len;
	c->gap = true;
}

int chain_poke(struct vq_chain *c, uint32_t off, const void *buf, uint32_t len)
{
	uint16_t seg = c->nread;
	uint32_t at = 0, left = off + len;
	struct cursor cur = {&seg, &at, &left};
	const uint8_t *from = buf;

	if (c->orphan || off > c->used || len > c->used - off)
		return -EINVAL;
	while (off)
		off -= piece(c, cur, off).len;
	while (len) {
		struct vq_seg p = piece(c, cur, len);

		if (gmem_write(c->gm, p.at, from, p.len))
			return -EINVAL;
		from += p.len;
		len -= p.len;
	}
	return 0;
}

void chain_rewind(struct vq_chain *c)
{
	c->rseg = 0;
	c->wseg = c->nread;
	c->roff = c->woff = c->readable = c->writable = c->used = 0;
	/* vq_next saw to it that all of them together are less than 4 GiB. */
	for (uint16_t i = 0; i < c->nseg; i++)
		*(i < c->nread ? &c->readable : &c->writable) += c->seg[i].len;
	c->gap = false;
	c->iov_from = UINT32_MAX;
}
