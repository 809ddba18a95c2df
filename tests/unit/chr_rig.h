/* SPDX-License-Identifier: Apache-2.0 */
/* A console's host end in a directory of its own, and a device that takes what it is told to. */
#ifndef TESTS_UNIT_CHR_RIG_H
#define TESTS_UNIT_CHR_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/turns.h"
#include "vmm/chr.h"

static char dir[64], path[96];
static struct loop *loop;
static struct chr *chr;
static struct err err;

/* The device's side: takes at most `left` bytes. */
static struct {
	uint8_t got[8192];
	size_t n, left;
	unsigned asked; /* how often room() was called */
} dev;

static inline size_t dev_room(void *arg)
{
	(void)arg;
	dev.asked++;
	return dev.left;
}

static inline void dev_input(void *arg, const uint8_t *buf, size_t n)
{
	(void)arg;
	assert_true(n > 0 && n <= dev.left);
	memcpy(dev.got + dev.n, buf, n);
	dev.n += n;
	dev.left -= n;
}

static const struct chr_user user = {.room = dev_room, .input = dev_input};

static inline int before(void **s)
{
	(void)s;
	signal(SIGPIPE, SIG_IGN); /* as the machine does */
	strcpy(dir, "/tmp/mvm-chr-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/x", dir);
	memset(&dev, 0, sizeof(dev));
	dev.left = 4096;
	chr = NULL;
	return loop_new(&loop, "test", &err);
}

static inline int after(void **s)
{
	char cmd[96];

	(void)s;
	chr_free(chr);
	loop_free(loop);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static inline int open_as(enum char_mode mode)
{
	struct char_config c = {mode, path};
	int r = chr_new(&chr, loop, &c, "console", &err);

	if (!r)
		chr_bind(chr, &user);
	return r;
}

static inline void write_str(const char *text)
{
	chr_write(chr, (const uint8_t *)text, strlen(text));
}

static inline void file_is(const char *want)
{
	char got[256];
	FILE *f = fopen(path, "r");
	size_t n;

	assert_non_null(f);
	n = fread(got, 1, sizeof(got) - 1, f);
	fclose(f);
	got[n] = '\0';
	assert_string_equal(got, want);
}

/* A pattern whose every position can be told from its neighbours'. */
static inline uint8_t pattern(size_t i)
{
	return (uint8_t)(i ^ (i >> 8) ^ (i >> 16));
}

static inline void write_pattern(size_t from, size_t n)
{
	uint8_t buf[4096];

	for (size_t i = 0; i < n; i += sizeof(buf)) {
		for (size_t j = 0; j < sizeof(buf); j++)
			buf[j] = pattern(from + i + j);
		chr_write(chr, buf, sizeof(buf));
	}
}

/* Reads @fd with turns of the loop in between until nothing more comes; the bytes are kept. */
static inline uint8_t *read_all(int fd, size_t *ret_n)
{
	uint8_t *buf = malloc(4 << 20);
	size_t n = 0;
	unsigned quiet = 0;

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	while (quiet < 50) {
		ssize_t got = read(fd, buf + n, (4u << 20) - n);

		quiet = got > 0 ? 0 : quiet + 1;
		n += got > 0 ? (size_t)got : 0;
		turn(loop);
		if (got <= 0)
			usleep(200);
	}
	*ret_n = n;
	return buf;
}

/* What stands on standard error between the two. */
static FILE *said_log;
static int said_saved;

static inline void said_begin(void)
{
	said_log = tmpfile();
	said_saved = dup(STDERR_FILENO);
	dup2(fileno(said_log), STDERR_FILENO);
}

static inline void said_is(const char *want)
{
	char said[512];
	size_t n;

	dup2(said_saved, STDERR_FILENO);
	close(said_saved);
	rewind(said_log);
	n = fread(said, 1, sizeof(said) - 1, said_log);
	said[n] = '\0';
	fclose(said_log);
	assert_string_equal(said, want);
}

#define T(f) cmocka_unit_test_setup_teardown(f, before, after)

#endif
