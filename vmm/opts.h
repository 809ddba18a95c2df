/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command-line options and k=v lists from tables.
 *
 * An option is `--name VALUE` or `--name=VALUE`, a flag `--name`; a letter
 * stands for a flag and letters may be joined (-vv). There are no other
 * arguments. Everything that is wrong with the line is said in one sentence
 * that names the option, what it wants, and the nearest right name.
 *
 * Called once by a command before anything else runs; nothing is kept.
 */
#ifndef VMM_OPTS_H
#define VMM_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "vmm/err.h"

enum opt_kind {
	OPT_GROUP, /* a heading in the help: name is its text */
	OPT_FLAG,
	OPT_VALUE,
	OPT_MAYBE, /* a flag that takes a value after '=' alone */
	OPT_MEANT, /* no option: who writes it means the one that arg names */
};

/* @value is NULL for a flag, empty only with .empty. 0, a negative errno with @e set, or OPTS_STOP.
 */
typedef int opt_set(void *target, const char *value, struct err *e);
#define OPTS_STOP 1

#define OPTS_MAX 48 /* entries in a table */

struct opt {
	const char *name; /* without dashes; NULL ends the table */
	enum opt_kind kind;
	char letter; /* 0: none */
	bool repeat; /* may stand more than once */
	bool empty;  /* takes an empty value */
	opt_set *set;
	const char *arg;  /* what the value is called: "FILE" */
	const char *help; /* lines separated by \n; NULL: not shown */
};

/* 0, OPTS_STOP when a setter said so, or a negative errno. @argv without the command's own name. */
int opts_parse(const struct opt *table, int argc, char **argv, void *target, struct err *e);

void opts_help(const struct opt *table, FILE *out);

/*
 * The name in @names (NULL-terminated) that @word was meant to be: one that
 * starts with it, or at an edit distance of a third of its length, or one
 * (a transposition counts one).
 * NULL when none is near.
 */
const char *opts_nearest(const char *word, const char *const *names);

/*
 * `key=value,key=value`: a value may stand in double quotes, wholly or in part,
 * and holds commas then; "" inside quotes is one quote. With @bare, a first
 * item that is no key=value is the value of that key.
 */
struct kv_key {
	const char *name;    /* NULL ends the table */
	opt_set *set;        /* NULL: no key, but another word for what @example shows */
	const char *example; /* "readonly=on", for who writes the bare word; or NULL; or the name
				itself: the bare word means NAME=on */
};
int opts_kv(const struct kv_key *keys, const char *bare, const char *text, void *target,
	    struct err *e);

/* A decimal number, nothing around it; -EINVAL, -ERANGE (the message names the range). */
int opts_number(const char *text, unsigned long min, unsigned long max, unsigned long *ret,
		struct err *e);
int opts_onoff(const char *text, bool *ret, struct err *e);

#endif
