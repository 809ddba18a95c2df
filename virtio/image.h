/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open disk image behind a block device: a size, and requests that are read,
 * written, flushed, discarded or zeroed asynchronously. The format is behind a
 * const table of operations (raw.c); it is what the user says, never guessed
 * from the content, which the guest writes.
 *
 * A request is the caller's storage from image_submit until the owner's done(),
 * which may already be called inside image_submit. Submitted requests may wait
 * for image_kick; after a group of done()s from the loop batch() is called
 * once. Requests complete in any order; a flush covers the writes that were
 * done() before it was submitted (virtio 1.2 section 5.2.6.2).
 *
 * Threading: everything under the loop's lock; done() and batch() too.
 */
#ifndef VIRTIO_IMAGE_H
#define VIRTIO_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio/aio.h"
#include "vmm/config.h"
#include "vmm/loop.h"
#include "vmm/workers.h"

struct image;

enum image_op { IMAGE_READ, IMAGE_WRITE, IMAGE_FLUSH, IMAGE_DISCARD, IMAGE_ZEROES };

struct image_req {
	enum image_op op;
	bool through; /* what it changes is on stable storage before done() */
	bool unmap;   /* IMAGE_ZEROES may free the space */
	uint64_t off; /* bytes; off + len is within the image: the caller checked */
	uint64_t len;
	struct iovec *iov; /* of len bytes; IMAGE_READ and IMAGE_WRITE only; consumed */
	int niov;
	/* the rest is private to the image */
	bool cancelled; /* atomic: workers look at it */
	bool alone;
	int res;
	size_t cut;
	struct image *im;
	struct image_req *next;
	struct aio_op aio;
	struct work work;
};

struct image_owner {
	/* @err: 0, a negative errno, or -ECANCELED after image_cancel. */
	void (*done)(void *arg, struct image_req *r, int err);
	void (*batch)(void *arg);
	void *arg;
};

struct image_ops {
	void (*submit)(struct image *im, struct image_req *r);
	void (*kick)(struct image *im);
	bool (*ready)(const struct image *im);
	void (*take)(struct image *im);
	bool (*wait)(struct image *im);
	void (*free)(struct image *im);
};

struct image {
	const struct image_ops *ops;
	struct image_owner owner;
	char *path;
	bool readonly;
	bool can_discard;
	uint64_t size;           /* bytes */
	uint32_t physical;       /* bytes: a write not aligned to it costs a read; a power of two */
	uint32_t io_min, io_opt; /* bytes; 0: nothing known */
};

/* Where an image works: all outlive it. */
struct image_env {
	struct loop *loop;
	struct workers *workers;
	struct image_owner owner;
};

/*
 * Opens and locks the image. Errors name the path and what is wrong with it:
 * missing, a directory, empty, read-only, locked and by whom.
 */
int image_open(struct image **ret, const struct disk_config *c, const struct image_env *env,
	       struct err *e);
/*
 * -EINVAL when the file begins as an image of another format does. For the user's
 * sake, before a guest first runs; what a running one wrote is its own affair.
 */
int image_looks_raw(const char *path, struct err *e);
void image_free(struct image *im); /* nothing is in flight; accepts NULL */

void image_submit(struct image *im, struct image_req *r); /* no write to a read-only image */
void image_kick(struct image *im);

/*
 * For an owner that looks by itself (struct loop_poll) instead of being woken up:
 * image_ready says, without a system call, that something has ended, and
 * image_take calls its done(). What is not taken wakes the loop as ever.
 */
bool image_ready(const struct image *im);
void image_take(struct image *im);

/* It ends soon, with whatever result; done() is still called, later. */
void image_cancel(struct image *im, struct image_req *r);

/* Blocks until at least one request has completed; false: none is in flight. */
bool image_wait(struct image *im);

/* For formats: moves past @n bytes, at most what is left. */
void image_advance(struct image_req *r, uint64_t n);

#endif
