/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small pool of threads for calls that block (fallocate, fdatasync, file I/O
 * that is not in the page cache). Threads start with the first job that finds
 * none idle, up to a maximum, and stay.
 *
 * An owner has a group: its jobs in the pool and their way back to its loop. A
 * job's run() is called on a worker without any lock; its done() on the
 * group's loop with the loop's lock held, and batch() once after the done()s
 * that came together.
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
	unsigned out;              /* submitted and not yet done() */
	struct work_list finished; /* under the pool's lock */
};

int workers_new(struct workers **ret, unsigned max_threads, struct err *e);
void workers_free(struct workers *w); /* every group is gone; joins; accepts NULL */

int workers_group_init(struct workers_group *g, struct workers *w, struct loop *l, struct err *e);
void workers_group_fini(struct workers_group *g); /* nothing is out */

/* Storage is the caller's until done(). Never fails: without any thread the job runs here. */
void workers_submit(struct workers_group *g, struct work *job);

/* Blocks until a job of the group has run and calls done() here; false: nothing is out. */
bool workers_wait(struct workers_group *g);

#endif
