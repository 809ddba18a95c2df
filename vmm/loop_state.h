/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an event loop is made of, for its own files alone: loop.c (lock, fds, timers, tasks, the
 * rounds) and loop_poll.c (looking before a sleep). All but what is marked is under the lock.
 */
#ifndef VMM_LOOP_STATE_H
#define VMM_LOOP_STATE_H

#include <pthread.h>
#include <sys/epoll.h>

#include "vmm/loop.h"

#define LOOP_EVENTS 32
#define LOOP_GONE 32

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
	void *gone[LOOP_GONE]; /* sources removed since this round began: it may hold events of
				  theirs */
	unsigned ngone;
	/* loop_poll.c's */
	struct loop_poll *polls;
	bool polling;        /* between begin() and end() of the polls */
	uint64_t poll_most;  /* ns that looking before a sleep may take; 0: none */
	uint64_t poll_span;  /* ns it takes now; 0: it did not pay lately */
	uint64_t idle_since; /* loop_now() when work ran out; 0: not looked at since */
	uint64_t nap;        /* ns: the last work's next part can wait so long; 0: it cannot */
};

/* The loop's thread takes its lock, before all others that wait for it, and lets it go. */
void loop_enter(struct loop *l);
void loop_leave(struct loop *l);

/*
 * Looks, if that pays. As epoll_wait, with the lock held: events that came meanwhile; 0: to be gone
 * on with after a nap of l->nap ns without the lock, which may be none; -1: it is time to sleep.
 */
int loop_look(struct loop *l, struct epoll_event *ev);
/* Before a sleep. True: there is something to do by now. */
bool loop_look_end(struct loop *l);
/* Something came by an fd. */
void loop_look_found(struct loop *l);

#endif
