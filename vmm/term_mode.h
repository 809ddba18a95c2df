/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of term.c: the terminal's settings and how they come back on every
 * way out.
 */
#ifndef VMM_TERM_MODE_H
#define VMM_TERM_MODE_H

#include <stdbool.h>

/* Remembers the settings of @fd and guards them: exit(3), fatal signals. -errno. */
int term_mode_guard(int fd);
void term_mode_unguard(void); /* restores, takes the handlers away */

bool term_mode_front(void); /* this process group has the terminal (or it is not our session's) */
void term_mode_raw(void);   /* only when in front */

#endif
