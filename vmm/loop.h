/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loops, and the one lock of the devices that belong to them.
 *
 * A device belongs to exactly one loop.  Its callbacks (fds, timers, tasks) run
 * on the loop's thread with the loop's lock held; the bus takes the same lock
 * around a register access that a vCPU thread makes.  So a device's code is
 * never entered twice at once and holds no lock call itself.  Callbacks must
 * not block; who waits all the same, and how long, stands in virtio/README.md,
 * invariant 1.
 *
 * The loop's thread comes first: however many others take the lock in turn, it
 * waits for at most one of them, the one that has the lock or is about to. The
 * others have no order among themselves, and a thread that uses loop_lock may
 * hold the locks of several loops, taken in one order.
 *
 * Storage of sources, timers, polls and tasks is the caller's (embed them in the
 * device). All of loop_fd_*, loop_timer_*, loop_poll_* are called with the lock
 * held or before the loop runs; loop_post and loop_stop from any thread.
 */
#ifndef VMM_LOOP_H
#define VMM_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/err.h"

struct loop;

/* @name: at most 15 bytes, the thread's name when loop_start gives it one. */
int loop_new(struct loop **ret, const char *name, struct err *e);
void loop_free(struct loop *l); /* stopped and joined before; accepts NULL */

void loop_run(struct loop *l);  /* on the calling thread, until loop_stop */
void loop_stop(struct loop *l); /* any thread; sticks until the next loop_run has ended */

int loop_start(struct loop *l, struct err *e); /* loop_run on a thread of its own */
void loop_join(struct loop *l);                /* stops that thread and waits for it */

/* Any thread, outside the loop's callbacks. Not recursive. */
void loop_lock(struct loop *l);
void loop_unlock(struct loop *l);

typedef void loop_fd_fn(void *arg, uint32_t events); /* EPOLLIN, EPOLLOUT, … */
struct loop_fd {
	struct loop *loop; /* NULL while not added */
	int fd;
	loop_fd_fn *fn;
	void *arg;
};
/* Does not take over the fd. After loop_fd_del the callback is not called again. */
int loop_fd_add(struct loop *l, struct loop_fd *s, int fd, uint32_t events);
int loop_fd_mod(struct loop_fd *s, uint32_t events);
void loop_fd_del(struct loop_fd *s); /* does nothing when not added */

typedef void loop_fn(void *arg);
struct loop_timer {
	struct loop *loop;
	loop_fn *fn;
	void *arg;
	uint64_t due; /* CLOCK_MONOTONIC nanoseconds; 0 = not armed */
	struct loop_timer *next;
};
uint64_t loop_now(void); /* CLOCK_MONOTONIC, ns */
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t due);
void loop_timer_cancel(struct loop_timer *t);

/*
 * A poll is work that shows in memory before, or without, a wake-up: a ring's
 * index. While that saves sleeps, the loop looks there for a while before it
 * sleeps, for as long as about a sleep costs, with the lock held; it lets the lock
 * go as soon as another thread wants it. begin() and end() are called in turn;
 * before the loop sleeps, and in loop_poll_del, it is end()'s turn if begin() was
 * called. Between the looks it sees to its fds; tasks and timers have their turn. A
 * run() adds and deletes no poll. The next part of a stream may wait for others, so that
 * they are one batch for all who are concerned: instead of looking the loop naps then.
 * How long is for the device to say; where an answer is due it never does.
 */
struct loop_poll_ops {
	void (*begin)(void *arg);   /* wake-ups are not wanted from here on */
	bool (*ready)(void *arg);   /* there is something to do; asked again and again, so quick */
	uint64_t (*run)(void *arg); /* does it; ns that the next part can wait, 0: it cannot */
	bool (*end)(void *arg);     /* wake-ups are wanted; true: there is something by now */
};
struct loop_poll {
	struct loop *loop; /* NULL while not added */
	const struct loop_poll_ops *ops;
	void *arg;
	uint64_t most; /* ns: the longest look, filled in by loop_poll_add */
	struct loop_poll *next;
};
void loop_poll_add(struct loop *l, struct loop_poll *p);
void loop_poll_del(struct loop_poll *p); /* does nothing when not added */
/* The next part is waited for by somebody: no naps until a run() says so again. On the loop. */
void loop_hurry(struct loop *l);
/* ns that a thread may look for work before it sleeps, on this host; 0: not at all. Measured. */
uint64_t loop_poll_worth(struct loop *l);
/* The longest look before a sleep, instead of what loop_poll_add measures. For tests and fuzzers.
 */
void loop_poll_most(struct loop *l, uint64_t ns);

/* A task runs once on the loop for each posting; posting it again before it ran does nothing. */
struct loop_task {
	loop_fn *fn;
	void *arg;
	bool queued;
	struct loop_task *next;
};
void loop_post(struct loop *l, struct loop_task *t);

#endif
