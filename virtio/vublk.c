/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block device (virtio 1.2 section 5.2) that another process serves over vhost-user:
 * qemu-storage-daemon's vhost-user-blk export, say. The configuration space is the peer's, checked
 * here. When the peer is gone each request ends with an I/O error.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/devices.h"
#include "virtio/sizes.h"
#include "virtio/vuser.h"

#define BIT(n) (1ull << (n))
#define QUEUE_SIZE 256

/* Section 5.2.3, as far as fields of the configuration space below belong to them, and no more. */
#define FEATURES                                                                                   \
	(BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_GEOMETRY) |     \
	 BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH) |             \
	 BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_DISCARD) |   \
	 BIT(VIRTIO_BLK_F_WRITE_ZEROES))
#define SPACE_LEN (offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4)
#define SPACE_WCE offsetof(struct virtio_blk_config, wce)

/* The last that the peer said, for the next machine if it is gone by then. */
struct vublk_host {
	struct vhost_user *u;
	struct virtio_blk_config space;
};

struct vublk {
	struct vuser d;
	struct vublk_host *host;
};

/* ------------------------------------------------------------- the configuration space */

/* What a peer says of a disk is passed on to a guest, whose driver may not expect nonsense. */
static int check_space(const struct virtio_blk_config *s, uint64_t features, struct err *e)
{
	uint32_t blk = le32toh(s->blk_size);

	if (features & BIT(VIRTIO_BLK_F_BLK_SIZE) &&
	    (blk < 512 || blk > 65536 || (blk & (blk - 1))))
		return err_msg(e, -EPROTO, "a block size of %u is none", blk);
	if (le64toh(s->capacity) > (uint64_t)INT64_MAX / 512)
		return err_msg(e, -EPROTO, "a capacity of %llu sectors is none",
			       (unsigned long long)le64toh(s->capacity));
	if (features & BIT(VIRTIO_BLK_F_SEG_MAX) && !s->seg_max)
		return err_msg(e, -EPROTO, "no segments fit into a request");
	return 0;
}

/* Asks again; what is bad or cannot be had leaves what there was. */
static int refresh(struct vublk_host *h, struct err *e)
{
	struct virtio_blk_config s = {0};
	int r = vhost_user_get_config(h->u, &s, SPACE_LEN, e);

	if (r == 0)
		r = check_space(&s, vhost_user_vhost(h->u)->features, e);
	if (r == 0)
		h->space = s;
	return r;
}

/* Section 5.2.4, with what is ours to say: queues, and how long a request may be in any of them. */
static void fill_space(struct virtio *v)
{
	struct virtio_blk_config s = ((struct vublk *)v)->host->space;
	uint32_t least = sizes_least(v);
	uint32_t fits = least > 2 ? least - 2 : 1; /* header and status take two */

	if (le32toh(s.seg_max) > fits)
		s.seg_max = htole32(fits);
	s.num_queues = htole16((uint16_t)v->nqueues);
	memcpy(v->config, &s, SPACE_LEN);
	v->config_len = SPACE_LEN;
}

static void config_changed(void *arg)
{
	struct vublk *b = arg;
	struct err e = {0};

	if (refresh(b->host, &e) < 0) {
		if (!vhost_user_dead(b->d.u))
			log_guest(&b->d.v.budget, "%s: its new configuration is not taken: %s",
				  b->d.label, e.text);
		return;
	}
	fill_space(&b->d.v);
	virtio_config_changed(&b->d.v);
}

