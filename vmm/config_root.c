/* SPDX-License-Identifier: Apache-2.0 */
/* --rootfs: an image or block device, which becomes the first disk; or a directory, which
 * becomes the first share. What there is at the path decides. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/config_fs.h"

/* A directory's keys; what is wrong with them is said only if it is one. */
struct root {
	struct fs_words w;
	const char *alien; /* a key of disks alone */
};

#define ALIEN(key)                                                                                 \
	static int root_##key(void *r, const char *v, struct err *e)                               \
	{                                                                                          \
		(void)v, (void)e;                                                                  \
		((struct root *)r)->alien = #key;                                                  \
		return 0;                                                                          \
	}
ALIEN(readonly)
ALIEN(direct)
ALIEN(serial)
ALIEN(format)

static const struct kv_key root_keys[] = {
	{"path", config_fs_key_dir, NULL},
	{"rw", config_fs_key_rw, "rw"},
	{"cache", config_fs_key_cache, NULL},
	{"queues", config_fs_key_queues, NULL},
	{"queue_size", config_fs_key_queue_size, NULL},
	{"id", config_fs_key_id, NULL},
	{"readonly", root_readonly, "readonly"},
	{"direct", root_direct, "direct"},
	{"serial", root_serial, NULL},
	{"format", root_format, NULL},
	{"ro", config_fs_key_ro, "ro"},
	{NULL, NULL, NULL},
};

static int alien(const char *key, struct err *e)
{
	if (!strcmp(key, "readonly"))
		return err_msg(e, -EINVAL,
			       "readonly is for images: a directory is shared read-only, and what "
			       "the guest writes is lost at the end, unless rw is given");
	return err_msg(e, -EINVAL, "%s is for images, and this is a directory", key);
}

/* "/" by any of its names: a link, a bind mount. */
static bool is_host_root(const struct stat *st)
{
	struct stat top;

	return !stat("/", &top) && st->st_dev == top.st_dev && st->st_ino == top.st_ino;
}

/* The share's place is the first, as its tag's is. */
static int fs_first(struct config *c, struct root *r, struct err *e)
{
	if (r->alien)
		return alien(r->alien, e);
	int ret = config_fs_check_words(&r->w, e);

	if (ret)
		return ret;
	if (c->nfs >= CONFIG_FS_MAX)
		return err_msg(e, -E2BIG, "and %zu more shared directories: at most %d fit in all",
			       c->nfs, CONFIG_FS_MAX);
	memmove(&c->fs[1], &c->fs[0], c->nfs * sizeof(c->fs[0]));
	c->fs[0] = r->w.f;
	strcpy(c->fs[0].tag, CONFIG_ROOT_TAG);
	c->nfs++;
	c->root_is_fs = true;
	c->root_rw = !r->w.f.readonly;
	memset(&r->w.f, 0, sizeof(r->w.f)); /* its strings are the configuration's */
	return 0;
}

/* The image is the first disk: /dev/vda. */
static int disk_first(struct config *c, struct err *e)
{
	struct disk_config d;
	int ret;

	if (c->ndisks >= CONFIG_DISKS_MAX)
		return err_msg(e, -E2BIG, "--rootfs and %zu disks: at most %d fit in all",
			       c->ndisks, CONFIG_DISKS_MAX);
	ret = config_disk(c, c->rootfs, e); /* at the end; its place is the first */
	if (ret)
		return err_ctx(e, "--rootfs %s", c->rootfs);
	d = c->disks[c->ndisks - 1];
	d.root = true;
	memmove(&c->disks[1], &c->disks[0], (c->ndisks - 1) * sizeof(c->disks[0]));
	c->disks[0] = d;
	return 0;
}

int config_check_root(struct config *c, struct err *e)
{
	struct root r = {.w.f.readonly = true};
	struct err why = {0};
	struct stat st;
	int ret;

	if (!c->rootfs)
		return 0;
	if (!strncmp(c->rootfs, "dir=", 4))
		return err_msg(e, -EINVAL,
			       "--rootfs %s: a directory is given by itself: --rootfs %s",
			       c->rootfs, c->rootfs + 4);
	ret = opts_kv(root_keys, "path", c->rootfs, &r, &why);
	if (r.w.f.dir && !stat(r.w.f.dir, &st) && S_ISDIR(st.st_mode)) {
		c->root_is_host = is_host_root(&st);
		*e = why;
		if (!ret)
			ret = fs_first(c, &r, e);
		if (ret)
			err_ctx(e, "--rootfs %s", c->rootfs);
	} else if (r.w.rw) {
		ret = err_msg(e, -EINVAL,
			      "--rootfs %s: rw is for directories: an image is written to unless "
			      "readonly=on",
			      c->rootfs);
	} else {
		ret = disk_first(c, e);
	}
	config_fs_free_one(&r.w.f);
	return ret;
}
