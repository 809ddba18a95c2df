/* SPDX-License-Identifier: Apache-2.0 */
/* Looking before sleeping: when a loop does it, and what it does not keep waiting. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/loop.h"

#define FOR_EVER 1000000000000ull /* ns */

struct look {
	struct loop *l;
	struct loop_poll p;
	struct loop_fd s;
	int fd;
	bool ready, more; /* what ready() says once, and end() */
	bool again;       /* the fd stays ready */
	bool hurries;     /* and what it tells is in a hurry */
	uint64_t nap;     /* what run() says */
	unsigned begun, ran, ended, woken;
	uint64_t looked, gap; /* when it did last; the longest time between two looks after run() */
};

static unsigned seen(const unsigned *n)
{
	return __atomic_load_n(n, __ATOMIC_SEQ_CST);
}

static void count(unsigned *n)
{
	__atomic_add_fetch(n, 1, __ATOMIC_SEQ_CST);
}

static void look_begin(void *arg)
{
	struct look *k = arg;

	assert_int_equal(k->begun, k->ended);
	count(&k->begun);
}

static bool look_ready(void *arg)
{
	struct look *k = arg;

	const uint64_t now = loop_now();

	assert_int_equal(k->begun, k->ended + 1);
	if (k->looked && now - k->looked > k->gap)
		k->gap = now - k->looked;
	k->looked = now;
	return __atomic_load_n(&k->ready, __ATOMIC_SEQ_CST);
}

static uint64_t look_run(void *arg)
{
	struct look *k = arg;

	__atomic_store_n(&k->ready, false, __ATOMIC_SEQ_CST);
	k->looked = loop_now();
	k->gap = 0;
	count(&k->ran);
	return k->nap;
}

static bool look_end(void *arg)
{
	struct look *k = arg;
	bool more = __atomic_exchange_n(&k->more, false, __ATOMIC_SEQ_CST);

	assert_int_equal(k->begun, k->ended + 1);
	count(&k->ended);
	return more;
}

static const struct loop_poll_ops look_ops = {look_begin, look_ready, look_run, look_end};

/* Most tests begin with a wake-up that comes at once: a sleep so short that looking pays. */
static void woken(void *arg, uint32_t events)
{
	struct look *k = arg;
	eventfd_t n;

	(void)events;
	if (!k->again)
		eventfd_read(k->fd, &n);
	if (k->hurries)
		loop_hurry(k->l);
	count(&k->woken);
}

static int setup(void **state)
{
	struct look *k = calloc(1, sizeof(*k));

	assert_int_equal(loop_new(&k->l, "test", NULL), 0);
	k->fd = eventfd(1, EFD_NONBLOCK);
	k->s = (struct loop_fd){.fn = woken, .arg = k};
	assert_int_equal(loop_fd_add(k->l, &k->s, k->fd, EPOLLIN), 0);
	k->p = (struct loop_poll){.ops = &look_ops, .arg = k};
	loop_poll_add(k->l, &k->p);
	loop_poll_most(k->l, FOR_EVER);
	*state = k;
	return 0;
}

static int teardown(void **state)
{
	struct look *k = *state;

	loop_poll_del(&k->p);
	loop_poll_del(&k->p);
	assert_int_equal(k->begun, k->ended);
	loop_fd_del(&k->s);
	close(k->fd);
	loop_free(k->l);
	free(k);
	return 0;
}

static void until(const unsigned *n)
{
	while (!seen(n))
		usleep(1000);
}

static void after_a_short_sleep_the_loop_finds_work_by_itself(void **state)
{
	struct look *k = *state;

	assert_int_equal(loop_start(k->l, NULL), 0);
	until(&k->begun);
	__atomic_store_n(&k->ready, true, __ATOMIC_SEQ_CST);
	until(&k->ran);
	assert_int_equal(seen(&k->woken), 1);
	assert_int_equal(seen(&k->ended), 0);
	loop_join(k->l);
}

static void work_that_comes_while_it_naps_is_found(void **state)
{
	struct look *k = *state;

	loop_poll_most(k->l, 1000000000ull);
	k->ready = true;
	k->nap = 2000000000ull;
	assert_int_equal(loop_start(k->l, NULL), 0);
	until(&k->ran);
	usleep(1100000);
	__atomic_store_n(&k->ready, true, __ATOMIC_SEQ_CST);
	while (seen(&k->ran) < 2)
		usleep(1000);
	assert_int_equal(seen(&k->woken), 1);
	assert_int_equal(seen(&k->ended), 0);
	loop_join(k->l);
}

