/* SPDX-License-Identifier: Apache-2.0 */
/* An event loop one turn at a time, for tests that look between the turns. */
#ifndef TESTS_UNIT_TURNS_H
#define TESTS_UNIT_TURNS_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/loop.h"

static inline void turn_over(void *arg)
{
	loop_stop(arg);
}

/* One round of what is ready now: fds, timers, tasks. */
static inline void turn(struct loop *l)
{
	struct loop_task stop = {.fn = turn_over, .arg = l};

	loop_post(l, &stop);
	loop_run(l);
}

static inline void turns(struct loop *l, unsigned n)
{
	while (n--)
		turn(l);
}

/* Turns until @cond; what never comes ends the test program instead of hanging it. */
#define TURNS_UNTIL(l, cond)                                                                       \
	do {                                                                                       \
		unsigned left_ = 20000;                                                            \
		while (!(cond)) {                                                                  \
			if (!left_--) {                                                            \
				fprintf(stderr, "%s:%d: never: %s\n", __FILE__, __LINE__, #cond);  \
				abort();                                                           \
			}                                                                          \
			turn(l);                                                                   \
			usleep(500);                                                               \
		}                                                                                  \
	} while (0)

#endif
