/* SPDX-License-Identifier: Apache-2.0 */
/* The pool of blocking calls: where run(), done() and batch() happen, and when. */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/workers.h"

#define JOBS 64

struct fixture;

struct job {
	struct work work;
	struct fixture *f;
	pthread_t ran_on, done_on;
	unsigned again; /* done() submits it that often */
};

struct fixture {
	struct loop *loop;
	struct workers *w;
	struct workers_group g;
	struct job job[JOBS];
	unsigned done, batches, stop_at;
	unsigned running, most, ran; /* atomic */
	char name[16];
	sem_t gate;
	bool gated;
};

static void run(void *arg)
{
	struct job *j = arg;
	unsigned now = __atomic_add_fetch(&j->f->running, 1, __ATOMIC_SEQ_CST);
	unsigned most = __atomic_load_n(&j->f->most, __ATOMIC_SEQ_CST);

	while (now > most && !__atomic_compare_exchange_n(&j->f->most, &most, now, false,
							  __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	if (j->f->gated)
		sem_wait(&j->f->gate);
	j->ran_on = pthread_self();
	__atomic_add_fetch(&j->f->ran, 1, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&j->f->running, 1, __ATOMIC_SEQ_CST);
}

static void done(void *arg)
{
	struct job *j = arg;

	j->done_on = pthread_self();
	if (j->again) {
		j->again--;
		workers_submit(&j->f->g, &j->work);
		return;
	}
	if (++j->f->done == j->f->stop_at)
		loop_stop(j->f->loop);
}

static void batch(void *arg)
{
	((struct fixture *)arg)->batches++;
}

static void begin(struct fixture *f, unsigned threads)
{
	memset(f, 0, sizeof(*f));
	sem_init(&f->gate, 0, 0);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	assert_int_equal(workers_new(&f->w, threads, NULL), 0);
	f->g.batch = batch;
	f->g.arg = f;
	assert_int_equal(workers_group_init(&f->g, f->w, f->loop, NULL), 0);
	for (unsigned i = 0; i < JOBS; i++) {
		f->job[i].f = f;
		f->job[i].work = (struct work){.run = run, .done = done, .arg = &f->job[i]};
	}
}

static void end(struct fixture *f)
{
	workers_group_fini(&f->g);
	workers_free(f->w);
	loop_free(f->loop);
	sem_destroy(&f->gate);
}

static void run_is_on_a_worker_and_done_on_the_loop(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 3);
	f.stop_at = JOBS;
	for (unsigned i = 0; i < JOBS; i++)
		workers_submit(&f.g, &f.job[i].work);
	assert_int_equal(f.done, 0);
	loop_run(f.loop);
	assert_int_equal(f.done, JOBS);
	for (unsigned i = 0; i < JOBS; i++) {
		assert_false(pthread_equal(f.job[i].ran_on, pthread_self()));
		assert_true(pthread_equal(f.job[i].done_on, pthread_self()));
	}
	assert_in_range(f.batches, 1, JOBS);
	assert_in_range(f.most, 1, 3);
	end(&f);
}

static void a_pool_uses_its_threads_and_no_more(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 4);
	f.gated = true;
	for (unsigned i = 0; i < 8; i++)
		workers_submit(&f.g, &f.job[i].work);
	while (__atomic_load_n(&f.running, __ATOMIC_SEQ_CST) < 4)
		usleep(1000);
	for (unsigned i = 0; i < 8; i++)
		sem_post(&f.gate);
	while (workers_wait(&f.g))
		;
	assert_int_equal(f.done, 8);
	assert_int_equal(f.most, 4);
	end(&f);
}

static void completions_that_come_together_are_one_batch(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 1);
	f.gated = true;
	for (unsigned i = 0; i < 5; i++)
		workers_submit(&f.g, &f.job[i].work);
	for (unsigned i = 0; i < 5; i++)
		sem_post(&f.gate);
	/* The pool's only thread comes to the sixth job when five are finished. */
	workers_submit(&f.g, &f.job[5].work);
	while (__atomic_load_n(&f.ran, __ATOMIC_SEQ_CST) < 5 ||
	       !__atomic_load_n(&f.running, __ATOMIC_SEQ_CST))
		usleep(1000);
	f.stop_at = 5;
	loop_run(f.loop);
	assert_int_equal(f.done, 5);
	assert_int_equal(f.batches, 1);
	sem_post(&f.gate);
	assert_true(workers_wait(&f.g));
	assert_int_equal(f.done, 6);
	end(&f);
}

static void wait_runs_done_here_and_ends_when_nothing_is_out(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 2);
	assert_false(workers_wait(&f.g));
	for (unsigned i = 0; i < 10; i++) {
		f.job[i].again = i % 3;
		workers_submit(&f.g, &f.job[i].work);
	}
	while (workers_wait(&f.g))
		;
	assert_int_equal(f.done, 10);
	/* The event that is left over finds nothing. */
	f.batches = 0;
	f.stop_at = 11;
	workers_submit(&f.g, &f.job[20].work);
	loop_run(f.loop);
	assert_int_equal(f.done, 11);
	assert_int_equal(f.batches, 1);
	end(&f);
}

static void waiting_for_one_group_leaves_the_other_alone(void **state)
{
	struct fixture f;
	struct workers_group g2 = {0};
	struct job j2 = {.f = &f};

	(void)state;
	begin(&f, 2);
	assert_int_equal(workers_group_init(&g2, f.w, f.loop, NULL), 0);
	j2.work = (struct work){.run = run, .done = done, .arg = &j2};
	workers_submit(&g2, &j2.work);
	workers_submit(&f.g, &f.job[0].work);
	assert_true(workers_wait(&f.g));
	assert_int_equal(f.done, 1);
	assert_false(workers_wait(&f.g));
	assert_true(workers_wait(&g2));
	assert_int_equal(f.done, 2);
	workers_group_fini(&g2);
	end(&f);
}

