/* SPDX-License-Identifier: Apache-2.0 */
/* One queue of eight over fake memory, for the tests of vq.c. */
#ifndef TESTS_UNIT_VQ_FIXTURE_H
#define TESTS_UNIT_VQ_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "virtio/vq.h"
#include "vmm/log.h"

#define SIZE 8

struct fixture {
	struct fake_ram m;
	struct fake_ring r;
	struct vq *q;
	unsigned interrupts, broken;
	uint64_t buf; /* 64 KiB */
};

static inline void on_interrupt(void *arg, unsigned index)
{
	assert_int_equal(index, 3);
	((struct fixture *)arg)->interrupts++;
}

static inline void on_broken(void *arg, unsigned index)
{
	assert_int_equal(index, 3);
	((struct fixture *)arg)->broken++;
}

static inline void start(struct fixture *f, bool event_idx, bool indirect)
{
	struct vq_setup s = fake_setup(&f->r, event_idx, indirect);

	assert_int_equal(vq_start(f->q, &s), 0);
}

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct vq_owner o = {on_interrupt, on_broken, f, "test"};

	log_set_level(LOG_ERROR);
	fake_ram_init(&f->m, FAKE_RAM);
	fake_ring_init(&f->r, &f->m, SIZE);
	f->buf = fake_alloc(&f->m, 65536, 4096);
	assert_int_equal(vq_new(&f->q, f->m.gm, 3, 1024, &o), 0);
	start(f, false, true);
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	vq_free(f->q);
	fake_ram_fini(&f->m);
	free(f);
	return 0;
}

static inline struct vq_chain *take(struct fixture *f)
{
	struct vq_chain *c = NULL;

	assert_int_equal(vq_next(f->q, &c), VQ_CHAIN);
	return c;
}

/* The queue is broken, stays so, said so once, and the used ring is untouched. */
static inline void assert_breaks(struct fixture *f)
{
	struct vq_chain *c = NULL;

	assert_int_equal(vq_next(f->q, &c), VQ_BROKEN);
	assert_int_equal(vq_next(f->q, &c), VQ_BROKEN);
	assert_null(c);
	assert_int_equal(f->broken, 1);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 0);
}

static inline void one(struct fixture *f, struct fake_buf b)
{
	fake_send(&f->r, &b, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
