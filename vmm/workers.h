/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small pool of threads for calls that block (fallocate, fdatasync, file I/O
 * that is not in the page cache). Threads start with the first job that finds
 * none idle, up to a maximum, and stay.
 *
 * A call can take for ever (an NFS server that is gone), and its thread with it.
 * So that a group whose calls stall holds up no other, each group may always
 * have one job running, on a thread of its own if need be; of the threads beyond
 * those a group gets three quarters while there are others, all when it is alone.
 * Groups that want more than there is take turns.
 *
 * An owner has a group: its jobs in the pool and their way back to its loop. A
 * job's run() is called on a worker without any lock; its done() on the
 * group's loop with the loop's lock held, and batch() once after the done()s
 * that came together.
 *
 * Nothing calls a job back. Who stops waits until all its jobs have run, with
 * workers_wait: a device that is reset, and a machine that ends, last as long as
 * the host's slowest call does, even after Ctrl-A x. What has not begun is run,
 * too; its owner makes that short (a cancelled request does nothing).
 *
 * A group belongs to its loop: all workers_group_* calls, workers_submit and
 * workers_wait are made with the loop's lock held (or before the loop runs).
 * Lock order: the loop's lock, then the pool's. A worker never takes a loop's
 * lock, so that waiting for one under that lock cannot deadlock.
 */
#ifndef VMM_WORKERS_H
#define VMM_WORKERS_H

#include <stdbool.h>

#include "vmm/loop.h"

struct workers;

struct work {
	void (*run)(void *arg);  /* on a worker thread */
	void (*done)(void *arg); /* on the loop */
	void *arg;
	struct workers_group *group; /* private */
	struct work *next;           /* private */
};

struct work_list {
	struct work *head, *tail;
};

struct workers_group {
	void (*batch)(void *arg); /* may be NULL; both are set before workers_group_init */
	void *arg;
	/* the rest is private to workers.c */
	struct workers *w;
	int fd; /* eventfd: finished is not empty */
	struct loop_fd src;
	unsigned out; /* submitted and not yet done() */
	/* under the pool's lock */
	unsigned running; /* or about to */
	struct work_list waiting, finished;
	struct workers_group *next; /* while something waits */
};

/* @max_threads for one group; each further one adds a thread. */
int workers_new(struct workers **ret, unsigned max_threads, struct err *e);
void workers_free(struct workers *w); /* every group is gone; joins; accepts NULL */

int workers_group_init(struct workers_group *g, struct workers *w, struct loop *l, struct err *e);
void workers_group_fini(struct workers_group *g); /* nothing is out */

/* Storage is the caller's until done(). Never fails: without any thread the job runs here. */
void workers_submit(struct workers_group *g, struct work *job);

/* Blocks until a job of the group has run and calls done() here; false: nothing is out. */
bool workers_wait(struct workers_group *g);

#endif
