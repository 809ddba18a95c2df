/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File system device: virtio 1.2 section 5.11. A virtiofsd serves it over vhost-user. When that
 * is gone each FUSE request is answered with ENOTCONN, the error that a file system gives
 * whose server went away: a process in the guest gets it, and may unmount.
 */
#include <endian.h>
#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtio/devices.h"
#include "virtio/virtiofsd.h"
#include "virtio/vuser.h"

#define QUEUE_SIZE 1024

/* Section 5.11.4. */
struct fs_space {
	char tag[CONFIG_FS_TAG]; /* padded with NULs */
	uint32_t num_request_queues;
} __attribute__((packed));

struct fs_host {
	const struct fs_config *c;
	struct vhost_user *u;
	struct child *daemon; /* ours; NULL: somebody else's */
	char name[16];
};

struct fs {
	struct vuser d;
	struct fs_host *host;
};

/* ------------------------------------------------------------- the host's end */

static int start_own(struct fs_host *h, struct err *e)
{
	int fd, r = virtiofsd_start(&h->daemon, &fd, h->c, h->name, e);

	if (r < 0)
		return r;
	r = vhost_user_adopt(&h->u, fd, 0, e);
	if (r == 0)
		return 0;
	if (r == -EPROTO)
		r = child_failed(h->daemon, e); /* it knows better why */
	child_free(h->daemon);
	h->daemon = NULL;
	return r;
}

/* Hiprio and requests, section 5.11.2. */
static unsigned queues(const struct fs_config *c)
{
	return 1u + (c->queues ? c->queues : 1u);
}

static int check_queues(struct fs_host *h, struct err *e)
{
	int n = vhost_user_queues(h->u);

	if (n == -ENOTCONN)
		return err_msg(e, n, "vhost-user: the connection broke");
	if (n < 0)
		n = 2; /* it does not say: those that every one has */
	if (n < 2)
		return err_msg(e, -EINVAL, "%s: no virtiofsd: it has no queue for requests",
			       h->c->socket ? h->c->socket : "virtiofsd");
	if ((unsigned)n < queues(h->c))
		return err_msg(e, -EINVAL, "queues=%u: this virtiofsd serves %d at most",
			       queues(h->c) - 1, n - 1);
	return 0;
}

static int open_end(struct fs_host *h, struct err *e)
{
	int r = h->c->socket ? vhost_user_connect(&h->u, h->c->socket, 0, e) : start_own(h, e);

	return r < 0 ? r : check_queues(h, e);
}

static void close_end(struct fs_host *h)
{
	vhost_user_free(h->u);
	/* It ends by itself when the connection does, but it is not waited for. */
	if (h->daemon)
		child_hush(h->daemon);
	child_free(h->daemon);
	h->u = NULL;
	h->daemon = NULL;
}

int fs_host_open(struct fs_host **ret, const struct fs_config *c, unsigned index, struct err *e)
{
	struct fs_host *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_msg(e, -ENOMEM, "--fs: out of memory");
	h->c = c;
	snprintf(h->name, sizeof(h->name), "fs%u", index);
	r = open_end(h, e);
	if (r < 0) {
		fs_host_close(h);
		return config_fs_context(c, e);
	}
	*ret = h;
	return 0;
}

void fs_host_close(struct fs_host *h)
{
	if (!h)
		return;
	close_end(h);
	free(h);
}

/* ------------------------------------------------------------- requests nobody serves */

static void fs_refuse(struct vuser *d, struct vq_chain *c)
{
	struct fuse_in_header in;
	struct fuse_out_header out = {.len = htole32(sizeof(out))};

	(void)d;
	/* Too short for a request, or one that has no answer: it is only returned. */
	if (c->writable < sizeof(out) || chain_pull(c, &in, sizeof(in)))
		return;
	out.error = (int32_t)htole32((uint32_t)-ENOTCONN);
	out.unique = in.unique;
	chain_push(c, &out, sizeof(out));
}

static bool fs_end_backend(struct vuser *d)
{
	struct fs *f = (struct fs *)d;

	return f->host->daemon && child_end(f->host->daemon);
}

/* ------------------------------------------------------------- device */

static void fs_free(struct virtio *v)
{
	struct fs *f = (struct fs *)v;

	vuser_fini(&f->d);
	if (f->host->daemon)
		child_watch(f->host->daemon, NULL);
	free(f);
}

static const struct virtio_ops fs_ops = {
	.id = VIRTIO_ID_FS,
	.start = vuser_start,
	.stop = vuser_stop,
	.queue_start = vuser_queue_start,
	.queue_stop = vuser_queue_stop,
	.kick = vuser_kick,
	.rewired = vuser_rewired,
	.free = fs_free,
};

static void fill_space(struct fs *f, const struct fs_config *c)
{
	struct fs_space s = {.num_request_queues = htole32(queues(c) - 1)};

	memcpy(s.tag, c->tag, strnlen(c->tag, sizeof(s.tag)));
	memcpy(f->d.v.config, &s, sizeof(s));
	f->d.v.config_len = sizeof(s);
}

/* A guest that restarts gets a new one for one that died. */
static int revive(struct fs_host *h, struct err *e)
{
	if (!h->daemon || !vhost_user_dead(h->u))
		return 0;
	close_end(h);
	return open_end(h, e);
}

static int fs_build(struct fs *f, const struct fs_config *c, const struct fs_env *env,
		    struct err *e)
{
	const struct vuser_env below = {
		.gm = env->gm,
		.loop = env->loop,
		.power = env->power,
		.queues = queues(c),
		.queue_size = c->queue_size ? c->queue_size : QUEUE_SIZE,
	};
	int r = revive(env->host, e);

	if (r < 0)
		return r;
	f->host = env->host;
	f->d.u = env->host->u;
	f->d.refuse = fs_refuse;
	f->d.end_backend = fs_end_backend;
	snprintf(f->d.name, sizeof(f->d.name), "fs%u", env->index);
	if (!strcmp(c->tag, CONFIG_ROOT_TAG))
		snprintf(f->d.label, sizeof(f->d.label), "%s (the root)", f->d.name);
	else
		snprintf(f->d.label, sizeof(f->d.label), "%s (tag %s)", f->d.name, c->tag);
	fill_space(f, c);
	r = vuser_init(&f->d, &fs_ops, &below, NULL);
	if (r < 0)
		err_msg(e, r, "queues: %s", strerror(-r));
	else if (f->host->daemon && (r = child_watch(f->host->daemon, env->loop)) < 0)
		err_msg(e, r, "watching virtiofsd: %s", strerror(-r));
	if (r < 0)
		vuser_fini(&f->d);
	return r;
}

int fs_new(struct virtio **ret, const struct fs_config *c, const struct fs_env *env, struct err *e)
{
	struct fs *f = calloc(1, sizeof(*f));
	int r = f ? fs_build(f, c, env, e) : err_msg(e, -ENOMEM, "out of memory");

	if (r < 0) {
		free(f);
		return config_fs_context(c, e);
	}
	*ret = &f->d.v;
	return 0;
}
