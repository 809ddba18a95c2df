/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
		cmocka_unit_test(log_fresh_budgets_do_not_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
