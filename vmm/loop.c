/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/loop.h"

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

#define LOOP_EVENTS 32

struct loop {
	int epfd, wakefd;
	char name[16];
	pthread_mutex_t lock;       /* the devices' */
	pthread_mutex_t others;     /* held around it by all threads but the loop's: one competes */
	pthread_mutex_t gate;       /* the loop's thread holds it while it waits */
	bool waits;                 /* atomic: there is somebody at the gate to let pass */
	bool wanted;                /* atomic: another thread waits for the lock */
	unsigned taken;             /* atomic: how often others took it */
	pthread_mutex_t tasks_lock; /* innermost: held for a few instructions only */
	struct loop_task *tasks, **tasks_end;
	struct loop_timer *timers; /* sorted by due */
	bool stop;                 /* atomic */
	bool awake;                /* under the lock: its thread looks at timers before it sleeps */
	bool started;
	pthread_t thread;
	/* the batch being dispatched, so that loop_fd_del can void what is left of it */
	struct epoll_event ev[LOOP_EVENTS];
	int nev;
	void *gone[LOOP_EVENTS]; /* fds removed while it waits: events of theirs may come */
	unsigned ngone;
	struct loop_poll *polls;
	bool polling;        /* between begin() and end() of the polls */
	uint64_t poll_most;  /* ns that looking before a sleep may take; 0: none */
	uint64_t poll_span;  /* ns it takes now; 0: it did not pay lately */
	uint64_t idle_since; /* loop_now() when work ran out; 0: not looked at since */
	uint64_t nap;        /* ns: the last work's next part can wait so long; 0: it cannot */
};

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
static void loop_enter(struct loop *l)
{
	pthread_mutex_lock(&l->gate);
	__atomic_store_n(&l->waits, true, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&l->lock);
	__atomic_store_n(&l->waits, false, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&l->gate);
}

static void loop_leave(struct loop *l)
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
	for (int i = 0; i < l->nev; i++)
		if (l->ev[i].data.ptr == s)
			l->ev[i].events = 0;
	if (l->ngone < LOOP_EVENTS)
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

/* -------------------------------------------------------------- polls */

/*
 * Looking for as long as a sleep and a wake-up would have cost wastes at most as
 * much again, and saves the guest the exit of its kick. What they cost differs by
 * more than ten between hosts (an emulated one is slow at everything), so it is
 * derived from a bare system call. It comes to some 100 us where one takes 130 ns.
 * KVM itself looks for up to 200 us before it lets a halted vCPU's thread sleep, and
 * where that is too short to find anything we ask it for more (vm_halt_poll).
 */
#define POLL_CALLS 768u
#define POLL_MAX 1000000u /* ns, whatever was measured */

/* Loops that look, of the whole process: one processor less than there are, for the vCPUs. */
static unsigned looking, looking_most;

uint64_t loop_poll_worth(struct loop *l)
{
	struct epoll_event ev;
	uint64_t least = POLL_MAX / POLL_CALLS;
	cpu_set_t cpus;

	/* With one processor nobody else gets anything done while this thread looks. */
	if (sched_getaffinity(0, sizeof(cpus), &cpus) || CPU_COUNT(&cpus) < 2)
		return 0;
	__atomic_store_n(&looking_most, (unsigned)CPU_COUNT(&cpus) - 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 8; i++) {
		uint64_t since = loop_now();

		epoll_wait(l->epfd, &ev, 1, 0);
		uint64_t took = loop_now() - since;
		if (took < least)
			least = took;
	}
	return least * POLL_CALLS;
}

void loop_poll_most(struct loop *l, uint64_t ns)
{
	l->poll_most = ns;
	l->poll_span = 0;
}

void loop_poll_add(struct loop *l, struct loop_poll *p)
{
	if (!l->polls && !l->poll_most)
		l->poll_most = loop_poll_worth(l);
	p->loop = l;
	p->most = l->poll_most;
	p->next = l->polls;
	l->polls = p;
	if (l->polling)
		p->ops->begin(p->arg);
}

