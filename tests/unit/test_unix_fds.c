/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets where others say something take no descriptors from them: to close one may take hours. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "virtio/vhost.h"
#include "vmm/unix_listen.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

static bool kernel_can(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), on;
	socklen_t len = sizeof(on);
	bool can = !getsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &on, &len);

	close(fd);
	if (!can)
		print_message("not run: this kernel has no SO_PASSRIGHTS (6.16)\n");
	return can;
}

/* A byte and a descriptor: 0 or -errno. */
static int give(int to)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr h;
	} c = {{0}};
	char byte = 'C';
	struct iovec iov = {&byte, 1};
	struct msghdr h = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = c.buf,
		.msg_controllen = sizeof(c.buf),
	};
	int fd = 0;

	c.h = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(&c.h), &fd, sizeof(fd));
	return sendmsg(to, &h, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void who_connects_sends_none_not_even_before_he_is_accepted(void **state)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct unix_listen u;
	int fd, one;

	(void)state;
	if (!kernel_can())
		return;
	snprintf(un.sun_path, sizeof(un.sun_path), "/tmp/unix-fds-%d", getpid());
	assert_int_equal(unix_listen_open(&u, un.sun_path, 1, NULL), 0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(give(fd), -EPERM);
	one = accept(u.fd, NULL, NULL);
	assert_true(one >= 0);
	assert_int_equal(give(fd), -EPERM);
	assert_int_equal(send(fd, "C", 1, 0), 1);
	close(one);
	close(fd);
	unix_listen_close(&u);
}

/* In place of a back end: it is asked for its features, and answers with a descriptor. */
static void a_back_end_sends_none(void **state)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct vhost_user *user;
	int fd, one, status = 0;
	pid_t pid;

	(void)state;
	if (!kernel_can())
		return;
	snprintf(un.sun_path, sizeof(un.sun_path), "/tmp/unix-fds-%d", getpid());
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, 1), 0);
	pid = fork();
	if (pid == 0) {
		one = accept(fd, NULL, NULL);
		_exit(give(one) == -EPERM ? 7 : 1);
	}
	assert_true(vhost_user_connect(&user, un.sun_path, 0, NULL) < 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 7);
	unlink(un.sun_path);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_connects_sends_none_not_even_before_he_is_accepted),
		cmocka_unit_test(a_back_end_sends_none),
	};

	return cmocka_run_group_tests_name("unix_fds", tests, NULL, NULL);
}
