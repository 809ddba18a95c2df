/* SPDX-License-Identifier: Apache-2.0 */
/* The entropy device: what it fills, what it leaves, and how much it does at once. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/devices.h"
#include "vmm/log.h"

#define QUEUE 64

struct fixture {
	struct fake_ram m;
	struct fake_ring r;
	struct fake_bearer bearer;
	struct loop *loop;
	struct rng *rng;
	struct virtio *v;
	uint64_t buf; /* 16 KiB of 0xee */
	bool enough;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_set_level(LOG_ERROR);
	fake_ram_init(&f->m, FAKE_RAM);
	fake_ring_init(&f->r, &f->m, QUEUE);
	f->buf = fake_alloc(&f->m, 16384, 4096);
	memset(fake_at(&f->m, f->buf), 0xee, 16384);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	assert_int_equal(rng_new(&f->rng, f->m.gm, f->loop, NULL), 0);
	f->v = rng_virtio(f->rng);
	fake_bear(f->v, &f->bearer);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rng_free(f->rng);
	loop_free(f->loop);
	fake_ram_fini(&f->m);
	free(f);
	return 0;
}

static void run(struct fixture *f, uint64_t features)
{
	assert_true(fake_negotiate(f->v, features));
	fake_enable(f->v, 0, &f->r);
	fake_driver_ok(f->v);
	assert_int_equal(f->v->status, 15);
}

/* How many of the @n bytes at @at are not as setup left them. */
static unsigned changed(struct fixture *f, uint64_t at, unsigned n)
{
	const uint8_t *p = fake_at(&f->m, at);
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++)
		k += p[i] != 0xee;
	return k;
}

static void it_is_an_entropy_device_without_configuration(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->v->ops->id, VIRTIO_ID_RNG);
	assert_int_equal(f->v->nqueues, 1);
	assert_int_equal(f->v->config_len, 0);
	assert_int_equal(virtio_get_features(f->v, 0) & 0xffffff, 0);
}

static void a_request_is_filled(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	run(f, 0);
	fake_send(&f->r, (struct fake_buf[]){{f->buf, 64, FAKE_W}, {f->buf + 1024, 64, FAKE_W}}, 2);
	virtio_kick(f->v, 0);
	assert_true(fake_used(&f->r, &id, &len));
	assert_int_equal(len, 128);
	assert_true(changed(f, f->buf, 64) > 32);
	assert_true(changed(f, f->buf + 1024, 64) > 32);
	assert_int_equal(changed(f, f->buf + 64, 960), 0);
	assert_int_equal(f->bearer.queue[0], 1);
}

static void two_requests_get_different_bytes(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	fake_send(&f->r, &(struct fake_buf){f->buf, 64, FAKE_W}, 1);
	fake_send(&f->r, &(struct fake_buf){f->buf + 64, 64, FAKE_W}, 1);
	virtio_kick(f->v, 0);
	assert_memory_not_equal(fake_at(&f->m, f->buf), fake_at(&f->m, f->buf + 64), 64);
}

static void a_long_request_is_cut_at_the_limit(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	run(f, 0);
	fake_send(&f->r, &(struct fake_buf){f->buf, 16384, FAKE_W}, 1);
	virtio_kick(f->v, 0);
	assert_true(fake_used(&f->r, &id, &len));
	assert_int_equal(len, RNG_MAX);
	assert_int_equal(changed(f, f->buf + RNG_MAX, 16384 - RNG_MAX), 0);
}

static void a_request_without_room_comes_back_empty(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	run(f, 0);
	fake_send(&f->r, &(struct fake_buf){f->buf, 64, 0}, 1);
	virtio_kick(f->v, 0);
	assert_true(fake_used(&f->r, &id, &len));
	assert_int_equal(len, 0);
	assert_int_equal(changed(f, f->buf, 64), 0);
	assert_int_equal(f->v->status, 15);
}

static void a_readable_part_is_left_alone(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	run(f, 0);
	fake_send(&f->r, (struct fake_buf[]){{f->buf, 64, 0}, {f->buf + 64, 8, FAKE_W}}, 2);
	virtio_kick(f->v, 0);
	assert_true(fake_used(&f->r, &id, &len));
	assert_int_equal(len, 8);
	assert_int_equal(changed(f, f->buf, 64), 0);
}

static void a_batch_makes_one_interrupt(void **state)
{
	struct fixture *f = *state;

	run(f, 1ull << VIRTIO_F_EVENT_IDX);
	for (unsigned i = 0; i < 10; i++)
		fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);
	virtio_kick(f->v, 0);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 10);
	assert_int_equal(f->bearer.queue[0], 1);
	assert_int_equal(fake_avail_event(&f->r), 10);
}

