/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/term_out.h"

#define EXIT_MS 100 /* how long exit(3) waits for a reader that makes no progress */

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

/* ------------------------------------------------------------- output */

/* Standard error as it was found, and what of it nobody has read yet. The lock is innermost. */
static struct {
	pthread_mutex_t lock;
	struct term_out out;
	dev_t dev; /* what out stands for */
	ino_t ino;
	bool opened;
	char kept[LOG_KEEP];
	size_t len;
	unsigned long lost;
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void sink_at_exit(void);

/* At the first line, and when standard error has become something else since. */
static void sink_open(void)
{
	struct stat st = {0};

	fstat(STDERR_FILENO, &st);
	if (sink.opened && sink.dev == st.st_dev && sink.ino == st.st_ino)
		return;
	if (sink.opened)
		term_out_fini(&sink.out);
	else
		atexit(sink_at_exit);
	sink.opened = true;
	sink.dev = st.st_dev;
	sink.ino = st.st_ino;
	term_out_init(&sink.out, STDERR_FILENO);
}

/* Bytes that need no second try: also those that nobody can take any more. */
static size_t sink_write(const char *buf, size_t n)
{
	size_t at = 0;

	/* A terminal takes pieces; the first that is refused ends it. */
	while (at < n) {
		ssize_t done = sink.out.fd < 0 ? -EBADF
					       : term_out_write(&sink.out,
								(const uint8_t *)buf + at, n - at);
		if (done < 0)
			return n; /* nowhere left to say so */
		if (!done)
			break;
		at += (size_t)done;
	}
	return at;
}

static bool sink_keep(const char *buf, size_t n)
{
	if (n > sizeof(sink.kept) - sink.len)
		return false;
	memcpy(sink.kept + sink.len, buf, n);
	sink.len += n;
	return true;
}

/* True when nothing is left of before. */
static bool sink_flush(void)
{
	size_t done = sink_write(sink.kept, sink.len);

	sink.len -= done;
	memmove(sink.kept, sink.kept + done, sink.len);
	if (!sink.len && sink.lost) {
		char note[80];
		int n = snprintf(note, sizeof(note), "mvm: %lu line%s of log lost%s", sink.lost,
				 sink.lost == 1 ? "" : "s", log_is_raw ? "\r\n" : "\n");

		done = sink_write(note, (size_t)n);
		if (done) {
			sink.lost = 0;
			sink_keep(note + done, (size_t)n - done);
		}
	}
	return !sink.len && !sink.lost;
}

static void sink_put(const char *buf, size_t n, bool keep)
{
	size_t done = 0;

	pthread_mutex_lock(&sink.lock);
	sink_open();
	if (sink_flush())
		done = sink_write(buf, n);
	/* What was begun is kept as well: no line stands there in halves. */
	if (done < n && (!(keep || done) || !sink_keep(buf + done, n - done)))
		sink.lost++;
	pthread_mutex_unlock(&sink.lock);
}

/* No device waits for a lock now, but whoever waits for this process to end does. */
static void sink_at_exit(void)
{
	size_t before;

	pthread_mutex_lock(&sink.lock);
	do {
		struct pollfd p = {.fd = sink.out.fd, .events = POLLOUT};

		before = sink.len + sink.lost;
		if (sink_flush() || poll(&p, 1, EXIT_MS) != 1)
			break;
		sink_flush();
	} while (sink.len + sink.lost < before);
	pthread_mutex_unlock(&sink.lock);
}

void log_text(const char *text)
{
	sink_put(text, strlen(text), false);
}

/* -------------------------------------------------------------- lines */

/* The length of a well-formed UTF-8 character of U+00A0 or above at @s; 0 for anything else. */
static int utf8_len(const unsigned char *s, int n)
{
	static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000};
	int len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	uint32_t c;

	if (s[0] < 0xc0 || s[0] >= 0xf8 || len > n)
		return 0;
	c = s[0] & (0x7fu >> len);
	for (int i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
}

/* Guests and files put words into these lines: none may drive the terminal (C0, DEL, C1). */
static void make_harmless(unsigned char *s, int n)
{
	for (int i = 0; i < n; i++) {
		int len = s[i] < 0x80 ? 1 : utf8_len(s + i, n - i);

		if (!len || s[i] < 0x20 || s[i] == 0x7f)
			s[i] = '?';
		else
			i += len - 1;
	}
}

static void log_line(enum log_level level, const char *fmt, va_list ap)
{
	char line[1024]; /* no longer than PIPE_BUF: a pipe takes all or nothing */
	int n = snprintf(line, sizeof(line), "mvm: ");

	n += vsnprintf(line + n, sizeof(line) - 3 - (size_t)n, fmt, ap);
	if (n > (int)sizeof(line) - 4)
		n = (int)sizeof(line) - 4;
	make_harmless((unsigned char *)line, n);
	n += snprintf(line + n, 3, log_is_raw ? "\r\n" : "\n");
	sink_put(line, (size_t)n, level == LOG_ERROR);
}

void log_at(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (!log_on(level))
		return;
	va_start(ap, fmt);
	log_line(level, fmt, ap);
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
	log_line(level, fmt, ap);
	va_end(ap);
	if (left_in_all == 1)
		log_at(level, "further messages about what guests do are dropped");
	else if (left == 1)
		log_at(level, "further messages of this kind are dropped");
}
