/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "vmm/loop_state.h"

int loop_new(struct loop **ret, const char *name, struct err *e)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (!l)
		return err_msg(e, -ENOMEM, "event loop: out of memory");
	pthread_mutex_init(&l->lock, NULL);
	pthread_mutex_init(&l->others, NULL);
	pthread_mutex_init(&l->gate, NULL);
	pthread_mutex_init(&l->tasks_lock, NULL);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	if (l->epfd < 0 || l->wakefd < 0 || epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->wakefd, &ev) < 0) {
		int r = err_sys(e, "event loop");
		loop_free(l);
		return r;
	}
	strncpy(l->name, name, sizeof(l->name) - 1);
	l->tasks_end = &l->tasks;
	*ret = l;
	return 0;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	if (l->epfd >= 0)
		close(l->epfd);
	if (l->wakefd >= 0)
		close(l->wakefd);
	pthread_mutex_destroy(&l->tasks_lock);
	pthread_mutex_destroy(&l->gate);
	pthread_mutex_destroy(&l->others);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/*
 * A mutex alone goes to whoever comes first, and a thread that has just let it
 * go comes before one that must wake up: vCPUs at work on a register would keep
 * the loop from its timers and signals. So only one other thread at a time,
 * the owner of others, competes with the loop's thread, and it stops at the
 * gate when that one waits. Order: others, gate, lock.
 */
void loop_lock(struct loop *l)
{
	pthread_mutex_lock(&l->others);
	__atomic_store_n(&l->wanted, true, __ATOMIC_RELAXED);
	if (__atomic_load_n(&l->waits, __ATOMIC_SEQ_CST)) {
		pthread_mutex_lock(&l->gate);
		pthread_mutex_unlock(&l->gate);
	}
	pthread_mutex_lock(&l->lock);
	__atomic_store_n(&l->wanted, false, __ATOMIC_RELAXED);
	__atomic_fetch_add(&l->taken, 1, __ATOMIC_RELAXED);
}

void loop_unlock(struct loop *l)
{
	pthread_mutex_unlock(&l->lock);
	pthread_mutex_unlock(&l->others);
}

/* The loop's thread: after the store at most one other enters, the one beyond the gate already. */
void loop_enter(struct loop *l)
{
	pthread_mutex_lock(&l->gate);
	__atomic_store_n(&l->waits, true, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&l->lock);
	__atomic_store_n(&l->waits, false, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&l->gate);
}

void loop_leave(struct loop *l)
{
	pthread_mutex_unlock(&l->lock);
}

static void loop_wake(struct loop *l)
{
	uint64_t one = 1;

	/* EAGAIN means that the counter is full, so the loop is awake already. */
	if (write(l->wakefd, &one, sizeof(one)) < 0)
		return;
}

void loop_stop(struct loop *l)
{
	__atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
	loop_wake(l);
}

uint64_t loop_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---------------------------------------------------------------- fds */

int loop_fd_add(struct loop *l, struct loop_fd *s, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	s->fd = fd;
	s->loop = l;
	return 0;
}

int loop_fd_mod(struct loop_fd *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	return epoll_ctl(s->loop->epfd, EPOLL_CTL_MOD, s->fd, &ev) < 0 ? -errno : 0;
}

void loop_fd_del(struct loop_fd *s)
{
	struct loop *l = s->loop;

	if (!l)
		return;
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, s->fd, NULL);
	if (l->ngone < LOOP_GONE)
		l->gone[l->ngone] = s;
	l->ngone++;
	s->loop = NULL;
}

/* ------------------------------------------------------------- timers */

void loop_timer_cancel(struct loop_timer *t)
{
	if (!t->loop)
		return;
	for (struct loop_timer **p = &t->loop->timers; *p; p = &(*p)->next)
		if (*p == t) {
			*p = t->next;
			break;
		}
	t->loop = NULL;
	t->due = 0;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t due)
{
	struct loop_timer **p = &l->timers;

	loop_timer_cancel(t);
	t->loop = l;
	t->due = due;
	while (*p && (*p)->due <= due)
		p = &(*p)->next;
	t->next = *p;
	*p = t;
	if (l->timers == t && !l->awake)
		loop_wake(l); /* it may sleep until a later one */
}

static void loop_timers_run(struct loop *l)
{
	uint64_t now = loop_now();

	/* A callback that sets its timer in the past again waits for the next round: now is fixed.
	 */
	while (l->timers && l->timers->due <= now) {
		struct loop_timer *t = l->timers;
		l->timers = t->next;
		t->loop = NULL;
		t->due = 0;
		t->fn(t->arg);
		if (l->timers && l->timers == t)
			break;
	}
}

/* -------------------------------------------------------------- tasks */

void loop_post(struct loop *l, struct loop_task *t)
{
	bool first = false;

	pthread_mutex_lock(&l->tasks_lock);
	if (!t->queued) {
		first = !l->tasks;
		t->queued = true;
		t->next = NULL;
		*l->tasks_end = t;
		l->tasks_end = &t->next;
	}
	pthread_mutex_unlock(&l->tasks_lock);
	if (first)
		loop_wake(l);
}

