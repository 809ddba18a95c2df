/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pseudo-terminal. The slave stays open here, too: without it the master
 * reports EPOLLHUP for as long as nobody else has it open, and forgets its
 * settings each time the last one leaves.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/chr_backend.h"
#include "vmm/log.h"

static int pty_open(struct chr *c, const char *path, struct err *e)
{
	char name[64];
	struct termios t;
	int r;

	(void)path;
	c->fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (c->fd < 0 || grantpt(c->fd) || unlockpt(c->fd))
		return err_sys(e, "pseudo-terminal");
	r = ptsname_r(c->fd, name, sizeof(name));
	if (r)
		return err_msg(e, -r, "pseudo-terminal: %s", strerror(r));
	c->slave_fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (c->slave_fd < 0)
		return err_sys(e, "open %s", name);
	/* The guest's line discipline echoes and edits; a second one would do it twice. */
	if (tcgetattr(c->slave_fd, &t))
		return err_sys(e, "%s", name);
	cfmakeraw(&t);
	if (tcsetattr(c->slave_fd, TCSANOW, &t))
		return err_sys(e, "%s", name);
	c->path = strdup(name);
	if (!c->path)
		return err_msg(e, -ENOMEM, "out of memory");
	/* Always said: nobody can guess it. */
	log_warn("%s is at %s", c->label, name);
	return 0;
}

static void pty_close(struct chr *c)
{
	chr_drop_fd(c);
	if (c->slave_fd >= 0)
		close(c->slave_fd);
}

static ssize_t pty_write(struct chr *c, const uint8_t *buf, size_t n)
{
	return c->fd < 0 ? (ssize_t)n : chr_write_fd(c, buf, n);
}

static void pty_lost(struct chr *c, int err)
{
	log_error("%s: %s is gone: %s", c->label, c->path, strerror(err ? err : EIO));
	chr_drop_fd(c);
	bytes_fini(&c->out);
}

const struct chr_backend chr_pty = {
	.open = pty_open, .close = pty_close, .write = pty_write, .lost = pty_lost, .reads = true};
