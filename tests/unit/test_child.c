/* SPDX-License-Identifier: Apache-2.0 */
/* Helper processes: what they are born with, what they print, and how they end. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/turns.h"
#include "tests/unit/vu_peer.h"
#include "vmm/child.h"
#include "vmm/log.h"

static char *const no_words[] = {"sh", NULL};

static const char *noise; /* of those born from here on */
static bool chatty;

static int born(struct child **c, const char *text, struct err *e)
{
	char *argv[] = {"sh", "-c", (char *)text, NULL};
	struct child_spec s = {.path = "/bin/sh",
			       .argv = argv,
			       .name = "x0: helper",
			       .fd = -1,
			       .chatty = chatty,
			       .noise = noise};

	return child_start(c, &s, e);
}

static void a_program_that_is_not_there_is_an_error(void **state)
{
	struct child_spec s = {.path = "/nonexistent/x", .argv = no_words, .name = "x", .fd = -1};
	unsigned files = open_files();
	struct err e = {0};
	struct child *c;

	(void)state;
	assert_int_equal(child_start(&c, &s, &e), -ENOENT);
	assert_string_equal(e.text, "/nonexistent/x: No such file or directory");
	assert_int_equal(open_files(), files);
}

static int refuse(const void *arg)
{
	return *(const int *)arg;
}

static void what_fails_before_it_is_an_error(void **state)
{
	const int no = -EPERM;
	struct child_spec s = {.path = "/bin/true",
			       .argv = no_words,
			       .name = "x",
			       .fd = -1,
			       .prepare = refuse,
			       .arg = &no,
			       .prepares = "to have this"};
	struct err e = {0};
	struct child *c;

	(void)state;
	assert_int_equal(child_start(&c, &s, &e), -EPERM);
	assert_string_equal(e.text, "to have this: Operation not permitted");
}

static void signals_and_files_are_as_for_any_program(void **state)
{
	sigset_t all, before;
	char buf[1024];
	struct child *c;

	(void)state;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(
		born(&c, "ls /proc/$$/fd; exec grep -E 'Sig(Blk|Ign)' /proc/self/status", NULL), 0);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	child_output(c, buf, sizeof(buf) - 1, 5000);
	child_free(c);
	assert_memory_equal(buf, "0\n1\n2\nSigBlk:\t", 14);
	assert_int_equal(strtoull(buf + 14, NULL, 16), 0);
	/* But for the C library's own two, 32 and 33, which it lets nobody change. */
	assert_int_equal(strtoull(strstr(buf, "SigIgn:") + 8, NULL, 16) & ~(3ull << 31), 0);
}

static void output_ends_at_the_size_and_at_the_time(void **state)
{
	char buf[11];
	struct child *c;

	(void)state;
	assert_int_equal(born(&c, "yes", NULL), 0);
	child_output(c, buf, 10, 5000);
	assert_string_equal(buf, "y\ny\ny\ny\ny\n");
	child_free(c);
	assert_int_equal(born(&c, "printf abc; sleep 100", NULL), 0);
	child_output(c, buf, 10, 200);
	assert_string_equal(buf, "abc");
	child_free(c);
}