/* Section 5.2.5.1: the driver may write one field. */
static void config_write(struct virtio *v, unsigned off, unsigned size, uint64_t val)
{
	struct vublk *b = (struct vublk *)v;
	uint8_t wce = val & 1;

	if (off != SPACE_WCE || size != 1 || !virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
		return;
	/* Refused: the driver reads what it was. */
	if (vhost_user_set_config(b->d.u, SPACE_WCE, &wce, sizeof(wce)) == 0)
		v->config[SPACE_WCE] = b->host->space.wce = wce;
}

/* ------------------------------------------------------------- the host's end */

int vublk_host_open(struct vublk_host **ret, const struct disk_config *c, struct err *e)
{
	struct vublk_host *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_msg(e, -ENOMEM, "%s socket=%s: out of memory", config_disk_option(c),
			       c->path);
	r = vhost_user_connect(&h->u, c->path, VHOST_USER_NEEDS_CONFIG, e);
	if (r == 0)
		r = refresh(h, e);
	/* Told, a driver leaves it alone; but a guest's own driver need not. */
	if (r == 0 && c->readonly && !(vhost_user_vhost(h->u)->features & BIT(VIRTIO_BLK_F_RO)))
		r = err_msg(e, -EROFS,
			    "readonly=on: that is for the back end to say, and it lets "
			    "the guest write");
	if (r < 0) {
		vublk_host_close(h);
		return err_ctx(e, "%s socket=%s", config_disk_option(c), c->path);
	}
	*ret = h;
	return 0;
}

void vublk_host_close(struct vublk_host *h)
{
	if (!h)
		return;
	vhost_user_free(h->u);
	free(h);
}

/* ------------------------------------------------------------- device */

/* Section 5.2.6: the status is the last writable byte. */
static void refuse(struct vuser *d, struct vq_chain *c)
{
	const uint8_t status = VIRTIO_BLK_S_IOERR;

	(void)d;
	if (!c->writable)
		return;
	chain_push_gap(c, c->writable - 1);
	chain_push(c, &status, sizeof(status));
}

static void vublk_free(struct virtio *v)
{
	vuser_fini((struct vuser *)v);
	free(v);
}

static const struct virtio_ops vublk_ops = {
	.id = VIRTIO_ID_BLOCK,
	.start = vuser_start,
	.stop = vuser_stop,
	.queue_start = vuser_queue_start,
	.queue_stop = vuser_queue_stop,
	.kick = vuser_kick,
	.config_write = config_write,
	.resized = fill_space,
	.rewired = vuser_rewired,
	.free = vublk_free,
};

/* At most as many as the peer has. */
static unsigned queue_count(struct vublk_host *h, const struct disk_config *c, unsigned cpus)
{
	unsigned n = blk_queue_count(c, cpus);
	bool many = vhost_user_vhost(h->u)->features & BIT(VIRTIO_BLK_F_MQ);
	unsigned theirs = many ? le16toh(h->space.num_queues) : 1;
	int serves = vhost_user_queues(h->u);

	if (serves > 0 && theirs > (unsigned)serves)
		theirs = (unsigned)serves;
	if (n > theirs)
		n = theirs;
	return n ? n : 1;
}

static int build(struct vublk *b, const struct disk_config *c, const struct vublk_env *env)
{
	struct vublk_host *h = env->host;
	struct err ignored;
	struct vuser_env below = {
		.gm = env->gm,
		.loop = env->loop,
		.power = env->power,
		.queue_size = c->queue_size ? c->queue_size : QUEUE_SIZE,
	};
	int r;

	b->host = h;
	b->d.u = h->u;
	b->d.refuse = refuse;
	snprintf(b->d.name, sizeof(b->d.name), "disk%u", env->index);
	snprintf(b->d.label, sizeof(b->d.label), "%s (%s)", b->d.name, c->path);
	/* An earlier guest may have changed the cache; of a peer that died vhost_user_bind tells.
	 */
	refresh(h, &ignored);
	below.queues = queue_count(h, c, env->cpus);
	b->d.v.offered = vhost_user_vhost(h->u)->features & FEATURES;
	if (below.queues > 1)
		b->d.v.offered |= BIT(VIRTIO_BLK_F_MQ);
	r = vuser_init(&b->d, &vublk_ops, &below, config_changed);
	if (r == 0)
		fill_space(&b->d.v);
	return r;
}

int vublk_new(struct virtio **ret, const struct disk_config *c, const struct vublk_env *env,
	      struct err *e)
{
	struct vublk *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return err_msg(e, -ENOMEM, "%s socket=%s: out of memory", config_disk_option(c),
			       c->path);
	r = build(b, c, env);
	if (r < 0) {
		vublk_free(&b->d.v);
		return err_msg(e, r, "%s socket=%s: queues: %s", config_disk_option(c), c->path,
			       strerror(-r));
	}
	*ret = &b->d.v;
	return 0;
}
