/* SPDX-License-Identifier: Apache-2.0 */
/* The block device, virtio 1.2 section 5.2. */
#include "virtio/blk.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/sizes.h"

#define BIT(n) (1ull << (n))
/* A request of 1 MiB in single pages takes 258 descriptors: it should not become two. */
#define QUEUE_SIZE 512
#define QUEUES_MAX 8 /* by default; the user may ask for more */

/* Requests begun in one callback: then the other devices of the loop have their turn. */
#define KICK_BUDGET 128

#define CONFIG_LEN (offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4)
#define CONFIG_WCE offsetof(struct virtio_blk_config, wce)

/* ------------------------------------------------------------- write cache */

/*
 * Section 5.2.6.2. With CONFIG_WCE the driver's choice counts. Without, a
 * driver that took FLUSH knows of the cache; one that did not never flushes.
 */
static void choose_cache(struct blk *b)
{
	bool flush = virtio_has(&b->v, VIRTIO_BLK_F_FLUSH);

	if (!virtio_has(&b->v, VIRTIO_BLK_F_CONFIG_WCE)) {
		b->through = b->writethrough || !flush;
		return;
	}
	/* Section 5.2.5.2: without FLUSH the field begins as 0. */
	if (!flush && !b->wce_written)
		b->v.config[CONFIG_WCE] = 0;
	b->through = !b->v.config[CONFIG_WCE];
}

