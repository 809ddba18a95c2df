/* SPDX-License-Identifier: Apache-2.0 */
/* An image over a real file and what the image tests share. Include cmocka.h before it. */
#ifndef TESTS_UNIT_IMAGE_RIG_H
#define TESTS_UNIT_IMAGE_RIG_H

#include <errno.h>
#include <string.h>

#include "tests/unit/disk_file.h"
#include "tests/unit/turns.h"
#include "virtio/image.h"

#define RIG_SIZE (8u << 20)
#define RIG_REQS 64

struct image_rig {
	struct disk_file file;
	struct disk_config c;
	struct loop *loop;
	struct workers *w;
	struct image *im;
	struct err e;
	uint8_t *mem; /* RIG_SIZE bytes, page-aligned */
	struct image_req req[RIG_REQS];
	struct iovec iov[RIG_REQS][8];
	int res[RIG_REQS];
	unsigned done, batches;
	unsigned order[RIG_REQS]; /* of completion */
};

static inline void on_done(void *arg, struct image_req *r, int err)
{
	struct image_rig *f = arg;

	f->res[r - f->req] = err;
	f->order[f->done++ % RIG_REQS] = (unsigned)(r - f->req);
}

static inline void on_batch(void *arg)
{
	((struct image_rig *)arg)->batches++;
}

static inline int open_it(struct image_rig *f, struct image **ret)
{
	struct image_env env = {
		.loop = f->loop,
		.workers = f->w,
		.owner = {on_done, on_batch, f},
	};

	return image_open(ret, &f->c, &env, &f->e);
}

static inline struct image_rig *begin(uint64_t size)
{
	struct image_rig *f = calloc(1, sizeof(*f));

	disk_file_init(&f->file, size);
	f->c.path = f->file.path;
	f->mem = aligned_alloc(4096, RIG_SIZE);
	memset(f->mem, 0xee, RIG_SIZE);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	assert_int_equal(workers_new(&f->w, 4, NULL), 0);
	return f;
}

static inline struct image_rig *begin_open(bool direct)
{
	struct image_rig *f = begin(RIG_SIZE);

	f->c.direct = direct;
	if (open_it(f, &f->im))
		fail_msg("%s", f->e.text);
	return f;
}

static inline void end(struct image_rig *f)
{
	image_free(f->im);
	workers_free(f->w);
	loop_free(f->loop);
	disk_file_fini(&f->file);
	free(f->mem);
	free(f);
}

/* Request @i over memory at the same offset as on the disk, in one vector. */
static inline struct image_req *req(struct image_rig *f, unsigned i, enum image_op op, uint64_t off,
				    uint64_t len)
{
	struct image_req *r = &f->req[i];

	f->iov[i][0] = (struct iovec){f->mem + off, len};
	*r = (struct image_req){.op = op, .off = off, .len = len, .iov = f->iov[i], .niov = 1};
	f->res[i] = 1;
	return r;
}

static inline void drain(struct image_rig *f)
{
	image_kick(f->im);
	while (image_wait(f->im))
		;
}

/* The same on the loop alone, until @n are done. */
static inline void run(struct image_rig *f, unsigned n)
{
	image_kick(f->im);
	while (f->done < n)
		turn(f->loop);
}

static inline int one(struct image_rig *f, enum image_op op, uint64_t off, uint64_t len)
{
	image_submit(f->im, req(f, 0, op, off, len));
	drain(f);
	return f->res[0];
}

static inline uint8_t on_disk(const struct image_rig *f, uint64_t at)
{
	uint8_t b = 0;

	assert_int_equal(pread(f->file.fd, &b, 1, (off_t)at), 1);
	return b;
}

static inline void assert_disk_is(const struct image_rig *f, uint64_t off, uint64_t len, uint8_t v)
{
	uint8_t *buf = malloc(len);

	assert_int_equal(pread(f->file.fd, buf, len, (off_t)off), (ssize_t)len);
	for (uint64_t i = 0; i < len; i++)
		if (buf[i] != v)
			fail_msg("byte %llu is %#x, not %#x", (unsigned long long)(off + i), buf[i],
				 v);
	free(buf);
}

static inline void assert_read(const struct image_rig *f, uint64_t off, uint64_t len)
{
	for (uint64_t i = off; i < off + len; i++)
		if (f->mem[i] != disk_byte(i))
			fail_msg("byte %llu is %#x", (unsigned long long)i, f->mem[i]);
}

#endif