static void the_next_part_of_a_stream_is_waited_for_in_naps(void **state)
{
	struct look *k = *state;

	loop_poll_most(k->l, 60000000);
	k->ready = true;
	k->nap = 36000000;
	assert_int_equal(loop_start(k->l, NULL), 0);
	until(&k->ended);
	loop_join(k->l);
	assert_int_equal(k->ran, 1);
	assert_true(k->gap >= 20000000); /* else it looks all the time */
}

/* epoll_pwait2 is refused, as by Linux before 5.11. */
static bool refuse_pwait2(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {.len = sizeof(f) / sizeof(f[0]), .filter = f};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) == 0;
}

static void a_kernel_without_short_waits_naps_all_the_same(void **state)
{
	struct look *k = *state;
	pid_t child = fork();
	int status;

	if (child == 0) {
		if (!refuse_pwait2())
			_exit(1);
		loop_poll_most(k->l, FOR_EVER);
		k->ready = true;
		k->nap = 100000000;
		if (loop_start(k->l, NULL))
			_exit(2);
		until(&k->ran);
		usleep(10000);
		eventfd_write(k->fd, 1); /* ends a nap */
		until(&k->ended);
		loop_join(k->l);
		_exit(k->woken == 2 && k->ran == 1 && k->gap >= 20000000 ? 0 : 3);
	}
	assert_true(child > 0 && waitpid(child, &status, 0) == child);
	assert_int_equal(status, 0);
}

static void a_stream_with_parts_further_apart_than_a_look_stays_one(void **state)
{
	struct look *k = *state;

	loop_poll_most(k->l, 300000000);
	k->ready = true;
	k->nap = 450000000;
	assert_int_equal(loop_start(k->l, NULL), 0);
	for (unsigned i = 1; i <= 12; i++) {
		while (seen(&k->ran) < i)
			usleep(1000);
		usleep(540000);
		assert_int_equal(seen(&k->ended), 0);
		__atomic_store_n(&k->ready, true, __ATOMIC_SEQ_CST);
	}
	until(&k->ended);
	loop_join(k->l);
	assert_int_equal(k->ran, 13);
	assert_int_equal(k->woken, 1);
}

/* Of somebody who waits for an answer the device hears by an fd. */
static void where_an_answer_is_due_there_is_no_nap(void **state)
{
	struct look *k = *state;

	k->ready = k->hurries = true;
	k->nap = 1000 * FOR_EVER;
	assert_int_equal(loop_start(k->l, NULL), 0);
	until(&k->ran);
	eventfd_write(k->fd, 1);
	while (seen(&k->woken) < 2)
		usleep(1000);
	__atomic_store_n(&k->ready, true, __ATOMIC_SEQ_CST);
	while (seen(&k->ran) < 2)
		usleep(1000);
	assert_int_equal(seen(&k->ended), 0);
	loop_join(k->l);
}

static void ending(void *arg)
{
	loop_stop(((struct look *)arg)->l);
}

static void where_every_sleep_is_long_it_never_looks(void **state)
{
	struct look *k = *state;
	struct loop_timer t = {.fn = ending, .arg = k};

	loop_poll_most(k->l, 1); /* ns */
	loop_timer_set(k->l, &t, loop_now() + 5000000);
	loop_run(k->l);
	assert_int_equal(k->begun, 0);
	assert_int_equal(k->woken, 1);
}

#define SLOW 40000000u /* ns */

struct slow {
	struct look *k;
	struct loop_timer t;
	unsigned rounds, before;
};

static void slow_round(void *arg)
{
	struct slow *s = arg;

	if (++s->rounds == 20)
		s->before = s->k->begun;
	if (s->rounds == 22)
		loop_stop(s->k->l);
	eventfd_write(s->k->fd, 1); /* work, after a long time without */
	loop_timer_set(s->k->l, &s->t, loop_now() + SLOW);
}

static void after_long_sleeps_it_looks_no_more(void **state)
{
	struct look *k = *state;
	struct slow s = {.k = k};

	/* One short sleep, and those that are longer than 10 ms, each with a look less long. */
	s.t = (struct loop_timer){.fn = slow_round, .arg = &s};
	loop_poll_most(k->l, 10000000);
	loop_timer_set(k->l, &s.t, loop_now() + SLOW);
	loop_run(k->l);
	assert_true(s.before > 0);
	assert_int_equal(k->begun, s.before);
	assert_int_equal(k->begun, k->ended);
}

