/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A helper process: started in a session of its own, so that no key at the terminal reaches
 * it, with a small environment, standard files and at most one more; it ends with us at
 * the latest. What it prints goes into the log line by line.
 *
 * Threading: one thread at a time; watched, under the loop's lock. The thread that starts one has
 * to live on: the process is killed when that thread ends.
 */
#ifndef VMM_CHILD_H
#define VMM_CHILD_H

#include <stdbool.h>
#include <stddef.h>

#include "vmm/err.h"
#include "vmm/loop.h"

#define CHILD_FD 3 /* the number that child_spec.fd has there */

struct child;

struct child_spec {
	const char *path;  /* of the program */
	char *const *argv; /* with argv[0], ends with NULL */
	const char *name;  /* for the log: "fs0: virtiofsd"; copied */
	int fd;            /* stays the caller's; -1: none */
	bool chatty;       /* what it says is no warning: shown with -v */
	const char *noise; /* lines with this in them are thrown away; a literal; NULL: none are */
	/* In the process, before the program; async-signal-safe calls alone. 0 or a negative errno;
	 * may be NULL. */
	int (*prepare)(const void *arg);
	const void *arg;
	const char *prepares; /* what it does, for the error message */
};

/* When it returns the program runs, or could not be started. 0 or a negative errno. */
int child_start(struct child **ret, const struct child_spec *s, struct err *e);
/* Kills and reaps it; accepts NULL. */
void child_free(struct child *c);

void child_hush(struct child *c); /* nothing of what it says or does is logged any more */
/* All that it prints, at most @size bytes and an end, until it ends or @ms have passed. */
void child_output(struct child *c, char *buf, size_t size, unsigned ms);
/* It was expected to work, and did not: ends it and says in @e what its last words were. */
int child_failed(struct child *c, struct err *e);

/* Its lines go to the log from now on; NULL: not any more. 0 or a negative errno. */
int child_watch(struct child *c, struct loop *l);
/* Kills it with its descendants and reaps it; waits at most a second for all of them:
 * false when one is still there then. Again does nothing. If it ended by itself, the log says how.
 */
bool child_end(struct child *c);

/* The first of @name in PATH and in @dirs (NULL-terminated) that may be executed, for the caller
 * to free; NULL: none. */
char *child_find(const char *name, const char *const *dirs);

#endif
