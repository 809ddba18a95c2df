/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Atomic int log_level = LOG_WARN;
static atomic_bool log_is_raw;

void log_set_level(enum log_level level)
{
	log_level = (int)level;
}

bool log_on(enum log_level level)
{
	return (int)level <= log_level;
}

void log_raw(bool raw)
{
	log_is_raw = raw;
}

static void log_line(const char *fmt, va_list ap)
{
	char line[1024];
	int n = snprintf(line, sizeof(line), "mvm: ");

	n += vsnprintf(line + n, sizeof(line) - 3 - (size_t)n, fmt, ap);
	if (n > (int)sizeof(line) - 4)
		n = (int)sizeof(line) - 4;
	/* Guests and files put words into these lines: none may drive the terminal. */
	for (int i = 0; i < n; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	n += snprintf(line + n, 3, log_is_raw ? "\r\n" : "\n");
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nowhere left to say so */
}

void log_at(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (!log_on(level))
		return;
	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
}

void log_guest(struct log_budget *b, const char *fmt, ...)
{
	va_list ap;

	unsigned n = __atomic_fetch_add(&b->used, 1, __ATOMIC_RELAXED);
	if (n >= LOG_GUEST_MAX) {
		__atomic_store_n(&b->used, LOG_GUEST_MAX + 1, __ATOMIC_RELAXED);
		return;
	}
	va_start(ap, fmt);
	if (log_on(LOG_WARN))
		log_line(fmt, ap);
	va_end(ap);
	if (n == LOG_GUEST_MAX - 1)
		log_at(LOG_WARN, "further messages of this kind are dropped");
}
