/* SPDX-License-Identifier: Apache-2.0 */
/* The socket device's end on the host: the path, who comes there, what he says, how long it takes.
 */
#include <dirent.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/unit/vsock_rig.h"

#define GUEST 1234u
#define HOST 52
#define MS 1000000ull

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

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* ------------------------------------------------------------- the path */

static int open_at(const char *path, struct vsock_host **ret, struct err *e)
{
	char copy[512];
	struct vsock_config c = {.present = true, .cid = 3, .socket = copy};

	snprintf(copy, sizeof(copy), "%s", path);
	return vsock_host_open(ret, &c, e);
}

static void the_owner_alone_may_connect(void **s)
{
	struct stat st;

	(void)s;
	assert_int_equal(stat(rig.path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void a_socket_in_use_is_refused(void **s)
{
	struct vsock_host *h;
	struct err e = {0};

	(void)s;
	assert_int_equal(open_at(rig.path, &h, &e), -EADDRINUSE);
	assert_non_null(strstr(e.text, rig.path));
	assert_non_null(strstr(e.text, "in use"));
	assert_int_equal(access(rig.path, F_OK), 0);
	close(rig_client());
}

static void a_socket_left_behind_is_replaced(void **s)
{
	struct sockaddr_un un = rig_address(1);
	struct vsock_host *h;

	(void)s;
	close(rig_server(1, 1));
	assert_int_equal(open_at(un.sun_path, &h, NULL), 0);
	vsock_host_close(h);
	assert_int_equal(access(un.sun_path, F_OK), -1);
}

static void what_is_no_socket_is_left_alone(void **s)
{
	char path[128];
	struct vsock_host *h;
	struct err e = {0};
	int fd;

	(void)s;
	snprintf(path, sizeof(path), "%s/file", rig.dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_int_equal(open_at(path, &h, &e), -EEXIST);
	assert_non_null(strstr(e.text, path));
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	assert_int_equal(symlink(rig.path, path), 0);
	assert_int_equal(open_at(path, &h, NULL), -EEXIST);
	assert_int_equal(unlink(path), 0);
}

static void another_ones_socket_is_not_removed(void **s)
{
	struct sockaddr_un un = rig_address(1);
	struct vsock_host *h;
	int other;

	(void)s;
	assert_int_equal(open_at(un.sun_path, &h, NULL), 0);
	assert_int_equal(unlink(un.sun_path), 0);
	other = rig_server(1, 1);
	vsock_host_close(h);
	assert_int_equal(access(un.sun_path, F_OK), 0);
	close(other);
}

/* ------------------------------------------------------------- the line */

/* MSG_PEEK does not see such bytes on every kernel, and the loop would be told of them for ever. */
static void bytes_out_of_band_are_a_lines_like_others(void **s)
{
	static const char *const before[] = {"", "CONNECT 1"};

	(void)s;
	for (unsigned i = 0; i < 2; i++) {
		int fd = rig_client();

		rig_write(fd, before[i]);
		if (send(fd, "x", 1, MSG_OOB | MSG_NOSIGNAL) < 0 && errno == EOPNOTSUPP) {
			close(fd);
			continue;
		}
		if (*before[i])
			rig_write(fd, "\n");
		TURNS_UNTIL(rig.loop, rig_closed(fd));
		close(fd);
	}
}

static void other_lines_close_at_once(void **s)
{
	static const char *const lines[] = {
		"\n",
		"CONNECT\n",
		"CONNECT \n",
		"CONNECT x\n",
		"CONNECT -1\n",
		"CONNECT +1\n",
		"CONNECT 12 \n",
		"CONNECT 12\r\n",
		"CONNECT  12\n",
		"CONNECT 0x12\n",
		"CONNECT 4294967296\n",
		"CONNECT 99999999999999",
		"CONNECT 000000000000000000001\n",
		"GET / HTTP/1.0",
		"x",
		"CONNECTED",
		"connect12",
	};

	(void)s;
	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		int fd = rig_client();
		bool endless = i == 11;

		rig_write(fd, lines[i]);
		if (endless)
			rig_write(fd, "999");
		TURNS_UNTIL(rig.loop, rig_closed(fd));
		close(fd);
	}
	assert_int_equal(rig.s->nconns, 0);
	rig_expect_none();
}

static void every_port_can_be_asked_for(void **s)
{
	static const char *const lines[] = {"CONNECT 0\n", "CONNECT 4294967295\n", "CONNECT 007\n"};
	static const uint32_t ports[] = {0, UINT32_MAX, 7};

	(void)s;
	for (unsigned i = 0; i < 3; i++) {
		int fd = rig_client();

		rig_write(fd, lines[i]);
		RIG_EXPECT(VSOCK_OP_REQUEST);
		assert_int_equal(rig.p.dst_port, ports[i]);
		rig_op(VSOCK_OP_RST, ports[i], rig.p.src_port);
		close(fd);
	}
}

static void clients_that_give_up_leave_nothing(void **s)
{
	unsigned before = descriptors();

	(void)s;
	for (unsigned i = 0; i < 20; i++) {
		int fd = rig_client();

		if (i % 4 == 1)
			rig_write(fd, "CONN");
		if (i % 4 >= 2)
			rig_write(fd, "CONNECT 1234\n");
		if (i % 4 == 3)
			RIG_EXPECT(VSOCK_OP_REQUEST);
		close(fd);
		if (i % 4 == 3)
			rig_expect_rst(GUEST, rig.p.src_port);
		turns(rig.loop, 3);
	}
	while (rig_next())
		continue;
	assert_int_equal(rig.s->nconns, 0);
	assert_int_equal(descriptors(), before);
}

/* ------------------------------------------------------------- host ports */

static void ports_in_use_are_passed_over(void **s)
{
	uint32_t a, b;
	int x = rig_open_host(GUEST, &a), y;

	(void)s;
	rig.s->next_port = a;
	y = rig_open_host(GUEST, &b);
	assert_int_equal(b, a + 1);
	close(y);
	RIG_EXPECT(VSOCK_OP_SHUTDOWN);
	rig.s->next_port = UINT32_MAX; /* which means any port, to programs */
	y = rig_open_host(GUEST, &b);
	assert_true(b > a && b < UINT32_MAX);
	close(x);
	close(y);
}

/* ------------------------------------------------------------- time */

static void a_guest_that_does_not_answer_is_given_up(void **s)
{
	int fd = rig_client();

	(void)s;
	rig.s->wait_ns[VSOCK_WAIT_ANSWER] = 20 * MS;
	rig_write(fd, "CONNECT 1234\n");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	rig_expect_rst(GUEST, rig.p.src_port);
	assert_true(rig_closed(fd));
	rig_op(VSOCK_OP_RESPONSE, GUEST, rig.p.src_port); /* too late */
	RIG_EXPECT(VSOCK_OP_RST);
	close(fd);
}

static void one_that_was_answered_is_not(void **s)
{
	uint32_t port;
	int fd;

	(void)s;
	rig.s->wait_ns[VSOCK_WAIT_ANSWER] = 20 * MS;
	fd = rig_open_host(GUEST, &port);
	usleep(30000);
	rig_expect_none();
	rig_data(GUEST, port, "on", 2);
	rig_read(fd, "on");
	close(fd);
}

static void who_says_nothing_is_sent_away(void **s)
{
	int fd = rig_client();

	(void)s;
	rig.s->wait_ns[VSOCK_WAIT_LINE] = 10 * MS;
	rig_write(fd, "CONN");
	TURNS_UNTIL(rig.loop, rig_closed(fd));
	close(fd);
}

static void a_shutdown_without_an_end_is_ended(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig.s->wait_ns[VSOCK_WAIT_RST] = 10 * MS;
	close(fd);
	RIG_EXPECT(VSOCK_OP_SHUTDOWN);
	rig_expect_rst(GUEST, HOST);
	assert_int_equal(rig.s->nconns, 0);
}

static void a_client_waits_for_the_driver(void **s)
{
	uint32_t port;
	char ok[32];
	int fd = rig_client();

	(void)s;
	rig_write(fd, "CONNECT 1234\nearly");
	turns(rig.loop, 5);
	assert_false(rig_closed(fd));
	rig_drive(0, RIG_RING);
	RIG_EXPECT(VSOCK_OP_REQUEST);
	port = rig.p.src_port;
	rig_op(VSOCK_OP_RESPONSE, GUEST, port);
	snprintf(ok, sizeof(ok), "OK %u\n", port);
	rig_read(fd, ok);
	RIG_EXPECT(VSOCK_OP_RW);
	close(fd);
}

static void but_not_for_ever(void **s)
{
	int fd = rig_client();

	(void)s;
	rig.s->wait_ns[VSOCK_WAIT_DRIVER] = 10 * MS;
	rig_write(fd, "CONNECT 1234\n");
	TURNS_UNTIL(rig.loop, rig_closed(fd));
	assert_int_equal(rig.s->nconns, 0);
	rig_drive(0, RIG_RING);
	rig_expect_none();
	close(fd);
}

/* ------------------------------------------------------------- a host program that is behind */

static int fill_backlog(void)
{
	struct sockaddr_un un = rig_address(HOST);
	int fd;

	for (;;) { /* stays open until the test ends */
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (connect(fd, (struct sockaddr *)&un, sizeof(un)))
			break;
	}
	assert_int_equal(errno, EAGAIN);
	return fd;
}

static void a_full_backlog_is_tried_again(void **s)
{
	int l = rig_server(HOST, 1), fd;

	(void)s;
	rig.s->wait_ns[VSOCK_WAIT_RETRY] = 2 * MS;
	close(fill_backlog());
	rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	usleep(5000);
	rig_expect_none();
	while ((fd = accept4(l, NULL, NULL, 0)) >= 0 && rig.s->nconns == 1) {
		close(fd);
		turns(rig.loop, 2);
		usleep(3000);
		if (rig_next())
			break;
	}
	assert_int_equal(rig.p.op, VSOCK_OP_RESPONSE);
	close(l);
}

static void a_backlog_that_stays_full_refuses(void **s)
{
	int l = rig_server(HOST, 1);

	(void)s;
	rig.s->wait_ns[VSOCK_WAIT_RETRY] = 2 * MS;
	rig.s->wait_ns[VSOCK_WAIT_ANSWER] = 20 * MS;
	close(fill_backlog());
	rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	rig_expect_rst(GUEST, HOST);
	assert_int_equal(rig.s->nconns, 0);
	close(l);
}

static void a_guest_that_gives_up_meanwhile_is_forgotten(void **s)
{
	int l = rig_server(HOST, 1);

	(void)s;
	close(fill_backlog());
	rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	assert_int_equal(rig.s->nconns, 1);
	rig_op(VSOCK_OP_RST, GUEST, HOST);
	assert_int_equal(rig.s->nconns, 0);
	rig_expect_none();
	close(l);
}

/* ------------------------------------------------------------- accept */

static void accept_without_descriptors_does_not_spin(void **s)
{
	int fd = rig_client();

	(void)s;
	accept_error = EMFILE;
	accepts = 0;
	for (unsigned i = 0; i < 50; i++)
		turn(rig.loop);
	accept_error = 0;
	assert_true(accepts >= 1 && accepts < 5);
	rig_write(fd, "CONNECT 1234\n"); /* it waits in the backlog, and has its turn */
	RIG_EXPECT(VSOCK_OP_REQUEST);
	close(fd);
}

static void a_client_that_left_the_backlog_costs_the_next_nothing(void **s)
{
	int fd = rig_client();

	(void)s;
	accept_error = ECONNABORTED;
	turns(rig.loop, 2);
	accept_error = 0;
	rig_write(fd, "CONNECT 1234\n");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
#define IDLE(f) cmocka_unit_test_setup_teardown(f, rig_setup_idle, rig_teardown)

/* A connection takes a descriptor, and the rest of a process needs some as well. */
static void connections_leave_descriptors_for_others(void **s)
{
	static const struct {
		rlim_t hard;
		unsigned most;
	} cases[] = {{1024, 768}, {4096, 3072}, {8192, 4096}, {1048576, 4096}};
	struct rlimit was, now;
	struct vsock_host *h;

	(void)s;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	vsock_host_close(rig.host);
	rig.host = NULL;
	for (unsigned i = 0; i < 4; i++) {
		const pid_t child = fork();
		int status;

		if (!child) {
			if (cases[i].hard > was.rlim_max)
				_exit(0);
			setrlimit(RLIMIT_NOFILE, &(struct rlimit){256, cases[i].hard});
			if (vsock_host_open(&h, &rig.config, NULL))
				_exit(1);
			getrlimit(RLIMIT_NOFILE, &now);
			if (h->conns_max != cases[i].most)
				_exit(2);
			vsock_host_close(h);
			_exit(now.rlim_cur != (cases[i].hard > 8192 ? 8192 : cases[i].hard));
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(connections_leave_descriptors_for_others),
		TEST(the_owner_alone_may_connect),
		TEST(a_socket_in_use_is_refused),
		TEST(a_socket_left_behind_is_replaced),
		TEST(what_is_no_socket_is_left_alone),
		TEST(another_ones_socket_is_not_removed),
		TEST(bytes_out_of_band_are_a_lines_like_others),
		TEST(other_lines_close_at_once),
		TEST(every_port_can_be_asked_for),
		TEST(clients_that_give_up_leave_nothing),
		TEST(ports_in_use_are_passed_over),
		TEST(a_guest_that_does_not_answer_is_given_up),
		TEST(one_that_was_answered_is_not),
		TEST(who_says_nothing_is_sent_away),
		TEST(a_shutdown_without_an_end_is_ended),
		IDLE(a_client_waits_for_the_driver),
		IDLE(but_not_for_ever),
		TEST(a_full_backlog_is_tried_again),
		TEST(a_backlog_that_stays_full_refuses),
		TEST(a_guest_that_gives_up_meanwhile_is_forgotten),
		TEST(accept_without_descriptors_does_not_spin),
		TEST(a_client_that_left_the_backlog_costs_the_next_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
