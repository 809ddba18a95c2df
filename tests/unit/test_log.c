/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/log.h"

static char said[256 << 10];
static FILE *out;
static int saved;

static void listen_to_it(void)
{
	out = tmpfile();
	saved = dup(STDERR_FILENO);
	dup2(fileno(out), STDERR_FILENO);
}

static unsigned lines(void)
{
	unsigned n = 0;
	size_t len;

	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(out);
	len = fread(said, 1, sizeof(said) - 1, out);
	said[len] = '\0';
	fclose(out);
	for (const char *p = said; (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

static void log_budget_ends_with_a_word(void **s)
{
	struct log_budget b = {0}, other = {0};

	(void)s;
	listen_to_it();
	for (int i = 0; i < 1000; i++)
		log_guest(&b, "line %d", i);
	log_guest(&other, "another kind");
	assert_int_equal(lines(), LOG_GUEST_MAX + 2);
	assert_non_null(strstr(said, "line 15\nmvm: further messages of this kind are dropped\n"));
	assert_non_null(strstr(said, "mvm: another kind\n"));
}

static void log_level_that_is_off_costs_no_budget(void **s)
{
	struct log_budget b = {0};

	(void)s;
	listen_to_it();
	for (int i = 0; i < 1000; i++)
		log_guest_at(LOG_INFO, &b, "detail");
	log_guest(&b, "warning");
	assert_int_equal(lines(), 1);
	assert_string_equal(said, "mvm: warning\n");
}

static void log_quiet_leaves_errors_alone(void **s)
{
	struct log_budget b = {0};

	(void)s;
	listen_to_it();
	log_quiet(true);
	log_warn("said before");
	log_guest(&b, "said before");
	log_error("wrong");
	log_quiet(false);
	log_warn("new");
	assert_int_equal(lines(), 2);
	assert_string_equal(said, "mvm: wrong\nmvm: new\n");
}

static void log_line_drives_no_terminal(void **s)
{
	(void)s;
	listen_to_it();
	log_warn("\033[2J%s\r\n\177", "x\ty");
	assert_int_equal(lines(), 1);
	assert_string_equal(said, "mvm: ?[2Jx?y???\n");
}

static void log_line_keeps_letters_and_no_control_character(void **s)
{
	(void)s;
	listen_to_it();
	/* C1 controls as characters and as bytes, overlong forms, a surrogate, too large, cut off
	 */
	log_warn("\xc2\x9b"
		 "1m \x9b \xc0\x9b \xe0\x82\x9b \xed\xa0\x80 \xf4\x90\x80\x80 \xf8\x88 \xc3");
	log_warn(
		"\xc2\xa0\xc3\xa9\xdf\xbf\xe0\xa0\x80\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf");
	assert_int_equal(lines(), 2);
	assert_string_equal(said, "mvm: ??1m ? ?? ??? ??? ???? ?? ?\n"
				  "mvm: "
				  "\xc2\xa0\xc3\xa9\xdf\xbf\xe0\xa0\x80\xe2\x82\xac\xf0\x9f\x98\x80"
				  "\xf4\x8f\xbf\xbf\n");
}

/* Standard error is this pipe, whose reader has not come yet. */
static void pipe_nobody_reads(int p[2])
{
	assert_int_equal(pipe(p), 0);
	saved = dup(STDERR_FILENO);
	dup2(p[1], STDERR_FILENO);
	close(p[1]);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
}

static size_t drain(int fd)
{
	ssize_t n = read(fd, said, sizeof(said) - 1);

	said[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

static void log_that_nobody_reads_blocks_nobody(void **s)
{
	int p[2], kept = 0;
	char want[80];
	unsigned n = 0;

	(void)s;
	pipe_nobody_reads(p);
	alarm(60); /* what hangs ends */
	for (int i = 0; i < 20000; i++)
		log_warn("line %d of what nobody reads", i);
	log_text("[words]\n");
	log_error("an end");
	assert_true(drain(p[0]) > 4096);
	for (const char *l = said; (l = strchr(l, '\n')); l++)
		n++;
	assert_int_equal(said[strlen(said) - 1], '\n');
	log_warn("after");
	drain(p[0]);
	snprintf(want, sizeof(want), "mvm: an end\nmvm: %u lines of log lost\nmvm: after\n",
		 20001 - n);
	assert_string_equal(said, want);
	for (int i = 0; i < 20000; i++)
		log_error("error %05d", i);
	drain(p[0]);
	log_warn("after");
	drain(p[0]);
	for (const char *l = said; (l = strstr(l, "mvm: error")); l++)
		kept++;
	assert_int_equal(kept, LOG_KEEP / (int)strlen("mvm: error 00000\n"));
	assert_non_null(strstr(said, " lines of log lost\nmvm: after\n"));
	alarm(0);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(p[0]);
}

/* Read once, when it is full: what was kept must be there at the end without another line. */
static void log_tells_a_late_reader_of_errors_at_exit(void **s)
{
	int p[2];
	pid_t child;

	(void)s;
	pipe_nobody_reads(p);
	child = fork();
	if (!child) {
		alarm(60);
		for (int i = 0; i < 20000; i++)
			log_warn("line %d of what is read late", i);
		log_error("an end");
		drain(p[0]);
		exit(0);
	}
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_int_equal(waitpid(child, NULL, 0), child);
	drain(p[0]);
	assert_memory_equal(said, "mvm: an end\nmvm: ", 17);
	assert_non_null(strstr(said, " lines of log lost\n"));
	close(p[0]);
}

static void log_nobody_reads_lets_the_process_exit(void **s)
{
	int p[2], status;
	pid_t child;

	(void)s;
	pipe_nobody_reads(p);
	child = fork();
	if (!child) {
		alarm(60);
		for (int i = 0; i < 20000; i++)
			log_error("error %d", i);
		exit(7);
	}
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
	close(p[0]);
}

/* The last: it uses up what the process has. */
static void log_fresh_budgets_do_not_flood(void **s)
{
	(void)s;
	listen_to_it();
	for (int i = 0; i < 10000; i++) {
		struct log_budget b = {0};

		log_guest(&b, "a guest that restarts");
	}
	assert_in_range(lines(), LOG_GUEST_ALL / 2, LOG_GUEST_ALL + 1);
	assert_non_null(strstr(said, "mvm: further messages about what guests do are dropped\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(log_budget_ends_with_a_word),
		cmocka_unit_test(log_level_that_is_off_costs_no_budget),
		cmocka_unit_test(log_quiet_leaves_errors_alone),
		cmocka_unit_test(log_line_drives_no_terminal),
		cmocka_unit_test(log_line_keeps_letters_and_no_control_character),
		cmocka_unit_test(log_that_nobody_reads_blocks_nobody),
		cmocka_unit_test(log_tells_a_late_reader_of_errors_at_exit),
		cmocka_unit_test(log_nobody_reads_lets_the_process_exit),
		cmocka_unit_test(log_fresh_budgets_do_not_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
