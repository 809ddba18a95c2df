/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts that may wait for an answer's: vq_notify_soon and vq_notify_late. */
#include <unistd.h>

#include "tests/unit/vq_fixture.h"

#define BIG 64 /* an eighth of it are 8 chains */

static int setup_big(void **state)
{
	struct fixture *f;

	setup(state);
	f = *state;
	vq_reset(f->q);
	fake_ring_init(&f->r, &f->m, BIG);
	start(f, false, true);
	return 0;
}

/* One chain is sent, and done with. */
static void serve(struct fixture *f)
{
	fake_send(&f->r, &(struct fake_buf){f->buf, 8, FAKE_W}, 1);
	vq_return(take(f));
}

static void a_chain_waits_until_the_looks_end(void **state)
{
	struct fixture *f = *state;

	serve(f);
	vq_notify_soon(f->q, UINT64_MAX);
	assert_int_equal(f->interrupts, 0);
	vq_notify_late(f->q);
	assert_int_equal(f->interrupts, 1);
	vq_notify_late(f->q);
	assert_int_equal(f->interrupts, 1);
}

static void an_eighth_of_the_queue_does_not_wait(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 1; i <= 3 * BIG / 8; i++) {
		serve(f);
		vq_notify_soon(f->q, UINT64_MAX);
		assert_int_equal(f->interrupts, i / (BIG / 8));
	}
}

static void nothing_waits_longer_than_it_may(void **state)
{
	struct fixture *f = *state;

	serve(f);
	vq_notify_soon(f->q, 1000000);
	assert_int_equal(f->interrupts, 0);
	usleep(1000);
	vq_notify_soon(f->q, 1000000);
	assert_int_equal(f->interrupts, 1);
	vq_notify_soon(f->q, 0);
	assert_int_equal(f->interrupts, 1);
}

static void what_waited_in_vain_is_not_waited_for_at_once_again(void **state)
{
	struct fixture *f = *state;

	serve(f);
	vq_notify_soon(f->q, UINT64_MAX);
	vq_notify_late(f->q);
	for (unsigned i = 0; i < 8; i++) {
		serve(f);
		vq_notify_soon(f->q, UINT64_MAX);
		assert_int_equal(f->interrupts, i + 2);
	}
	serve(f);
	vq_notify_soon(f->q, UINT64_MAX);
	assert_int_equal(f->interrupts, 9);
}

/* It saw the chain by itself, which is what the answer's interrupt brings about. */
static void a_driver_that_saw_it_is_not_told_and_waits_again(void **state)
{
	struct fixture *f = *state;

	vq_reset(f->q);
	start(f, true, true);
	for (unsigned i = 1; i < 5; i++) {
		serve(f);
		vq_notify_soon(f->q, UINT64_MAX);
		fake_used_event(&f->r, (uint16_t)i);
		vq_notify_late(f->q);
		assert_int_equal(f->interrupts, 0);
	}
}

static void a_reset_forgets_what_waited(void **state)
{
	struct fixture *f = *state;

	serve(f);
	vq_notify_soon(f->q, UINT64_MAX);
	vq_reset(f->q);
	vq_notify_late(f->q);
	assert_int_equal(f->interrupts, 0);
}

#undef T
#define T(name) cmocka_unit_test_setup_teardown(name, setup_big, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_chain_waits_until_the_looks_end),
		T(an_eighth_of_the_queue_does_not_wait),
		T(nothing_waits_longer_than_it_may),
		T(what_waited_in_vain_is_not_waited_for_at_once_again),
		T(a_driver_that_saw_it_is_not_told_and_waits_again),
		T(a_reset_forgets_what_waited),
	};

	return cmocka_run_group_tests_name("vq_soon", tests, NULL, NULL);
}