static void what_end_reports_is_not_slept_over(void **state)
{
	struct look *k = *state;

	loop_poll_most(k->l, 20000000);
	__atomic_store_n(&k->more, true, __ATOMIC_SEQ_CST);
	assert_int_equal(loop_start(k->l, NULL), 0);
	/* The second look begins only if the first one's end was no sleep. */
	while (seen(&k->begun) < 2)
		usleep(1000);
	loop_join(k->l);
	assert_int_equal(k->woken, 1);
}

static void a_thread_that_wants_the_lock_gets_it_from_a_loop_that_looks(void **state)
{
	struct look *k = *state;

	assert_int_equal(loop_start(k->l, NULL), 0);
	until(&k->begun);
	for (unsigned i = 0; i < 100; i++) {
		loop_lock(k->l);
		assert_int_equal(k->ended, 0);
		loop_unlock(k->l);
	}
	__atomic_store_n(&k->ready, true, __ATOMIC_SEQ_CST);
	until(&k->ran);
	loop_join(k->l);
}

static void posted(void *arg)
{
	count(&((struct look *)arg)->woken);
}

static void tasks_timers_and_other_sources_have_their_turn(void **state)
{
	struct look *k = *state;
	struct loop_task task = {.fn = posted, .arg = k};
	struct loop_timer timer = {.fn = posted, .arg = k};

	assert_int_equal(loop_start(k->l, NULL), 0);
	until(&k->begun);
	loop_post(k->l, &task);
	while (seen(&k->woken) < 2)
		usleep(1000);
	loop_lock(k->l);
	loop_timer_set(k->l, &timer, loop_now() + 1000000);
	loop_unlock(k->l);
	while (seen(&k->woken) < 3)
		usleep(1000);
	eventfd_write(k->fd, 1);
	while (seen(&k->woken) < 4)
		usleep(1000);
	assert_int_equal(k->ended, 0);
	loop_join(k->l); /* and stop */
}

/* There is always something to do: the loop comes back to its fds all the same. */
static bool always(void *arg)
{
	(void)arg;
	return true;
}

static void without_a_pause_other_sources_have_their_turn(void **state)
{
	struct look *k = *state;
	const struct loop_poll_ops greedy = {look_begin, always, look_run, look_end};

	k->p.ops = &greedy;
	k->again = true;
	loop_poll_most(k->l, 1000000);
	assert_int_equal(loop_start(k->l, NULL), 0);
	while (seen(&k->woken) < 10 || !seen(&k->ran))
		usleep(1000);
	loop_join(k->l);
	loop_poll_del(&k->p);
}

static void a_poll_that_is_added_while_it_looks_is_begun(void **state)
{
	struct look *k = *state, other = {.l = k->l};

	other.p = (struct loop_poll){.ops = &look_ops, .arg = &other};
	assert_int_equal(loop_start(k->l, NULL), 0);
	until(&k->begun);
	loop_lock(k->l);
	loop_poll_add(k->l, &other.p);
	assert_int_equal(other.begun, 1);
	loop_unlock(k->l);
	__atomic_store_n(&other.ready, true, __ATOMIC_SEQ_CST);
	until(&other.ran);
	loop_join(k->l);
	loop_poll_del(&other.p);
	assert_int_equal(other.ended, 1);
}

static void a_poll_that_is_taken_away_is_ended(void **state)
{
	struct look *k = *state;

	assert_int_equal(loop_start(k->l, NULL), 0);
	until(&k->begun);
	loop_lock(k->l);
	loop_poll_del(&k->p);
	assert_int_equal(k->ended, 1);
	k->ready = true;
	loop_unlock(k->l);
	loop_lock(k->l);
	loop_unlock(k->l);
	loop_join(k->l);
	assert_int_equal(k->ran, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(after_a_short_sleep_the_loop_finds_work_by_itself),
		T(work_that_comes_while_it_naps_is_found),
		T(the_next_part_of_a_stream_is_waited_for_in_naps),
		T(a_kernel_without_short_waits_naps_all_the_same),
		T(where_an_answer_is_due_there_is_no_nap),
		T(a_stream_with_parts_further_apart_than_a_look_stays_one),
		T(where_every_sleep_is_long_it_never_looks),
		T(after_long_sleeps_it_looks_no_more),
		T(what_end_reports_is_not_slept_over),
		T(a_thread_that_wants_the_lock_gets_it_from_a_loop_that_looks),
		T(tasks_timers_and_other_sources_have_their_turn),
		T(without_a_pause_other_sources_have_their_turn),
		T(a_poll_that_is_added_while_it_looks_is_begun),
		T(a_poll_that_is_taken_away_is_ended),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
