/* SPDX-License-Identifier: Apache-2.0 */
/* The device without its transport: queues, kicks, configuration space. */
#include "tests/unit/virtio_fixture.h"

/* ------------------------------------------------------------- queues */

static void registers_changed_after_the_start_change_nothing(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c;
	uint64_t buf = fake_alloc(&f->m, 64, 64);

	run(f, 0);
	/* A transport that forgot to freeze them: the ring module has its own copy. */
	f->v.queue[0].size = 1024;
	f->v.queue[0].desc = f->v.queue[0].used = ~0ull;
	fake_send(&f->r[0], &(struct fake_buf){buf, 64, FAKE_W}, 1);
	assert_int_equal(vq_next(virtio_vq(&f->v, 0), &c), VQ_CHAIN);
	vq_return(c);
	assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), 1);
}

static void virtio_q_out_of_range_is_null(void **state)
{
	struct fixture *f = *state;

	assert_non_null(virtio_q(&f->v, 1));
	assert_null(virtio_q(&f->v, 2));
	assert_null(virtio_q(&f->v, UINT32_MAX));
	virtio_queue_enable(&f->v, 2);
	virtio_queue_reset(&f->v, 65535);
	virtio_queue_disable(&f->v, UINT32_MAX);
}

static void queue_reset_stops_that_queue_alone(void **state)
{
	struct fixture *f = *state;

	run(f, RING_RESET);
	virtio_queue_reset(&f->v, 1);
	assert_int_equal(f->queue_stops, 1);
	assert_int_equal(f->last_queue, 1);
	assert_true(f->live_at_stop);
	assert_false(vq_live(virtio_vq(&f->v, 1)));
	assert_false(f->v.queue[1].enabled);
	assert_int_equal(f->v.queue[1].size, 64);
	assert_true(vq_live(virtio_vq(&f->v, 0)));
	virtio_queue_reset(&f->v, 1);
	assert_int_equal(f->queue_stops, 1);
	virtio_kick(&f->v, 1);
	assert_int_equal(f->kicks, 0);

	fake_ring_zero(&f->r[1]);
	fake_enable(&f->v, 1, &f->r[1]);
	assert_int_equal(f->queue_starts, 1);
	assert_true(vq_live(virtio_vq(&f->v, 1)));
	virtio_kick(&f->v, 1);
	assert_int_equal(f->kicks, 1);
}

static void queue_reset_needs_the_feature(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	virtio_queue_reset(&f->v, 1);
	assert_int_equal(f->queue_stops, 0);
	assert_true(vq_live(virtio_vq(&f->v, 1)));
}

static void queue_enable_of_a_live_queue_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c;
	uint64_t buf = fake_alloc(&f->m, 64, 64);

	run(f, RING_RESET);
	fake_send(&f->r[0], &(struct fake_buf){buf, 64, FAKE_W}, 1);
	assert_int_equal(vq_next(virtio_vq(&f->v, 0), &c), VQ_CHAIN);
	virtio_queue_enable(&f->v, 0);
	assert_int_equal(f->queue_starts, 0);
	vq_return(c);
	assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), 1);
}

static void queue_enable_with_bad_addresses_on_a_running_device_needs_reset(void **state)
{
	struct fixture *f = *state;
	struct fake_ring r = f->r[1];

	run(f, RING_RESET);
	virtio_queue_reset(&f->v, 1);
	r.used = 2;
	fake_enable(&f->v, 1, &r);
	assert_int_equal(f->queue_starts, 0);
	assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
	/* It never came live: the device is not asked to stop it. */
	virtio_queue_reset(&f->v, 1);
	assert_int_equal(f->queue_stops, 1);
}

static void queue_start_that_fails_needs_reset(void **state)
{
	struct fixture *f = *state;

	run(f, RING_RESET);
	virtio_queue_reset(&f->v, 1);
	f->start_result = -ENOMEM;
	fake_enable(&f->v, 1, &f->r[1]);
	assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
	assert_false(vq_live(virtio_vq(&f->v, 1)));
}

static void a_device_without_queue_operations_keeps_its_queues(void **state)
{
	struct fixture *f = *state;

	assert_true(fake_negotiate(&f->v, 0));
	fake_enable(&f->v, 0, &f->r[0]);
	fake_driver_ok(&f->v);
	virtio_queue_disable(&f->v, 0);
	assert_true(vq_live(virtio_vq(&f->v, 0)));
	fake_enable(&f->v, 1, &f->r[1]);
	assert_false(f->v.queue[1].enabled);
	assert_false(vq_live(virtio_vq(&f->v, 1)));
}

/* ------------------------------------------------------------- kicks */

static void kicks_reach_only_live_queues_of_a_running_device(void **state)
{
	struct fixture *f = *state;

	virtio_kick(&f->v, 0);
	assert_true(fake_negotiate(&f->v, 0));
	fake_enable(&f->v, 0, &f->r[0]);
	virtio_kick(&f->v, 0);
	ring_doorbell(f, 0);
	turn(f->loop);
	assert_int_equal(f->kicks, 0);
	fake_driver_ok(&f->v);
	virtio_kick(&f->v, 1);
	virtio_kick(&f->v, 2);
	virtio_kick(&f->v, UINT32_MAX);
	assert_int_equal(f->kicks, 0);
	virtio_kick(&f->v, 0);
	assert_int_equal(f->kicks, 1);
}

static void a_doorbell_kicks_once_through_the_loop(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	ring_doorbell(f, 1);
	ring_doorbell(f, 1);
	turn(f->loop);
	turn(f->loop);
	assert_int_equal(f->kicks, 1);
	assert_int_equal(f->last_queue, 1);
}

