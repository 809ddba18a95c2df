/* SPDX-License-Identifier: Apache-2.0 */
/* A disk whose loop looks at rings and completions by itself. No turn of the loop is taken here
 * unless the test says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/blk_rig.h"

static struct blk_rig *begin_with(bool event_idx)
{
	struct blk_rig *f = begin();
	uint64_t bit = BITF(VIRTIO_F_EVENT_IDX);

	f->c.direct = true;
	plug(f);
	loop_poll_most(f->loop, 0); /* this test looks, the loop does not */
	drive(f, event_idx ? f->v->offered : f->v->offered & ~bit);
	return f;
}

static bool looks(const struct blk_rig *f)
{
	return f->b->poll.ops->ready(f->b);
}

static void look(struct blk_rig *f)
{
	while (!looks(f))
		usleep(100);
	f->b->poll.ops->run(f->b);
}

static void send_read(struct blk_rig *f, unsigned i)
{
	send_on(f, 0, i, (struct question){VIRTIO_BLK_T_IN, i * 8, i * 4096, 4096});
}

/* Whether a driver with EVENT_IDX kicks after its next chain. */
static bool driver_would_kick(const struct blk_rig *f)
{
	return fake_avail_event(&f->r[0]) == f->r[0].avail_idx;
}

static bool kicks_wanted(const struct blk_rig *f, bool event_idx)
{
	return event_idx ? driver_would_kick(f) : !fake_used_flags(&f->r[0]);
}

static void requests_are_served_without_a_kick_or_a_wake_up(void **state)
{
	for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
		struct blk_rig *f = begin_with(event_idx);
		uint32_t id, len;

		(void)state;
		assert_true(kicks_wanted(f, event_idx));
		f->b->poll.ops->begin(f->b);
		assert_false(looks(f));
		for (unsigned i = 0; i < 3; i++) {
			assert_false(kicks_wanted(f, event_idx));
			send_read(f, i);
			assert_true(looks(f));
			while (!fake_used(&f->r[0], &id, &len))
				look(f);
			assert_int_equal(status(f, i), OK);
			assert_data(f, i * 4096, i * 8, 4096);
		}
		assert_true(f->bearer.queue[0] > 0);
		assert_false(looks(f));
		assert_false(f->b->poll.ops->end(f->b));
		assert_true(kicks_wanted(f, event_idx));
		end(f);
	}
}

static void what_comes_before_the_end_is_served_by_the_loop(void **state)
{
	for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
		struct blk_rig *f = begin_with(event_idx);

		(void)state;
		f->b->poll.ops->begin(f->b);
		send_read(f, 0);
		assert_true(f->b->poll.ops->end(f->b));
		assert_int_equal(await(f, 0, NULL), 4097);
		assert_true(kicks_wanted(f, event_idx));
		/* A completion, too. */
		f->b->poll.ops->begin(f->b);
		send_read(f, 1);
		f->b->poll.ops->run(f->b);
		while (!looks(f))
			usleep(100);
		assert_false(f->b->poll.ops->end(f->b)); /* that wakes the loop by itself */
		assert_int_equal(await(f, 0, NULL), 4097);
		end(f);
	}
}

/* A loop that waits for company lets others work; where one is waited for it must not. */
static void only_large_requests_are_a_stream(void **state)
{
	static const uint32_t sizes[] = {4096, BLK_LARGE, 4096};
	struct blk_rig *f = begin_with(false);
	uint32_t id, len;

	(void)state;
	f->b->poll.ops->begin(f->b);
	f->b->poll.most = 100000;
	for (unsigned i = 0; i < 3; i++) {
		bool large = sizes[i] == BLK_LARGE;

		send_on(f, 0, i, (struct question){VIRTIO_BLK_T_IN, 0, 0, sizes[i]});
		assert_int_equal(f->b->poll.ops->run(f->b), large ? 60000 : 0);
		/* An answer belongs to the stream, too. */
		while (!fake_used(&f->r[0], &id, &len))
			if (looks(f))
				assert_int_equal(f->b->poll.ops->run(f->b), large ? 60000 : 0);
	}
	f->b->poll.ops->end(f->b);
	end(f);
}

static void a_disk_that_is_full_is_not_ready_for_more(void **state)
{
	struct blk_rig *f = begin_with(false);
	uint32_t id, len;

	(void)state;
	f->b->buffers_max = 1;
	f->b->poll.ops->begin(f->b);
	send_read(f, 0);
	send_read(f, 1);
	f->b->poll.ops->run(f->b);
	assert_true(f->b->queue[0].held);
	while (!image_ready(f->b->im)) {
		assert_false(looks(f));
		usleep(100);
	}
	/* What waits is nothing new for the loop: it has its turn when the first is done. */
	assert_false(f->b->poll.ops->end(f->b));
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(await(f, 0, NULL), 4097);
	assert_false(fake_used(&f->r[0], &id, &len));
	end(f);
}

static void a_broken_queue_is_never_ready(void **state)
{
	struct blk_rig *f = begin_with(false);

	(void)state;
	f->b->poll.ops->begin(f->b);
	fake_avail(&f->r[0], RING + 1);
	look(f);
	assert_true(f->v->status & VIRTIO_S_NEEDS_RESET);
	assert_false(looks(f));
	assert_false(f->b->poll.ops->end(f->b));
	end(f);
}

static void a_reset_while_it_is_looked_at_begins_anew(void **state)
{
	struct blk_rig *f = begin_with(true);
	uint32_t id, len;

	(void)state;
	f->b->poll.ops->begin(f->b);
	send_read(f, 0);
	f->b->poll.ops->run(f->b);
	virtio_set_status(f->v, 0);
	assert_false(looks(f));
	fake_ring_zero(&f->r[0]);
	fake_ring_zero(&f->r[1]);
	drive(f, f->v->offered);
	send_read(f, 1);
	while (!fake_used(&f->r[0], &id, &len))
		look(f);
	assert_data(f, 4096, 8, 4096);
	assert_false(f->b->poll.ops->end(f->b));
	assert_true(driver_would_kick(f));
	end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_served_without_a_kick_or_a_wake_up),
		cmocka_unit_test(what_comes_before_the_end_is_served_by_the_loop),
		cmocka_unit_test(only_large_requests_are_a_stream),
		cmocka_unit_test(a_disk_that_is_full_is_not_ready_for_more),
		cmocka_unit_test(a_broken_queue_is_never_ready),
		cmocka_unit_test(a_reset_while_it_is_looked_at_begins_anew),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
