/* SPDX-License-Identifier: Apache-2.0 */
/* The device without its transport: features, status, queues, resets, configuration space. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
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
	struct loop_task stop;
	int start_result;
	unsigned starts, stops, queue_starts, queue_stops, kicks, writes;
	unsigned last_queue;
	bool live_at_stop;
};

static struct fixture *of(struct virtio *v)
{
	return (struct fixture *)((char *)v - offsetof(struct fixture, v));
}

static int dev_start(struct virtio *v)
{
	of(v)->starts++;
	return of(v)->start_result;
}

static void dev_stop(struct virtio *v)
{
	of(v)->stops++;
	of(v)->live_at_stop = vq_live(virtio_vq(v, 0));
}

static int dev_queue_start(struct virtio *v, unsigned q)
{
	of(v)->queue_starts++;
	of(v)->last_queue = q;
	return of(v)->start_result;
}

static void dev_queue_stop(struct virtio *v, unsigned q)
{
	of(v)->queue_stops++;
	of(v)->last_queue = q;
	of(v)->live_at_stop = vq_live(virtio_vq(v, q));
}

static void dev_kick(struct virtio *v, unsigned q)
{
	of(v)->kicks++;
	of(v)->last_queue = q;
}

static void dev_config_write(struct virtio *v, unsigned off, unsigned size, uint64_t val)
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

static void make(void **state, const struct virtio_ops *o)
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

static int setup(void **state)
{
	make(state, &ops);
	return 0;
}

static int setup_plain(void **state)
{
	make(state, &plain_ops);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_fini(&f->v);
	loop_free(f->loop);
	fake_ram_fini(&f->m);
	free(f);
	return 0;
}

static void run(struct fixture *f, uint64_t features)
{
	assert_true(fake_negotiate(&f->v, features));
	fake_enable(&f->v, 0, &f->r[0]);
	fake_enable(&f->v, 1, &f->r[1]);
	fake_driver_ok(&f->v);
}

static void loop_end(void *arg)
{
	loop_stop(((struct fixture *)arg)->loop);
}

/* One round of the loop: what is ready is served before the posted end. */
static void turn(struct fixture *f)
{
	f->stop = (struct loop_task){.fn = loop_end, .arg = f};
	loop_post(f->loop, &f->stop);
	loop_run(f->loop);
}

static void ring_doorbell(struct fixture *f, unsigned q)
{
	assert_int_equal(eventfd_write(f->v.queue[q].kick_fd, 1), 0);
}

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
	assert_false(fake_negotiate(&f->v, 1ull << VIRTIO_F_ACCESS_PLATFORM));
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
	turn(f);
	assert_int_equal(f->kicks, 0);
}

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
	turn(f);
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
	turn(f);
	turn(f);
	assert_int_equal(f->kicks, 1);
	assert_int_equal(f->last_queue, 1);
}

static void virtio_rekick_kicks_in_a_later_turn(void **state)
{
	struct fixture *f = *state;

	run(f, 0);
	virtio_rekick(&f->v, 1);
	assert_int_equal(f->kicks, 0);
	turn(f);
	assert_int_equal(f->kicks, 1);
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

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define P(name) cmocka_unit_test_setup_teardown(name, setup_plain, teardown)

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
		T(driver_ok_starts_once),
		T(queues_that_were_not_enabled_stay_dead),
		T(a_start_that_fails_needs_reset),
		T(a_queue_with_bad_addresses_needs_reset_and_does_not_start),
		T(a_broken_ring_latches_needs_reset_and_tells_once),
		T(needs_reset_before_driver_ok_is_told_at_driver_ok),
		T(reset_at_every_step_leaves_a_fresh_device),
		T(reset_with_a_chain_out_makes_it_an_orphan),
		T(reset_forgets_kicks_that_wait),
		T(registers_changed_after_the_start_change_nothing),
		T(virtio_q_out_of_range_is_null),
		T(queue_reset_stops_that_queue_alone),
		T(queue_reset_needs_the_feature),
		T(queue_enable_with_bad_addresses_on_a_running_device_needs_reset),
		T(queue_start_that_fails_needs_reset),
		P(a_device_without_queue_operations_keeps_its_queues),
		T(kicks_reach_only_live_queues_of_a_running_device),
		T(a_doorbell_kicks_once_through_the_loop),
		T(virtio_rekick_kicks_in_a_later_turn),
		T(config_read_takes_any_offset_and_size),
		T(config_write_reaches_the_device_only_inside_the_space),
		P(config_write_to_a_read_only_space_is_dropped),
		T(config_change_counts_and_tells_a_running_driver),
	};

	return cmocka_run_group_tests_name("virtio", tests, NULL, NULL);
}
