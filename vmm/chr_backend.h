/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of vmm/chr*.c: what the back ends of chr.c share. */
#ifndef VMM_CHR_BACKEND_H
#define VMM_CHR_BACKEND_H

#include <sys/types.h>

#include "vmm/bytes.h"
#include "vmm/chr.h"
#include "vmm/log.h"
#include "vmm/outfile.h"
#include "vmm/term.h"
#include "vmm/unix_listen.h"

#define CHR_INPUT 4096 /* bytes kept of a client that wrote and went */

struct chr_backend {
	int (*open)(struct chr *c, const char *path, struct err *e);
	void (*close)(struct chr *c); /* also after a failed open */
	/* One write(2) that does not block: bytes taken, 0 for none now, or a negative errno. */
	ssize_t (*write)(struct chr *c, const uint8_t *buf, size_t n);
	/* The host's end failed, or went away (0). What was not written stays in c->out. */
	void (*lost)(struct chr *c, int err);
	void (*room)(struct chr *c); /* NULL: read c->fd */
	bool reads;
};

struct chr {
	const struct chr_backend *back;
	struct loop *loop;
	char label[16];
	char *path; /* what chr_path tells */
	struct chr_user user;
	bool bound, delivering;
	bool eof;      /* the client will write no more, but still reads */
	bool blocked;  /* the host took less than it was given: wait for EPOLLOUT */
	bool reported; /* its failure was logged */
	int fd;        /* the stream, -1 while there is none */
	struct loop_fd src;
	uint32_t watched;
	struct bytes out, in;
	struct loop_timer flush;
	/* file */
	struct outfile file;
	/* socket */
	struct unix_listen listen;
	struct loop_fd listen_src;
	struct loop_timer retry; /* of accept, after it failed */
	struct log_budget left;  /* clients that come and go */
	/* pty */
	int slave_fd;
	/* tty */
	struct term_user term;
};

extern const struct chr_backend chr_pty, chr_socket;

size_t chr_can_take(const struct chr *c); /* by the device, now */
void chr_watch(struct chr *c);            /* what c->fd is polled for, after any change */
void chr_flush(struct chr *c);
ssize_t chr_write_fd(struct chr *c, const uint8_t *buf, size_t n);
void chr_drop_fd(struct chr *c); /* stops polling c->fd and closes it */

#endif
