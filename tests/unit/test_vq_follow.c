/* SPDX-License-Identifier: Apache-2.0 */
/* A live ring that another process served and left. */
#include "tests/unit/vq_fixture.h"

/* What the other one did: takes the next element for itself, or returns a head. */
static void other_returns(struct fixture *f, uint16_t head)
{
	uint16_t idx = fake_get16(&f->m, f->r.used + 2);
	uint64_t at = f->r.used + 4 + 8ull * (idx % SIZE);

	fake_put32(&f->m, at, head);
	fake_put32(&f->m, at + 4, 0);
	fake_put16(&f->m, f->r.used + 2, (uint16_t)(idx + 1));
}

/* One buffer in descriptor @head, made available. */
static void offer(struct fixture *f, uint16_t head)
{
	fake_desc(&f->r, head, (struct fake_buf){f->buf + 64u * head, 64, FAKE_W}, 0);
	fake_avail(&f->r, head);
}

static struct vq_adopted adopt(struct fixture *f)
{
	struct vq_adopted a;

	assert_int_equal(vq_adopt(f->q, &a), 0);
	return a;
}

static void assert_adopts(struct fixture *f, unsigned found, unsigned hidden)
{
	struct vq_adopted a = adopt(f);

	assert_int_equal(a.found, found);
	assert_int_equal(a.hidden, hidden);
}

static void assert_gives(struct fixture *f, uint16_t head)
{
	struct vq_chain *c = take(f);

	assert_int_equal(c->head, head);
	assert_int_equal(c->writable, 64);
	vq_return(c);
}

static void assert_empty(struct fixture *f)
{
	struct vq_chain *c;

	assert_int_equal(vq_next(f->q, &c), VQ_EMPTY);
	assert_false(vq_pending(f->q));
	assert_int_equal(f->broken, 0);
}

static void an_idle_ring_goes_on_where_it_was(void **state)
{
	struct fixture *f = *state;

	for (uint16_t i = 0; i < 5; i++) {
		offer(f, i);
		other_returns(f, i);
	}
	assert_int_equal(adopt(f).found, 0);
	assert_empty(f);
	offer(f, 6);
	assert_gives(f, 6);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 6);
	assert_int_equal(fake_get32(&f->m, f->r.used + 4 + 8 * 5), 6);
	assert_empty(f);
}

static void what_was_out_comes_first_and_then_what_is_new(void **state)
{
	struct fixture *f = *state;

	for (uint16_t i = 0; i < 4; i++)
		offer(f, i);
	other_returns(f, 2);
	assert_int_equal(adopt(f).found, 3);
	offer(f, 2);
	assert_gives(f, 0);
	assert_gives(f, 1);
	assert_gives(f, 3);
	assert_gives(f, 2);
	assert_empty(f);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 5);
}

static void the_indices_may_wrap(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 65533; i++) {
		offer(f, 3);
		other_returns(f, 3);
		if (i % (SIZE / 2) == 0)
			vq_follow(f->q);
	}
	vq_follow(f->q);
	offer(f, 0);
	offer(f, 1);
	other_returns(f, 1);
	offer(f, 2);
	offer(f, 3);
	assert_int_equal(fake_get16(&f->m, f->r.avail + 2), 1);
	assert_adopts(f, 3, 0);
	assert_gives(f, 0);
	assert_gives(f, 2);
	assert_gives(f, 3);
	assert_empty(f);
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 1);
}

static void a_full_ring_is_all_out(void **state)
{
	struct fixture *f = *state;

	for (uint16_t i = 0; i < SIZE; i++)
		offer(f, (uint16_t)(SIZE - 1 - i));
	assert_int_equal(adopt(f).found, SIZE);
	for (uint16_t i = 0; i < SIZE; i++)
		assert_gives(f, (uint16_t)(SIZE - 1 - i));
	assert_empty(f);
}

/* One chain stays out while @n others come and go. */
static void come_and_go(struct fixture *f, unsigned n)
{
	while (n--) {
		offer(f, 6);
		other_returns(f, 6);
	}
}

/* Who follows has missed more than a round, and 3 is still out. */
static void miss_a_round(struct fixture *f)
{
	offer(f, 3);
	assert_int_equal(vq_follow(f->q), VQ_AT_WORK);
	come_and_go(f, 2 * SIZE);
	assert_int_equal(vq_follow(f->q), VQ_FAST);
}