/* A driver that refills as fast as it is served: more requests than one call may take. */
static void a_flood_is_served_in_turns(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	for (unsigned i = 0; i < QUEUE; i++)
		fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);
	virtio_kick(f->v, 0);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), QUEUE);
	/* The call used up its share, so it comes back by itself, without a kick of the driver's.
	 */
	fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);
	turn(f->loop);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), QUEUE + 1);
	assert_int_equal(fake_used_flags(&f->r), 0);
	fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);
	turn(f->loop);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), QUEUE + 1);
}

/* Another processor of the guest: makes each request available again as soon as it was served. */
static void *refill(void *arg)
{
	struct fixture *f = arg;
	uint16_t *used = fake_at(&f->m, f->r.used + 2), *avail = fake_at(&f->m, f->r.avail + 2);
	uint16_t seen = 0;

	while (!__atomic_load_n(&f->enough, __ATOMIC_RELAXED)) {
		uint16_t now = le16toh(__atomic_load_n(used, __ATOMIC_ACQUIRE));

		for (; seen != now; seen++)
			fake_put16(&f->m, f->r.avail + 4 + 2ull * (f->r.avail_idx++ % QUEUE),
				   seen % QUEUE);
		__atomic_store_n(avail, htole16(f->r.avail_idx), __ATOMIC_RELEASE);
	}
	return NULL;
}

static void a_driver_that_never_stops_cannot_hold_the_loop(void **state)
{
	struct fixture *f = *state;
	pthread_t guest;
	uint16_t before = 0;

	run(f, 0);
	for (unsigned i = 0; i < QUEUE; i++)
		fake_send(&f->r, &(struct fake_buf){f->buf, RNG_MAX, FAKE_W}, 1);
	assert_int_equal(pthread_create(&guest, NULL, refill, f), 0);
	for (unsigned turns = 0; turns < 200;) {
		uint16_t now;

		virtio_kick(f->v, 0);
		now = fake_get16(&f->m, f->r.used + 2);
		assert_true((uint16_t)(now - before) <= QUEUE);
		if (now == before)
			sched_yield();
		else
			turns++;
		before = now;
	}
	__atomic_store_n(&f->enough, true, __ATOMIC_RELAXED);
	pthread_join(guest, NULL);
	assert_int_equal(f->v->status, 15);
}

static void reset_forgets_the_turn_that_was_due(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	for (unsigned i = 0; i < QUEUE; i++)
		fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);
	virtio_kick(f->v, 0);
	fake_ring_zero(&f->r);
	run(f, 0);
	fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);
	turn(f->loop);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 0);
}

static void a_bad_chain_needs_reset_and_reset_mends(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	run(f, 0);
	fake_send(&f->r, &(struct fake_buf){0, 8, FAKE_W}, 1);
	virtio_kick(f->v, 0);
	assert_true(f->v->status & VIRTIO_S_NEEDS_RESET);
	assert_int_equal(f->bearer.config, 1);
	virtio_kick(f->v, 0);
	assert_int_equal(f->bearer.config, 1);
	fake_ring_zero(&f->r);
	run(f, 0);
	fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);
	virtio_kick(f->v, 0);
	assert_true(fake_used(&f->r, &id, &len));
	assert_int_equal(len, 8);
}

static void the_queue_can_be_reset_alone(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	run(f, 1ull << VIRTIO_F_RING_RESET);
	virtio_queue_reset(f->v, 0);
	virtio_kick(f->v, 0);
	fake_ring_zero(&f->r);
	fake_enable(f->v, 0, &f->r);
	fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);
	assert_int_equal(eventfd_write(f->v->queue[0].kick_fd, 1), 0);
	turn(f->loop);
	assert_true(fake_used(&f->r, &id, &len));
	assert_int_equal(len, 8);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(it_is_an_entropy_device_without_configuration),
		T(a_request_is_filled),
		T(two_requests_get_different_bytes),
		T(a_long_request_is_cut_at_the_limit),
		T(a_request_without_room_comes_back_empty),
		T(a_readable_part_is_left_alone),
		T(a_batch_makes_one_interrupt),
		T(a_flood_is_served_in_turns),
		T(a_driver_that_never_stops_cannot_hold_the_loop),
		T(reset_forgets_the_turn_that_was_due),
		T(a_bad_chain_needs_reset_and_reset_mends),
		T(the_queue_can_be_reset_alone),
	};

	return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