static unsigned running(const struct fixture *f)
{
	return __atomic_load_n(&f->running, __ATOMIC_SEQ_CST);
}

/* A group whose jobs wait at a gate, as calls do into an NFS server that is gone. */
static void submit_stalled(struct fixture *f, unsigned jobs, unsigned want)
{
	f->gated = true;
	for (unsigned i = 0; i < jobs; i++)
		workers_submit(&f->g, &f->job[i].work);
	while (running(f) < want)
		usleep(1000);
}

/* Opens the gate, and ends the group. */
static void release(struct fixture *f, unsigned jobs)
{
	for (unsigned i = 0; i < jobs; i++)
		sem_post(&f->gate);
	while (workers_wait(&f->g))
		;
	assert_int_equal(f->done, jobs);
}

/* Groups of one pool, each with jobs of its own; the first one's fixture has the pool. */
static void begin_another(struct fixture *f, struct fixture *of)
{
	begin(f, 0);
	workers_group_fini(&f->g);
	workers_free(f->w);
	f->w = NULL;
	assert_int_equal(workers_group_init(&f->g, of->w, f->loop, NULL), 0);
}

static void groups_that_stall_leave_each_other_a_thread(void **state)
{
	struct fixture f[4];

	(void)state;
	begin(&f[0], 4);
	for (unsigned i = 1; i < 4; i++)
		begin_another(&f[i], &f[0]);
	submit_stalled(&f[0], 20, 3);
	submit_stalled(&f[1], 20, 2);
	submit_stalled(&f[2], 20, 1);
	/* Three of four are full, and the last still gets one job after the other done. */
	for (unsigned i = 0; i < 10; i++)
		workers_submit(&f[3].g, &f[3].job[i].work);
	release(&f[3], 10);
	assert_int_equal(f[3].most, 1);
	/* One group has no more than three quarters, nor all together more than there are. */
	assert_int_equal(running(&f[0]), 3);
	assert_int_equal(running(&f[1]), 2);
	assert_int_equal(running(&f[2]), 1);
	for (unsigned i = 0; i < 3; i++)
		release(&f[i], 20);
	for (unsigned i = 4; i-- > 0;)
		end(&f[i]);
}

static void a_thread_that_gets_free_goes_to_who_waited_longest(void **state)
{
	struct fixture f[3];

	(void)state;
	begin(&f[0], 2);
	begin_another(&f[1], &f[0]);
	begin_another(&f[2], &f[0]);
	submit_stalled(&f[0], 10, 2);
	submit_stalled(&f[1], 10, 1);
	submit_stalled(&f[2], 10, 1);
	/* The first waited before there were others; once served it stands behind them. */
	sem_post(&f[0].gate);
	sem_post(&f[0].gate);
	while (running(&f[1]) < 2)
		usleep(1000);
	while (running(&f[0]) != 1)
		usleep(1000);
	sem_post(&f[1].gate);
	while (running(&f[2]) < 2)
		usleep(1000);
	sem_post(&f[2].gate);
	while (running(&f[0]) < 2)
		usleep(1000);
	for (unsigned i = 0; i < 30; i++)
		sem_post(&f[i % 3].gate);
	for (unsigned i = 0; i < 3; i++)
		while (workers_wait(&f[i].g))
			;
	for (unsigned i = 3; i-- > 0;) {
		assert_int_equal(f[i].done, 10);
		end(&f[i]);
	}
}

static void without_threads_a_job_runs_in_place(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 0);
	f.stop_at = 2;
	workers_submit(&f.g, &f.job[0].work);
	workers_submit(&f.g, &f.job[1].work);
	assert_true(pthread_equal(f.job[0].ran_on, pthread_self()));
	assert_int_equal(f.done, 0); /* never inside submit */
	loop_run(f.loop);
	assert_int_equal(f.done, 2);
	assert_int_equal(f.batches, 1);
	end(&f);
}

static void name_run(void *arg)
{
	struct job *j = arg;

	pthread_getname_np(pthread_self(), j->f->name, sizeof(j->f->name));
}

static void threads_are_named_worker(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 1);
	f.job[0].work.run = name_run;
	workers_submit(&f.g, &f.job[0].work);
	assert_true(workers_wait(&f.g));
	assert_string_equal(f.name, "worker");
	end(&f);
}

static void free_of_an_unused_pool_and_of_none_is_fine(void **state)
{
	struct workers *w;

	(void)state;
	assert_int_equal(workers_new(&w, 8, NULL), 0);
	workers_free(w);
	workers_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(run_is_on_a_worker_and_done_on_the_loop),
		cmocka_unit_test(a_pool_uses_its_threads_and_no_more),
		cmocka_unit_test(completions_that_come_together_are_one_batch),
		cmocka_unit_test(wait_runs_done_here_and_ends_when_nothing_is_out),
		cmocka_unit_test(waiting_for_one_group_leaves_the_other_alone),
		cmocka_unit_test(groups_that_stall_leave_each_other_a_thread),
		cmocka_unit_test(a_thread_that_gets_free_goes_to_who_waited_longest),
		cmocka_unit_test(without_threads_a_job_runs_in_place),
		cmocka_unit_test(threads_are_named_worker),
		cmocka_unit_test(free_of_an_unused_pool_and_of_none_is_fine),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
