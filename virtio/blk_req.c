/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/blk.h"

#define FEW_VECS 16
#define IDLE_MAX 64u

struct blk_range {
	uint64_t off, len; /* bytes, within the image */
	bool unmap;
};

struct blk_req {
	struct image_req io;
	struct blk *b;
	struct vq_chain *chain;
	uint32_t buffers; /* of the chain */
	unsigned q;
	bool dropped; /* its queue was reset */
	struct blk_req *prev, *next;
	struct iovec *iov; /* few, or on the heap */
	struct iovec few[FEW_VECS];
	struct blk_range *range; /* discard, write zeroes: those not yet begun */
	struct blk_range *ranges;
	unsigned nrange;
};

/* ------------------------------------------------------------- requests' storage */

static struct blk_req *req_get(struct blk *b, unsigned q, struct vq_chain *c)
{
	struct blk_req *r = b->idle;

	if (r) {
		b->idle = r->next;
		b->nidle--;
	} else if (!(r = malloc(sizeof(*r)))) {
		return NULL;
	}
	r->b = b;
	r->chain = c;
	r->q = q;
	r->dropped = false;
	r->iov = r->few;
	r->ranges = NULL;
	r->nrange = 0;
	r->prev = NULL;
	r->next = b->queue[q].in_flight;
	if (r->next)
		r->next->prev = r;
	b->queue[q].in_flight = r;
	r->buffers = chain_buffers(c);
	b->buffers += r->buffers;
	return r;
}

static void req_put(struct blk_req *r)
{
	struct blk *b = r->b;

	b->buffers -= r->buffers;
	if (r->prev)
		r->prev->next = r->next;
	else
		b->queue[r->q].in_flight = r->next;
	if (r->next)
		r->next->prev = r->prev;
	if (r->iov != r->few)
		free(r->iov);
	free(r->ranges);
	if (b->nidle == IDLE_MAX) {
		free(r);
		return;
	}
	r->next = b->idle;
	b->idle = r;
	b->nidle++;
}

void blk_req_fini(struct blk *b)
{
	while (b->idle) {
		struct blk_req *r = b->idle;

		b->idle = r->next;
		free(r);
	}
	b->nidle = 0;
}

/* ------------------------------------------------------------- answers */

/* Section 5.2.6: the status is the last writable byte. What lies before it may be unwritten. */
static void answer(struct vq_chain *c, uint8_t status)
{
	chain_push_gap(c, c->writable - 1); /* at least 1: blk_req_start */
	chain_push(c, &status, 1);
	vq_return(c);
}

