/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of term.c: the terminal's settings and how they come back on every
 * way out, and file descriptors that do not block and are ours alone.
 */
#ifndef VMM_TERM_MODE_H
#define VMM_TERM_MODE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Remembers the settings of @fd and guards them: exit(3), fatal signals. -errno. */
int term_mode_guard(int fd);
void term_mode_unguard(void); /* restores, takes the handlers away */

bool term_mode_front(void); /* this process group has the terminal (or it is not our session's) */
void term_mode_raw(void);   /* only when in front */

/*
 * A description of our own of what @fd is open on, O_NONBLOCK, or -1: a
 * terminal or a pipe can be opened anew, other things not.
 */
int term_mode_reopen(int fd, int access);

/* write(2) that does not block on any kind of @fd: bytes, 0 for none now, -errno. */
struct term_out {
	int fd;   /* -1: not open */
	bool own; /* O_NONBLOCK and ours to close */
	enum { TERM_OUT_FILE, TERM_OUT_STREAM, TERM_OUT_SOCKET } kind;
	bool tty;
};
void term_out_init(struct term_out *o, int fd);
ssize_t term_out_write(const struct term_out *o, const uint8_t *buf, size_t n);
void term_out_fini(struct term_out *o);

#endif
