/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors of set-up: a negative errno and a chain of contexts that reads
 * outside-in, "disk 1: open /x/y.img: No such file or directory".
 *
 * The function that meets the failure calls err_sys() or err_msg(); every
 * caller that knows more puts its own words in front with err_ctx().  All of
 * them return the code so that `return err_sys(e, "open %s", path);` works.
 * A struct err belongs to one thread at a time; a null pointer is accepted and
 * keeps only the code.
 */
#ifndef VMM_ERR_H
#define VMM_ERR_H

#include <stddef.h>

struct err {
	int code; /* negative errno, 0 while nothing has failed */
	char text[512];
};

/* `what: strerror(errno)`; returns -errno (never 0). */
int err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A failure that errno does not describe; @code is a negative errno. */
int err_msg(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts `context: ` in front of what is there; returns the code already set. */
int err_ctx(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