static void blk_config_write(struct virtio *v, unsigned off, unsigned size, uint64_t val)
{
	struct blk *b = (struct blk *)v;

	/* Section 5.2.5.1: nothing else is the driver's to write. */
	if (off != CONFIG_WCE || size != 1 || !virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
		return;
	v->config[CONFIG_WCE] = val & 1;
	b->wce_written = true;
	choose_cache(b);
}

static void reset_cache(struct blk *b)
{
	b->v.config[CONFIG_WCE] = !b->writethrough;
	b->wce_written = false;
}

/* ------------------------------------------------------------- queues */

static bool is_full(const struct blk *b)
{
	return b->buffers >= b->buffers_max;
}

/* After some were done: answers are announced, and queues that wait have their turn. */
static void notify(void *arg)
{
	struct blk *b = arg;

	for (unsigned q = 0; q < b->v.nqueues; q++) {
		vq_notify(virtio_vq(&b->v, q));
		if (!b->queue[q].held || is_full(b))
			continue;
		b->queue[q].held = false;
		virtio_rekick(&b->v, q);
	}
}

/* False while the loop looks at the ring by itself. */
static bool kicks_on(struct blk *b, struct vq *vq)
{
	return !b->polled && vq_kicks_on(vq);
}

static void blk_kick(struct virtio *v, unsigned q)
{
	struct blk *b = (struct blk *)v;
	struct vq *vq = virtio_vq(v, q);
	struct vq_chain *c;
	enum vq_take took = VQ_EMPTY;
	unsigned budget = KICK_BUDGET;

	vq_kicks_off(vq);
	do {
		while (budget && !is_full(b) && (took = vq_next(vq, &c)) == VQ_CHAIN) {
			b->large = c->readable + c->writable >= BLK_LARGE;
			blk_req_start(b, q, c);
			budget--;
		}
	} while (budget && !is_full(b) && took == VQ_EMPTY && kicks_on(b, vq));
	/* Where it is full something is in flight, and when that is done notify() looks here. */
	b->queue[q].held = is_full(b);
	if (!budget && !b->queue[q].held)
		virtio_rekick(v, q);
	image_kick(b->im);
	notify(b);
}

/* ------------------------------------------------------------- polling */

static void poll_begin(void *arg)
{
	struct blk *b = arg;

	b->polled = true;
	for (unsigned q = 0; q < b->v.nqueues; q++)
		vq_kicks_off(virtio_vq(&b->v, q));
}

static bool may_take(struct blk *b, unsigned q)
{
	return !b->queue[q].held && vq_pending(virtio_vq(&b->v, q));
}

static bool poll_ready(void *arg)
{
	struct blk *b = arg;

	for (unsigned q = 0; q < b->v.nqueues; q++)
		if (may_take(b, q))
			return true;
	return image_ready(b->im);
}

static uint64_t poll_run(void *arg)
{
	struct blk *b = arg;

	if (image_ready(b->im))
		image_take(b->im);
	for (unsigned q = 0; q < b->v.nqueues; q++)
		if (may_take(b, q))
			virtio_kick(&b->v, q);
	/* The next large requests wait for one another, most of the time of a look. */
	return b->large ? b->poll.most * 3 / 5 : 0;
}

static bool poll_end(void *arg)
{
	struct blk *b = arg;
	bool some = false;

	b->polled = false;
	for (unsigned q = 0; q < b->v.nqueues; q++)
		if (!b->queue[q].held && vq_kicks_on(virtio_vq(&b->v, q))) {
			virtio_rekick(&b->v, q);
			some = true;
		}
	return some;
}

static const struct loop_poll_ops poll_ops = {
	.begin = poll_begin,
	.ready = poll_ready,
	.run = poll_run,
	.end = poll_end,
};

/* ------------------------------------------------------------- start and stop */

static int blk_start(struct virtio *v)
{
	choose_cache((struct blk *)v);
	return 0;
}

static int blk_queue_start(struct virtio *v, unsigned q)
{
	(void)v, (void)q;
	return 0;
}

/*
 * The queue forgets its rings first, so that what is in flight is answered to
 * nobody; then we wait until the host's kernel has let go of the guest's memory.
 */
static void forget(struct blk *b, unsigned q)
{
	vq_reset(virtio_vq(&b->v, q));
	b->queue[q].held = false;
	blk_req_drop(b, q);
}

static void drain(struct blk *b, unsigned q)
{
	while (b->queue[q].in_flight) {
		bool some = image_wait(b->im);

		assert(some);
		(void)some;
	}
	notify(b); /* other queues may have waited for what was in flight here */
}

static bool blk_at_rest(const struct virtio *v)
{
	const struct blk *b = (const struct blk *)v;

	for (unsigned q = 0; q < v->nqueues; q++)
		if (b->queue[q].in_flight)
			return false;
	return true;
}

static void blk_queue_stop(struct virtio *v, unsigned q)
{
	forget((struct blk *)v, q);
	drain((struct blk *)v, q);
}

static void blk_stop(struct virtio *v)
{
	struct blk *b = (struct blk *)v;

	for (unsigned q = 0; q < v->nqueues; q++)
		forget(b, q);
	for (unsigned q = 0; q < v->nqueues; q++)
		drain(b, q);
	reset_cache(b);
}

/* Of the data alone: header and status take two descriptors more. */
static uint32_t seg_max(unsigned queue_size)
{
	return htole32(queue_size > 2 ? queue_size - 2 : 1);
}

/* Any queue may get the longest request: the smallest one counts. */
static void blk_resized(struct virtio *v)
{
	uint32_t max = seg_max(sizes_least(v));

	memcpy(v->config + offsetof(struct virtio_blk_config, seg_max), &max, sizeof(max));
}

static void blk_virtio_free(struct virtio *v)
{
	blk_free((struct blk *)v);
}

static const struct virtio_ops blk_ops = {
	.id = VIRTIO_ID_BLOCK,
	.start = blk_start,
	.stop = blk_stop,
	.queue_start = blk_queue_start,
	.queue_stop = blk_queue_stop,
	.kick = blk_kick,
	.config_write = blk_config_write,
	.resized = blk_resized,
	.at_rest = blk_at_rest,
	.free = blk_virtio_free,
};

/* ------------------------------------------------------------- set-up */

static uint32_t blocks(uint32_t bytes, uint32_t max)
{
	uint32_t n = bytes / BLK_SECTOR;

	return n > max ? 0 : n;
}

/* Section 5.2.4. */
static void fill_config(struct blk *b, unsigned queues, unsigned queue_size)
{
	const struct image *im = b->im;
	struct virtio_blk_config c = {
		.capacity = htole64(b->sectors),
		.seg_max = seg_max(queue_size),
		.blk_size = htole32(BLK_SECTOR),
		.physical_block_exp = (uint8_t)__builtin_ctz(im->physical / BLK_SECTOR),
		.min_io_size = htole16((uint16_t)blocks(im->io_min, UINT16_MAX)),
		.opt_io_size = htole32(blocks(im->io_opt, UINT32_MAX)),
		.num_queues = htole16((uint16_t)queues),
	};

	if (im->can_discard) {
		c.max_discard_sectors = htole32(BLK_DISCARD_SECTORS);
		c.max_discard_seg = htole32(BLK_DISCARD_SEGS);
		c.discard_sector_alignment = htole32(im->physical / BLK_SECTOR);
	}
	if (!im->readonly) {
		c.max_write_zeroes_sectors = htole32(BLK_ZEROES_SECTORS);
		c.max_write_zeroes_seg = htole32(BLK_ZEROES_SEGS);
		c.write_zeroes_may_unmap = im->can_discard;
	}
	memcpy(b->v.config, &c, CONFIG_LEN);
	b->v.config_len = CONFIG_LEN;
	reset_cache(b);
}

static uint64_t features(const struct image *im, unsigned queues)
{
	uint64_t f = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
		     BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH) |
		     BIT(VIRTIO_BLK_F_CONFIG_WCE);

	f |= im->readonly ? BIT(VIRTIO_BLK_F_RO) : BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	if (im->can_discard)
		f |= BIT(VIRTIO_BLK_F_DISCARD);
	if (queues > 1)
		f |= BIT(VIRTIO_BLK_F_MQ);
	return f;
}