static void what_left_no_trace_is_known_to_who_followed(void **state)
{
	struct fixture *f = *state;

	offer(f, 3);
	offer(f, 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(vq_follow(f->q), i ? VQ_FAST : VQ_AT_WORK);
		come_and_go(f, SIZE - 3);
	}
	assert_adopts(f, 2, 0);
	assert_gives(f, 3);
	assert_gives(f, 5);
	assert_empty(f);
}

static void who_missed_a_round_knows_what_came_since(void **state)
{
	struct fixture *f = *state;

	miss_a_round(f);
	offer(f, 4);
	assert_adopts(f, 1, 1);
	assert_gives(f, 4);
	assert_empty(f);
}

static void one_of_those_missed_comes_back_and_the_others_stay_known(void **state)
{
	struct fixture *f = *state;

	miss_a_round(f);
	offer(f, 4);
	vq_follow(f->q);
	other_returns(f, 3);
	vq_follow(f->q);
	assert_adopts(f, 1, 0);
	assert_gives(f, 4);
	assert_empty(f);
}

static void a_ring_that_filled_up_between_two_looks_is_all_out(void **state)
{
	struct fixture *f = *state;

	come_and_go(f, 3);
	vq_follow(f->q);
	for (uint16_t i = 0; i < SIZE; i++)
		offer(f, i);
	assert_int_equal(adopt(f).found, SIZE);
	for (uint16_t i = 0; i < SIZE; i++)
		assert_gives(f, i);
	assert_empty(f);
}

/* As a driver that has some heads out and some not; 3 is out since the beginning. */
static void load(struct fixture *f, bool out[SIZE], unsigned n, unsigned *seed, bool followed)
{
	for (unsigned i = 0; i < n; i++) {
		*seed = *seed * 1103515245u + 12345u;
		uint16_t h = (uint16_t)(*seed >> 16) % SIZE;

		if (h == 3)
			continue;
		if (!out[h])
			offer(f, h);
		else
			other_returns(f, h);
		out[h] = !out[h];
		if (followed && i % 3 == 0)
			vq_follow(f->q);
	}
}

/* The buffers of what is not out may be the driver's own again. */
static void nothing_is_answered_that_is_not_out(void **state)
{
	struct fixture *f = *state;
	unsigned found = 0;

	for (unsigned k = 0; k < 300; k++) {
		bool out[SIZE] = {[3] = true};
		unsigned seed = k, n = 1;
		struct vq_chain *c;

		vq_reset(f->q);
		fake_ring_zero(&f->r);
		start(f, false, true);
		offer(f, 3);
		vq_follow(f->q);
		load(f, out, 60, &seed, false); /* missed */
		load(f, out, k, &seed, true);   /* not any more, but something is always out */
		if (k % 3 == 0)
			load(f, out, 40, &seed, false);
		for (unsigned h = 0; h < SIZE; h++)
			n += h != 3 && out[h];
		struct vq_adopted a = adopt(f);

		assert_int_equal(a.found + a.hidden, n);
		found += a.found;
		while (vq_next(f->q, &c) == VQ_CHAIN) {
			assert_true(out[c->head]);
			out[c->head] = false;
			vq_return(c);
		}
		assert_int_equal(f->broken, 0);
	}
	assert_in_range(found, 300, 300 * SIZE);
}

static void after_a_missed_round_nothing_out_is_a_new_beginning(void **state)
{
	struct fixture *f = *state;

	miss_a_round(f);
	other_returns(f, 3);
	assert_int_equal(vq_follow(f->q), VQ_AT_WORK);
	assert_int_equal(vq_follow(f->q), VQ_AT_REST);
	offer(f, 2);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_not_equal(vq_follow(f->q), VQ_AT_REST);
		come_and_go(f, SIZE / 2);
	}
	assert_int_equal(adopt(f).found, 1);
	assert_gives(f, 2);
	assert_empty(f);
}

/* Offered twice, and what was never out returned: its word is not taken for more than the rings
 * show. */
