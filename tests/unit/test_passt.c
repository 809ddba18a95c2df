/* SPDX-License-Identifier: Apache-2.0 */
/* --net user: what a script in the place of passt sees, and what is said of one that fails. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/unit/net_rig.h"
#include "tests/unit/vu_peer.h"

static struct fixture {
	char dir[32], program[48], said[48];
	char *path;
	unsigned files;
	struct net_config c;
	struct net_host *h;
	struct err e;
} f;

static int setup(void **state)
{
	(void)state;
	f = (struct fixture){.files = open_files(), .dir = "/tmp/mvm-test-XXXXXX"};
	log_set_level(LOG_ERROR);
	assert_non_null(mkdtemp(f.dir));
	snprintf(f.program, sizeof(f.program), "%s/passt", f.dir);
	snprintf(f.said, sizeof(f.said), "%s/said", f.dir);
	f.path = strdup(getenv("PATH"));
	f.c = (struct net_config){.kind = NET_USER, .mac = {2, 0, 0, 0, 0, 9}, .has_mac = true};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	setenv("PATH", f.path, 1);
	unlink(f.program);
	unlink(f.said);
	assert_int_equal(rmdir(f.dir), 0);
	assert_int_equal(open_files(), f.files);
	free(f.path);
	return 0;
}

/* Alone in PATH; it has the usual one itself. */
static int start(const char *text)
{
	FILE *s = fopen(f.program, "we");

	fprintf(s, "#!/bin/sh\n%s\n", text);
	fclose(s);
	assert_int_equal(chmod(f.program, 0755), 0);
	setenv("PATH", f.dir, 1);
	return net_host_open(&f.h, &f.c, 4, &f.e);
}

/* The question is 46 bytes long; any frame is an answer. */
#define ANSWER "head -c 46 <&3 >/dev/null; printf '\\0\\0\\0\\1x' >&3; "

static void it_gets_its_words_a_socket_and_nothing_else(void **state)
{
	char text[400], buf[1024];
	FILE *s;
	int leak = fcntl(0, F_DUPFD, 20); /* not close-on-exec */

	(void)state;
	f.c.mtu = 1400;
	snprintf(text, sizeof(text),
		 "(echo \"$@\"; ls -l /proc/$$/fd | sed 's/.* \\([0-9]* ->\\)/\\1/'; env; "
		 "echo pid $$) > %s; " ANSWER "exec sleep 1000",
		 f.said);
	if (start(text))
		fail_msg("%s", f.e.text);
	s = fopen(f.said, "re");
	buf[fread(buf, 1, sizeof(buf) - 1, s)] = '\0';
	fclose(s);
	assert_memory_equal(buf, "--foreground --fd 3 --mtu 1400\n", 31);
	assert_non_null(strstr(buf, "0 -> /dev/null\n"));
	assert_non_null(strstr(buf, "3 -> socket:"));
	assert_null(strstr(buf, "\n20 ->"));
	assert_null(strstr(buf, "HOME="));
	int pid = atoi(strstr(buf, "\npid ") + 5);

	assert_int_equal(kill(pid, 0), 0);
	net_host_close(f.h);
	assert_int_equal(kill(pid, 0), -1);
	close(leak);
}

static void one_that_is_missing_is_said_once(void **state)
{
	(void)state;
	setenv("PATH", f.dir, 1);
	assert_int_equal(net_host_open(&f.h, &f.c, 4, &f.e), -ENOENT);
	assert_string_equal(f.e.text, "net4: passt is not in PATH: install the package passt");
}

/* Each line without a logger is followed by a complaint. */
static void one_that_ends_has_the_last_word(void **state)
{
	(void)state;
	assert_int_equal(start("echo 'No route' >&2; echo 'Failed to send 9 bytes to syslog' >&2\n"
			       "exit 1"),
			 -EIO);
	assert_string_equal(f.e.text, "net4: passt ended with status 1: No route");
	assert_int_equal(start("kill -9 $$"), -EIO);
	assert_string_equal(f.e.text, "net4: passt was killed by signal 9 (Killed)");
}

static void one_that_sends_no_frames_is_ended(void **state)
{
	(void)state;
	assert_int_equal(start("printf '\\377\\377\\377\\377' >&3; exec sleep 1000"), -EIO);
	assert_string_equal(f.e.text, "net4: passt did not answer");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(it_gets_its_words_a_socket_and_nothing_else),
		T(one_that_is_missing_is_said_once),
		T(one_that_ends_has_the_last_word),
		T(one_that_sends_no_frames_is_ended),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests_name("passt", tests, NULL, NULL);
}
