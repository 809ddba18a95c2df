/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/evfd.h"

#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

/* At once: more than there are threads. */
#define SIGNALS_MAX 128

/* Of evfd_prepare; written before there is a thread that reads them. */
static io_context_t ctx;
static int null_fd;

/* Kernels before 5.8 do not know RWF_NOWAIT for an eventfd. */
static int clear(int fd)
{
	uint64_t count;
	struct iovec iov = {&count, sizeof(count)};

	return preadv2(fd, &iov, 1, -1, RWF_NOWAIT) < 0 ? -errno : 0;
}

void evfd_clear(int fd)
{
	uint64_t count;

	/* There nobody else has one, for evfd_prepare refused: O_NONBLOCK is as we set it. */
	if (clear(fd) == -EOPNOTSUPP && read(fd, &count, sizeof(count)) < 0)
		return;
}

/*
 * A write has no RWF_NOWAIT, and between a poll and a write the counter may fill up. But the
 * kernel's own signal, with which asynchronous I/O tells of an end, never waits: so something
 * is read that ends before io_submit returns.
 */
static void add_in_kernel(int fd)
{
	struct iocb io, *list = &io;
	struct io_event done;
	int r;

	io_prep_pread(&io, null_fd, NULL, 0, 0);
	io_set_eventfd(&io, fd);
	do {
		r = io_submit(ctx, 1, &list);
	} while (r == -EAGAIN); /* others are about to take their ends away */
	/* One end for each: whose it is does not matter. */
	while (r == 1 && io_getevents(ctx, 1, 1, &done, NULL) == -EINTR)
		;
}

void evfd_add(int fd)
{
	const uint64_t one = 1;

	if (ctx)
		add_in_kernel(fd);
	else if (write(fd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: full */
}

static int can_clear(struct err *e)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), r;

	if (fd < 0)
		return err_sys(e, "eventfd");
	r = clear(fd);
	close(fd);
	if (r != -EOPNOTSUPP)
		return 0;
	return err_msg(e, r,
		       "this kernel is too old to share eventfds with another process: 5.8 "
		       "or newer is needed");
}

int evfd_prepare(struct err *e)
{
	int r, fd;

	if (ctx)
		return 0;
	r = can_clear(e);
	if (r < 0)
		return r;
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "/dev/null");
	r = io_setup(SIGNALS_MAX, &ctx);
	if (r < 0) {
		ctx = NULL;
		close(fd);
		return err_msg(e, r, "asynchronous I/O: %s%s", strerror(-r),
			       r == -EAGAIN ? " (the sysctl fs.aio-max-nr)" : "");
	}
	null_fd = fd;
	return 0;
}
