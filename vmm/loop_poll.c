/* SPDX-License-Identifier: Apache-2.0 */
/* Looking before a sleep: struct loop_poll of loop.h. */
#include <sched.h>
#include <sys/epoll.h>

#include "vmm/loop_state.h"

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

static void begin(struct loop *l)
{
	if (l->polling)
		return;
	l->polling = true;
	for (struct loop_poll *p = l->polls; p; p = p->next)
		p->ops->begin(p->arg);
}

bool loop_look_end(struct loop *l)
{
	bool some = false;

	if (!l->polling)
		return false;
	l->polling = false;
	for (struct loop_poll *p = l->polls; p; p = p->next)
		some |= p->ops->end(p->arg);
	return some;
}

static bool run(struct loop *l)
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
static void adapt(struct loop *l, uint64_t idle)
{
	if (idle <= l->poll_most || idle <= l->nap * 5 / 2)
		l->poll_span = l->poll_most;
	else if (l->poll_span > l->poll_most / 16)
		l->poll_span -= l->poll_span / 4;
	else
		l->poll_span = 0;
}

/*
 * The polls have their turn first: while they are begun nothing else finds their work.
 *
 * In a stream naps take the place of looking: a look for each part of it costs the
 * processor's other users more than the parts' wait, for each makes a wake-up of its own.
 * (What has an fd ends a nap.) The second nap that finds nothing is the last.
 */
static int look(struct loop *l, struct epoll_event *ev)
{
	begin(l);
	for (;;) {
		uint64_t now;

		if (run(l)) {
			now = loop_now();
			adapt(l, now - l->idle_since);
			l->idle_since = now;
		}
		if (l->nap) {
			if (loop_now() < l->idle_since + l->nap * 3 / 2)
				return 0;
			l->nap = 0; /* that stream has ended */
			return -1;
		}
		bool wanted = __atomic_load_n(&l->wanted, __ATOMIC_RELAXED);

		/* Who waits for this processor may be about to do the work that is waited for. */
		if (!wanted) {
			loop_leave(l);
			sched_yield();
			loop_enter(l);
			wanted = __atomic_load_n(&l->wanted, __ATOMIC_RELAXED);
		}
		int n = wanted ? 0 : epoll_wait(l->epfd, ev, LOOP_EVENTS, 0);

		now = loop_now();
		if (n > 0)
			return n;
		/* Since the last work: a thread that wants the lock again and again prolongs
		 * nothing. */
		if (now >= l->idle_since + l->poll_span)
			return -1;
		if (wanted || (l->timers && l->timers->due <= now))
			return 0;
	}
}

int loop_look(struct loop *l, struct epoll_event *ev)
{
	int n = -1;

	if (l->poll_most && !l->idle_since)
		l->idle_since = loop_now();
	if (!l->poll_span)
		return -1;
	unsigned others = __atomic_fetch_add(&looking, 1, __ATOMIC_RELAXED);

	if (others < __atomic_load_n(&looking_most, __ATOMIC_RELAXED))
		n = look(l, ev);
	__atomic_fetch_sub(&looking, 1, __ATOMIC_RELAXED);
	return n;
}

void loop_look_found(struct loop *l)
{
	if (l->idle_since)
		adapt(l, loop_now() - l->idle_since);
	l->idle_since = 0;
}
