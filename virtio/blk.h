/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by blk.c (the device: configuration, queues, start and stop) and
 * blk_req.c (one request: parsed once, done, answered). Under the loop's lock.
 */
#ifndef VIRTIO_BLK_H
#define VIRTIO_BLK_H

#include <linux/virtio_blk.h>

#include "virtio/devices.h"
#include "virtio/image.h"
#include "vmm/log.h"

#define BLK_SECTOR 512u

/* Section 5.2.4: the limits the configuration space announces. */
#define BLK_DISCARD_SECTORS ((1u << 30) / BLK_SECTOR)
#define BLK_DISCARD_SEGS 64u
#define BLK_ZEROES_SECTORS ((256u << 20) / BLK_SECTOR)
#define BLK_ZEROES_SEGS 1u

/*
 * Buffers in flight, summed over a disk's queues, with which it takes no more
 * requests until some are done: each costs up to 48 bytes of the host's memory,
 * and a few indirect tables make every head refer to as many as fit in a queue.
 * 8 queues of 64 requests of 1 MiB in single pages, 258 buffers each, are less.
 */
#define BLK_BUFFERS_MAX (144u << 10)

struct blk_req;

/* A request that its sender made large: what counts is how much, not how soon. */
#define BLK_LARGE (64u << 10)

struct blk_queue {
	struct blk_req *in_flight; /* at most one a head, so at most the queue's size */
	bool held;                 /* may have more, which wait until others are done */
};

struct blk {
	struct virtio v;
	struct image *im;
	char name[16];
	char id[VIRTIO_BLK_ID_BYTES + 1]; /* padded with NULs */
	uint64_t sectors;
	bool through;      /* a write is on stable storage before it completes */
	bool writethrough; /* what the user asked for at first */
	bool wce_written;  /* the driver chose since the last reset */
	struct blk_queue queue[VIRTIO_QUEUES_MAX];
	uint32_t buffers;     /* in flight */
	uint32_t buffers_max; /* BLK_BUFFERS_MAX; one chain more may be in flight */
	struct blk_req *idle; /* for reuse, nidle of them */
	unsigned nidle;
	struct loop_poll poll;
	bool polled; /* between its begin() and end(): no kicks are wanted */
	bool large;  /* the last request was one of BLK_LARGE bytes or more */
	struct log_budget budget;
};

/* Takes the chain: answers it at once or when the image is done. image_kick follows. */
void blk_req_start(struct blk *b, unsigned q, struct vq_chain *c);

/* struct image_owner's done(). */
void blk_req_done(void *arg, struct image_req *io, int err);

/* The queue was reset: what is in flight on it ends soon and is answered to nobody. */
void blk_req_drop(struct blk *b, unsigned q);

void blk_req_fini(struct blk *b); /* none is in flight */

#endif
