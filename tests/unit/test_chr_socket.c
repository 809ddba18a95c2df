/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "tests/unit/chr_rig.h"

/* In front of libc's: fails with accept_error while that is set. */
static int accept_error;
static unsigned accepts;

int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	accepts++;
	if (!accept_error)
		return (int)syscall(SYS_accept4, fd, addr, len, flags);
	errno = accept_error;
	return -1;
}

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

static void chr_socket_out_of_descriptors_goes_on_listening(void **s)
{
	int fd;

	(void)s;
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	fd = client();
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "here", 4), 4);
	accept_error = EMFILE;
	accepts = 0;
	said_begin();
	TURNS_UNTIL(loop, accepts == 3); /* again and again, and said once */
	said_is("mvm: console: accept: Too many open files: clients wait until it works again\n");
	turns(loop, 100);
	assert_in_range(accepts, 3, 4); /* but not all the time */
	accept_error = 0;
	TURNS_UNTIL(loop, dev.n == 4);
	close(fd);
	/* It failed anew, and that is said; while a client waits to be looked after again, the
	 * console can end and another begin. */
	for (int i = 0; i < 2; i++) {
		turns(loop, 3);
		fd = client();
		accept_error = ENFILE;
		accepts = 0;
		said_begin();
		TURNS_UNTIL(loop, accepts == 1);
		said_is("mvm: console: accept: Too many open files in system: clients wait until "
			"it works again\n");
		close(fd);
		chr_free(chr);
		chr = NULL;
		accept_error = 0;
		assert_int_equal(open_as(CHAR_SOCKET), 0);
	}
}

static void chr_socket_client_that_gave_up_is_passed_over(void **s)
{
	int fd;

	(void)s;
	assert_int_equal(open_as(CHAR_SOCKET), 0);
	fd = client();
	accept_error = ECONNABORTED;
	accepts = 0;
	said_begin();
	turns(loop, 3);
	said_is("");
	assert_true(accepts >= 1);
	accept_error = 0;
	turns(loop, 3); /* at once, not after a while */
	assert_int_equal(write(fd, "hi", 2), 2);
	turns(loop, 3);
	assert_int_equal(dev.n, 2);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(chr_socket_carries_both_ways),
		T(chr_socket_serves_one_at_a_time),
		T(chr_socket_client_that_goes_without_room_is_replaced),
		T(chr_socket_half_closed_still_reads),
		T(chr_socket_client_that_never_reads_loses_the_oldest),
		T(chr_socket_replaces_a_stale_one),
		T(chr_socket_out_of_descriptors_goes_on_listening),
		T(chr_socket_client_that_gave_up_is_passed_over),
		T(chr_socket_in_use_is_refused),
		T(chr_socket_never_removes_what_is_not_its_own),
		T(chr_unbound_takes_no_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
