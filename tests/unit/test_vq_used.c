/* SPDX-License-Identifier: Apache-2.0 */
/* Split rings: what vq_return writes, and when driver and device tell each other. */
#include <errno.h>
#include <pthread.h>

#include "tests/unit/vq_fixture.h"

/* ------------------------------------------------------------- giving back */

static void vq_return_writes_head_and_length(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	fake_desc(&f->r, 5, (struct fake_buf){f->buf, 64, FAKE_W}, 0);
	fake_avail(&f->r, 5);
	struct vq_chain *c = take(f);
	assert_int_equal(chain_push(c, "hello", 5), 0);
	assert_false(fake_used(&f->r, &id, &len));
	vq_return(c);
	assert_true(fake_used(&f->r, &id, &len));
	assert_int_equal(id, 5);
	assert_int_equal(len, 5);
	assert_memory_equal(fake_at(&f->m, f->buf), "hello", 5);
	assert_false(fake_used(&f->r, &id, &len));
}

static void vq_return_in_another_order_than_taken_is_fine(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c[3];
	uint32_t id, len;

	for (unsigned i = 0; i < 3; i++)
		one(f, (struct fake_buf){f->buf, 64, FAKE_W});
	for (unsigned i = 0; i < 3; i++)
		c[i] = take(f);
	vq_return(c[2]);
	vq_return(c[0]);
	vq_return(c[1]);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(fake_used(&f->r, &id, &len));
		assert_int_equal(id, (i + 2) % 3);
	}
}

static void vq_indices_wrap_at_two_to_the_sixteen(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	start(f, true, false);
	for (unsigned i = 0; i < 70000; i++) {
		uint16_t head = fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);

		fake_used_event(&f->r, f->r.used_idx);
		vq_return(take(f));
		vq_notify(f->q);
		assert_int_equal(f->interrupts, i + 1);
		assert_true(fake_used(&f->r, &id, &len));
		assert_int_equal(id, head);
		assert_false(vq_kicks_on(f->q));
		assert_int_equal(fake_avail_event(&f->r), f->r.avail_idx);
	}
	assert_int_equal(f->broken, 0);
}

/* The driver's side of it: an odd index would be half of an answer. */
static void *watch_index(void *arg)
{
	uint16_t *idx = arg, now;

	do
		now = le16toh(__atomic_load_n(idx, __ATOMIC_ACQUIRE));
	while (!(now & 1));
	return NULL;
}

/* Two by two, the index moves by two at once; at the end one more ends the watcher. */
static void vq_return_all_is_seen_whole(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c[2];
	pthread_t driver;
	uint16_t *idx = fake_at(&f->m, f->r.used + 2);

	assert_int_equal(pthread_create(&driver, NULL, watch_index, idx), 0);
	for (unsigned i = 0; i < 50000; i++) {
		one(f, (struct fake_buf){f->buf, 64, FAKE_W});
		one(f, (struct fake_buf){f->buf + 64, 64, FAKE_W});
		c[0] = take(f);
		c[1] = take(f);
		vq_return_all(c, 2);
		if (i % 1000 == 0 && pthread_tryjoin_np(driver, NULL) == 0)
			fail_msg("half of an answer was seen in round %u", i);
	}
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 100000 & 0xffff);
	assert_int_equal(pthread_tryjoin_np(driver, NULL), EBUSY);
	one(f, (struct fake_buf){f->buf, 64, FAKE_W});
	c[0] = take(f);
	vq_return_all(c, 1);
	pthread_join(driver, NULL);
	vq_return_all(c, 0);
	/* After a reset they only go. */
	one(f, (struct fake_buf){f->buf, 64, FAKE_W});
	one(f, (struct fake_buf){f->buf, 64, FAKE_W});
	c[0] = take(f);
	c[1] = take(f);
	vq_reset(f->q);
	vq_return_all(c, 2);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 100001 & 0xffff);
}

static void vq_return_after_reset_only_frees(void **state)
{
	struct fixture *f = *state;
	uint8_t x = 1;

	one(f, (struct fake_buf){f->buf, 64, FAKE_W});
	struct vq_chain *c = take(f);
	vq_reset(f->q);
	fake_ring_zero(&f->r);
	start(f, false, false);
	/* The same head lives in the new rings. */
	one(f, (struct fake_buf){f->buf, 64, FAKE_W});
	struct vq_chain *d = take(f);
	assert_int_equal(chain_push(c, &x, 1), -EINVAL);
	vq_return(c);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 0);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 0);
	assert_int_equal(*(uint8_t *)fake_at(&f->m, f->buf), 0);
	vq_return(d);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 1);
}

static void vq_return_after_the_queue_is_gone_only_frees(void **state)
{
	struct fixture *f = *state;

	one(f, (struct fake_buf){f->buf, 64, FAKE_W});
	struct vq_chain *c = take(f);
	vq_free(f->q);
	f->q = NULL;
	vq_return(c);
}

static void vq_return_on_a_broken_queue_writes_nothing(void **state)
{
	struct fixture *f = *state;

	one(f, (struct fake_buf){f->buf, 64, FAKE_W});
	struct vq_chain *c = take(f), *d;
	vq_break(f->q, "5.2.6", "for the test");
	vq_break(f->q, "5.2.6", "for the test");
	assert_int_equal(f->broken, 1);
	vq_return(c);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 0);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 0);
	assert_int_equal(vq_next(f->q, &d), VQ_BROKEN);
	assert_false(vq_kicks_on(f->q));
}

