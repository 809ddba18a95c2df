/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/initramfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/beneath.h"

#define MODULE_MAX (64u << 20) /* bytes of one module's file */
#define TOTAL_MAX                                                                                  \
	(256u << 20) /* of the archive: it lies in guest memory, twice while it is unpacked */
#define PATH_LEN_MAX 4096

/* boot/guest_init.S */
extern const uint8_t guest_init_start[], guest_init_end[];

static const char *const filesystems[] = {"ext4", "btrfs", "xfs", "erofs", "squashfs"};
#define FILESYSTEMS (sizeof(filesystems) / sizeof(filesystems[0]))

/* An archive under construction: what is in it already, and the text of /modules.list. */
struct build {
	struct cpio cpio;
	struct beneath dir;
	struct modlist done;
	char **made; /* directories */
	size_t nmade;
	char *list;
	size_t list_len;
	struct err *e;
};

static int no_memory(struct build *b)
{
	return err_msg(b->e, -ENOMEM, "out of memory");
}

static bool in(char *const *names, size_t n, const char *name, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (!strncmp(names[i], name, len) && !names[i][len])
			return true;
	return false;
}

static int remember(struct build *b, char ***names, size_t *n, const char *name, size_t len)
{
	char **more = reallocarray(*names, *n + 1, sizeof(*more));

	if (!more)
		return no_memory(b);
	*names = more;
	more[*n] = strndup(name, len);
	if (!more[*n])
		return no_memory(b);
	++*n;
	return 0;
}

/* Every directory above name that is not there yet: the kernel creates none by itself. */
static int parents(struct build *b, const char *name)
{
	for (const char *p = strchr(name, '/'); p; p = strchr(p + 1, '/')) {
		size_t len = (size_t)(p - name);
		int r;

		if (in(b->made, b->nmade, name, len))
			continue;
		r = remember(b, &b->made, &b->nmade, name, len);
		if (r)
			return r;
		r = cpio_add(&b->cpio, b->made[b->nmade - 1], S_IFDIR | 0755, NULL, 0);
		if (r)
			return err_msg(b->e, r, "directory %.*s", (int)len, name);
	}
	return 0;
}

static int list_add(struct build *b, const char *prefix, const char *line)
{
	size_t n = strlen(prefix) + strlen(line) + 1;
	char *more = realloc(b->list, b->list_len + n + 1);

	if (!more)
		return no_memory(b);
	b->list = more;
	b->list_len += (size_t)sprintf(more + b->list_len, "%s%s\n", prefix, line);
	return 0;
}

