/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/payload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
	if (r == 0 && c->root_is_fs)
		r = cmdline_add(p, e, "root=virtiofs:" CONFIG_ROOT_TAG " rw%s",
				c->root_rw ? "" : " mvm.overlay");
	else if (r == 0 && c->rootfs)
		r = cmdline_add(p, e, "root=/dev/vda %s", c->disks[0].readonly ? "ro" : "rw");
	/* The host's init would start the host's services. */
	if (r == 0 && c->root_is_host)
		r = cmdline_add(p, e, "mvm.shell");
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

/* Linux' init/initramfs.c and lib/decompress.c; zeros may stand in front. */
static bool looks_like_initrd(int fd)
{
	static const struct {
		unsigned len;
		const char *magic;
	} known[] = {
		{6, "070701"},     {6, "070702"},           {2, "\x1f\x8b"},    {2, "\x1f\x9e"},
		{3, "BZh"},        {3, "\x5d\0\0"},         {6, "\xfd\x37zXZ"}, {4, "\x89LZO"},
		{4, "\x02!L\x18"}, {4, "\x28\xb5\x2f\xfd"}, {1, "\0"},
	};
	char head[6] = {0};

	if (pread(fd, head, sizeof(head), 0) < 0)
		return true; /* loading it says why */
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!memcmp(head, known[i].magic, known[i].len))
			return true;
	return false;
}

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
	if (!looks_like_initrd(p->initrd_fd))
		log_warn("initrd %s: neither a cpio archive nor compressed in a way that Linux "
			 "knows: the kernel may ignore it",
			 path);
	return 0;
}

/* A directory made by depmod. /lib/modules/VERSION alone may hold no more than headers. */
static bool has_modules(const char *dir)
{
	char path[PATH_MAX];

	return snprintf(path, sizeof(path), "%s/modules.dep", dir) < (int)sizeof(path) &&
	       !access(path, R_OK);
}

/* Of an unpacked package: boot/vmlinuz-VERSION and lib/modules/VERSION. */
static bool modules_beside(const char *kernel, const char *version, char *dir, size_t size)
{
	char real[PATH_MAX], *slash;

	if (!realpath(kernel, real))
		return false;
	/* The kernel's directory, and then the one above it. */
	for (int up = 0; up < 2; up++) {
		slash = strrchr(real, '/');
		if (!slash)
			return false;
		*slash = '\0';
	}
	return snprintf(dir, size, "%s/lib/modules/%s", real, version) < (int)size;
}

/* In the directory that becomes the root. */
static bool modules_in_root(const struct config *c, const char *version, char *dir, size_t size)
{
	return c->root_is_fs &&
	       snprintf(dir, size, "%s/lib/modules/%s", c->fs[0].dir, version) < (int)size;
}

/* Where the kernel's modules are; false, and why in p->no_modules, when nowhere. */
static bool modules_find(struct payload *p, const struct config *c, char *dir, size_t size)
{
	const char *kernel = c->kernel, *version = kernel_version(p->kernel);
	char other[PATH_MAX];

	if (!version) {
		log_info("kernel %s does not say its version: no modules are taken along", kernel);
		return false;
	}
	if (snprintf(dir, size, "/lib/modules/%s", version) < (int)size && has_modules(dir))
		return true;
	if ((modules_beside(kernel, version, other, sizeof(other)) && has_modules(other)) ||
	    (modules_in_root(c, version, other, sizeof(other)) && has_modules(other)))
		return snprintf(dir, size, "%s", other) < (int)size;
	snprintf(p->no_modules, sizeof(p->no_modules),
		 "there are no modules for this kernel (%.100s): if it needs any to reach its "
		 "root, give --modules DIR",
		 dir);
	/* A kernel may have all built in. If this one has not, the last line says it once more. */
	log_info("%s", p->no_modules);
	return false;
}

static int modules_check(const char *dir, struct err *e)
{
	struct stat st;

	if (stat(dir, &st))
		return err_sys(e, "--modules %s", dir);
	if (!S_ISDIR(st.st_mode))
		return err_msg(e, -ENOTDIR, "--modules %s: not a directory", dir);
	if (!has_modules(dir))
		return err_msg(e, -ENOENT,
			       "--modules %s: no modules.dep in it that can be read (depmod makes "
			       "one)",
			       dir);
	return 0;
}

/* NULL when nobody knows; where it is no disk at all, opening the disk says why. */
static const char *root_type(const struct config *c)
{
	struct stat st;

	if (c->root_is_fs)
		return "virtiofs";
	/* Before it is opened: opening a FIFO or a device can do something. */
	if (stat(c->disks[0].path, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
		return NULL;
	int fd = open(c->disks[0].path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return NULL;
	const char *type = fs_probe(fd);
	close(fd);
	return type;
}

/* Whether @text has a word that begins with @start. */
static bool has_word(const char *text, const char *start)
{
	for (const char *p = text; p && (p = strstr(p, start)); p++)
		if (p == text || p[-1] == ' ' || p[-1] == '"')
			return true;
	return false;
}

static int initrd_build(struct payload *p, const struct config *c, struct err *e)
{
	char dir[PATH_MAX];
	struct initramfs_args a = {
		.modules = c->modules,
		.mmio = c->transport == TRANSPORT_MMIO,
		.root = c->ndisks > 0, /* root= may name any of them */
		.rootfs = c->rootfs ? root_type(c) : NULL,
		.share = c->nfs > 0,
		.overlay = (c->root_is_fs && !c->root_rw) || has_word(c->cmdline, "mvm.overlay"),
		.net = c->nnets > 0,
		.vsock = c->vsock.present,
		.ret_modules = &p->modules,
	};
	int r = c->modules ? modules_check(c->modules, e) : 0;

	if (r < 0)
		return r;
	if (!c->modules && modules_find(p, c, dir, sizeof(dir)))
		a.modules = dir;
	if (a.modules)
		log_debug("modules: %s", a.modules);
	return initramfs_build(&p->cpio, &a, e);
}

/* guest/init needs a root to go to. */
static int root_check(const struct config *c, struct err *e)
{
	if (c->rootfs || has_word(c->cmdline, "root="))
		return 0;
	return err_msg(e, -EINVAL,
		       "nothing to run: give --rootfs IMAGE or DIRECTORY, or --initrd FILE%s",
		       c->ndisks ? ", or say which disk is the root: --cmdline root=/dev/vda" : "");
}

int payload_open(struct payload *p, const struct config *c, struct err *e)
{
	memset(p, 0, sizeof(*p));
	p->initrd_fd = -1;
	int r = kernel_open(&p->kernel, c->kernel, e);
	if (r == 0 && !c->initrd && !c->software_kvm)
		r = root_check(c, e);
	if (r < 0) {
		payload_close(p);
		return r;
	}
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
	p->kernel = NULL;
	p->initrd_fd = -1;
	p->initrd_size = 0;
}