/* What the log gets while @text runs. */
static void logged_at(enum log_level level, const char *text, char *buf, size_t size)
{
	struct loop *l;
	struct child *c;
	int out[2], err = dup(2);

	assert_int_equal(pipe(out), 0);
	assert_int_equal(loop_new(&l, "test", NULL), 0);
	assert_int_equal(born(&c, text, NULL), 0);
	fflush(stderr);
	dup2(out[1], 2);
	log_set_level(level);
	assert_int_equal(child_watch(c, l), 0);
	for (unsigned i = 0; i < 1000; i++) {
		turn(l);
		usleep(1000);
	}
	child_end(c);
	log_set_level(-1);
	dup2(err, 2);
	close(err);
	close(out[1]);
	ssize_t n = read(out[0], buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	close(out[0]);
	child_free(c);
	loop_free(l);
}

static void logged(const char *text, char *buf, size_t size)
{
	logged_at(LOG_INFO, text, buf, size);
}

/* Lines of one that chats are no warnings; noise is not even its last word. */
static void what_is_only_said_is_shown_on_request(void **state)
{
	static const char text[] = "echo one; echo no log for one; echo two; echo no log for two";
	struct err e = {0};
	struct child *c;
	char buf[2000];

	(void)state;
	logged_at(LOG_WARN, "echo one", buf, sizeof(buf));
	assert_string_equal(buf, "mvm: x0: helper: one\n");
	chatty = true;
	noise = "no log for";
	logged_at(LOG_WARN, text, buf, sizeof(buf));
	assert_string_equal(buf, "");
	logged(text, buf, sizeof(buf));
	assert_string_equal(buf, "mvm: x0: helper: one\nmvm: x0: helper: two\n"
				 "mvm: x0: helper ended with status 0\n");
	assert_int_equal(born(&c, text, NULL), 0);
	assert_int_equal(child_failed(c, &e), -EIO);
	assert_string_equal(e.text, "x0: helper ended with status 0: two");
	child_free(c);
	chatty = false;
	noise = NULL;
}

static void its_lines_go_into_the_log_and_how_it_ended(void **state)
{
	char buf[2000];

	(void)state;
	logged("echo one; printf 'tw\\033o\\n\\nthree'; kill -9 $$", buf, sizeof(buf));
	assert_string_equal(buf, "mvm: x0: helper: one\nmvm: x0: helper: tw?o\n"
				 "mvm: x0: helper: three\nmvm: x0: helper was killed by signal 9 "
				 "(Killed)\n");
}

static void a_flood_of_lines_is_cut(void **state)
{
	char buf[20000];

	(void)state;
	logged("yes; sleep 100", buf, sizeof(buf));
	assert_true(strlen(buf) < 16 * 100);
	assert_null(strstr(buf, "killed")); /* that was us */
}

static void long_lines_are_cut(void **state)
{
	char buf[2000];

	(void)state;
	logged("head -c 5000 /dev/zero | tr '\\0' x; echo; sleep 100", buf, sizeof(buf));
	assert_int_equal(strlen(buf), strlen("mvm: x0: helper: \n") + 200);
}

static void its_descendants_end_with_it(void **state)
{
	char buf[64];
	struct child *c;
	int pid;

	(void)state;
	assert_int_equal(born(&c, "sleep 1000 & printf '%063d' $!; wait", NULL), 0);
	child_output(c, buf, sizeof(buf) - 1, 20000);
	pid = atoi(buf);
	assert_true(pid > 1);
	assert_int_equal(kill(pid, 0), 0);
	child_free(c);
	for (unsigned i = 0; i < 5000 && !kill(pid, 0); i++) {
		char path[32], stat[64] = "";
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		FILE *f = fopen(path, "re");
		if (!f || !fgets(stat, sizeof(stat), f) || strstr(stat, ") Z")) {
			if (f)
				fclose(f);
			return; /* a zombie, where nobody reaps orphans */
		}
		fclose(f);
		usleep(1000);
	}
	assert_int_equal(kill(pid, 0), -1);
}

/* Whoever asks whether it may still do something hears of it. */
static void a_descendant_that_got_away_is_not_called_ended(void **state)
{
	char buf[64];
	struct child *c;

	(void)state;
	assert_int_equal(born(&c, "setsid sh -c 'printf %063d $$; exec sleep 1000' & wait", NULL),
			 0);
	child_output(c, buf, sizeof(buf) - 1, 20000);
	assert_true(atoi(buf) > 1);
	assert_false(child_end(c));
	child_free(c);
	assert_int_equal(kill(atoi(buf), SIGKILL), 0);
}

static void nor_one_whose_own_process_ended_before(void **state)
{
	char buf[64];
	struct child *c;

	(void)state;
	assert_int_equal(born(&c, "setsid sh -c 'printf %063d $$; exec sleep 1000' &", NULL), 0);
	child_output(c, buf, sizeof(buf) - 1, 20000);
	assert_true(atoi(buf) > 1);
	usleep(200000);
	assert_false(child_end(c));
	child_free(c);
	assert_int_equal(kill(atoi(buf), SIGKILL), 0);
}

static void last_words_are_part_of_the_error(void **state)
{
	struct err e = {0};
	struct child *c;

	(void)state;
	assert_int_equal(born(&c, "echo a; echo; echo 'b c' >&2; exit 7", NULL), 0);
	assert_int_equal(child_failed(c, &e), -EIO);
	assert_string_equal(e.text, "x0: helper ended with status 7: b c");
	child_free(c);
}

static void the_end_may_come_twice(void **state)
{
	struct child *c;

	(void)state;
	assert_int_equal(born(&c, "sleep 100", NULL), 0);
	assert_true(child_end(c));
	assert_true(child_end(c));
	child_free(c);
	child_free(NULL);
}

static int quiet(void **state)
{
	(void)state;
	log_set_level(-1);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_program_that_is_not_there_is_an_error),
		cmocka_unit_test(what_fails_before_it_is_an_error),
		cmocka_unit_test(signals_and_files_are_as_for_any_program),
		cmocka_unit_test(output_ends_at_the_size_and_at_the_time),
		cmocka_unit_test(its_lines_go_into_the_log_and_how_it_ended),
		cmocka_unit_test(what_is_only_said_is_shown_on_request),
		cmocka_unit_test(a_flood_of_lines_is_cut),
		cmocka_unit_test(long_lines_are_cut),
		cmocka_unit_test(its_descendants_end_with_it),
		cmocka_unit_test(a_descendant_that_got_away_is_not_called_ended),
		cmocka_unit_test(nor_one_whose_own_process_ended_before),
		cmocka_unit_test(last_words_are_part_of_the_error),
		cmocka_unit_test(the_end_may_come_twice),
	};

	return cmocka_run_group_tests(tests, quiet, NULL);
}
