/* SPDX-License-Identifier: Apache-2.0 */
/* Which chains a device was working on, told from what its rings still show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "virtio/vq_lost.h"

#define ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static void in_order_the_last_ones_are_out(void **state)
{
	const uint16_t avail[] = {0, 1, 2, 3, 4}, used[] = {0, 1, 2};
	struct vq_history h = {8, avail, used, 5, 3, true};
	uint16_t ret[8];

	(void)state;
	assert_int_equal(vq_lost(&h, 2, ret), 2);
	assert_int_equal(ret[0], 3);
	assert_int_equal(ret[1], 4);
}

static void out_of_order_it_is_the_one_that_is_missing(void **state)
{
	const uint16_t avail[] = {5, 1, 2, 3, 1, 2, 3}, used[] = {1, 3, 2, 2, 1, 3};
	struct vq_history h = {8, avail, used, 7, 6, true};
	uint16_t ret[8];

	(void)state;
	assert_int_equal(vq_lost(&h, 1, ret), 1);
	assert_int_equal(ret[0], 5);
}

static void one_head_used_over_and_over_is_out(void **state)
{
	uint16_t ones[8], ret[8];
	struct vq_history h = {8, ones, ones, 8, 8, false};

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		ones[i] = 6;
	assert_int_equal(vq_lost(&h, 1, ret), 1);
	assert_int_equal(ret[0], 6);
}

/* Four at once and the last first; then one at a time. Distances in the rings alone say it is 3. */
static void a_burst_before_does_not_mislead(void **state)
{
	const uint16_t avail[] = {0, 1, 2, 3, 4, 4}, used[] = {3, 2, 1, 0, 4};
	struct vq_history h = {8, avail, used, 6, 5, true};
	uint16_t ret[8];

	(void)state;
	assert_int_equal(vq_lost(&h, 1, ret), 1);
	assert_int_equal(ret[0], 4);
}

static void all_of_a_full_ring_are_out(void **state)
{
	const uint16_t avail[] = {3, 1, 0, 2}, used[] = {0, 1, 2, 3};
	struct vq_history h = {4, avail, used, 4, 4, false};
	uint16_t ret[4];

	(void)state;
	assert_int_equal(vq_lost(&h, 4, ret), 4);
	assert_memory_equal(ret, avail, sizeof(avail));
}

static void one_without_a_trace_does_not_hide_the_others(void **state)
{
	/* Another one is out since before all that is seen. */
	const uint16_t avail[] = {2, 2, 2, 2, 2, 2, 2, 2}, used[] = {2, 2, 2, 2, 2, 2, 2, 2};
	struct vq_history h = {8, avail, used, 8, 8, false};
	uint16_t ret[8];

	(void)state;
	assert_int_equal(vq_lost(&h, 2, ret), 1);
	assert_int_equal(ret[0], 2);
}

static void what_no_device_can_have_done_is_found_to_be_nothing(void **state)
{
	/* Head 1 was returned twice and made available once. */
	const uint16_t avail[] = {0, 1, 2}, used[] = {1, 1};
	struct vq_history h = {4, avail, used, 3, 2, true};
	uint16_t ret[4];

	(void)state;
	assert_in_range(vq_lost(&h, 1, ret), 0, 1);
}

/* ------------------------------------------------------------- against a driver and a device */

#define STEPS 6000

struct sim {
	unsigned size, workers, free[1024], nfree;
	uint16_t avail[STEPS], used[STEPS];
	unsigned navail, nused;
	int head[64];
};

static unsigned seed;

static unsigned pick(unsigned n)
{
	seed = seed * 1103515245u + 12345u;
	return (seed >> 16) % n;
}

/* Free heads are a stack, as in Linux; each worker has one request at a time, of any length. */
static void sim_run(struct sim *s, unsigned size, unsigned workers, unsigned steps)
{
	memset(s, 0, sizeof(*s));
	s->size = size;
	for (unsigned i = 0; i < size; i++)
		s->free[s->nfree++] = size - 1 - i;
	memset(s->head, -1, sizeof(s->head));
	while (s->navail < steps) {
		int *head = &s->head[pick(workers)];

		if (*head < 0) {
			*head = (int)s->free[--s->nfree];
			s->avail[s->navail++] = (uint16_t)*head;
		} else {
			s->used[s->nused++] = (uint16_t)*head;
			s->free[s->nfree++] = (unsigned)*head;
			*head = -1;
		}
	}
}

static bool sim_found(const struct sim *s)
{
	unsigned na = s->navail < s->size ? s->navail : s->size;
	unsigned nu = s->nused < s->size ? s->nused : s->size;
	const struct vq_history h = {
		(uint16_t)s->size,    s->avail + s->navail - na, s->used + s->nused - nu, na, nu,
		s->navail <= s->size,
	};
	unsigned n = s->navail - s->nused, hit = 0;
	uint16_t ret[1024];
	int r = vq_lost(&h, n, ret);

	for (int i = 0; i < r; i++)
		for (unsigned w = 0; w < 64; w++)
			hit += s->head[w] == ret[i];
	return r == (int)n && hit == n;
}

static void a_loaded_device_leaves_enough_to_tell(void **state)
{
	static const struct {
		unsigned size, workers;
	} load[] = {{64, 1}, {128, 4}, {128, 16}, {1024, 4}, {1024, 32}, {1024, 64}};
	static struct sim s;

	(void)state;
	seed = 1;
	for (unsigned i = 0; i < ELEMS(load); i++) {
		unsigned found = 0;

		for (unsigned k = 0; k < 60; k++) {
			sim_run(&s, load[i].size, load[i].workers, 1 + pick(load[i].size * 5));
			found += sim_found(&s);
		}
		assert_int_equal(found, 60);
	}
}

/* Whatever stands there: every head at most once, none that was not made available, no more than n.
 */
static void garbage_gives_heads_once_and_in_bounds(void **state)
{
	uint16_t avail[64], used[64], ret[64];

	(void)state;
	seed = 7;
	for (unsigned k = 0; k < 3000; k++) {
		unsigned size = 1u << pick(7), n = 1 + pick(size), heads = 1 + pick(size);
		struct vq_history h = {(uint16_t)size, avail, used, size, size, k & 1};
		bool seen[64] = {false};
		int r;

		for (unsigned i = 0; i < size; i++) {
			avail[i] = (uint16_t)pick(heads);
			used[i] = (uint16_t)pick(k & 2 ? size : heads);
		}
		r = vq_lost(&h, n, ret);
		assert_in_range(r, 0, n);
		for (int i = 0; i < r; i++) {
			bool there = false;

			for (unsigned j = 0; j < size; j++)
				there |= avail[j] == ret[i];
			assert_true(there && !seen[ret[i]]);
			seen[ret[i]] = true;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order_the_last_ones_are_out),
		cmocka_unit_test(out_of_order_it_is_the_one_that_is_missing),
		cmocka_unit_test(one_head_used_over_and_over_is_out),
		cmocka_unit_test(a_burst_before_does_not_mislead),
		cmocka_unit_test(all_of_a_full_ring_are_out),
		cmocka_unit_test(one_without_a_trace_does_not_hide_the_others),
		cmocka_unit_test(what_no_device_can_have_done_is_found_to_be_nothing),
		cmocka_unit_test(a_loaded_device_leaves_enough_to_tell),
		cmocka_unit_test(garbage_gives_heads_once_and_in_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