void loop_poll_del(struct loop_poll *p)
{
	struct loop *l = p->loop;

	if (!l)
		return;
	for (struct loop_poll **at = &l->polls; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	if (l->polling)
		p->ops->end(p->arg);
	p->loop = NULL;
}

void loop_hurry(struct loop *l)
{
	l->nap = 0;
}

static void poll_begin(struct loop *l)
{
	if (l->polling)
		return;
	l->polling = true;
	for (struct loop_poll *p = l->polls; p; p = p->next)
		p->ops->begin(p->arg);
}

/* True: there is something to do by now. */
static bool poll_end(struct loop *l)
{
	bool some = false;

	if (!l->polling)
		return false;
	l->polling = false;
	for (struct loop_poll *p = l->polls; p; p = p->next)
		some |= p->ops->end(p->arg);
	return some;
}

static bool poll_run(struct loop *l)
{
	bool some = false;
	uint64_t nap = 0;

	for (struct loop_poll *p = l->polls, *next; p; p = next) {
		next = p->next;
		if (!p->ops->ready(p->arg))
			continue;
		uint64_t wait = p->ops->run(p->arg);

		if (wait && (!nap || wait < nap))
			nap = wait;
		some = true;
	}
	if (some)
		l->nap = nap;
	return some;
}

/*
 * Work came after so long a time without. Where that is shorter than the longest
 * look, or two naps with some delay, looking finds it. Else looking gets shorter, down
 * to none: an idle loop costs nothing.
 */
static void poll_adapt(struct loop *l, uint64_t idle)
{
	if (idle <= l->poll_most || idle <= l->nap * 5 / 2)
		l->poll_span = l->poll_most;
	else if (l->poll_span > l->poll_most / 16)
		l->poll_span -= l->poll_span / 4;
	else
		l->poll_span = 0;
}

/*
 * Events of the fds that came meanwhile; 0: to be gone on with after *ret_nap ns
 * without the lock; -1: nothing came for as long as it pays to look. The polls
 * have their turn first: while they are begun nothing else finds their work.
 *
 * In a stream naps take the place of looking: a look for each part of it costs the
 * processor's other users more than the parts' wait, for each makes a wake-up of its own.
 * (What has an fd ends a nap.) The second nap that finds nothing is the last.
 */
static int poll_look(struct loop *l, struct epoll_event *ev, uint64_t *ret_nap)
{
	/* Since when: a thread that asks for the lock again and again prolongs nothing. */
	uint64_t now, until = l->idle_since + (l->nap ? l->nap * 3 / 2 : l->poll_span);

	poll_begin(l);
	for (;;) {
		if (poll_run(l)) {
			now = loop_now();
			poll_adapt(l, now - l->idle_since);
			until = now + l->poll_span;
			l->idle_since = now;
			*ret_nap = l->nap;
			if (l->nap)
				return 0;
		}
		bool wanted = __atomic_load_n(&l->wanted, __ATOMIC_RELAXED);

		/* Who waits for this processor may be about to do the work that is waited for. */
		if (!wanted && !l->nap) {
			loop_leave(l);
			sched_yield();
			loop_enter(l);
			wanted = __atomic_load_n(&l->wanted, __ATOMIC_RELAXED);
		}
		int n = wanted ? 0 : epoll_wait(l->epfd, ev, LOOP_EVENTS, 0);

		now = loop_now();
		if (n > 0)
			return n;
		if (now >= until) {
			l->nap = 0; /* that stream has ended */
			return -1;
		}
		*ret_nap = l->nap;
		if (l->nap || wanted || (l->timers && l->timers->due <= now))
			return 0;
	}
}

/* As epoll_wait; with the lock held. */
static int poll_first(struct loop *l, struct epoll_event *ev, uint64_t *ret_nap)
{
	unsigned others = __atomic_fetch_add(&looking, 1, __ATOMIC_RELAXED);
	int n = -1;

	if (others < __atomic_load_n(&looking_most, __ATOMIC_RELAXED))
		n = poll_look(l, ev, ret_nap);
	__atomic_fetch_sub(&looking, 1, __ATOMIC_RELAXED);
	return n;
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

static void loop_dispatch(struct loop *l, int n)
{
	l->nev = n > 0 ? n : 0;
	for (int i = 0; i < l->nev; i++) {
		struct loop_fd *s = l->ev[i].data.ptr;
		uint32_t events = l->ev[i].events;
		if (s) {
			if (events)
				s->fn(s->arg, events);
		} else {
			uint64_t count;
			if (read(l->wakefd, &count, sizeof(count)) < 0)
				continue; /* somebody's wake that was drained already */
		}
	}
	l->nev = 0;
}

/* With the lock held, which it lets go meanwhile. As epoll_wait. */
static int loop_sleep(struct loop *l, struct epoll_event *ev)
{
	struct timespec nap = {0};
	uint64_t nap_ns = 0;
	int timeout = 0, n = -1;

	if (l->poll_most && !l->idle_since)
		l->idle_since = loop_now();
	if (l->poll_span) {
		n = poll_first(l, ev, &nap_ns);
		if (n > 0)
			return n;
	}
	if (n < 0 && !poll_end(l))
		timeout = loop_timeout(l);
	l->awake = false;
	unsigned taken = __atomic_load_n(&l->taken, __ATOMIC_RELAXED);

	loop_leave(l);
	if (n == 0 && !nap_ns)
		let_in(l, taken);
	nap.tv_sec = (time_t)(nap_ns / 1000000000u);
	nap.tv_nsec = (long)(nap_ns % 1000000000u);
	n = nap_ns ? epoll_pwait2(l->epfd, ev, LOOP_EVENTS, &nap, NULL)
		   : epoll_wait(l->epfd, ev, LOOP_EVENTS, timeout);
	loop_enter(l);
	l->awake = true;
	return n;
}

/*
 * A source may have gone while nobody held the lock: its pointer is stale. What is left of @ev; of
 * too many that went it is nothing, and what is level-triggered comes again.
 */
static int drop_gone(struct loop *l, struct epoll_event *ev, int n)
{
	int left = 0;

	if (l->ngone > LOOP_EVENTS)
		return 0;
	for (int i = 0; i < n; i++) {
		bool stale = false;

		for (unsigned k = 0; k < l->ngone; k++)
			stale |= ev[i].data.ptr == l->gone[k];
		if (!stale)
			ev[left++] = ev[i];
	}
	return left;
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
		n = drop_gone(l, ev, n);
		if (n > 0) {
			memcpy(l->ev, ev, (size_t)n * sizeof(ev[0]));
			if (l->idle_since)
				poll_adapt(l, loop_now() - l->idle_since);
			l->idle_since = 0;
		}
		loop_dispatch(l, n);
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
