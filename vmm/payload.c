/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/payload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/log.h"

/* --------------------------------------------------------- command line */

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
	if (n < 0 || (size_t)n >= room)
		return err_msg(e, -E2BIG, "command line: longer than %zu bytes",
			       sizeof(p->cmdline) - 1);
	return 0;
}

/* The last console= is /dev/console: the fast one when both are there. */
static int cmdline_default(struct payload *p, const struct config *c, struct err *e)
{
	int r = 0;

	if (c->serial.mode != CHAR_OFF)
		r = cmdline_add(p, e, "console=ttyS0");
	if (r == 0 && c->console.mode != CHAR_OFF)
		r = cmdline_add(p, e, "console=hvc0");
	/* A panic ends the machine; pvpanic says so first. */
	if (r == 0)
		r = cmdline_add(p, e, "panic=-1");
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

static int initrd_map(struct payload *p, const char *path, struct err *e)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0) {
		int r = err_sys(e, "initrd %s", path);
		if (fd >= 0)
			close(fd);
		return r;
	}
	int r = 0;
	if (S_ISDIR(st.st_mode))
		r = err_msg(e, -EISDIR, "initrd %s: is a directory", path);
	else if (!S_ISREG(st.st_mode))
		r = err_msg(e, -EINVAL, "initrd %s: not a regular file", path);
	else if (st.st_size == 0)
		r = err_msg(e, -EINVAL, "initrd %s: is empty", path);
	if (r == 0) {
		p->map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p->map == MAP_FAILED) {
			p->map = NULL;
			r = err_sys(e, "initrd %s: map", path);
		} else {
			p->initrd = (struct iovec){p->map, (size_t)st.st_size};
		}
	}
	close(fd);
	return r;
}

/* Where the kernel's modules are: --modules, or /lib/modules/VERSION when it exists. */
static const char *modules_dir(const struct payload *p, const struct config *c, char *buf, size_t len)
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
	int fd = open(c->rootfs, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

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
		.root = c->rootfs != NULL,
		.rootfs = c->rootfs ? root_type(c) : NULL,
	};
	int r = initramfs_build(&p->cpio, &a, e);

	if (r < 0)
		return err_ctx(e, "initramfs");
	p->initrd = (struct iovec){p->cpio.data, p->cpio.len};
	return 0;
}

int payload_open(struct payload *p, const struct config *c, struct err *e)
{
	memset(p, 0, sizeof(*p));
	int r = kernel_open(&p->kernel, c->kernel, e);
	if (r < 0)
		return r;
	/* A freestanding program (software KVM is asked for by name) has no use for an initramfs. */
	if (c->initrd)
		r = initrd_map(p, c->initrd, e);
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
	if (p->map)
		munmap(p->map, p->initrd.iov_len);
	cpio_fini(&p->cpio);
	memset(p, 0, sizeof(*p));
}