static void vq_reset_mends_a_broken_queue(void **state)
{
	struct fixture *f = *state;

	fake_avail(&f->r, 77);
	assert_breaks(f);
	vq_reset(f->q);
	fake_ring_zero(&f->r);
	start(f, false, false);
	one(f, (struct fake_buf){f->buf, 64, FAKE_W});
	vq_return(take(f));
}

/* ------------------------------------------------------------- telling each other */

static void give(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		one(f, (struct fake_buf){f->buf, 1, 0});
	for (unsigned i = 0; i < n; i++)
		vq_return(take(f));
}

static void vq_notify_interrupts_once_a_batch(void **state)
{
	struct fixture *f = *state;

	vq_notify(f->q);
	assert_int_equal(f->interrupts, 0);
	give(f, 5);
	vq_notify(f->q);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 1);
}

static void vq_notify_respects_no_interrupt(void **state)
{
	struct fixture *f = *state;

	fake_avail_flags(&f->r, 1);
	give(f, 2);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 0);
	fake_avail_flags(&f->r, 0);
	give(f, 1);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 1);
}

static void vq_notify_respects_used_event(void **state)
{
	struct fixture *f = *state;

	start(f, true, false);
	/* Tell me when index 3 has been used, that is, when four have. */
	fake_used_event(&f->r, 3);
	give(f, 2);
	vq_notify(f->q);
	give(f, 1);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 0);
	give(f, 3);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 1);
	give(f, 1);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 1);
}

static void vq_notify_does_not_repeat_an_event_that_was_told(void **state)
{
	struct fixture *f = *state;

	start(f, true, false);
	fake_used_event(&f->r, 3);
	give(f, 4);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 1);
	/* The event is the last index of the batch before. */
	give(f, 1);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 1);
}

static void vq_notify_with_event_idx_ignores_the_flag(void **state)
{
	struct fixture *f = *state;

	start(f, true, false);
	fake_avail_flags(&f->r, 1);
	give(f, 1);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 1);
}

static void vq_notify_after_a_whole_lap_interrupts(void **state)
{
	struct fixture *f = *state;

	start(f, true, false);
	fake_used_event(&f->r, 0x8000);
	for (unsigned i = 0; i < 0x10000 / 4; i++)
		give(f, 4);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 1);
}

static void vq_kicks_off_sets_no_notify(void **state)
{
	struct fixture *f = *state;

	vq_kicks_off(f->q);
	assert_int_equal(fake_used_flags(&f->r), 1);
	assert_false(vq_kicks_on(f->q));
	assert_int_equal(fake_used_flags(&f->r), 0);
}

static void vq_kicks_off_with_event_idx_leaves_the_flag(void **state)
{
	struct fixture *f = *state;

	start(f, true, false);
	vq_kicks_off(f->q);
	assert_int_equal(fake_used_flags(&f->r), 0);
}

static void vq_kicks_off_with_event_idx_lies_behind_the_driver(void **state)
{
	struct fixture *f = *state;

	start(f, true, false);
	give(f, 3);
	assert_false(vq_kicks_on(f->q));
	assert_int_equal(fake_avail_event(&f->r), 3); /* the next chain's index: it kicks */
	vq_kicks_off(f->q);
	assert_int_equal(fake_avail_event(&f->r), 2); /* passed already */
}

static void vq_pending_looks_and_takes_nothing(void **state)
{
	struct fixture *f = *state;

	assert_false(vq_pending(f->q));
	one(f, (struct fake_buf){f->buf, 1, 0});
	assert_true(vq_pending(f->q));
	assert_true(vq_pending(f->q));
	vq_return(take(f));
	assert_false(vq_pending(f->q));
	one(f, (struct fake_buf){f->buf, 1, 0});
	vq_break(f->q, "5.2.6", "for the test");
	assert_false(vq_pending(f->q));
	vq_reset(f->q);
	assert_false(vq_pending(f->q));
}

static void vq_kicks_on_sees_what_came_in_between(void **state)
{
	for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
		struct fixture *f = *state;

		fake_ring_zero(&f->r);
		start(f, event_idx, false);
		vq_kicks_off(f->q);
		give(f, 2);
		one(f, (struct fake_buf){f->buf, 1, 0});
		assert_true(vq_kicks_on(f->q));
		vq_return(take(f));
		assert_false(vq_kicks_on(f->q));
		if (event_idx)
			assert_int_equal(fake_avail_event(&f->r), 3);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(vq_return_writes_head_and_length),
		T(vq_return_in_another_order_than_taken_is_fine),
		T(vq_indices_wrap_at_two_to_the_sixteen),
		T(vq_return_all_is_seen_whole),
		T(vq_return_after_reset_only_frees),
		T(vq_return_after_the_queue_is_gone_only_frees),
		T(vq_return_on_a_broken_queue_writes_nothing),
		T(vq_reset_mends_a_broken_queue),
		T(vq_notify_interrupts_once_a_batch),
		T(vq_notify_respects_no_interrupt),
		T(vq_notify_respects_used_event),
		T(vq_notify_does_not_repeat_an_event_that_was_told),
		T(vq_notify_with_event_idx_ignores_the_flag),
		T(vq_notify_after_a_whole_lap_interrupts),
		T(vq_kicks_off_sets_no_notify),
		T(vq_kicks_off_with_event_idx_leaves_the_flag),
		T(vq_kicks_off_with_event_idx_lies_behind_the_driver),
		T(vq_pending_looks_and_takes_nothing),
		T(vq_kicks_on_sees_what_came_in_between),
	};

	return cmocka_run_group_tests_name("vq_used", tests, NULL, NULL);
}
