/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAME_LEN_MAX 255
#define TRIES 8 /* EAGAIN: something was renamed while the kernel looked */

int beneath_init(struct beneath *b, const char *dir, struct err *e)
{
	*b = (struct beneath){.dir = dir};
	b->fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return b->fd < 0 ? err_sys(e, "open %s", dir) : 0;
}

void beneath_fini(struct beneath *b)
{
	if (b->fd >= 0)
		close(b->fd);
	b->fd = -1;
}

/* Without openat2: component by component, none of them a link. */
static int walk(int dir, const char *rel)
{
	char name[NAME_LEN_MAX + 1];
	int at = dir;

	for (;;) {
		size_t n = strcspn(rel, "/");
		int next;

		if (n > NAME_LEN_MAX)
			next = -ENAMETOOLONG;
		else {
			memcpy(name, rel, n);
			name[n] = '\0';
			next = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
			next = next < 0 ? -errno : next;
		}
		if (at != dir)
			close(at);
		if (next < 0 || !rel[n])
			return next;
		at = next;
		rel += n + 1;
	}
}

/* A descriptor that names the file and opens nothing. */
static int find(int dir, const char *rel)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd = -1;

	errno = EAGAIN;
	for (int i = 0; i < TRIES && fd < 0 && errno == EAGAIN; i++)
		fd = syscall(SYS_openat2, dir, rel, &how, sizeof(how));
	/* EPERM: a filter on system calls that is older than this one. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		return walk(dir, rel);
	return fd < 0 ? -errno : (int)fd;
}

static int check(const struct beneath *b, const char *rel, const struct stat *st, struct err *e)
{
	if (S_ISLNK(st->st_mode))
		return err_msg(e, -ELOOP,
			       "%s/%s: a symbolic link, and this kernel cannot tell "
			       "whether it stays in the directory",
			       b->dir, rel);
	if (!S_ISREG(st->st_mode))
		return err_msg(e, -EINVAL, "%s/%s: not a regular file", b->dir, rel);
	return 0;
}

int beneath_open(const struct beneath *b, const char *rel, struct stat *ret, struct err *e)
{
	char self[32];
	int path = find(b->fd, rel), fd, r;

	if (path == -EXDEV)
		return err_msg(e, path, "%s/%s: a symbolic link leads out of the directory", b->dir,
			       rel);
	if (path < 0)
		return err_msg(e, path, "open %s/%s: %s", b->dir, rel, strerror(-path));
	r = fstat(path, ret) < 0 ? err_sys(e, "stat %s/%s", b->dir, rel) : check(b, rel, ret, e);
	if (r < 0) {
		close(path);
		return r;
	}
	/* This very file, whatever its name stands for by now. */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", path);
	fd = open(self, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		fd = err_sys(e, "open %s/%s (by %s)", b->dir, rel, self);
	close(path);
	return fd;
}
