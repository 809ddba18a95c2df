/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtio/image_file.h"
#include "vmm/log.h"

/*
 * Whether descriptor @name of process @pid is our file and holds a lock. The
 * lock of an open file description has no owner in F_OFD_GETLK or /proc/locks,
 * but the descriptor's fdinfo shows it in a line "lock:".
 */
static bool fd_holds(const char *pid, const char *name, const struct stat *us)
{
	char path[600], line[256];
	struct stat st;
	bool held = false;

	snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, name);
	if (stat(path, &st) < 0 || st.st_dev != us->st_dev || st.st_ino != us->st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, name);
	FILE *f = fopen(path, "re");

	if (!f)
		return false;
	while (!held && fgets(line, sizeof(line), f))
		held = !strncmp(line, "lock:", 5);
	fclose(f);
	return held;
}

static bool process_holds(const char *pid, const struct stat *us)
{
	char path[300];
	bool held = false;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	DIR *d = opendir(path);

	if (!d)
		return false;
	for (struct dirent *ent; !held && (ent = readdir(d));)
		held = isdigit((unsigned char)ent->d_name[0]) && fd_holds(pid, ent->d_name, us);
	closedir(d);
	return held;
}

static long find_holder(int fd)
{
	struct stat us;
	long pid = 0;
	DIR *d;

	if (fstat(fd, &us) < 0 || !(d = opendir("/proc")))
		return 0;
	for (struct dirent *ent; !pid && (ent = readdir(d));)
		if (isdigit((unsigned char)ent->d_name[0]) && process_holds(ent->d_name, &us))
			pid = atol(ent->d_name);
	closedir(d);
	return pid;
}

static int say_holder(int fd, const char *path, struct flock *l, struct err *e)
{
	char comm[64] = "", name[64];
	long pid = 0;

	/* A lock of the traditional kind names its process. */
	if (!fcntl(fd, F_OFD_GETLK, l) && l->l_type != F_UNLCK && l->l_pid > 0)
		pid = l->l_pid;
	if (!pid)
		pid = find_holder(fd);
	if (!pid)
		return err_msg(e, -EBUSY, "%s is locked by another process", path);
	snprintf(name, sizeof(name), "/proc/%ld/comm", pid);
	FILE *f = fopen(name, "re");

	if (f) {
		if (fgets(comm, sizeof(comm), f))
			comm[strcspn(comm, "\n")] = '\0';
		fclose(f);
	}
	if (pid == getpid())
		return err_msg(e, -EBUSY, "%s is already in use by this machine", path);
	return err_msg(e, -EBUSY, "%s is locked by process %ld (%s)", path, pid,
		       comm[0] ? comm : "?");
}

int image_lock(int fd, const char *path, bool readonly, struct err *e)
{
	struct flock want = {
		.l_type = readonly ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};
	struct flock l = want;

	if (!fcntl(fd, F_OFD_SETLK, &l))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return say_holder(fd, path, &want, e);
	log_warn("%s cannot be locked (%s): nothing else may write to it", path, strerror(errno));
	return 0;
}