static void a_driver_that_lies_to_who_follows_gives_no_head_twice(void **state)
{
	struct fixture *f = *state;

	offer(f, 3);
	vq_follow(f->q);
	offer(f, 3);
	offer(f, 4);
	vq_follow(f->q);
	assert_adopts(f, 0, 3);

	/* The used index was ahead, and a driver that offers more hides it again. */
	vq_reset(f->q);
	fake_ring_zero(&f->r);
	start(f, false, false);
	other_returns(f, 5);
	vq_follow(f->q);
	offer(f, 1);
	offer(f, 2);
	offer(f, 3);
	assert_adopts(f, 0, 2);

	vq_reset(f->q);
	fake_ring_zero(&f->r);
	start(f, false, false);
	offer(f, 3);
	vq_follow(f->q);
	other_returns(f, 5);
	offer(f, 4);
	vq_follow(f->q);
	assert_adopts(f, 0, 1);
	assert_int_equal(f->broken, 0);
}

static void a_lost_chain_offered_again_breaks_the_queue(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c, *other;

	offer(f, 4);
	assert_int_equal(adopt(f).found, 1);
	offer(f, 4);
	c = take(f);
	assert_int_equal(vq_next(f->q, &other), VQ_BROKEN);
	assert_int_equal(f->broken, 1);
	vq_return(c);
}

static void a_lost_chain_is_checked_like_any_other(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c;

	offer(f, 4);
	fake_desc(&f->r, 4, (struct fake_buf){1ull << 40, 64, FAKE_W}, 0);
	assert_int_equal(adopt(f).found, 1);
	assert_int_equal(vq_next(f->q, &c), VQ_BROKEN);
	assert_int_equal(f->broken, 1);
}

static void indices_too_far_apart_break_the_queue(void **state)
{
	struct fixture *f = *state;

	fake_put16(&f->m, f->r.avail + 2, SIZE + 1);
	assert_int_equal(adopt(f).found, 0);
	assert_int_equal(f->broken, 1);
}

static void a_used_index_ahead_breaks_the_queue(void **state)
{
	struct fixture *f = *state;

	fake_put16(&f->m, f->r.used + 2, 3);
	adopt(f);
	assert_int_equal(f->broken, 1);
}

static void garbage_in_either_ring_gives_nothing(void **state)
{
	struct fixture *f = *state;

	offer(f, 0);
	fake_put16(&f->m, f->r.avail + 4, SIZE);
	assert_adopts(f, 0, 1);

	vq_reset(f->q);
	fake_ring_zero(&f->r);
	start(f, false, false);
	offer(f, 0);
	offer(f, 1);
	other_returns(f, 0);
	fake_put32(&f->m, f->r.used + 4, 0x10000);
	assert_adopts(f, 0, 1);
	assert_int_equal(f->broken, 0);
}

static void a_reset_forgets_what_was_lost(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c;

	offer(f, 0);
	offer(f, 1);
	assert_int_equal(adopt(f).found, 2);
	c = take(f);
	vq_reset(f->q);
	fake_ring_zero(&f->r);
	start(f, true, true);
	assert_empty(f);
	vq_return(c); /* an orphan */
	assert_int_equal(fake_get16(&f->m, f->r.used + 2), 0);
}

static void the_driver_is_told_of_what_is_returned(void **state)
{
	struct fixture *f = *state;

	vq_reset(f->q);
	start(f, true, false);
	for (uint16_t i = 0; i < 3; i++)
		offer(f, i);
	other_returns(f, 0);
	fake_used_event(&f->r, 2);
	adopt(f);
	assert_gives(f, 1);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 0);
	assert_gives(f, 2);
	vq_notify(f->q);
	assert_int_equal(f->interrupts, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(an_idle_ring_goes_on_where_it_was),
		T(what_was_out_comes_first_and_then_what_is_new),
		T(the_indices_may_wrap),
		T(a_full_ring_is_all_out),
		T(what_left_no_trace_is_known_to_who_followed),
		T(who_missed_a_round_knows_what_came_since),
		T(one_of_those_missed_comes_back_and_the_others_stay_known),
		T(a_ring_that_filled_up_between_two_looks_is_all_out),
		T(nothing_is_answered_that_is_not_out),
		T(after_a_missed_round_nothing_out_is_a_new_beginning),
		T(a_driver_that_lies_to_who_follows_gives_no_head_twice),
		T(a_lost_chain_offered_again_breaks_the_queue),
		T(a_lost_chain_is_checked_like_any_other),
		T(indices_too_far_apart_break_the_queue),
		T(a_used_index_ahead_breaks_the_queue),
		T(garbage_in_either_ring_gives_nothing),
		T(a_reset_forgets_what_was_lost),
		T(the_driver_is_told_of_what_is_returned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
