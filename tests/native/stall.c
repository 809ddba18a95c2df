/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into mvm: a disk whose host does not answer. While the file named by
 * STALL exists, reads that may block do; where there was one, STALL.met appears.
 * What is borrowed is not copied before that.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_there(const char *suffix)
{
	char path[512];

	snprintf(path, sizeof(path), "%s%s", getenv("STALL"), suffix);
	return !access(path, F_OK);
}

static void stall(void)
{
	char path[512];

	if (!is_there(""))
		return;
	snprintf(path, sizeof(path), "%s.met", getenv("STALL"));
	close(open(path, O_CREAT | O_WRONLY, 0600));
	while (is_there(""))
		usleep(10000);
}

ssize_t preadv(int fd, const struct iovec *iov, int n, off_t off)
{
	stall();
	return syscall(SYS_preadv, fd, iov, n, off, 0);
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	if ((flags & RWF_NOWAIT) && is_there("")) {
		errno = EAGAIN;
		return -1;
	}
	stall();
	return syscall(SYS_preadv2, fd, iov, n, off, 0, flags);
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *to, unsigned long nto,
			 const struct iovec *from, unsigned long nfrom, unsigned long flags)
{
	/* A single byte is how mvm finds out whether the call works here. */
	while (to->iov_len > 1 && is_there("") && !is_there(".met"))
		usleep(1000);
	return syscall(SYS_process_vm_readv, pid, to, nto, from, nfrom, flags);
}
