/* SPDX-License-Identifier: Apache-2.0 */
/* A device of two queues that counts what it is told, for the tests of virtio.c. */
#ifndef TESTS_UNIT_VIRTIO_FIXTURE_H
#define TESTS_UNIT_VIRTIO_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/virtio.h"
#include "vmm/log.h"

#define OWN_BIT 5
#define RING_RESET (1ull << VIRTIO_F_RING_RESET)

struct fixture {
	struct virtio v;
	struct fake_ram m;
	struct fake_ring r[2];
	struct fake_bearer bearer;
	struct loop *loop;
	int start_result;
	unsigned starts, stops, queue_starts, queue_stops, kicks, writes;
	unsigned last_queue;
	bool live_at_stop;
};

static inline struct fixture *of(struct virtio *v)
{
	return (struct fixture *)((char *)v - offsetof(struct fixture, v));
}

static inline int dev_start(struct virtio *v)
{
	of(v)->starts++;
	return of(v)->start_result;
}

static inline void dev_stop(struct virtio *v)
{
	of(v)->stops++;
	of(v)->live_at_stop = vq_live(virtio_vq(v, 0));
}

static inline int dev_queue_start(struct virtio *v, unsigned q)
{
	of(v)->queue_starts++;
	of(v)->last_queue = q;
	return of(v)->start_result;
}

static inline void dev_queue_stop(struct virtio *v, unsigned q)
{
	of(v)->queue_stops++;
	of(v)->last_queue = q;
	of(v)->live_at_stop = vq_live(virtio_vq(v, q));
}

static inline void dev_kick(struct virtio *v, unsigned q)
{
	of(v)->kicks++;
	of(v)->last_queue = q;
}

static inline void dev_config_write(struct virtio *v, unsigned off, unsigned size, uint64_t val)
{
	assert_true(off + size <= v->config_len);
	of(v)->writes++;
	v->config[off] = (uint8_t)val;
}

static const struct virtio_ops ops = {
	.id = 4,
	.start = dev_start,
	.stop = dev_stop,
	.queue_start = dev_queue_start,
	.queue_stop = dev_queue_stop,
	.kick = dev_kick,
	.config_write = dev_config_write,
};

static const struct virtio_ops plain_ops = {
	.id = 4,
	.start = dev_start,
	.stop = dev_stop,
	.kick = dev_kick,
};

static inline void make(void **state, const struct virtio_ops *o)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_set_level(LOG_ERROR);
	fake_ram_init(&f->m, FAKE_RAM);
	fake_ring_init(&f->r[0], &f->m, 8);
	fake_ring_init(&f->r[1], &f->m, 16);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	f->v.offered = 1ull << OWN_BIT;
	f->v.config_len = 10;
	for (uint8_t i = 0; i < 10; i++)
		f->v.config[i] = 0x10 + i;
	assert_int_equal(virtio_init(&f->v, o, "test", f->m.gm, f->loop), 0);
	assert_int_equal(virtio_add_queue(&f->v, 8), 0);
	assert_int_equal(virtio_add_queue(&f->v, 64), 0);
	fake_bear(&f->v, &f->bearer);
	*state = f;
}

static inline int setup(void **state)
{
	make(state, &ops);
	return 0;
}

static inline int setup_plain(void **state)
{
	make(state, &plain_ops);
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_fini(&f->v);
	loop_free(f->loop);
	fake_ram_fini(&f->m);
	free(f);
	return 0;
}

static inline void run(struct fixture *f, uint64_t features)
{
	assert_true(fake_negotiate(&f->v, features));
	fake_enable(&f->v, 0, &f->r[0]);
	fake_enable(&f->v, 1, &f->r[1]);
	fake_driver_ok(&f->v);
}

static inline void ring_doorbell(struct fixture *f, unsigned q)
{
	assert_int_equal(eventfd_write(f->v.queue[q].kick_fd, 1), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
/* Without the queue operations. */
#define P(name) cmocka_unit_test_setup_teardown(name, setup_plain, teardown)

#endif
