/* SPDX-License-Identifier: Apache-2.0 */
/* The device without its transport: features, status, reset. */
#include "tests/unit/virtio_fixture.h"

/* ------------------------------------------------------------- set-up */

static void virtio_add_queue_refuses_bad_sizes_and_too_many(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(virtio_add_queue(&f->v, 3), -EINVAL);
	while (f->v.nqueues < VIRTIO_QUEUES_MAX)
		assert_int_equal(virtio_add_queue(&f->v, 2), 0);
	assert_int_equal(virtio_add_queue(&f->v, 2), -ENOSPC);
}

static void virtio_fini_stops_a_running_device(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	virtio_fini(&f->v);
	assert_int_equal(f->stops, 1);
	virtio_fini(&f->v);
	assert_int_equal(f->stops, 1);
}

/* ------------------------------------------------------------- features */

static void features_offered_are_the_devices_and_the_rings(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(virtio_get_features(&f->v, 0), 1u << OWN_BIT | 1u << 28 | 1u << 29);
	assert_int_equal(virtio_get_features(&f->v, 1), 1u << 0 | 1u << 8);
	assert_int_equal(virtio_get_features(&f->v, 2), 0);
	assert_int_equal(virtio_get_features(&f->v, UINT32_MAX), 0);
}

static void ring_reset_is_offered_only_by_devices_that_can(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(virtio_get_features(&f->v, 1), 1u << 0);
}

static void features_ok_is_refused_without_version_1(void **state)
{
	struct fixture *f = *state;

	virtio_set_status(&f->v, VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER);
	virtio_set_features(&f->v, 0, 1u << OWN_BIT);
	virtio_set_status(&f->v, 3 | VIRTIO_S_FEATURES_OK);
	assert_int_equal(f->v.status, 3);
}

static void features_ok_is_refused_with_a_bit_that_was_not_offered(void **state)
{
	struct fixture *f = *state;

	assert_false(fake_negotiate(&f->v, 1ull << 6));
	assert_false(fake_negotiate(&f->v, 1ull << 33)); /* ACCESS_PLATFORM */
	assert_false(fake_negotiate(&f->v, 1ull << 63));
	assert_true(fake_negotiate(&f->v, 1ull << OWN_BIT));
}

static void features_are_frozen_after_features_ok(void **state)
{
	struct fixture *f = *state;

	assert_true(fake_negotiate(&f->v, 1ull << OWN_BIT));
	virtio_set_features(&f->v, 0, 0);
	virtio_set_features(&f->v, 1, 0);
	virtio_set_features(&f->v, 7, 1);
	assert_true(virtio_has(&f->v, OWN_BIT));
	assert_true(virtio_has(&f->v, VIRTIO_F_VERSION_1));
}

static void features_can_be_written_again_after_a_refusal(void **state)
{
	struct fixture *f = *state;

	assert_false(fake_negotiate(&f->v, 1ull << 6));
	virtio_set_features(&f->v, 0, 1u << OWN_BIT);
	virtio_set_status(&f->v, f->v.status | VIRTIO_S_FEATURES_OK);
	assert_true(f->v.status & VIRTIO_S_FEATURES_OK);
}

/* ------------------------------------------------------------- status */

static void status_bits_are_only_ever_added(void **state)
{
	struct fixture *f = *state;

	virtio_set_status(&f->v, VIRTIO_S_ACKNOWLEDGE);
	virtio_set_status(&f->v, VIRTIO_S_DRIVER);
	assert_int_equal(f->v.status, 3);
	virtio_set_status(&f->v, VIRTIO_S_FAILED);
	assert_int_equal(f->v.status, 3 | VIRTIO_S_FAILED);
	virtio_set_status(&f->v, 0);
	assert_int_equal(f->v.status, 0);
}

static void needs_reset_is_not_the_drivers_to_write(void **state)
{
	struct fixture *f = *state;

	virtio_set_status(&f->v, 0xff);
	assert_false(f->v.status & VIRTIO_S_NEEDS_RESET);
	assert_false(f->v.status & 0x30);
	virtio_needs_reset(&f->v);
	virtio_set_status(&f->v, 1);
	assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
}

static void driver_ok_without_features_ok_does_not_start(void **state)
{
	struct fixture *f = *state;

	virtio_set_status(&f->v, 3);
	virtio_set_status(&f->v, 7);
	assert_int_equal(f->v.status, 3);
	assert_int_equal(f->starts, 0);
}

static void driven_outlives_a_reset(void **state)
{
	struct fixture *f = *state;

	virtio_set_status(&f->v, 7);
	assert_false(f->v.driven);
	run(f, 0);
	virtio_set_status(&f->v, 0);
	assert_true(f->v.driven);
}

static void driver_ok_starts_once(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	fake_driver_ok(&f->v);
	virtio_set_status(&f->v, 0xf);
	assert_int_equal(f->starts, 1);
	assert_true(vq_live(virtio_vq(&f->v, 0)));
	assert_true(vq_live(virtio_vq(&f->v, 1)));
}

static void queues_that_were_not_enabled_stay_dead(void **state)
{
	struct fixture *f = *state;

	assert_true(fake_negotiate(&f->v, 0));
	fake_enable(&f->v, 1, &f->r[1]);
	fake_driver_ok(&f->v);
	assert_int_equal(f->starts, 1);
	assert_false(vq_live(virtio_vq(&f->v, 0)));
	assert_true(vq_live(virtio_vq(&f->v, 1)));
}

