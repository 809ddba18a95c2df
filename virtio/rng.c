/* SPDX-License-Identifier: Apache-2.0 */
/* Entropy device: virtio 1.2 section 5.4. One queue, no configuration space, no features. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "virtio/devices.h"

/*
 * Also the requests worked off in one call: 64 of at most 4 KiB take the host
 * well under a millisecond, then the loop's other devices have their turn.
 */
#define RNG_QUEUE 64

struct rng {
	struct virtio v;
};

/* The rest of a request longer than RNG_MAX stays unwritten; the used length says so. */
static void rng_serve(struct vq_chain *c)
{
	uint8_t buf[RNG_MAX];
	uint32_t want = c->writable < sizeof(buf) ? c->writable : sizeof(buf);
	ssize_t got;

	/* Beyond 256 bytes a signal may cut it short; section 5.4.6 wants at least one byte. */
	do {
		got = getrandom(buf, want, 0);
	} while (got < 0 && errno == EINTR);
	if (got > 0)
		chain_push(c, buf, (uint32_t)got);
	vq_return(c);
}

static void rng_kick(struct virtio *v, unsigned index)
{
	struct vq *q = virtio_vq(v, index);
	struct vq_chain *c;
	unsigned n = 0;

	vq_kicks_off(q);
	do {
		while (n < RNG_QUEUE && vq_next(q, &c) == VQ_CHAIN) {
			rng_serve(c);
			n++;
		}
	} while (n < RNG_QUEUE && vq_kicks_on(q));
	vq_notify(q);
	if (n == RNG_QUEUE)
		virtio_rekick(v, index);
}

/* Requests are answered where they are taken: nothing is ever out, so there is nothing to stop. */
static int rng_start(struct virtio *v)
{
	(void)v;
	return 0;
}

static void rng_stop(struct virtio *v)
{
	(void)v;
}

static int rng_queue_start(struct virtio *v, unsigned index)
{
	(void)v;
	(void)index;
	return 0;
}

static void rng_queue_stop(struct virtio *v, unsigned index)
{
	(void)v;
	(void)index;
}

static void rng_virtio_free(struct virtio *v)
{
	rng_free((struct rng *)v);
}

static const struct virtio_ops rng_ops = {
	.id = VIRTIO_ID_RNG,
	.start = rng_start,
	.stop = rng_stop,
	.queue_start = rng_queue_start,
	.queue_stop = rng_queue_stop,
	.kick = rng_kick,
	.free = rng_virtio_free,
};

int rng_new(struct rng **ret, struct gmem *gm, struct loop *l, struct err *e)
{
	struct rng *r = calloc(1, sizeof(*r));
	uint8_t byte;
	int rc;

	if (!r)
		return err_msg(e, -ENOMEM, "rng: out of memory");
	/* Waits for the host's pool here, once: afterwards getrandom never blocks the loop. */
	if (getrandom(&byte, sizeof(byte), 0) < 0) {
		rc = err_sys(e, "rng: getrandom");
		free(r);
		return rc;
	}
	rc = virtio_init(&r->v, &rng_ops, "rng", gm, l);
	if (!rc)
		rc = virtio_add_queue(&r->v, RNG_QUEUE);
	if (rc) {
		rng_free(r);
		return err_msg(e, rc, "rng: %s", strerror(-rc));
	}
	*ret = r;
	return 0;
}

void rng_free(struct rng *r)
{
	if (!r)
		return;
	virtio_fini(&r->v);
	free(r);
}

struct virtio *rng_virtio(struct rng *r)
{
	return &r->v;
}
