/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "virtio/raw.h"

#define ZERO_BLOCK (64u << 10)
#define ZERO_VECS (RAW_PIECE / ZERO_BLOCK)

/* One call frees or zeroes at most this much. */
#define ALLOC_PIECE (256ull << 20)

static bool cancelled(const struct image_req *r)
{
	return __atomic_load_n(&r->cancelled, __ATOMIC_RELAXED);
}

static bool multiple(uint64_t v, uint32_t of)
{
	return !(v & (of - 1));
}

bool raw_io_aligned(const struct raw_io *io, const struct image_req *r)
{
	uint32_t mem = io->file.mem_align;

	if (!io->file.direct)
		return true;
	if (!multiple(r->off | r->len, io->file.off_align))
		return false;
	for (int i = 0; i < r->niov; i++)
		if (!multiple((uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len, mem))
			return false;
	return true;
}

/*
 * The last vector is shortened for the time of the call and r->cut remembers
 * by how much. Pieces of aligned requests stay aligned: RAW_PIECE is a multiple
 * of every alignment.
 */
int raw_io_cut(struct image_req *r)
{
	size_t room = RAW_PIECE;
	int n = 0;

	r->cut = 0;
	while (n < r->niov && room) {
		struct iovec *v = &r->iov[n++];

		if (v->iov_len > room) {
			r->cut = v->iov_len - room;
			v->iov_len = room;
		}
		room -= v->iov_len;
	}
	return n;
}

void raw_io_uncut(struct image_req *r, int n)
{
	r->iov[n - 1].iov_len += r->cut;
	r->cut = 0;
}

static int read_write(struct raw_io *io, struct image_req *r)
{
	int fd = raw_io_aligned(io, r) ? io->file.fd : io->file.cached;
	int flags = r->through ? RWF_DSYNC : 0;

	while (r->len) {
		if (cancelled(r))
			return -ECANCELED;
		int n = raw_io_cut(r);
		ssize_t len = r->op == IMAGE_READ ? preadv(fd, r->iov, n, (off_t)r->off)
						  : pwritev2(fd, r->iov, n, (off_t)r->off, flags);
		int why = errno;

		raw_io_uncut(r, n);
		if (len > 0)
			image_advance(r, (uint64_t)len);
		else if (!len)
			return -EIO; /* the file became shorter */
		else if (why == EINVAL && fd != io->file.cached)
			fd = io->file.cached; /* a stricter alignment than it said */
		else if (why != EINTR)
			return -why;
	}
	return 0;
}

static bool unsupported(int err)
{
	return err == -EOPNOTSUPP || err == -ENOSYS || err == -ENOTTY || err == -EINVAL;
}

static int allocate(struct raw_io *io, int mode, struct image_req *r)
{
	while (r->len) {
		uint64_t n = r->len < ALLOC_PIECE ? r->len : ALLOC_PIECE;

		if (cancelled(r))
			return -ECANCELED;
		if (!fallocate(io->file.fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)r->off, (off_t)n)) {
			r->off += n;
			r->len -= n;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* A block device discards whole logical blocks; what stands over is kept: a discard is a hint. */
static int discard_block(struct raw_io *io, struct image_req *r)
{
	uint64_t block = io->file.physical, end = (r->off + r->len) / block * block;

	r->off = (r->off + block - 1) / block * block;
	while (r->off < end) {
		uint64_t n = end - r->off < ALLOC_PIECE ? end - r->off : ALLOC_PIECE;
		uint64_t range[2] = {r->off, n};

		if (cancelled(r))
			return -ECANCELED;
		if (ioctl(io->file.fd, BLKDISCARD, range) < 0)
			return -errno;
		r->off += n;
	}
	return 0;
}

static int discard(struct raw_io *io, struct image_req *r)
{
	return io->file.block ? discard_block(io, r) : allocate(io, FALLOC_FL_PUNCH_HOLE, r);
}

static int write_zeros(struct raw_io *io, struct image_req *r)
{
	static char zeros[ZERO_BLOCK]; /* never written: the kernel's zero page */
	struct iovec iov[ZERO_VECS];

	while (r->len) {
		uint64_t left = r->len;
		int n = 0;

		for (; left && n < (int)ZERO_VECS; n++) {
			size_t len = left < ZERO_BLOCK ? left : ZERO_BLOCK;

			iov[n] = (struct iovec){zeros, len};
			left -= len;
		}
		if (cancelled(r))
			return -ECANCELED;
		ssize_t len = pwritev(io->file.cached, iov, n, (off_t)r->off);

		if (len < 0 && errno != EINTR)
			return -errno;
		if (len == 0)
			return -EIO;
		if (len > 0) {
			r->off += (uint64_t)len;
			r->len -= (uint64_t)len;
		}
	}
	return 0;
}

/* Tries a kind of fallocate unless it is known not to work; what remains is left in @r. */
static int try_allocate(struct raw_io *io, struct image_req *r, int mode, bool *no)
{
	if (__atomic_load_n(no, __ATOMIC_RELAXED))
		return -EOPNOTSUPP;
	int res = allocate(io, mode, r);

	/* EINVAL is a block device's word for "not aligned": that tells nothing of the next one. */
	if (unsupported(res) && res != -EINVAL)
		__atomic_store_n(no, true, __ATOMIC_RELAXED);
	return res;
}

static int zeroes(struct raw_io *io, struct image_req *r)
{
	int res = -EOPNOTSUPP;

	if (r->unmap)
		res = try_allocate(io, r, FALLOC_FL_PUNCH_HOLE, &io->no_punch);
	if (unsupported(res))
		res = try_allocate(io, r, FALLOC_FL_ZERO_RANGE, &io->no_zero_range);
	if (unsupported(res))
		res = write_zeros(io, r);
	return res;
}

static int sync_data(struct raw_io *io)
{
	return fdatasync(io->file.fd) < 0 ? -errno : 0;
}

int raw_io_run(struct raw_io *io, struct image_req *r)
{
	int res;

	if (cancelled(r))
		return -ECANCELED;
	switch (r->op) {
	case IMAGE_READ:
	case IMAGE_WRITE:
		return read_write(io, r);
	case IMAGE_FLUSH:
		return sync_data(io);
	case IMAGE_DISCARD:
		res = discard(io, r);
		break;
	default:
		res = zeroes(io, r);
		break;
	}
	return !res && r->through ? sync_data(io) : res;
}