static void virtio_rekick_kicks_in_a_later_turn(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	virtio_rekick(&f->v, 1);
	assert_int_equal(f->kicks, 0);
	turn(f->loop);
	assert_int_equal(f->kicks, 1);
}

/* ------------------------------------------------------------- queues served elsewhere */

static void lent_kicks_are_not_heard_until_they_are_back(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	assert_int_equal(virtio_lend_kicks(&f->v, 1), f->v.queue[1].kick_fd);
	ring_doorbell(f, 0);
	ring_doorbell(f, 1);
	turn(f->loop);
	assert_int_equal(f->kicks, 1);
	assert_int_equal(f->last_queue, 0);
	/* What the borrower did not take is still there. */
	virtio_return_kicks(&f->v, 1);
	turn(f->loop);
	assert_int_equal(f->kicks, 2);
	assert_int_equal(f->last_queue, 1);
}

static void kicks_can_be_lent_and_returned_twice(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	virtio_return_kicks(&f->v, 1);
	virtio_lend_kicks(&f->v, 1);
	virtio_lend_kicks(&f->v, 1);
	virtio_return_kicks(&f->v, 1);
	virtio_return_kicks(&f->v, 1);
	ring_doorbell(f, 1);
	turn(f->loop);
	assert_int_equal(f->kicks, 1);
	/* And a device may go while they are out. */
	virtio_lend_kicks(&f->v, 0);
}

static void a_transport_without_eventfds_has_none_for_a_queue(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(virtio_queue_fd(&f->v, 0), -1);
	f->v.bearer = (struct virtio_bearer){0};
	assert_int_equal(virtio_queue_fd(&f->v, 0), -1);
	virtio_interrupt(&f->v, 0);
}

static void a_device_may_pass_an_interrupt_on(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	virtio_interrupt(&f->v, 1);
	assert_int_equal(f->bearer.queue[1], 1);
	assert_int_equal(f->bearer.queue[0], 0);
}

static void rewiring_of_any_queue_of_a_device_that_does_not_care_is_nothing(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	virtio_rewired(&f->v, 0);
	virtio_rewired(&f->v, 2);
	virtio_rewired(&f->v, UINT32_MAX);
}

/* ------------------------------------------------------------- configuration space */

static void config_read_takes_any_offset_and_size(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(virtio_config_read(&f->v, 0, 1), 0x10);
	assert_int_equal(virtio_config_read(&f->v, 1, 2), 0x1211);
	assert_int_equal(virtio_config_read(&f->v, 2, 8), 0x1918171615141312ull);
	assert_int_equal(virtio_config_read(&f->v, 8, 4), 0x1918);
	assert_int_equal(virtio_config_read(&f->v, 10, 8), 0);
	assert_int_equal(virtio_config_read(&f->v, UINT32_MAX, 8), 0);
	assert_int_equal(virtio_config_read(&f->v, UINT32_MAX - 3, 8), 0);
	assert_int_equal(virtio_config_read(&f->v, 0, UINT32_MAX), 0x1716151413121110ull);
}

static void config_write_reaches_the_device_only_inside_the_space(void **state)
{
	struct fixture *f = *state;

	virtio_config_write(&f->v, 10, 1, 1);
	virtio_config_write(&f->v, 9, 2, 1);
	virtio_config_write(&f->v, UINT32_MAX, 1, 1);
	virtio_config_write(&f->v, 0, UINT32_MAX, 1);
	assert_int_equal(f->writes, 0);
	virtio_config_write(&f->v, 9, 1, 0xab);
	assert_int_equal(f->writes, 1);
	assert_int_equal(virtio_config_read(&f->v, 9, 1), 0xab);
}

static void config_write_to_a_read_only_space_is_dropped(void **state)
{
	struct fixture *f = *state;

	virtio_config_write(&f->v, 0, 1, 0xab);
	assert_int_equal(virtio_config_read(&f->v, 0, 1), 0x10);
}

static void config_change_counts_and_tells_a_running_driver(void **state)
{
	struct fixture *f = *state;
	uint8_t before = f->v.generation;

	virtio_config_changed(&f->v);
	assert_int_not_equal(f->v.generation, before);
	assert_int_equal(f->bearer.config, 0);
	run(f, 0);
	virtio_config_changed(&f->v);
	assert_int_equal(f->bearer.config, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(registers_changed_after_the_start_change_nothing),
		T(virtio_q_out_of_range_is_null),
		T(queue_reset_stops_that_queue_alone),
		T(queue_reset_needs_the_feature),
		T(queue_enable_of_a_live_queue_changes_nothing),
		T(queue_enable_with_bad_addresses_on_a_running_device_needs_reset),
		T(queue_start_that_fails_needs_reset),
		P(a_device_without_queue_operations_keeps_its_queues),
		T(kicks_reach_only_live_queues_of_a_running_device),
		T(a_doorbell_kicks_once_through_the_loop),
		T(virtio_rekick_kicks_in_a_later_turn),
		T(lent_kicks_are_not_heard_until_they_are_back),
		T(kicks_can_be_lent_and_returned_twice),
		T(a_transport_without_eventfds_has_none_for_a_queue),
		T(a_device_may_pass_an_interrupt_on),
		T(rewiring_of_any_queue_of_a_device_that_does_not_care_is_nothing),
		T(config_read_takes_any_offset_and_size),
		T(config_write_reaches_the_device_only_inside_the_space),
		P(config_write_to_a_read_only_space_is_dropped),
		T(config_change_counts_and_tells_a_running_driver),
	};

	return cmocka_run_group_tests_name("virtio_queue", tests, NULL, NULL);
}
