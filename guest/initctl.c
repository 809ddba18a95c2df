/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FIFO of System V's init, /run/initctl: the poweroff, reboot and shutdown of a root
 * with systemd or sysvinit speak to a PID 1 that is not systemd by it.
 */
#include "guest/init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INITCTL "/run/initctl"
#define MAGIC 0x03091969
#define CMD_RUNLEVEL 1

/* initreq.h: 384 bytes, written at once. */
struct request {
	int32_t magic, cmd, runlevel, sleeptime;
	uint8_t data[368];
};

int initctl_open(void)
{
	if (mkfifo(INITCTL, 0600) && errno != EEXIST)
		return -1;
	/* For writing too: else it would be at its end whenever nobody writes. */
	return open(INITCTL, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
}

enum initctl initctl_read(int fd)
{
	struct request r;
	enum initctl got = INITCTL_NOTHING;

	while (read(fd, &r, sizeof(r)) == (ssize_t)sizeof(r)) {
		if (r.magic != MAGIC || r.cmd != CMD_RUNLEVEL)
			continue;
		if (r.runlevel == '0')
			got = INITCTL_OFF;
		else if (r.runlevel == '6')
			got = INITCTL_RESTART;
	}
	return got;
}
