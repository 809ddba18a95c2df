/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output that never waits for its reader, whatever the shell gave us: the
 * terminal's, the log's. Flags of descriptors that we share with others are
 * never changed, so a terminal or a pipe is opened anew. The caller serializes.
 */
#ifndef VMM_TERM_OUT_H
#define VMM_TERM_OUT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * A description of our own of what @fd is open on, O_NONBLOCK, or -1: a
 * terminal or a pipe can be opened anew, other things not.
 */
int term_out_reopen(int fd, int access);

/*
 * write(2) that does not block, whatever @fd is: bytes, 0 for none now, -errno. One exception: a
 * pipe or a terminal that cannot be opened anew (another user's, say) is written to when poll(2)
 * finds room in it, and who shares it may take that room first.
 */
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
