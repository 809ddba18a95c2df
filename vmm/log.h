/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on standard error. Thread-safe: lines do not mix. To a file or a pipe
 * a line is one write(2); a terminal or a socket may take it in pieces, and
 * lines that had to wait go together. While the terminal is in raw mode lines
 * end in CR LF (term.c says so to log_raw()).
 *
 * Nothing here waits for a reader: who logs may hold a device's lock, and a guest
 * can make it log. A line that does not fit is lost, but errors are kept. The next
 * line that finds room is preceded by what was kept and by how many were lost;
 * when none comes, exit(3) says both, and gives a slow reader a moment to take them.
 *
 * What a guest, a peer or a file can provoke goes through log_guest(), whose
 * budget keeps a hostile guest from filling the host's log.
 */
#ifndef VMM_LOG_H
#define VMM_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

/* Default LOG_WARN; each -v raises it by one. */
void log_set_level(enum log_level level);
bool log_on(enum log_level level);
/* While quiet errors alone: a machine that restarts does not repeat what its set-up said. */
void log_quiet(bool quiet);
void log_raw(bool raw);
#define LOG_KEEP 4096 /* bytes of errors, and of lines begun, that wait for a reader */

void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

void log_text(const char *text); /* as it is; shorter than LOG_KEEP */

/*
 * At most LOG_GUEST_MAX lines a budget, and LOG_GUEST_ALL in the life of the
 * process: a guest gets fresh budgets each time it restarts. The last line says
 * that no more follow. Budgets begin as zeros.
 */
#define LOG_GUEST_MAX 16
#define LOG_GUEST_ALL 1024
struct log_budget {
	unsigned used; /* atomic */
};
void log_guest_at(enum log_level level, struct log_budget *b, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
#define log_guest(b, ...) log_guest_at(LOG_WARN, b, __VA_ARGS__)

#endif
