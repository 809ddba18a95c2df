/* SPDX-License-Identifier: Apache-2.0 */
/* --rootfs: an image or block device, which becomes the first disk; or a directory, which
 * becomes the first share. What there is at the path decides. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/config.h"
#include "vmm/opts.h"

/* A directory's keys; what is wrong with them is said only if it is one. */
struct root {
	char *path;
	struct fs_config fs;
	bool rw, rw_given, ro_given;
	const char *alien; /* a key of disks alone */
};

static int root_path(void *r, const char *v, struct err *e)
{
	return config_string(&((struct root *)r)->path, v, e);
}

static int root_rw(void *r, const char *v, struct err *e)
{
	((struct root *)r)->rw_given = true;
	return opts_onoff(v, &((struct root *)r)->rw, e);
}

static int root_ro(void *r, const char *v, struct err *e)
{
	bool ro = true;
	int ret = opts_onoff(v, &ro, e);

	((struct root *)r)->ro_given = true;
	((struct root *)r)->rw = !ro;
	return ret;
}

static int root_cache(void *r, const char *v, struct err *e)
{
	static const char *const modes[] = {
		[FS_CACHE_AUTO] = "auto",
		[FS_CACHE_ALWAYS] = "always",
		[FS_CACHE_NEVER] = "never",
	};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (!strcmp(v, modes[i])) {
			((struct root *)r)->fs.cache = (enum fs_cache)i;
			return 0;
		}
	return err_msg(e, -EINVAL, "\"%s\" is neither auto, always nor never", v);
}

static int root_queues(void *r, const char *v, struct err *e)
{
	unsigned long n;
	int ret = opts_number(v, 1, CONFIG_FS_QUEUES_MAX, &n, e);

	if (!ret)
		((struct root *)r)->fs.queues = (uint16_t)n;
	return ret;
}

static int root_queue_size(void *r, const char *v, struct err *e)
{
	return config_queue_size(v, CONFIG_FS_QUEUE_MIN, &((struct root *)r)->fs.queue_size, e);
}

static int root_id(void *r, const char *v, struct err *e)
{
	return config_string(&((struct root *)r)->fs.id, v, e);
}

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
	{"path", root_path, NULL},
	{"rw", root_rw, "rw"},
	{"cache", root_cache, NULL},
	{"queues", root_queues, NULL},
	{"queue_size", root_queue_size, NULL},
	{"id", root_id, NULL},
	{"readonly", root_readonly, "readonly"},
	{"direct", root_direct, "direct"},
	{"serial", root_serial, NULL},
	{"format", root_format, NULL},
	{"ro", root_ro, "ro"},
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
	if (r->ro_given && r->rw_given)
		return err_msg(e, -EINVAL, "ro and rw: one of them is meant");
	if (c->nfs >= CONFIG_FS_MAX)
		return err_msg(e, -E2BIG, "and %zu more shared directories: at most %d fit in all",
			       c->nfs, CONFIG_FS_MAX);
	memmove(&c->fs[1], &c->fs[0], c->nfs * sizeof(c->fs[0]));
	c->fs[0] = r->fs;
	strcpy(c->fs[0].tag, CONFIG_ROOT_TAG);
	c->fs[0].dir = r->path;
	c->fs[0].readonly = !r->rw;
	c->nfs++;
	c->root_is_fs = true;
	c->root_rw = r->rw;
	r->path = r->fs.id = NULL; /* are the configuration's */
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
	struct root r = {0};
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
	if (r.path && !stat(r.path, &st) && S_ISDIR(st.st_mode)) {
		c->root_is_host = is_host_root(&st);
		*e = why;
		if (!ret)
			ret = fs_first(c, &r, e);
		if (ret)
			err_ctx(e, "--rootfs %s", c->rootfs);
	} else if (r.rw_given) {
		ret = err_msg(e, -EINVAL,
			      "--rootfs %s: rw is for directories: an image is written to unless "
			      "readonly=on",
			      c->rootfs);
	} else {
		ret = disk_first(c, e);
	}
	free(r.path);
	free(r.fs.id);
	return ret;
}