static int add_queues(struct blk *b, const struct blk_env *env, unsigned n, uint16_t size)
{
	int r = virtio_init(&b->v, &blk_ops, b->name, env->gm, env->loop);

	for (unsigned q = 0; !r && q < n; q++)
		r = virtio_add_queue(&b->v, size);
	return r;
}

unsigned blk_queue_count(const struct disk_config *c, unsigned cpus)
{
	unsigned n = c->queues ? c->queues : cpus < QUEUES_MAX ? cpus : QUEUES_MAX;

	if (n > VIRTIO_QUEUES_MAX)
		n = VIRTIO_QUEUES_MAX;
	return n ? n : 1;
}

int blk_new(struct blk **ret, const struct disk_config *c, const struct blk_env *env, struct err *e)
{
	unsigned queues = blk_queue_count(c, env->cpus);
	uint16_t size = c->queue_size ? c->queue_size : QUEUE_SIZE;
	struct blk *b = calloc(1, sizeof(*b));
	struct image_env below = {.loop = env->loop, .workers = env->workers};
	int r;

	if (!b)
		return err_msg(e, -ENOMEM, "%s: out of memory", c->path);
	below.owner = (struct image_owner){blk_req_done, notify, b};
	r = image_open(&b->im, c, &below, e);
	if (r < 0) {
		free(b);
		return r;
	}
	snprintf(b->name, sizeof(b->name), "disk%u", env->index);
	snprintf(b->id, sizeof(b->id), "%s", c->serial[0] ? c->serial : b->name);
	b->writethrough = c->writethrough;
	b->buffers_max = BLK_BUFFERS_MAX;
	b->sectors = b->im->size / BLK_SECTOR;
	b->v.offered = features(b->im, queues);
	fill_config(b, queues, size);
	r = add_queues(b, env, queues, size);
	if (r < 0) {
		blk_free(b);
		return err_msg(e, r, "%s: queues: %s", c->path, strerror(-r));
	}
	b->poll = (struct loop_poll){.ops = &poll_ops, .arg = b};
	loop_poll_add(env->loop, &b->poll);
	*ret = b;
	return 0;
}

void blk_free(struct blk *b)
{
	if (!b)
		return;
	loop_poll_del(&b->poll);
	virtio_fini(&b->v);
	blk_req_fini(b);
	image_free(b->im);
	free(b);
}

struct virtio *blk_virtio(struct blk *b)
{
	return &b->v;
}
