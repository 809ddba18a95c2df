/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device whose middle queues are linked to a back end that keeps a diary of what it is told:
 * what the tests of vhost.c share.
 */
#ifndef TESTS_UNIT_VHOST_RIG_H
#define TESTS_UNIT_VHOST_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/vhost.h"
#include "vmm/log.h"

#define QUEUES 4
#define FIRST 1 /* queue 0 and the last are the device's own */
#define RINGS 2
#define OWN_BIT 5

struct back {
	struct vhost h;
	char diary[512];
	const char *fails; /* the entry that fails */
	uint64_t features;
	const struct gmem *gm;
	bool started[RINGS], runs;
	struct vhost_ring ring[RINGS];
};

struct fixture {
	struct virtio v;
	struct fake_ram m;
	struct fake_ring r[QUEUES];
	struct fake_bearer bearer;
	int fd[QUEUES]; /* what the transport has: -1 or eventfds */
	int other;      /* one more */
	struct loop *loop;
	struct back b;
	struct vhost_link link;
	unsigned kicks;
};

static inline struct fixture *of(struct virtio *v)
{
	return (struct fixture *)((char *)v - offsetof(struct fixture, v));
}

/* ------------------------------------------------------------- the back end */

static inline int note(struct vhost *h, const char *what, int ring)
{
	struct back *b = (struct back *)h;
	char text[32];
	size_t len = strlen(b->diary);

	snprintf(text, sizeof(text), ring < 0 ? "%s" : "%s%d", what, ring);
	snprintf(b->diary + len, sizeof(b->diary) - len, "%s ", text);
	return b->fails && !strcmp(b->fails, text) ? -EIO : 0;
}

static inline int b_features(struct vhost *h, uint64_t features)
{
	((struct back *)h)->features = features;
	return note(h, "features", -1);
}

static inline int b_memory(struct vhost *h, const struct gmem *gm)
{
	((struct back *)h)->gm = gm;
	return note(h, "memory", -1);
}

static inline int b_start(struct vhost *h, unsigned ring, const struct vhost_ring *r)
{
	struct back *b = (struct back *)h;
	int ret = note(h, "start", (int)ring);

	assert_true(ring < RINGS);
	assert_false(b->started[ring]);
	b->started[ring] = ret == 0;
	b->ring[ring] = *r;
	return ret;
}

static inline int b_call(struct vhost *h, unsigned ring, int fd)
{
	struct back *b = (struct back *)h;
	int ret = note(h, "call", (int)ring);

	assert_true(ring < RINGS && b->started[ring]);
	if (ret == 0)
		b->ring[ring].call = fd;
	return ret;
}

static inline int b_stop(struct vhost *h, unsigned ring, uint16_t *ret_base)
{
	struct back *b = (struct back *)h;

	assert_true(ring < RINGS && b->started[ring]);
	b->started[ring] = false;
	*ret_base = 7;
	return note(h, "stop", (int)ring);
}

static inline int b_run(struct vhost *h, bool on)
{
	struct back *b = (struct back *)h;
	int ret = note(h, on ? "run" : "halt", -1);

	assert_true(b->runs != on);
	b->runs = on && ret == 0;
	return ret;
}

static const struct vhost_ops back_ops = {
	.set_features = b_features,
	.set_memory = b_memory,
	.ring_start = b_start,
	.ring_call = b_call,
	.ring_stop = b_stop,
	.run = b_run,
};

/* ------------------------------------------------------------- the device */

static inline int d_start(struct virtio *v)
{
	return vhost_link_start(&of(v)->link, v->acked);
}

static inline void d_stop(struct virtio *v)
{
	vhost_link_stop(&of(v)->link);
}

static inline int d_queue_start(struct virtio *v, unsigned q)
{
	return vhost_link_queue_start(&of(v)->link, q);
}

static inline void d_queue_stop(struct virtio *v, unsigned q)
{
	vhost_link_queue_stop(&of(v)->link, q);
}

static inline void d_kick(struct virtio *v, unsigned q)
{
	of(v)->kicks++;
	vhost_link_kick(&of(v)->link, q);
}

static inline void d_rewired(struct virtio *v, unsigned q)
{
	vhost_link_rewired(&of(v)->link, q);
}

static const struct virtio_ops dev_ops = {
	.id = 4,
	.start = d_start,
	.stop = d_stop,
	.queue_start = d_queue_start,
	.queue_stop = d_queue_stop,
	.kick = d_kick,
	.rewired = d_rewired,
};

static inline int d_queue_fd(void *t, unsigned q)
{
	struct fixture *f = (struct fixture *)((char *)t - offsetof(struct fixture, bearer));

	return f->fd[q];
}

static inline int event(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_set_level(LOG_ERROR);
	fake_ram_init(&f->m, FAKE_RAM);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	f->v.offered = 1ull << OWN_BIT;
	assert_int_equal(virtio_init(&f->v, &dev_ops, "test", f->m.gm, f->loop), 0);
	for (unsigned i = 0; i < QUEUES; i++) {
		fake_ring_init(&f->r[i], &f->m, (uint16_t)(8 << i));
		assert_int_equal(virtio_add_queue(&f->v, 64), 0);
		f->fd[i] = event();
	}
	f->other = event();
	fake_bear(&f->v, &f->bearer);
	f->v.bearer.queue_fd = d_queue_fd;
	f->b.h = (struct vhost){&back_ops, VHOST_RING_FEATURES, RINGS, "test: back end"};
	assert_int_equal(vhost_link_init(&f->link, &f->v, &f->b.h, FIRST), 0);
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_fini(&f->v);
	vhost_link_fini(&f->link);
	for (unsigned i = 0; i < QUEUES; i++)
		if (f->fd[i] >= 0)
			close(f->fd[i]);
	close(f->other);
	loop_free(f->loop);
	fake_ram_fini(&f->m);
	free(f);
	return 0;
}

static inline void negotiate(struct fixture *f)
{
	assert_true(fake_negotiate(&f->v, 1ull << OWN_BIT | 1ull << VIRTIO_F_RING_RESET));
	for (unsigned i = 0; i < QUEUES; i++)
		fake_enable(&f->v, i, &f->r[i]);
}

static inline void run(struct fixture *f)
{
	negotiate(f);
	fake_driver_ok(&f->v);
	assert_int_equal(f->v.status, 15);
}

/* What was done since it was asked last. */
static const char *diary(struct fixture *f)
{
	static char text[sizeof(f->b.diary)];

	strcpy(text, f->b.diary);
	f->b.diary[0] = '\0';
	return text;
}

static inline bool lent(struct fixture *f, unsigned q)
{
	return !f->v.queue[q].kick_src.loop;
}

static inline uint64_t count(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static inline void no_fd(struct fixture *f, unsigned q)
{
	close(f->fd[q]);
	f->fd[q] = -1;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
