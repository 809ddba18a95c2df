/* SPDX-License-Identifier: Apache-2.0 */
/* Where a socket cannot be made: what is there stays, and the line says what it is. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/unix_listen.h"

static char path[64];

static void refused(const char *why)
{
	struct unix_listen u;
	struct stat st;
	struct err e = {0};
	char text[160];

	snprintf(text, sizeof(text), "socket %s: %s", path, why);
	assert_int_equal(unix_listen_open(&u, path, 1, &e), -EEXIST);
	assert_string_equal(e.text, text);
	assert_int_equal(lstat(path, &st), 0);
}

static void what_is_no_socket_stays(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/tmp/unix-listen-%d", getpid());
	close(open(path, O_CREAT | O_WRONLY, 0600));
	refused("there is a file of that name that is no socket");
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	refused("there is a directory of that name");
	rmdir(path);
}

static void a_socket_that_nobody_listens_at_is_replaced(void **state)
{
	struct unix_listen u, dead;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/unix-listen-%d", getpid());
	assert_int_equal(unix_listen_open(&dead, path, 1, NULL), 0);
	close(dead.fd);
	assert_int_equal(unix_listen_open(&u, path, 1, NULL), 0);
	free(dead.path);
	unix_listen_close(&u);
	assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_socket_stays),
		cmocka_unit_test(a_socket_that_nobody_listens_at_is_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