static void a_start_that_fails_needs_reset(void **state)
{
	struct fixture *f = *state;

	f->start_result = -EIO;
	run(f, 0);
	assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
	assert_int_equal(f->bearer.config, 1);
	assert_false(vq_live(virtio_vq(&f->v, 0)));
	virtio_kick(&f->v, 0);
	assert_int_equal(f->kicks, 0);
	virtio_set_status(&f->v, 0);
	assert_int_equal(f->stops, 0);
	f->start_result = 0;
	run(f, 0);
	assert_int_equal(f->v.status, 15);
}

static void a_queue_with_bad_addresses_needs_reset_and_does_not_start(void **state)
{
	static const uint64_t bad[] = {0, 8, 1, 0xfffffffffffffff0ull, FAKE_BASE + FAKE_RAM - 16};
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3 * sizeof(bad) / sizeof(bad[0]); i++) {
		struct fake_ring r = f->r[1];
		uint64_t *part[] = {&r.desc, &r.avail, &r.used};

		*part[i % 3] = bad[i / 3];
		assert_true(fake_negotiate(&f->v, 0));
		fake_enable(&f->v, 0, &f->r[0]);
		fake_enable(&f->v, 1, &r);
		fake_driver_ok(&f->v);
		assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
		assert_int_equal(f->bearer.config, i + 1);
		assert_false(vq_live(virtio_vq(&f->v, 0)));
	}
	assert_int_equal(f->starts, 0);
}

static void a_broken_ring_latches_needs_reset_and_tells_once(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c;

	run(f, 0);
	fake_avail(&f->r[0], 99);
	fake_avail(&f->r[1], 99);
	assert_int_equal(vq_next(virtio_vq(&f->v, 0), &c), VQ_BROKEN);
	assert_int_equal(vq_next(virtio_vq(&f->v, 1), &c), VQ_BROKEN);
	assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
	assert_int_equal(f->bearer.config, 1);
	fake_ring_zero(&f->r[0]);
	fake_ring_zero(&f->r[1]);
	run(f, 0);
	assert_int_equal(f->v.status, 15);
	assert_int_equal(vq_next(virtio_vq(&f->v, 0), &c), VQ_EMPTY);
}

static void needs_reset_before_driver_ok_is_told_at_driver_ok(void **state)
{
	struct fixture *f = *state;

	assert_true(fake_negotiate(&f->v, 0));
	virtio_needs_reset(&f->v);
	assert_int_equal(f->bearer.config, 0);
	fake_driver_ok(&f->v);
	assert_int_equal(f->bearer.config, 1);
	assert_int_equal(f->starts, 0);
}

/* ------------------------------------------------------------- reset */

static void reset_at_every_step_leaves_a_fresh_device(void **state)
{
	struct fixture *f = *state;

	for (unsigned step = 0; step < 5; step++) {
		if (step > 0)
			virtio_set_status(&f->v, 3);
		if (step > 1)
			assert_true(fake_negotiate(&f->v, 1ull << OWN_BIT));
		if (step > 2)
			fake_enable(&f->v, 0, &f->r[0]);
		if (step > 3)
			fake_driver_ok(&f->v);
		virtio_set_status(&f->v, 0);
		assert_int_equal(f->v.status, 0);
		assert_int_equal(f->v.acked, 0);
		assert_false(f->v.running);
		assert_false(vq_live(virtio_vq(&f->v, 0)));
		assert_false(f->v.queue[0].enabled);
		assert_int_equal(f->v.queue[0].size, 8);
		assert_int_equal(f->v.queue[0].desc | f->v.queue[0].avail | f->v.queue[0].used, 0);
	}
	assert_int_equal(f->stops, 1);
	assert_true(f->live_at_stop);
}

static void reset_with_a_chain_out_makes_it_an_orphan(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c;
	uint64_t buf = fake_alloc(&f->m, 64, 64);

	run(f, 0);
	fake_send(&f->r[0], &(struct fake_buf){buf, 64, FAKE_W}, 1);
	assert_int_equal(vq_next(virtio_vq(&f->v, 0), &c), VQ_CHAIN);
	virtio_set_status(&f->v, 0);
	fake_ring_zero(&f->r[0]);
	run(f, 0);
	vq_return(c);
	assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), 0);
}

static void reset_forgets_kicks_that_wait(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	ring_doorbell(f, 0);
	virtio_set_status(&f->v, 0);
	run(f, 0);
	turn(f->loop);
	assert_int_equal(f->kicks, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(virtio_add_queue_refuses_bad_sizes_and_too_many),
		T(virtio_fini_stops_a_running_device),
		T(features_offered_are_the_devices_and_the_rings),
		P(ring_reset_is_offered_only_by_devices_that_can),
		T(features_ok_is_refused_without_version_1),
		T(features_ok_is_refused_with_a_bit_that_was_not_offered),
		T(features_are_frozen_after_features_ok),
		T(features_can_be_written_again_after_a_refusal),
		T(status_bits_are_only_ever_added),
		T(needs_reset_is_not_the_drivers_to_write),
		T(driver_ok_without_features_ok_does_not_start),
		T(driven_outlives_a_reset),
		T(driver_ok_starts_once),
		T(queues_that_were_not_enabled_stay_dead),
		T(a_start_that_fails_needs_reset),
		T(a_queue_with_bad_addresses_needs_reset_and_does_not_start),
		T(a_broken_ring_latches_needs_reset_and_tells_once),
		T(needs_reset_before_driver_ok_is_told_at_driver_ok),
		T(reset_at_every_step_leaves_a_fresh_device),
		T(reset_with_a_chain_out_makes_it_an_orphan),
		T(reset_forgets_kicks_that_wait),
	};

	return cmocka_run_group_tests_name("virtio", tests, NULL, NULL);
}
