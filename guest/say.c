/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

static bool on_console;
static int console = -1;

/* Never blocks for longer than a second in all: nobody may be reading the console. */
static bool write_all(int fd, const char *p, size_t n)
{
	for (int tries = 0; n && tries < 20;) {
		ssize_t done = write(fd, p, n);

		if (done > 0) {
			p += done;
			n -= (size_t)done;
			continue;
		}
		if (done < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, 50);
		tries++;
	}
	return true;
}

static void say_kmsg(const char *line, size_t n)
{
	/* Level 3 passes "quiet". */
	char buf[600] = "<3>";
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	memcpy(buf + 3, line, n);
	if (fd < 0)
		fd = dup(2);
	if (fd < 0)
		return;
	write_all(fd, buf, n + 3);
	close(fd);
}

void say_parts(const char *const *part)
{
	char line[512] = "guest init: ";
	size_t n = strlen(line);

	for (; *part; part++) {
		size_t len = strlen(*part);

		if (len > sizeof(line) - 2 - n)
			len = sizeof(line) - 2 - n;
		memcpy(line + n, *part, len);
		n += len;
	}
	line[n++] = '\n';
	if (on_console && console < 0)
		console = open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (console < 0 || !write_all(console, line, n))
		say_kmsg(line, n);
}

void say_console(void)
{
	on_console = true;
}

void say_drain(void)
{
	int left = 0;

	for (int i = 0; i < 100; i++) {
		if (console < 0 || ioctl(console, TIOCOUTQ, &left) < 0 || !left)
			return;
		poll(NULL, 0, 10);
	}
}

void die_parts(uint8_t stage, const char *const *part)
{
	say_parts(part);
	mark(stage);
	say_drain();
	sync();
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	power_off_now();
}
