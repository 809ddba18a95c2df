/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The initramfs mvm builds itself: its static guest/init, the modules that the
 * kernel needs to reach its root, and a list of them in load order. A newc cpio
 * archive in memory (Documentation/driver-api/early-userspace/buffer-format.rst).
 *
 * Set-up code, one thread. What a call returns is the caller's; after an error
 * there is nothing to free.
 */
#ifndef BOOT_INITRAMFS_H
#define BOOT_INITRAMFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/err.h"

/* A growing newc archive. Zeroed to start with. */
struct cpio {
	uint8_t *data;
	size_t len, cap;
	unsigned ino;
};

/*
 * An entry of this mode (S_IFREG, S_IFDIR and permissions): 0, -ENOMEM, -EINVAL.
 * @name: relative, without "..", shorter than 4096 bytes; directories before what is in them.
 */
int cpio_add(struct cpio *c, const char *name, uint32_t mode, const void *data, size_t len);
int cpio_add_node(struct cpio *c, const char *name, uint32_t mode, unsigned major, unsigned minor);

/*
 * A regular file whose @len bytes the caller fills in: NULL when there is no
 * memory or the name is bad. The place is good until the next call.
 */
uint8_t *cpio_add_space(struct cpio *c, const char *name, uint32_t mode, size_t len);
int cpio_end(struct cpio *c); /* the trailer: nothing can be added any more */
void cpio_fini(struct cpio *c);

/*
 * The modules named in @want (NULL-terminated, names without .ko, '-' and '_'
 * alike) and all they depend on, each after its dependencies, from
 * @dir/modules.dep and the "pre:" parts of modules.softdep (names there may be
 * aliases, as in modules.alias); what modules.builtin holds is left out; a name
 * that is in neither is skipped unless it starts with '!', which makes its
 * absence an error (where there is a modules.builtin to tell). Paths are
 * relative to @dir and never leave it.
 */
struct modlist {
	char **path;
	size_t n;
};
#define MODLIST_MAX 512 /* modules in one list */

struct modtree; /* what a module directory's index files say */
int modtree_open(struct modtree **ret, const char *dir, struct err *e);
void modtree_free(struct modtree *t); /* accepts NULL */

/* The same from memory, for tests and fuzzing; copied. Any of them may be NULL; all files are
 * hostile. */
struct modtexts {
	const char *dep, *builtin, *softdep, *alias;
};
int modtree_parse(struct modtree **ret, const struct modtexts *x, struct err *e);

int modtree_resolve(struct modtree *t, const char *const *want, struct modlist *ret, struct err *e);
int modlist_resolve(struct modlist *ret, const char *dir, const char *const *want, struct err *e);
void modlist_fini(struct modlist *m);

/* What the root file system at the start of @fd is: "ext4", "btrfs", "xfs", "erofs", "squashfs", or
 * NULL. */
const char *fs_probe(int fd);

struct initramfs_args {
	const char *modules; /* directory, or NULL: the kernel has what it needs built in */
	bool mmio;           /* virtio over MMIO: its transport module too */
	bool root;           /* disks are there */
	/* What the root is: a disk's file system, or "virtiofs", which it then has to have; NULL:
	 * unknown, all that are known are taken along. */
	const char *rootfs;
	bool share, net, vsock; /* devices that the root's own modules may come too late for */
	bool overlay;           /* a memory file system over the root: the kernel has to have it */
	size_t *ret_modules;    /* how many were; may be NULL */
};
int initramfs_build(struct cpio *ret, const struct initramfs_args *a, struct err *e);

#endif
