/* SPDX-License-Identifier: Apache-2.0 */
/* --fs: a directory of the host for the guest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "vmm/config_fs.h"

void config_fs_free_one(struct fs_config *f)
{
	free(f->dir);
	free(f->socket);
	free(f->id);
}

void config_fs_fini(struct config *c)
{
	for (size_t i = 0; i < c->nfs; i++)
		config_fs_free_one(&c->fs[i]);
}

/* ------------------------------------------------------------- keys */

/* The guest's user types it, and it stands in lists: no blanks, no control characters. */
static int fs_tag(void *f, const char *v, struct err *e)
{
	struct fs_config *fs = &((struct fs_words *)f)->f;

	if (!*v || strlen(v) > CONFIG_FS_TAG)
		return err_msg(e, -EINVAL, "\"%s\" is %zu bytes long, not 1 to %d", v, strlen(v),
			       CONFIG_FS_TAG);
	for (const unsigned char *p = (const unsigned char *)v; *p; p++)
		if (*p <= ' ' || *p == 0x7f)
			return err_msg(e, -EINVAL, "holds a blank or a control character");
	strcpy(fs->tag, v);
	return 0;
}

int config_fs_key_dir(void *f, const char *v, struct err *e)
{
	return config_string(&((struct fs_words *)f)->f.dir, v, e);
}

static int fs_socket(void *f, const char *v, struct err *e)
{
	return config_string(&((struct fs_words *)f)->f.socket, v, e);
}

int config_fs_key_id(void *f, const char *v, struct err *e)
{
	return config_string(&((struct fs_words *)f)->f.id, v, e);
}

int config_fs_key_ro(void *f, const char *v, struct err *e)
{
	((struct fs_words *)f)->ro = true;
	return opts_onoff(v, &((struct fs_words *)f)->f.readonly, e);
}

int config_fs_key_rw(void *f, const char *v, struct err *e)
{
	bool rw = true;
	int r = opts_onoff(v, &rw, e);

	((struct fs_words *)f)->rw = true;
	((struct fs_words *)f)->f.readonly = !rw;
	return r;
}

int config_fs_key_cache(void *f, const char *v, struct err *e)
{
	static const char *const modes[] = {"auto", "always", "never"};

	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(v, modes[i])) {
			((struct fs_words *)f)->f.cache = (enum fs_cache)i;
			return 0;
		}
	return err_msg(e, -EINVAL, "\"%s\" is neither auto, always nor never%s", v,
		       strcmp(v, "none") ? "" : " (did you mean never?)");
}

int config_fs_key_queues(void *f, const char *v, struct err *e)
{
	unsigned long n;
	int r = opts_number(v, 1, CONFIG_FS_QUEUES_MAX, &n, e);

	if (r == 0)
		((struct fs_words *)f)->f.queues = (uint16_t)n;
	return r;
}

int config_fs_key_queue_size(void *f, const char *v, struct err *e)
{
	return config_queue_size(v, CONFIG_FS_QUEUE_MIN, &((struct fs_words *)f)->f.queue_size, e);
}

int config_fs_check_words(const struct fs_words *w, struct err *e)
{
	if (w->ro && w->rw)
		return err_msg(e, -EINVAL, "ro and rw: one of them is meant");
	return 0;
}

int config_fs(struct config *c, const char *text, struct err *e)
{
	static const struct kv_key keys[] = {
		{"tag", fs_tag, NULL},
		{"dir", config_fs_key_dir, NULL},
		{"socket", fs_socket, NULL},
		{"ro", config_fs_key_ro, "ro"},
		{"rw", config_fs_key_rw, "rw"},
		{"cache", config_fs_key_cache, NULL},
		{"queues", config_fs_key_queues, NULL},
		{"queue_size", config_fs_key_queue_size, NULL},
		{"id", config_fs_key_id, NULL},
		{"readonly", NULL, "ro"},
		{"path", NULL, "dir=DIR"},
		{"source", NULL, "dir=DIR"},
		{NULL, NULL, NULL},
	};
	struct fs_words w = {0};
	struct fs_config *f = &w.f;
	int r;

	if (c->nfs >= CONFIG_FS_MAX)
		return err_msg(e, -E2BIG, "at most %d shared directories fit", CONFIG_FS_MAX);
	r = opts_kv(keys, NULL, text, &w, e);
	if (r == 0)
		r = config_fs_check_words(&w, e);
	if (r == 0 && !f->tag[0])
		r = err_msg(e, -EINVAL, "the tag is missing (tag=NAME)");
	if (r == 0 && !strcmp(f->tag, CONFIG_ROOT_TAG))
		r = err_msg(e, -EINVAL, "tag: %s is that of --rootfs DIRECTORY", f->tag);
	if (r < 0) {
		config_fs_free_one(f);
		return r;
	}
	c->fs[c->nfs++] = *f;
	return 0;
}

/* ------------------------------------------------------------- the check */

static int check_dir(const struct fs_config *f, struct err *e)
{
	struct stat st;

	if (stat(f->dir, &st) < 0)
		return err_sys(e, "dir=%s", f->dir);
	if (!S_ISDIR(st.st_mode))
		return err_msg(e, -ENOTDIR, "dir=%s: not a directory", f->dir);
	return 0;
}

static int check_socket(const struct fs_config *f, struct err *e)
{
	const struct sockaddr_un *un = NULL;

	if (f->readonly)
		return err_msg(e, -EINVAL,
			       "ro: not together with socket: whoever started that virtiofsd "
			       "decides what it lets a guest do");
	if (f->cache != FS_CACHE_AUTO)
		return err_msg(e, -EINVAL,
			       "cache: not together with socket: it is for whoever "
			       "started that virtiofsd to say");
	if (strlen(f->socket) >= sizeof(un->sun_path))
		return err_msg(e, -ENAMETOOLONG, "socket path is %zu bytes long, at most %zu fit",
			       strlen(f->socket), sizeof(un->sun_path) - 1);
	return 0;
}

static int check_one(const struct fs_config *f, struct err *e)
{
	const char *dir = f->dir && *f->dir ? f->dir : NULL;
	const char *socket = f->socket && *f->socket ? f->socket : NULL;
	int r = config_check_queue_size(f->queue_size, CONFIG_FS_QUEUE_MIN, e);

	if (r < 0)
		return r;
	if (!dir == !socket)
		return err_msg(e, -EINVAL,
			       dir ? "dir and socket: one of them is meant"
				   : "what to share is missing (dir=DIR or socket=PATH)");
	return dir ? check_dir(f, e) : check_socket(f, e);
}

int config_fs_context(const struct fs_config *f, struct err *e)
{
	if (!strcmp(f->tag, CONFIG_ROOT_TAG))
		return err_ctx(e, "--rootfs %s", f->dir);
	return err_ctx(e, "--fs tag=%s", f->tag);
}

int config_check_fs(struct config *c, struct err *e)
{
	for (size_t i = 0; i < c->nfs; i++) {
		const struct fs_config *f = &c->fs[i];

		if (check_one(f, e))
			return config_fs_context(f, e);
		for (size_t j = 0; j < i; j++)
			if (!strcmp(f->tag, c->fs[j].tag))
				return err_msg(e, -EEXIST, "--fs tag=%s: given twice", f->tag);
	}
	return 0;
}
