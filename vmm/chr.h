/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of a console or serial line: nothing, the terminal, a PTY, a
 * file or a Unix socket. It outlives a machine that restarts: the device binds
 * to it at start and unbinds at stop.
 *
 * Output never blocks the loop: what the host does not take is kept up to
 * CHR_BUFFER bytes, then the oldest is dropped (a guest cannot make the VMM
 * grow). Input is read only while the device says it has room.
 */
#ifndef VMM_CHR_H
#define VMM_CHR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/config.h"
#include "vmm/err.h"
#include "vmm/loop.h"

#define CHR_BUFFER (256u << 10)

struct chr;

struct chr_user {                  /* the device's side; called on the loop, lock held */
	size_t (*room)(void *dev); /* bytes it can take now */
	void (*input)(void *dev, const uint8_t *buf, size_t n);  /* n ≤ room */
	void (*resize)(void *dev, uint16_t cols, uint16_t rows); /* may be NULL */
	void *dev;
};

/* Opens what @c says; where a PTY or a socket is, is said at once. @label:
 * "console" or "serial". */
int chr_new(struct chr **ret, struct loop *l, const struct char_config *c, const char *label,
	    struct err *e);
void chr_free(struct chr *c); /* restores the terminal, removes the socket; accepts NULL */
/* No machine ever ran with it: a file that chr_new made will not be left empty. Accepts NULL. */
void chr_undo(struct chr *c);

void chr_bind(struct chr *c, const struct chr_user *u); /* NULL: unbind */
void chr_write(struct chr *c, const uint8_t *buf, size_t n);
void chr_room(struct chr *c); /* the device has room again: reading goes on */
bool chr_size(const struct chr *c, uint16_t *cols, uint16_t *rows); /* false: not a terminal */
const char *chr_path(const struct chr *c);                          /* PTY slave or socket; NULL */

#endif
