/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/init.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GRACE_MS 2000

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Whether all children are gone within ms. Orphans become children, so that is every process. */
static bool reap(unsigned ms)
{
	uint64_t end = now_ms() + ms;

	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0 && errno == ECHILD)
			return true;
		if (pid <= 0) {
			if (now_ms() >= end)
				return false;
			nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
		}
	}
}

/* /proc/self/mounts writes blanks and the like as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

static void unmount_all(void)
{
	size_t len;
	char *text = file_read("/proc/self/mounts", 1 << 20, &len);

	while (text && len) {
		char *line, *dir;

		text[--len] = 0;
		line = memrchr(text, '\n', len);
		line = line ? line + 1 : text;
		len = (size_t)(line - text);
		strsep(&line, " ");
		dir = strsep(&line, " ");
		if (!dir)
			continue;
		unescape(dir);
		if (strcmp(dir, "/"))
			umount2(dir, UMOUNT_NOFOLLOW);
	}
	free(text);
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

void power_end(bool restart)
{
	kill(-1, SIGTERM);
	kill(-1, SIGHUP); /* interactive shells ignore the other */
	kill(-1, SIGCONT);
	if (!reap(GRACE_MS)) {
		kill(-1, SIGKILL);
		reap(GRACE_MS);
	}
	sync();
	unmount_all();
	sync();
	/*
	 * A Linux that takes devices from their drivers at power-off or restart (v6.15, 6.1.192)
	 * and lacks commit 0d0eff39ceb3 may spin for ever if it sends a frame after that.
	 */
	links_down();
	say_drain();
	if (restart)
		reboot(RB_AUTOBOOT);
	power_off_now();
}

void power_off_now(void)
{
	reboot(RB_POWER_OFF);
	reboot(RB_HALT_SYSTEM);
	for (;;)
		pause();
}
