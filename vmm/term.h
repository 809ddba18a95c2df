/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's terminal: raw while a guest has it, as found on every way out
 * (return, exit, fatal signals). One per process. Shared by the console and
 * the serial line when both are on tty: Ctrl-A c moves the keyboard from one
 * to the other.
 *
 * The escape is Ctrl-A: x quits, c cycles the input, h or ? helps, Ctrl-A or a
 * sends one Ctrl-A; before anything else it is an ordinary key. Output of
 * whoever is not in front is shown all the same. When standard input is no
 * terminal its bytes reach the guest as they are, to the end of the file.
 *
 * In the background the terminal is neither read nor set, until the shell puts
 * this process in front. File status flags of what the shell gave us are never
 * changed: they are shared with it.
 *
 * On the loop's thread or with its lock held, but for term_restore. A stopped
 * terminal never blocks: see term_write.
 */
#ifndef VMM_TERM_H
#define VMM_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/err.h"
#include "vmm/loop.h"
#include "vmm/power.h"

struct term_user {
	const char *label;
	size_t (*room)(void *arg);
	void (*input)(void *arg, const uint8_t *buf, size_t n);
	void (*resize)(void *arg, uint16_t cols, uint16_t rows); /* may be NULL */
	void *arg;
	struct term_user *next; /* private */
};

/*
 * Reads standard input from now on; raw mode when it is a terminal. @quit gets
 * POWER_QUIT at Ctrl-A x. Idempotent: a later call changes @quit alone, and NULL
 * leaves it.
 */
int term_open(struct loop *l, const struct power_sink *quit, struct err *e);
void term_attach(struct term_user *u); /* the first one has the keyboard */
void term_detach(struct term_user *u); /* the last one gives the terminal back: term_close */
void term_room(void);                  /* whoever is in front has room again */
/* Keeps up to CHR_BUFFER bytes while the terminal takes none; then the oldest go. */
void term_write(const uint8_t *buf, size_t n);
bool term_size(uint16_t *cols, uint16_t *rows); /* false: no terminal, or it does not know */
void term_winch(void);   /* SIGWINCH arrived (the machine's signalfd calls it) */
void term_cont(void);    /* SIGCONT arrived: raw again when in front */
void term_restore(void); /* async-signal-safe */
void term_close(void);   /* flushes (bounded time), restores; before loop_free */

#endif
