/* SPDX-License-Identifier: Apache-2.0 */
#include <termios.h>

#include "tests/unit/chr_rig.h"

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
	(void)s;
	strcpy(path, "/dev/full");
	assert_int_equal(open_as(CHAR_FILE), 0);
	said_begin();
	write_pattern(0, 1 << 20);
	for (int i = 0; i < 100; i++) {
		write_str("x");
		turn(loop);
	}
	said_is("mvm: console: write /dev/full: No space left on device: output is lost\n");
}

static void chr_file_that_was_made_for_nothing_goes(void **s)
{
	(void)s;
	assert_int_equal(open_as(CHAR_FILE), 0);
	assert_int_equal(access(path, F_OK), 0);
	chr_undo(chr);
	chr_free(chr);
	assert_int_equal(access(path, F_OK), -1);
	/* One that was there stays, and so does one that holds something. */
	assert_int_equal(open_as(CHAR_FILE), 0);
	write_str("boot log");
	chr_undo(chr);
	chr_free(chr);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(open_as(CHAR_FILE), 0);
	chr_undo(chr);
	chr_free(chr);
	chr = NULL;
	assert_int_equal(access(path, F_OK), 0);
	chr_undo(NULL);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(chr_null_swallows),
		T(chr_file_appends_and_is_private),
		T(chr_bytes_of_a_uart_go_out_together),
		T(chr_file_errors_are_clear),
		T(chr_full_disk_is_reported_once),
		T(chr_file_that_was_made_for_nothing_goes),
		T(chr_blocked_fifo_keeps_the_newest),
		T(chr_pty_carries_both_ways),
		T(chr_pty_is_read_only_while_there_is_room),
		T(chr_pty_without_anybody_is_quiet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
