/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/payload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/log.h"

/* Names in terminfo: what else $TERM may hold could mean something to the kernel. */
#define TERM_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._"
#define TERM_MAX 40

/* --------------------------------------------------------- command line */

static int cmdline_too_long(const struct payload *p, struct err *e)
{
	return err_msg(e, -E2BIG, "command line: longer than %zu bytes", sizeof(p->cmdline) - 1);
}

static int cmdline_add(struct payload *p, struct err *e, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int cmdline_add(struct payload *p, struct err *e, const char *fmt, ...)
{
	size_t len = strlen(p->cmdline), room = sizeof(p->cmdline) - len;
	va_list ap;

	if (len)
		p->cmdline[len++] = ' ', room--;
	va_start(ap, fmt);
	int n = vsnprintf(p->cmdline + len, room, fmt, ap);
	va_end(ap);
	return n < 0 || (size_t)n >= room ? cmdline_too_long(p, e) : 0;
}

int payload_cmdline_front(struct payload *p, const char *words, struct err *e)
{
	size_t n = strlen(words), len = strlen(p->cmdline);

	if (n + 1 + len >= sizeof(p->cmdline))
		return cmdline_too_long(p, e);
	memmove(p->cmdline + n + 1, p->cmdline, len + 1);
	memcpy(p->cmdline, words, n);
	p->cmdline[n] = ' ';
	return 0;
}

/* What the user's terminal is, for the shell at the other end: the kernel hands it on to init. */
static const char *cmdline_term(const struct config *c)
{
	const char *term = getenv("TERM");

	if ((c->console.mode != CHAR_TTY && c->serial.mode != CHAR_TTY) || !isatty(STDIN_FILENO))
		return NULL;
	if (!term || !*term || strlen(term) > TERM_MAX || term[strspn(term, TERM_CHARS)])
		return NULL;
	return term;
}

/* The last console= is /dev/console: the fast one when both are there. */
static int cmdline_default(struct payload *p, const struct config *c, struct err *e)
{
	const char *term = cmdline_term(c);
	bool serial = c->serial.mode != CHAR_OFF;
	int r = 0;

	if (serial)
		r = cmdline_add(p, e, "console=ttyS0");
	if (r == 0 && c->console.mode != CHAR_OFF)
		r = cmdline_add(p, e, "console=hvc0");
	/* A panic ends the machine; pvpanic says so first. */
	if (r == 0)
		r = cmdline_add(p, e, "panic=-1");
	/* Else the driver looks for as many as it was built for. */
	if (r == 0)
		r = cmdline_add(p, e, "8250.nr_uarts=%d", serial);
	if (r == 0 && term)
		r = cmdline_add(p, e, "TERM=%s", term);
	if (r == 0 && c->rootfs)
		r = cmdline_add(p, e, "root=/dev/vda %s", c->disks[0].readonly ? "ro" : "rw");
	return r;
}

static int cmdline_build(struct payload *p, const struct config *c, struct err *e)
{
	int r = c->no_default_cmdline ? 0 : cmdline_default(p, c, e);

	if (r == 0 && c->cmdline && *c->cmdline)
		r = cmdline_add(p, e, "%s", c->cmdline);
	return r;
}

/* --------------------------------------------------------------- initrd */

static int initrd_open(struct payload *p, const char *path, struct err *e)
{
	struct stat st;

	/* O_NONBLOCK: a fifo without a writer must not hang us; it is refused below. */
	p->initrd_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (p->initrd_fd < 0 || fstat(p->initrd_fd, &st) < 0)
		return err_sys(e, "initrd %s", path);
	if (S_ISDIR(st.st_mode))
		return err_msg(e, -EISDIR, "initrd %s: is a directory", path);
	if (!S_ISREG(st.st_mode))
		return err_msg(e, -EINVAL, "initrd %s: not a regular file", path);
	if (st.st_size == 0)
		return err_msg(e, -EINVAL, "initrd %s: is empty", path);
	p->initrd_size = (uint64_t)st.st_size;
	return 0;
}

/* Where the kernel's modules are: --modules, or /lib/modules/VERSION when it exists. */
static const char *modules_dir(const struct payload *p, const struct config *c, char *buf,
			       size_t len)
{
	if (c->modules)
		return c->modules;
	const char *version = kernel_version(p->kernel);
	if (!version) {
		log_info("kernel %s does not say its version: no modules are taken along",
			 c->kernel);
		return NULL;
	}
	if ((size_t)snprintf(buf, len, "/lib/modules/%s", version) >= len)
		return NULL;
	if (access(buf, R_OK) < 0) {
		log_info("no modules for this kernel: %s: %s", buf, strerror(errno));
		return NULL;
	}
	return buf;
}

static const char *root_type(const struct config *c)
{
	int fd = open(c->disks[0].path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return NULL; /* opening the disk says why */
	const char *type = fs_probe(fd);
	close(fd);
	return type;
}

static int initrd_build(struct payload *p, const struct config *c, struct err *e)
{
	char dir[512];
	struct initramfs_args a = {
		.modules = modules_dir(p, c, dir, sizeof(dir)),
		.mmio = c->transport == TRANSPORT_MMIO,
		.root = c->ndisks > 0, /* root= may name any of them */
		.rootfs = c->rootfs ? root_type(c) : NULL,
	};
	return initramfs_build(&p->cpio, &a, e);
}

int payload_open(struct payload *p, const struct config *c, struct err *e)
{
	memset(p, 0, sizeof(*p));
	p->initrd_fd = -1;
	int r = kernel_open(&p->kernel, c->kernel, e);
	if (r < 0)
		return r;
	/* A freestanding program (software KVM is asked for by name) has no use for an initramfs.
	 */
	if (c->initrd)
		r = initrd_open(p, c->initrd, e);
	else if (!c->software_kvm)
		r = initrd_build(p, c, e);
	if (r == 0)
		r = cmdline_build(p, c, e);
	if (r < 0)
		payload_close(p);
	return r;
}

void payload_close(struct payload *p)
{
	kernel_free(p->kernel);
	if (p->initrd_fd >= 0)
		close(p->initrd_fd);
	cpio_fini(&p->cpio);
	memset(p, 0, sizeof(*p));
	p->initrd_fd = -1;
}
