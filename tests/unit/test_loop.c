/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
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

/*
 * Events of a source that another thread removes while the loop waits for the
 * lock with them: the source's storage may be gone by then.
 */
static void never(void *arg, uint32_t events)
{
	(void)events;
	*(bool *)arg = true;
}

static void a_fd_removed_between_waking_and_dispatch_is_not_called(void **state)
{
	struct loop *l = *state;
	bool called = false;

	assert_int_equal(loop_start(l, NULL), 0);
	for (unsigned i = 0; i < 100 && !called; i++) {
		struct loop_fd *s = calloc(1, sizeof(*s));
		int fd = eventfd(0, EFD_NONBLOCK);

		*s = (struct loop_fd){.fn = never, .arg = &called};
		loop_lock(l);
		assert_int_equal(loop_fd_add(l, s, fd, EPOLLIN), 0);
		loop_unlock(l);
		usleep(500); /* the loop sleeps */
		loop_lock(l);
		assert_int_equal(eventfd_write(fd, 1), 0);
		usleep(500); /* it has the event and waits for the lock */
		loop_fd_del(s);
		loop_unlock(l);
		loop_lock(l);
		loop_unlock(l);
		close(fd);
		free(s);
	}
	loop_join(l);
	assert_false(called);
}

static void tick(void *arg, uint32_t events)
{
	(void)events;
	__atomic_add_fetch((unsigned *)arg, 1, __ATOMIC_SEQ_CST);
}

/* Edges of the others that woke with it do not come again. */
static void what_wakes_with_a_removed_fd_is_called(void **state)
{
	struct loop *l = *state;
	bool called = false;
	unsigned ticks = 0;
	int fd = eventfd(0, EFD_NONBLOCK), twin = dup(fd);
	struct loop_fd other = {.fn = tick, .arg = &ticks};
	eventfd_t n;

	assert_int_equal(loop_fd_add(l, &other, twin, EPOLLIN | EPOLLET), 0);
	assert_int_equal(loop_start(l, NULL), 0);
	for (unsigned i = 1; i <= 20; i++) {
		struct loop_fd s = {.fn = never, .arg = &called};

		loop_lock(l);
		assert_int_equal(loop_fd_add(l, &s, fd, EPOLLIN | EPOLLET), 0);
		loop_unlock(l);
		usleep(500);
		loop_lock(l);
		assert_int_equal(eventfd_write(fd, 1), 0);
		usleep(500);
		loop_fd_del(&s);
		loop_unlock(l);
		while (__atomic_load_n(&ticks, __ATOMIC_SEQ_CST) < i)
			usleep(100);
		eventfd_read(fd, &n);
	}
	loop_join(l);
	loop_fd_del(&other);
	assert_false(called);
	close(fd);
	close(twin);
}

static void fired(void *arg)
{
	__atomic_store_n((bool *)arg, true, __ATOMIC_SEQ_CST);
}

static void a_timer_set_while_the_loop_sleeps_fires(void **state)
{
	struct loop *l = *state;
	bool done = false;
	struct loop_timer t = {.fn = fired, .arg = &done};

	assert_int_equal(loop_start(l, NULL), 0);
	usleep(20000); /* it sleeps, for ever */
	loop_lock(l);
	loop_timer_set(l, &t, loop_now() + 1000000);
	loop_unlock(l);
	while (!__atomic_load_n(&done, __ATOMIC_SEQ_CST))
		usleep(1000);
	loop_join(l);
}

/*
 * Threads that take the lock again as soon as they have let it go, and keep it
 * for long, as vCPUs do that work on a slow register. Each wakes the loop, which
 * then waits for that one, and for one more when it is slow to wake.
 */
#define HAMMERS 4
#define ROUNDS 50
#define OTHERS_MAX (6 * ROUNDS)

struct anvil {
	struct loop *l;
	int fd;
	unsigned rounds, others; /* under the lock */
};

static void *hammer(void *arg)
{
	struct anvil *a = arg;
	bool more = true;

	while (more) {
		loop_lock(a->l);
		eventfd_write(a->fd, 1);
		usleep(1000);
		a->others++;
		more = a->rounds < ROUNDS && a->others < OTHERS_MAX;
		loop_unlock(a->l);
	}
	return NULL;
}

static void anvil_round(void *arg, uint32_t events)
{
	struct anvil *a = arg;
	eventfd_t n;

	(void)events;
	eventfd_read(a->fd, &n);
	if (++a->rounds >= ROUNDS || a->others >= OTHERS_MAX)
		loop_stop(a->l);
}

static void a_thread_that_hammers_the_lock_does_not_starve_the_loop(void **state)
{
	struct loop *l = *state;
	struct anvil a = {.l = l, .fd = eventfd(0, EFD_NONBLOCK)};
	struct loop_fd s = {.fn = anvil_round, .arg = &a};
	pthread_t t[HAMMERS];

	assert_int_equal(loop_fd_add(l, &s, a.fd, EPOLLIN), 0);
	for (unsigned i = 0; i < HAMMERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, hammer, &a), 0);
	loop_run(l);
	for (unsigned i = 0; i < HAMMERS; i++)
		pthread_join(t[i], NULL);
	loop_fd_del(&s);
	close(a.fd);
	if (a.others >= OTHERS_MAX)
		fail_msg("%u others came before the loop's %u rounds", a.others, a.rounds);
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
		T(a_fd_removed_between_waking_and_dispatch_is_not_called),
		T(what_wakes_with_a_removed_fd_is_called),
		T(a_timer_set_while_the_loop_sleeps_fires),
		T(a_thread_that_hammers_the_lock_does_not_starve_the_loop),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
