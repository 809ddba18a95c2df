/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/loop.h"

static char order[64];

struct step {
	struct loop *l;
	char name;
	bool stop;
	struct loop_timer *cancel;
};

static void step_run(void *arg)
{
	struct step *s = arg;
	size_t n = strlen(order);

	order[n] = s->name;
	order[n + 1] = 0;
	if (s->cancel)
		loop_timer_cancel(s->cancel);
	if (s->stop)
		loop_stop(s->l);
}

static int setup(void **state)
{
	struct loop *l;

	memset(order, 0, sizeof(order));
	assert_int_equal(loop_new(&l, "test", NULL), 0);
	*state = l;
	return 0;
}

static int teardown(void **state)
{
	loop_free(*state);
	return 0;
}

static void timers_fire_in_order_of_their_due_time(void **state)
{
	struct loop *l = *state;
	struct step a = {l, 'a', false, NULL}, b = {l, 'b', false, NULL}, c = {l, 'c', true, NULL};
	struct loop_timer ta = {.fn = step_run, .arg = &a}, tb = {.fn = step_run, .arg = &b},
			  tc = {.fn = step_run, .arg = &c};
	uint64_t now = loop_now();

	loop_timer_set(l, &tc, now + 3000000);
	loop_timer_set(l, &ta, now + 1000000);
	loop_timer_set(l, &tb, now + 2000000);
	loop_run(l);
	assert_string_equal(order, "abc");
}

static void a_cancelled_timer_does_not_fire(void **state)
{
	struct loop *l = *state;
	struct step b = {l, 'b', false, NULL}, c = {l, 'c', true, NULL};
	struct loop_timer tb = {.fn = step_run, .arg = &b}, tc = {.fn = step_run, .arg = &c};
	struct step a = {l, 'a', false, &tb};
	struct loop_timer ta = {.fn = step_run, .arg = &a};

	/* All due at once: the first takes the second away. */
	loop_timer_set(l, &ta, 1);
	loop_timer_set(l, &tb, 2);
	loop_timer_set(l, &tc, 3);
	loop_run(l);
	assert_string_equal(order, "ac");
}

static void a_task_posted_twice_runs_once(void **state)
{
	struct loop *l = *state;
	struct step a = {l, 'a', false, NULL}, b = {l, 'b', true, NULL};
	struct loop_task ta = {.fn = step_run, .arg = &a}, tb = {.fn = step_run, .arg = &b};

	loop_post(l, &ta);
	loop_post(l, &ta);
	loop_post(l, &tb);
	loop_run(l);
	assert_string_equal(order, "ab");
}

/* A task that posts itself for ever must not keep the fds from their turn. */
struct greedy {
	struct loop *l;
	struct loop_task t;
	unsigned runs;
};

static void greedy_run(void *arg)
{
	struct greedy *g = arg;

	g->runs++;
	loop_post(g->l, &g->t);
}

static void fd_stops(void *arg, uint32_t events)
{
	assert_true(events & EPOLLIN);
	loop_stop(arg);
}

static void a_task_that_reposts_itself_does_not_starve_fds(void **state)
{
	struct loop *l = *state;
	struct greedy g = {.l = l, .t = {.fn = greedy_run, .arg = &g}};
	struct loop_fd s = {.fn = fd_stops, .arg = l};
	int fd = eventfd(1, EFD_NONBLOCK);

	loop_post(l, &g.t);
	assert_int_equal(loop_fd_add(l, &s, fd, EPOLLIN), 0);
	loop_run(l);
	assert_true(g.runs > 0);
	loop_fd_del(&s);
	close(fd);
}

/* Two fds are ready in one batch; the first one's callback removes the second. */
struct pair {
	struct loop *l;
	struct loop_fd s[2];
	unsigned calls;
};

static void pair_run(void *arg, uint32_t events)
{
	struct pair *p = arg;

	(void)events;
	p->calls++;
	loop_fd_del(&p->s[0]);
	loop_fd_del(&p->s[1]);
	loop_stop(p->l);
}

static void a_removed_fd_is_not_called_even_in_the_same_batch(void **state)
{
	struct loop *l = *state;
	struct pair p = {.l = l};
	int fd[2] = {eventfd(1, 0), eventfd(1, 0)};

	for (int i = 0; i < 2; i++) {
		p.s[i].fn = pair_run;
		p.s[i].arg = &p;
		assert_int_equal(loop_fd_add(l, &p.s[i], fd[i], EPOLLIN), 0);
	}
	loop_run(l);
	assert_int_equal(p.calls, 1);
	close(fd[0]);
	close(fd[1]);
}

static void a_thread_runs_what_is_posted_from_outside(void **state)
{
	struct loop *l = *state;
	struct step a = {l, 'a', true, NULL};
	struct loop_task ta = {.fn = step_run, .arg = &a};

	assert_int_equal(loop_start(l, NULL), 0);
	loop_post(l, &ta);
	while (true) {
		loop_lock(l);
		bool ran = order[0] == 'a';
		loop_unlock(l);
		if (ran)
			break;
		usleep(1000);
	}
	loop_join(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(timers_fire_in_order_of_their_due_time),
		T(a_cancelled_timer_does_not_fire),
		T(a_task_posted_twice_runs_once),
		T(a_task_that_reposts_itself_does_not_starve_fds),
		T(a_removed_fd_is_not_called_even_in_the_same_batch),
		T(a_thread_runs_what_is_posted_from_outside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
