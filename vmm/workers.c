/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Jobs are shallow: a few calls deep, with vectors on the heap. */
#define STACK_SIZE (256 << 10)

/*
 * How many jobs may run: one of each group, come what may, and max - 1 more of
 * whichever have work. So there are at most max + groups - 1 threads, and a job
 * that may run never waits for a thread that another group holds.
 */
struct workers {
	pthread_mutex_t lock;
	pthread_cond_t work;           /* a job may run, or closing */
	pthread_cond_t done;           /* a job has run; for workers_wait */
	struct work_list queue;        /* jobs that may run, for the next idle thread */
	struct workers_group *waiting; /* groups that have more; the longest not served first */
	unsigned max, groups, threads, idle, queued;
	unsigned extra; /* running beyond the first of each group */
	bool closing;
	pthread_t *thread;
};

static void list_push(struct work_list *l, struct work *job)
{
	job->next = NULL;
	if (l->head)
		l->tail->next = job;
	else
		l->head = job;
	l->tail = job;
}

static struct work *list_pop(struct work_list *l)
{
	struct work *job = l->head;

	l->head = job->next;
	return job;
}

int workers_new(struct workers **ret, unsigned max_threads, struct err *e)
{
	struct workers *w = calloc(1, sizeof(*w));

	if (!w)
		return err_sys(e, "worker threads");
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	pthread_cond_init(&w->done, NULL);
	w->max = max_threads;
	*ret = w;
	return 0;
}

void workers_free(struct workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->closing = true;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->threads; i++)
		pthread_join(w->thread[i], NULL);
	pthread_cond_destroy(&w->work);
	pthread_cond_destroy(&w->done);
	pthread_mutex_destroy(&w->lock);
	free(w->thread);
	free(w);
}

static void *worker(void *arg);

/* With the lock held. Workers take no signals: those are for the loops' threads. */
static void spawn(struct workers *w)
{
	pthread_t *more = reallocarray(w->thread, w->threads + 1, sizeof(*more));
	sigset_t all, old;
	pthread_attr_t attr;

	if (!more)
		return;
	w->thread = more;
	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (!pthread_create(&w->thread[w->threads], &attr, worker, w))
		w->threads++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
}

/* ------------------------------------------------------------- whose turn it is */

static bool may_start(const struct workers *w, const struct workers_group *g)
{
	/* A group that fills the pool and stalls would leave the others one job each. */
	unsigned share = w->groups > 1 ? w->max - w->max / 4 : w->max;

	return !g->running || (g->running < share && w->extra + 1 < w->max);
}

static void wait_in_line(struct workers *w, struct workers_group *g)
{
	struct workers_group **p = &w->waiting;

	while (*p)
		p = &(*p)->next;
	g->next = NULL;
	*p = g;
}

/* Hands the oldest job of @g to a thread. */
static void start(struct workers *w, struct workers_group *g)
{
	w->extra += g->running > 0;
	g->running++;
	/* A thread woken for an earlier job still counts as idle: count the jobs, too. */
	if (w->idle <= w->queued && w->max && w->threads < w->max + w->groups - 1)
		spawn(w);
	list_push(&w->queue, list_pop(&g->waiting));
	w->queued++;
	pthread_cond_signal(&w->work);
}

/* After any change, with the lock held. */
static void dispatch(struct workers *w)
{
	for (struct workers_group **p = &w->waiting, *g; (g = *p);) {
		if (!may_start(w, g)) {
			p = &g->next;
			continue;
		}
		*p = g->next;
		start(w, g);
		if (g->waiting.head)
			wait_in_line(w, g);
	}
}

/* ------------------------------------------------------------- a job's way */

/*
 * The eventfd is written under the lock: as soon as the lock is free the
 * group may see the job, be done with it and close the eventfd.
 */
static void finish(struct workers *w, struct work *job)
{
	struct workers_group *g = job->group;

	pthread_mutex_lock(&w->lock);
	g->running--;
	w->extra -= g->running > 0;
	if (!g->finished.head)
		eventfd_write(g->fd, 1);
	list_push(&g->finished, job);
	pthread_cond_broadcast(&w->done);
	dispatch(w);
	pthread_mutex_unlock(&w->lock);
}

static struct work *next_job(struct workers *w)
{
	w->queued--;
	return list_pop(&w->queue);
}

static void *worker(void *arg)
{
	struct workers *w = arg;

	pthread_setname_np(pthread_self(), "worker");
	pthread_mutex_lock(&w->lock);
	for (;;) {
		w->idle++;
		while (!w->queue.head && !w->closing)
			pthread_cond_wait(&w->work, &w->lock);
		w->idle--;
		if (!w->queue.head)
			break;
		struct work *job = next_job(w);

		pthread_mutex_unlock(&w->lock);
		job->run(job->arg);
		finish(w, job);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

void workers_submit(struct workers_group *g, struct work *job)
{
	struct workers *w = g->w;
	struct work *here = NULL;

	job->group = g;
	g->out++;
	pthread_mutex_lock(&w->lock);
	if (!g->waiting.head)
		wait_in_line(w, g);
	list_push(&g->waiting, job);
	dispatch(w);
	/* Each job before it ran in its submit, so the one in the queue is this one. */
	if (!w->threads)
		here = next_job(w);
	pthread_mutex_unlock(&w->lock);
	if (here) {
		here->run(here->arg);
		finish(w, here);
	}
}

static void run_done(struct workers_group *g, struct work_list list)
{
	while (list.head) {
		struct work *job = list_pop(&list);

		g->out--;
		job->done(job->arg);
	}
	if (g->batch)
		g->batch(g->arg);
}

static struct work_list take_finished(struct workers_group *g, bool wait)
{
	struct workers *w = g->w;

	pthread_mutex_lock(&w->lock);
	while (wait && !g->finished.head)
		pthread_cond_wait(&w->done, &w->lock);
	struct work_list list = g->finished;

	g->finished.head = NULL;
	pthread_mutex_unlock(&w->lock);
	return list;
}

static void group_event(void *arg, uint32_t events)
{
	struct workers_group *g = arg;
	eventfd_t n;

	(void)events;
	eventfd_read(g->fd, &n);
	struct work_list list = take_finished(g, false);

	if (list.head)
		run_done(g, list);
}

bool workers_wait(struct workers_group *g)
{
	if (!g->out)
		return false;
	run_done(g, take_finished(g, true));
	return true;
}

int workers_group_init(struct workers_group *g, struct workers *w, struct loop *l, struct err *e)
{
	g->w = w;
	g->out = g->running = 0;
	g->waiting.head = g->finished.head = NULL;
	g->src = (struct loop_fd){.fn = group_event, .arg = g};
	g->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (g->fd < 0)
		return err_sys(e, "eventfd");
	int r = loop_fd_add(l, &g->src, g->fd, EPOLLIN);

	if (r < 0) {
		close(g->fd);
		errno = -r;
		return err_sys(e, "event loop");
	}
	pthread_mutex_lock(&w->lock);
	w->groups++;
	pthread_mutex_unlock(&w->lock);
	return 0;
}

void workers_group_fini(struct workers_group *g)
{
	assert(!g->out);
	pthread_mutex_lock(&g->w->lock);
	g->w->groups--;
	pthread_mutex_unlock(&g->w->lock);
	loop_fd_del(&g->src);
	close(g->fd);
}