static uint8_t status_of(int err)
{
	if (!err)
		return VIRTIO_BLK_S_OK;
	return err == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static void complain(struct blk *b, const struct image_req *io, int err)
{
	static const char *const what[] = {
		[IMAGE_READ] = "read",           [IMAGE_WRITE] = "write",
		[IMAGE_FLUSH] = "flush",         [IMAGE_DISCARD] = "discard",
		[IMAGE_ZEROES] = "write zeroes",
	};

	log_guest(&b->budget, "%s: %s, byte %llu of %s: %s", b->name, what[io->op],
		  (unsigned long long)io->off, b->im->path, strerror(-err));
}

static bool next_range(struct blk_req *r)
{
	if (!r->nrange)
		return false;
	r->nrange--;
	r->io.off = r->range->off;
	r->io.len = r->range->len;
	r->io.unmap = r->range->unmap;
	r->range++;
	image_submit(r->b->im, &r->io);
	return true;
}

void blk_req_done(void *arg, struct image_req *io, int err)
{
	struct blk_req *r = (struct blk_req *)((char *)io - offsetof(struct blk_req, io));
	struct vq_chain *c = r->chain;

	if (!err && !r->dropped && next_range(r))
		return;
	if (err && !r->dropped)
		complain(arg, io, err);
	if (err)
		chain_unwritten(c);
	req_put(r);
	answer(c, status_of(err));
}

void blk_req_drop(struct blk *b, unsigned q)
{
	for (struct blk_req *r = b->queue[q].in_flight; r; r = r->next) {
		r->dropped = true;
		image_cancel(b->im, &r->io);
	}
}

/* ------------------------------------------------------------- requests; errors are answered */

/* In sectors, so that nothing a guest says overflows. */
static bool in_range(const struct blk *b, uint64_t sector, uint32_t n)
{
	return sector <= b->sectors && n <= b->sectors - sector;
}

static int take_vecs(struct blk_req *r, uint32_t len)
{
	int (*take)(struct vq_chain *, uint32_t, struct iovec *, int) =
		r->io.op == IMAGE_READ ? chain_push_iov : chain_pull_iov;
	int n = take(r->chain, len, r->few, FEW_VECS);

	if (n == -E2BIG) {
		int max = (int)chain_buffers(r->chain);
		struct iovec *iov = malloc((size_t)max * sizeof(*iov));

		if (!iov)
			return -ENOMEM;
		r->iov = iov;
		n = take(r->chain, len, iov, max);
	}
	return n;
}

static int read_write(struct blk_req *r, uint64_t sector)
{
	struct blk *b = r->b;
	uint32_t len = r->io.op == IMAGE_READ ? r->chain->writable - 1 : r->chain->readable;

	if (len % BLK_SECTOR || !in_range(b, sector, len / BLK_SECTOR))
		return -EIO;
	if (r->io.op == IMAGE_WRITE && b->im->readonly)
		return -EIO;
	int n = take_vecs(r, len);

	if (n < 0)
		return n;
	r->io.through = r->io.op == IMAGE_WRITE && b->through;
	r->io.off = sector * BLK_SECTOR;
	r->io.len = len;
	r->io.iov = r->iov;
	r->io.niov = n;
	image_submit(b->im, &r->io);
	return 0;
}

static int flush(struct blk_req *r)
{
	r->io.off = r->io.len = 0;
	r->io.niov = 0;
	r->io.through = false;
	image_submit(r->b->im, &r->io);
	return 0;
}

/* Section 5.2.6.2: unknown flags, and unmap in a discard, are unsupported. */
static int take_range(struct blk_req *r, struct blk_range *ret)
{
	bool discard = r->io.op == IMAGE_DISCARD;
	uint32_t max = discard ? BLK_DISCARD_SECTORS : BLK_ZEROES_SECTORS;
	uint32_t known = discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	struct virtio_blk_discard_write_zeroes seg;

	if (chain_pull(r->chain, &seg, sizeof(seg)))
		return -EIO;
	uint64_t sector = le64toh(seg.sector);
	uint32_t n = le32toh(seg.num_sectors), flags = le32toh(seg.flags);

	if (flags & ~known)
		return -EOPNOTSUPP;
	if (n > max || !in_range(r->b, sector, n))
		return -EIO;
	*ret = (struct blk_range){sector * BLK_SECTOR, (uint64_t)n * BLK_SECTOR, flags != 0};
	return 0;
}

/* All segments are taken and checked before the first is carried out. */
static int discard_zeroes(struct blk_req *r, unsigned feature, unsigned max_segs)
{
	struct blk *b = r->b;
	uint32_t len = r->chain->readable, one = sizeof(struct virtio_blk_discard_write_zeroes);

	if (!virtio_has(&b->v, feature))
		return -EOPNOTSUPP;
	if (!len || len % one || len / one > max_segs || b->im->readonly)
		return -EIO;
	r->ranges = calloc(len / one, sizeof(*r->ranges));
	if (!r->ranges)
		return -ENOMEM;
	for (uint32_t i = 0; i < len / one; i++) {
		int err = take_range(r, &r->ranges[i]);

		if (err)
			return err;
	}
	r->range = r->ranges;
	r->nrange = len / one;
	r->io.niov = 0;
	r->io.through = b->through;
	next_range(r);
	return 0;
}

static int get_id(struct blk_req *r)
{
	uint32_t len = r->chain->writable - 1;

	chain_push(r->chain, r->b->id, len < VIRTIO_BLK_ID_BYTES ? len : VIRTIO_BLK_ID_BYTES);
	struct vq_chain *c = r->chain;

	req_put(r);
	answer(c, VIRTIO_BLK_S_OK);
	return 0;
}

static int carry_out(struct blk_req *r, uint32_t type, uint64_t sector)
{
	switch (type) {
	case VIRTIO_BLK_T_IN:
		r->io.op = IMAGE_READ;
		return read_write(r, sector);
	case VIRTIO_BLK_T_OUT:
		r->io.op = IMAGE_WRITE;
		return read_write(r, sector);
	case VIRTIO_BLK_T_FLUSH:
		r->io.op = IMAGE_FLUSH;
		return flush(r);
	case VIRTIO_BLK_T_DISCARD:
		r->io.op = IMAGE_DISCARD;
		return discard_zeroes(r, VIRTIO_BLK_F_DISCARD, BLK_DISCARD_SEGS);
	case VIRTIO_BLK_T_WRITE_ZEROES:
		r->io.op = IMAGE_ZEROES;
		return discard_zeroes(r, VIRTIO_BLK_F_WRITE_ZEROES, BLK_ZEROES_SEGS);
	case VIRTIO_BLK_T_GET_ID:
		return get_id(r);
	default:
		return -EOPNOTSUPP;
	}
}

void blk_req_start(struct blk *b, unsigned q, struct vq_chain *c)
{
	struct virtio_blk_outhdr h;
	struct blk_req *r;
	int err;

	if (!c->writable) {
		vq_break(c->vq, "5.2.6", "a request has no byte for its status");
		vq_return(c);
		return;
	}
	/* The header is read here once; from here on it is our copy. */
	if (chain_pull(c, &h, sizeof(h)) || !(r = req_get(b, q, c))) {
		answer(c, VIRTIO_BLK_S_IOERR);
		return;
	}
	err = carry_out(r, le32toh(h.type), le64toh(h.sector));
	if (err) {
		req_put(r);
		answer(c, status_of(err));
	}
}