static int file_copy(struct build *b, int fd, const struct stat *st, const char *name)
{
	size_t size = (size_t)st->st_size;
	uint8_t *to;

	if (st->st_size > (off_t)MODULE_MAX)
		return err_msg(b->e, -EFBIG, "larger than %u MiB", MODULE_MAX >> 20);
	if (b->cpio.len + size > TOTAL_MAX)
		return err_msg(b->e, -EFBIG, "modules of more than %u MiB", TOTAL_MAX >> 20);
	to = cpio_add_space(&b->cpio, name, S_IFREG | 0644, size);
	if (!to)
		return no_memory(b);
	for (size_t at = 0; at < size;) {
		ssize_t n = read(fd, to + at, size - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(b->e, "read");
		if (!n)
			return err_msg(b->e, -EIO, "became shorter while it was read");
		at += (size_t)n;
	}
	return 0;
}

static int module_add(struct build *b, const char *rel)
{
	char name[PATH_LEN_MAX];
	struct stat st;
	int fd, r;

	if (snprintf(name, sizeof(name), "lib/modules/%s", rel) >= (int)sizeof(name))
		return err_msg(b->e, -ENAMETOOLONG, "%s: path too long", rel);
	r = parents(b, name);
	if (r)
		return r;
	fd = beneath_open(&b->dir, rel, &st, b->e);
	if (fd < 0)
		return fd;
	r = file_copy(b, fd, &st, name);
	close(fd);
	if (r) {
		err_ctx(b->e, "%s/%s", b->dir.dir, rel);
		return r;
	}
	r = list_add(b, "/", name);
	if (!r)
		r = remember(b, &b->done.path, &b->done.n, rel, strlen(rel));
	return r;
}

static int modules_add(struct build *b, struct modtree *t, const char *const *want)
{
	struct modlist m;
	int r = modtree_resolve(t, want, &m, b->e);

	if (r)
		return r;
	for (size_t i = 0; i < m.n && !r; i++) {
		if (!in(b->done.path, b->done.n, m.path[i], strlen(m.path[i])))
			r = module_add(b, m.path[i]);
	}
	modlist_fini(&m);
	return r;
}

/*
 * What two file systems share goes into the archive with the first, so the list
 * names it in each section: loading something twice is harmless.
 */
static int section_add(struct build *b, struct modtree *t, const char *fs, bool must)
{
	char name[32];
	const char *const want[] = {name, NULL};
	struct modlist m;
	int r;

	snprintf(name, sizeof(name), "%s%s", must ? "!" : "", fs);
	r = modtree_resolve(t, want, &m, b->e);
	if (r)
		return r;
	if (m.n)
		r = list_add(b, "@", fs);
	for (size_t i = 0; i < m.n && !r; i++) {
		if (in(b->done.path, b->done.n, m.path[i], strlen(m.path[i])))
			r = list_add(b, "/lib/modules/", m.path[i]);
		else
			r = module_add(b, m.path[i]);
	}
	modlist_fini(&m);
	return r;
}

static int modules_all(struct build *b, const struct initramfs_args *a)
{
	bool shared_root = a->rootfs && !strcmp(a->rootfs, "virtiofs");
	const char *const all[] = {
		a->mmio ? "!virtio_mmio" : "!virtio_pci",
		"virtio_console",
		"pvpanic_mmio",
		"virtio_rng",
		"button",
		"evdev",
		a->root ? "!virtio_blk" : NULL,
		shared_root ? "!virtiofs"
		: a->share  ? "virtiofs"
			    : NULL,
		a->overlay ? "!overlay" : NULL,
		a->net ? "virtio_net" : NULL,
		a->vsock ? "vmw_vsock_virtio_transport" : NULL,
	};
	const char *want[sizeof(all) / sizeof(all[0]) + 1] = {NULL};
	size_t n = 0;
	struct modtree *t;
	int r = beneath_init(&b->dir, a->modules, b->e);

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i])
			want[n++] = all[i];
	if (!r)
		r = modtree_open(&t, a->modules, b->e);
	if (r)
		return r;
	r = modules_add(b, t, want);
	for (size_t i = 0; a->root && i < FILESYSTEMS && !r; i++)
		if (!a->rootfs || !strcmp(a->rootfs, filesystems[i]))
			r = section_add(b, t, filesystems[i], a->rootfs);
	modtree_free(t);
	return r;
}

static int build_all(struct build *b, const struct initramfs_args *a)
{
	struct cpio *c = &b->cpio;
	int r = cpio_add(c, "init", S_IFREG | 0755, guest_init_start,
			 (uintptr_t)guest_init_end - (uintptr_t)guest_init_start);

	if (!r)
		r = cpio_add(c, "dev", S_IFDIR | 0755, NULL, 0);
	/* What the kernel opens as standard input and output of /init. */
	if (!r)
		r = cpio_add_node(c, "dev/console", S_IFCHR | 0600, 5, 1);
	if (r)
		return no_memory(b);
	r = a->modules ? modules_all(b, a) : 0;
	if (r)
		return r;
	if (cpio_add(c, "modules.list", S_IFREG | 0644, b->list, b->list_len) || cpio_end(c))
		return no_memory(b);
	return 0;
}

int initramfs_build(struct cpio *ret, const struct initramfs_args *a, struct err *e)
{
	struct build b = {.dir.fd = -1, .e = e};
	int r = build_all(&b, a);

	if (a->ret_modules)
		*a->ret_modules = b.done.n;
	for (size_t i = 0; i < b.nmade; i++)
		free(b.made[i]);
	free(b.made);
	free(b.list);
	modlist_fini(&b.done);
	beneath_fini(&b.dir);
	if (r) {
		cpio_fini(&b.cpio);
		err_ctx(e, "initramfs");
		return r;
	}
	*ret = b.cpio;
	return 0;
}