/* Runs what was queued on entry: a task that posts itself again waits for the fds' turn. */
static void loop_tasks_run(struct loop *l)
{
	struct loop_task *last = NULL, *t;

	do {
		pthread_mutex_lock(&l->tasks_lock);
		if (!last && l->tasks) /* fix the end of this round */
			last = (struct loop_task *)((char *)l->tasks_end -
						    offsetof(struct loop_task, next));
		t = l->tasks;
		if (t) {
			l->tasks = t->next;
			if (!l->tasks)
				l->tasks_end = &l->tasks;
			t->queued = false;
		}
		pthread_mutex_unlock(&l->tasks_lock);
		if (t)
			t->fn(t->arg);
	} while (t && t != last);
}

static bool loop_tasks_waiting(struct loop *l)
{
	pthread_mutex_lock(&l->tasks_lock);
	bool some = l->tasks != NULL;
	pthread_mutex_unlock(&l->tasks_lock);
	return some;
}

/* ms until a task or timer is due, -1: there is none. */
static int loop_timeout(struct loop *l)
{
	if (loop_tasks_waiting(l))
		return 0;
	if (!l->timers)
		return -1;
	uint64_t now = loop_now();
	if (l->timers->due <= now)
		return 0;
	uint64_t ms = (l->timers->due - now + 999999) / 1000000;
	return ms > 3600000 ? 3600000 : (int)ms;
}

/* Lets one who waits for the lock have it, who needs a moment to wake up; @taken: before. */
static void let_in(struct loop *l, unsigned taken)
{
	for (int i = 0; i < 100 && __atomic_load_n(&l->wanted, __ATOMIC_RELAXED) &&
			__atomic_load_n(&l->taken, __ATOMIC_RELAXED) == taken;
	     i++)
		sched_yield();
}

/* ---------------------------------------------------------------- run */

/*
 * The pointer in an event may be stale: its source was removed while nobody held the lock, or by
 * one that had its turn before. Of too many all are skipped; what is level-triggered comes again.
 */
static bool is_gone(const struct loop *l, const void *s)
{
	for (unsigned i = 0; i < l->ngone && i < LOOP_GONE; i++)
		if (l->gone[i] == s)
			return true;
	return l->ngone > LOOP_GONE;
}

static void loop_dispatch(struct loop *l, const struct epoll_event *ev, int n)
{
	for (int i = 0; i < n; i++) {
		struct loop_fd *s = ev[i].data.ptr;

		if (s) {
			if (!is_gone(l, s))
				s->fn(s->arg, ev[i].events);
		} else {
			uint64_t count;
			if (read(l->wakefd, &count, sizeof(count)) < 0)
				continue; /* somebody's wake that was drained already */
		}
	}
}

/* epoll_pwait2 came with Linux 5.11, and some containers refuse it: then naps last 1 ms more or
 * less.
 */
static int nap(const struct loop *l, struct epoll_event *ev, uint64_t ns)
{
	static bool lacks;
	const struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	if (!__atomic_load_n(&lacks, __ATOMIC_RELAXED)) {
		int n = epoll_pwait2(l->epfd, ev, LOOP_EVENTS, &ts, NULL);

		if (n >= 0 || errno == EINTR)
			return n;
		__atomic_store_n(&lacks, true, __ATOMIC_RELAXED);
	}
	return epoll_wait(l->epfd, ev, LOOP_EVENTS, (int)((ns + 999999) / 1000000));
}

/* With the lock held, which it lets go meanwhile. As epoll_wait. */
static int loop_sleep(struct loop *l, struct epoll_event *ev)
{
	int timeout = 0, n = loop_look(l, ev);

	if (n > 0)
		return n;
	uint64_t nap_ns = n == 0 ? l->nap : 0;

	if (n < 0 && !loop_look_end(l))
		timeout = loop_timeout(l);
	l->awake = false;
	unsigned taken = __atomic_load_n(&l->taken, __ATOMIC_RELAXED);

	loop_leave(l);
	if (n == 0 && !nap_ns)
		let_in(l, taken);
	n = nap_ns ? nap(l, ev, nap_ns) : epoll_wait(l->epfd, ev, LOOP_EVENTS, timeout);
	loop_enter(l);
	l->awake = true;
	return n;
}

void loop_run(struct loop *l)
{
	loop_enter(l);
	l->awake = true;
	while (!__atomic_load_n(&l->stop, __ATOMIC_ACQUIRE)) {
		struct epoll_event ev[LOOP_EVENTS];
		l->ngone = 0;
		int n = loop_sleep(l, ev);
		/* Who stops it does not want anything done that has come since. */
		if (__atomic_load_n(&l->stop, __ATOMIC_ACQUIRE))
			break;
		if (n > 0)
			loop_look_found(l);
		loop_dispatch(l, ev, n);
		loop_timers_run(l);
		loop_tasks_run(l);
	}
	__atomic_store_n(&l->stop, false, __ATOMIC_RELEASE);
	l->awake = false;
	loop_leave(l);
}

static void *loop_thread(void *arg)
{
	struct loop *l = arg;

	pthread_setname_np(pthread_self(), l->name);
	prctl(PR_SET_TIMERSLACK, 1ul); /* naps are short */
	loop_run(l);
	return NULL;
}

int loop_start(struct loop *l, struct err *e)
{
	int r = pthread_create(&l->thread, NULL, loop_thread, l);

	if (r)
		return err_msg(e, -r, "thread %s: %s", l->name, strerror(r));
	l->started = true;
	return 0;
}

void loop_join(struct loop *l)
{
	if (!l->started)
		return;
	loop_stop(l);
	pthread_join(l->thread, NULL);
	l->started = false;
}
