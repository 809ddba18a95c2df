/* SPDX-License-Identifier: Apache-2.0 */
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
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

static size_t dev_room(void *arg)
{
	(void)arg;
	dev.asked++;
	return dev.left;
}

static void dev_input(void *arg, const uint8_t *buf, size_t n)
{
	(void)arg;
	assert_true(n > 0 && n <= dev.left);
	memcpy(dev.got + dev.n, buf, n);
	dev.n += n;
	dev.left -= n;
}

static const struct chr_user user = {.room = dev_room, .input = dev_input};

static int before(void **s)
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

static int after(void **s)
{
	char cmd[96];

	(void)s;
	chr_free(chr);
	loop_free(loop);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static int open_as(enum char_mode mode)
{
	struct char_config c = {mode, path};
	int r = chr_new(&chr, loop, &c, "console", &err);

	if (!r)
		chr_bind(chr, &user);
	return r;
}

static void write_str(const char *text)
{
	chr_write(chr, (const uint8_t *)text, strlen(text));
}

static void file_is(const char *want)
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
static uint8_t pattern(size_t i)
{
	return (uint8_t)(i ^ (i >> 8) ^ (i >> 16));
}

static void write_pattern(size_t from, size_t n)
{
	uint8_t buf[4096];

	for (size_t i = 0; i < n; i += sizeof(buf)) {
		for (size_t j = 0; j < sizeof(buf); j++)
			buf[j] = pattern(from + i + j);
		chr_write(chr, buf, sizeof(buf));
	}
}

/* Reads @fd with turns of the loop in between until nothing more comes; the bytes are kept. */
static uint8_t *read_all(int fd, size_t *ret_n)
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

/* ------------------------------------------------------------- null, file */

static void chr_null_swallows(void **s)
{
	uint16_t cols, rows;

	(void)s;
	assert_int_equal(open_as(CHAR_NULL), 0);
	write_pattern(0, 1 << 20);
	write_str("x");
	turns(loop, 3);
	assert_int_equal(dev.n, 0);
	assert_null(chr_path(chr));
	assert_false(chr_size(chr, &cols, &rows));
}

static void chr_file_appends_and_is_private(void **s)
{
	struct stat st;

	(void)s;
	assert_int_equal(open_as(CHAR_FILE), 0);
	write_str("one ");
	chr_free(chr);
	assert_int_equal(open_as(CHAR_FILE), 0);
	write_str("two");
	file_is("one two");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void chr_bytes_of_a_uart_go_out_together(void **s)
{
	(void)s;
	assert_int_equal(open_as(CHAR_FILE), 0);
	write_str("a");
	write_str("b");
	file_is("");
	write_str("cd");
	file_is("abcd");
	write_str("e");
	turns(loop, 2);
	file_is("abcde");
	write_str("f");
	chr_free(chr);
	chr = NULL;
	file_is("abcdef");
}

static void chr_file_errors_are_clear(void **s)
{
	char want[160];

	(void)s;
	snprintf(path, sizeof(path), "%s", dir);
	assert_int_equal(open_as(CHAR_FILE), -EISDIR);
	snprintf(want, sizeof(want), "console: open %s: Is a directory", dir);
	assert_string_equal(err.text, want);
	snprintf(path, sizeof(path), "%s/no/where", dir);
	assert_int_equal(open_as(CHAR_FILE), -ENOENT);
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(open_as(CHAR_FILE), -ENXIO);
	snprintf(want, sizeof(want), "console: open %s: a FIFO or device without a reader", path);
	assert_string_equal(err.text, want);
}

static void chr_full_disk_is_reported_once(void **s)
{
	char said[512];
	FILE *log = tmpfile();
	int saved = dup(STDERR_FILENO);
	size_t n;

	(void)s;
	strcpy(path, "/dev/full");
	assert_int_equal(open_as(CHAR_FILE), 0);
	fflush(stderr);
	dup2(fileno(log), STDERR_FILENO);
	write_pattern(0, 1 << 20);
	for (int i = 0; i < 100; i++) {
		write_str("x");
		turn(loop);
	}
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(log);
	n = fread(said, 1, sizeof(said) - 1, log);
	said[n] = '\0';
	fclose(log);
	assert_string_equal(said, "mvm: console: output is lost: No space left on device\n");
}

static void chr_blocked_fifo_keeps_the_newest(void **s)
{
	const size_t total = 2 << 20;
	size_t n;
	uint8_t *got;
	int fd;

	(void)s;
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = open(path, O_RDONLY | O_NONBLOCK);
	assert_int_equal(open_as(CHAR_FILE), 0);
	write_pattern(0, total);
	turns(loop, 3);
	got = read_all(fd, &n);
	/* What the pipe held at first, then the last CHR_BUFFER bytes. */
	assert_true(n > CHR_BUFFER && n < total);
	for (size_t i = 0; i < CHR_BUFFER; i++)
		if (got[n - 1 - i] != pattern(total - 1 - i))
			fail_msg("byte %zu from the end", i);
	for (size_t i = 0; i < n - CHR_BUFFER; i++)
		if (got[i] != pattern(i))
			fail_msg("byte %zu", i);
	free(got);
	/* A reader that goes does not end anything. */
	close(fd);
	write_str("into the void");
	turns(loop, 3);
}

/* ------------------------------------------------------------- pty */

static void chr_pty_carries_both_ways(void **s)
{
	char buf[64] = "";
	struct termios t;
	int fd;

	(void)s;
	assert_int_equal(open_as(CHAR_PTY), 0);
	assert_non_null(chr_path(chr));
	fd = open(chr_path(chr), O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_true(fd >= 0);
	assert_int_equal(tcgetattr(fd, &t), 0);
	assert_false(t.c_lflag & (ICANON | ECHO | ISIG));
	assert_int_equal(write(fd, "\003hi", 3), 3);
	TURNS_UNTIL(loop, dev.n == 3);
	assert_memory_equal(dev.got, "\003hi", 3);
	write_str("out\n");
	TURNS_UNTIL(loop, read(fd, buf, sizeof(buf)) == 4);
	assert_string_equal(buf, "out\n");
	close(fd);
}

static void chr_pty_is_read_only_while_there_is_room(void **s)
{
	int fd;

	(void)s;
	dev.left = 2;
	assert_int_equal(open_as(CHAR_PTY), 0);
	fd = open(chr_path(chr), O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_int_equal(write(fd, "abcdef", 6), 6);
	TURNS_UNTIL(loop, dev.n == 2);
	dev.asked = 0;
	turns(loop, 100);
	assert_int_equal(dev.n, 2);
	assert_true(dev.asked < 10); /* not polled */
	dev.left = 3;
	chr_room(chr);
	TURNS_UNTIL(loop, dev.n == 5);
	dev.left = 9;
	chr_room(chr);
	TURNS_UNTIL(loop, dev.n == 6);
	assert_memory_equal(dev.got, "abcdef", 6);
	close(fd);
}

static void chr_pty_without_anybody_is_quiet(void **s)
{
	int fd;

	(void)s;
	assert_int_equal(open_as(CHAR_PTY), 0);
	fd = open(chr_path(chr), O_RDWR | O_NOCTTY | O_NONBLOCK);
	turns(loop, 3);
	close(fd);
	dev.asked = 0;
	turns(loop, 200);
	assert_true(dev.asked < 10);
	/* Nobody reads: bounded, and nothing blocks. */
	write_pattern(0, 1 << 20);
	turns(loop, 10);
	fd = open(chr_path(chr), O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_int_equal(write(fd, "k", 1), 1);
	TURNS_UNTIL(loop, dev.n == 1);
	close(fd);
}

/* ------------------------------------------------------------- socket */

static int client(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&un, sizeof(un))) {
		close(fd);
		return -1;
	}
	return fd;
}

static void chr_socket_carries_both_ways(void **s)
{
	char buf[64] = "";
	struct stat st;
	int fd;

	(void)s;
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	assert_string_equal(chr_path(chr), path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	write_str("before anybody came ");
	fd = client();
	assert_true(fd >= 0);
	turns(loop, 3);
	write_str("now");
	TURNS_UNTIL(loop, read(fd, buf, sizeof(buf)) == 23);
	assert_string_equal(buf, "before anybody came now");
	assert_int_equal(write(fd, "hello", 5), 5);
	TURNS_UNTIL(loop, dev.n == 5);
	close(fd);
	turns(loop, 3);
	chr_free(chr);
	chr = NULL;
	assert_int_equal(access(path, F_OK), -1);
}

static void chr_socket_serves_one_at_a_time(void **s)
{
	char buf[64] = "";
	int first, second;

	(void)s;
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	first = client();
	turns(loop, 3);
	second = client();
	assert_true(second >= 0);
	assert_int_equal(write(second, "2", 1), 1);
	turns(loop, 5);
	assert_int_equal(dev.n, 0);
	assert_int_equal(write(first, "1", 1), 1);
	TURNS_UNTIL(loop, dev.n == 1);
	close(first);
	TURNS_UNTIL(loop, dev.n == 2);
	assert_memory_equal(dev.got, "12", 2);
	write_str("for two");
	TURNS_UNTIL(loop, read(second, buf, sizeof(buf)) == 7);
	close(second);
}

static void chr_socket_client_that_goes_without_room_is_replaced(void **s)
{
	int first, second;

	(void)s;
	dev.left = 0;
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	first = client();
	turns(loop, 3);
	assert_int_equal(write(first, "last words ", 11), 11);
	close(first);
	second = client();
	turns(loop, 10);
	assert_int_equal(write(second, "and new", 7), 7);
	dev.asked = 0;
	turns(loop, 100);
	assert_true(dev.asked < 10);
	dev.left = 100;
	chr_room(chr);
	TURNS_UNTIL(loop, dev.n == 18);
	assert_memory_equal(dev.got, "last words and new", 18);
	close(second);
}

static void chr_socket_half_closed_still_reads(void **s)
{
	char buf[64] = "";
	int fd;

	(void)s;
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	fd = client();
	assert_int_equal(write(fd, "cmd", 3), 3);
	shutdown(fd, SHUT_WR);
	TURNS_UNTIL(loop, dev.n == 3);
	dev.asked = 0;
	turns(loop, 100);
	assert_true(dev.asked < 10);
	write_str("answer");
	TURNS_UNTIL(loop, read(fd, buf, sizeof(buf)) == 6);
	close(fd);
	turns(loop, 3);
	fd = client();
	turns(loop, 3);
	assert_int_equal(write(fd, "!", 1), 1);
	TURNS_UNTIL(loop, dev.n == 4);
	close(fd);
}

static void chr_socket_client_that_never_reads_loses_the_oldest(void **s)
{
	const size_t total = 2 << 20;
	uint8_t *got;
	size_t n;
	int fd;

	(void)s;
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	fd = client();
	turns(loop, 3);
	write_pattern(0, total);
	turns(loop, 3);
	got = read_all(fd, &n);
	assert_true(n >= CHR_BUFFER && n < total);
	for (size_t i = 0; i < CHR_BUFFER; i++)
		if (got[n - 1 - i] != pattern(total - 1 - i))
			fail_msg("byte %zu from the end", i);
	free(got);
	close(fd);
}

static void chr_socket_replaces_a_stale_one(void **s)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)s;
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	fd = client();
	assert_true(fd >= 0);
	close(fd);
}

static void chr_socket_in_use_is_refused(void **s)
{
	struct char_config c = {CHAR_SOCKET, path};
	struct chr *other = NULL;
	char want[160];
	int fd;

	(void)s;
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	assert_int_equal(chr_new(&other, loop, &c, "serial", &err), -EADDRINUSE);
	snprintf(want, sizeof(want), "serial: socket %s: in use by another process", path);
	assert_string_equal(err.text, want);
	assert_null(other);
	/* The first one is still there. */
	fd = client();
	assert_true(fd >= 0);
	close(fd);
}

static void chr_socket_never_removes_what_is_not_its_own(void **s)
{
	(void)s;
	FILE *f = fopen(path, "w");

	fputs("precious", f);
	fclose(f);
	assert_int_equal(open_as(CHAR_SOCKET), -EEXIST);
	file_is("precious");
	unlink(path);
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	unlink(path);
	f = fopen(path, "w");
	fputs("somebody else's", f);
	fclose(f);
	chr_free(chr);
	chr = NULL;
	file_is("somebody else's");
}

static void chr_unbound_takes_no_input(void **s)
{
	int fd;

	(void)s;
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	chr_bind(chr, NULL);
	fd = client();
	assert_int_equal(write(fd, "keep", 4), 4);
	turns(loop, 10);
	assert_int_equal(dev.n, 0);
	chr_bind(chr, &user);
	TURNS_UNTIL(loop, dev.n == 4);
	close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, before, after)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(chr_null_swallows),
		T(chr_file_appends_and_is_private),
		T(chr_bytes_of_a_uart_go_out_together),
		T(chr_file_errors_are_clear),
		T(chr_full_disk_is_reported_once),
		T(chr_blocked_fifo_keeps_the_newest),
		T(chr_pty_carries_both_ways),
		T(chr_pty_is_read_only_while_there_is_room),
		T(chr_pty_without_anybody_is_quiet),
		T(chr_socket_carries_both_ways),
		T(chr_socket_serves_one_at_a_time),
		T(chr_socket_client_that_goes_without_room_is_replaced),
		T(chr_socket_half_closed_still_reads),
		T(chr_socket_client_that_never_reads_loses_the_oldest),
		T(chr_socket_replaces_a_stale_one),
		T(chr_socket_in_use_is_refused),
		T(chr_socket_never_removes_what_is_not_its_own),
		T(chr_unbound_takes_no_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
