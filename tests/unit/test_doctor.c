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

#include "vmm/cmd.h"
#include "vmm/kvm.h"

static char said[16384];

/* Runs it with its output in said[]. */
static int doctor(int argc, char **argv)
{
	FILE *out = tmpfile();
	int saved = dup(STDOUT_FILENO), ret;
	size_t n;

	fflush(stdout);
	dup2(fileno(out), STDOUT_FILENO);
	ret = cmd_doctor(argc, argv);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	rewind(out);
	n = fread(said, 1, sizeof(said) - 1, out);
	said[n] = '\0';
	fclose(out);
	return ret;
}

static void doctor_says_of_each_thing_how_it_is(void **s)
{
	static const char *const things[] = {
		"KVM",   "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock",
		"passt", "virtiofsd",    "huge pages",     "kernel"};
	int ret = doctor(1, (char *[]){"doctor", NULL});
	const char *verdict = ret ? "mvm boot cannot run here.\n" : "mvm boot can run here.\n";
	char *p = said;

	(void)s;
	assert_true(ret == 0 || ret == 1);
	if (kvm_kind(NULL) != KVM_KIND_HARDWARE)
		assert_int_equal(ret, 1);
	for (size_t i = 0; i < sizeof(things) / sizeof(things[0]); i++)
		assert_non_null(strstr(said, things[i]));
	while (strchr(p, '\n') && strcmp(p, verdict)) {
		size_t word = strcspn(p, " "), len = strcspn(p, "\n");

		/* No line is too long to read but for a word that is. */
		assert_true(len <= 80 || !memchr(p + 9, ' ', len - 9));
		assert_true(!word || !strncmp(p, "ok", word) || !strncmp(p, "warn", word) ||
			    !strncmp(p, "missing", word));
		if (!word)
			assert_true(strspn(p, " ") == 9);
		/* What is not there comes with what to do, below. */
		if (*p == 'm' || *p == 'w')
			assert_int_equal(p[len + 1], ' ');
		p += len + 1;
	}
	assert_string_equal(p, verdict);
	/* Machines run without these. */
	for (size_t i = 1; i < 6; i++) {
		const char *at = strstr(said, things[i]);

		assert_false(!strncmp(at - 9, "missing", 7));
	}
	assert_null(strstr(said, "-aG root"));
}

static void doctor_refuses_arguments(void **s)
{
	(void)s;
	assert_int_equal(doctor(2, (char *[]){"doctor", "now", NULL}), EXIT_VMM);
	assert_string_equal(said, "");
	assert_int_equal(doctor(2, (char *[]){"doctor", "--help", NULL}), 0);
	assert_non_null(strstr(said, "Usage: mvm doctor"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(doctor_says_of_each_thing_how_it_is),
		cmocka_unit_test(doctor_refuses_arguments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
