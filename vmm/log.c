/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Atomic int log_level = LOG_WARN;
static atomic_bool log_is_raw, log_is_quiet;

void log_set_level(enum log_level level)
{
	log_level = (int)level;
}

bool log_on(enum log_level level)
{
	return (int)level <= (log_is_quiet ? LOG_ERROR : log_level);
}

void log_quiet(bool quiet)
{
	log_is_quiet = quiet;
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

/* 0 when nothing is left, 1 for the last line, more before. */
static unsigned spend(struct log_budget *b, unsigned max)
{
	unsigned n = __atomic_fetch_add(&b->used, 1, __ATOMIC_RELAXED);

	if (n < max)
		return max - n;
	__atomic_store_n(&b->used, max, __ATOMIC_RELAXED); /* never wraps around */
	return 0;
}

void log_guest_at(enum log_level level, struct log_budget *b, const char *fmt, ...)
{
	static struct log_budget all;
	va_list ap;

	if (!log_on(level))
		return;
	unsigned left = spend(b, LOG_GUEST_MAX),
		 left_in_all = left ? spend(&all, LOG_GUEST_ALL) : 0;
	if (!left_in_all)
		return;
	va_start(ap, fmt);
	log_line(fmt, ap);
	va_end(ap);
	if (left_in_all == 1)
		log_at(level, "further messages about what guests do are dropped");
	else if (left == 1)
		log_at(level, "further messages of this kind are dropped");
}
