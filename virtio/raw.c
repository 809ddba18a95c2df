/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a request gets to the host's kernel:
 *
 *  - through the page cache (direct=off): io_submit would do the work at once
 *    and sleep in it, so small requests are tried in place with RWF_NOWAIT,
 *    which never sleeps, and everything else goes to a worker;
 *  - past it (direct=on): libaio, with RWF_NOWAIT; what would sleep in
 *    io_submit (blocks to allocate, a lock that is taken) comes back with
 *    EAGAIN and goes to a worker. A request so large that the host has to split
 *    it always would: it does without the flag where all that io_submit can wait
 *    for is the host's queue, and is a worker's where blocks may be allocated.
 *
 * O_DIRECT wants aligned offsets, lengths and addresses. A request that has
 * them not goes through the page cache, on a second descriptor. The kernel keeps
 * both coherent in whole pages only, so a write of that kind is never in
 * flight together with another write: see admit().
 */
#include "virtio/raw.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "vmm/log.h"

#define AIO_DEPTH 256
#define PAGE 4096u

/* In place a copy out of the page cache; beyond this it is a worker's. */
#define INLINE_MAX (64u << 10)

struct raw {
	struct image im;
	struct raw_io io;
	struct aio *aio; /* NULL: workers instead */
	struct workers_group group;
	bool aio_blocks;                /* the file system does not know RWF_NOWAIT with aio */
	bool read_blocks, write_blocks; /* nor with preadv2, pwritev2 */
	/* Direct I/O only: changes in flight, and those that wait behind one that must be alone. */
	unsigned changing;
	bool alone;
	struct image_req *waiting, *waiting_tail;
};

static struct raw *to_raw(struct image *im)
{
	return (struct raw *)((char *)im - offsetof(struct raw, im));
}

static bool cancelled(const struct image_req *r)
{
	return __atomic_load_n(&r->cancelled, __ATOMIC_RELAXED);
}

static bool changes(const struct image_req *r)
{
	return r->op != IMAGE_READ && r->op != IMAGE_FLUSH;
}

static void pump(struct raw *w);
static void go(struct raw *w, struct image_req *r);

static void finish(struct raw *w, struct image_req *r, int err)
{
	bool changed = w->io.file.direct && changes(r);

	if (changed) {
		w->changing--;
		if (r->alone)
			w->alone = false;
	}
	w->im.owner.done(w->im.owner.arg, r, err);
	if (changed)
		pump(w);
}

/* ------------------------------------------------------------- workers */

static void job_run(void *arg)
{
	struct image_req *r = arg;

	r->res = raw_io_run(&to_raw(r->im)->io, r);
}

static void job_done(void *arg)
{
	struct image_req *r = arg;

	finish(to_raw(r->im), r, r->res);
}

static void go_worker(struct raw *w, struct image_req *r)
{
	r->work = (struct work){.run = job_run, .done = job_done, .arg = r};
	workers_submit(&w->group, &r->work);
}

/* ------------------------------------------------------------- libaio */

static void aio_done(struct aio_op *op, long res);

static void go_aio(struct raw *w, struct image_req *r)
{
	struct iocb *cb = &r->aio.iocb;
	int fd = w->io.file.fd, n = raw_io_cut(r);

	if (r->op == IMAGE_READ)
		io_prep_preadv(cb, fd, r->iov, n, (long long)r->off);
	else
		io_prep_pwritev(cb, fd, r->iov, n, (long long)r->off);
	if (!w->aio_blocks && r->len <= w->io.file.whole_max)
		cb->aio_rw_flags |= RWF_NOWAIT;
	if (r->through)
		cb->aio_rw_flags |= RWF_DSYNC;
	r->aio.done = aio_done;
	aio_add(w->aio, &r->aio);
}

static void aio_done(struct aio_op *op, long res)
{
	struct image_req *r = (struct image_req *)((char *)op - offsetof(struct image_req, aio));
	struct raw *w = to_raw(r->im);

	raw_io_uncut(r, (int)op->iocb.u.v.nr);
	if (res > 0) {
		/* A remainder that is not aligned is done again from the last aligned byte on. */
		res -= res % (long)w->io.file.off_align;
		image_advance(r, (uint64_t)res);
		if (!r->len)
			finish(w, r, 0);
		else if (cancelled(r))
			finish(w, r, -ECANCELED);
		else if (raw_io_aligned(&w->io, r) && res)
			go_aio(w, r);
		else
			go_worker(w, r);
		return;
	}
	/*
	 * EOPNOTSUPP: no RWF_NOWAIT here. EINVAL: alignment or an old kernel.
	 * A worker tries all that again in its own way.
	 */
	if (res == -EOPNOTSUPP)
		w->aio_blocks = true;
	if (res == -EAGAIN || res == -EOPNOTSUPP || res == -EINVAL)
		go_worker(w, r);
	else
		finish(w, r, res ? (int)res : -EIO);
}

/* ------------------------------------------------------------- the page cache */

/* True: it is finished. What was moved before it would have slept counts. */
static bool try_now(struct raw *w, struct image_req *r)
{
	bool *blocks = r->op == IMAGE_READ ? &w->read_blocks : &w->write_blocks;
	int fd = w->io.file.fd;
	ssize_t n;

	if (*blocks || r->len > INLINE_MAX || r->through)
		return false;
	n = r->op == IMAGE_READ ? preadv2(fd, r->iov, r->niov, (off_t)r->off, RWF_NOWAIT)
				: pwritev2(fd, r->iov, r->niov, (off_t)r->off, RWF_NOWAIT);
	if (n < 0)
		*blocks = errno == EOPNOTSUPP;
	if (n <= 0)
		return false;
	image_advance(r, (uint64_t)n);
	if (r->len)
		return false;
	finish(w, r, 0);
	return true;
}

/* ------------------------------------------------------------- choosing */

static bool fits_aio(const struct raw *w, const struct image_req *r)
{
	const struct image_file *f = &w->io.file;

	return f->direct && w->aio && raw_io_aligned(&w->io, r) &&
	       (r->op == IMAGE_READ || f->block || r->len <= f->whole_max);
}

static void go(struct raw *w, struct image_req *r)
{
	bool moves = r->op == IMAGE_READ || r->op == IMAGE_WRITE;

	if (moves && fits_aio(w, r))
		go_aio(w, r);
	else if (!moves || w->io.file.direct || !try_now(w, r))
		go_worker(w, r);
}

/* A change that the kernel makes in the page cache and that covers parts of pages. */
static bool must_be_alone(const struct raw *w, const struct image_req *r)
{
	if (r->op == IMAGE_WRITE)
		return !raw_io_aligned(&w->io, r);
	return (r->off | r->len) % PAGE;
}

static bool may_start(const struct raw *w, bool alone)
{
	return !w->alone && !(alone && w->changing);
}

/*
 * The kernel writes a part of a page by reading the page, changing it and
 * writing it all. A direct write to another part of that page in the meantime
 * would be lost. So such a change waits until no other is in flight, and what
 * comes behind it waits for it, in order.
 */
static bool admit(struct raw *w, struct image_req *r)
{
	r->alone = must_be_alone(w, r);
	if (w->waiting || !may_start(w, r->alone)) {
		r->next = NULL;
		if (w->waiting)
			w->waiting_tail->next = r;
		else
			w->waiting = r;
		w->waiting_tail = r;
		return false;
	}
	w->changing++;
	w->alone = r->alone;
	return true;
}

static void pump(struct raw *w)
{
	struct image_req *r;

	while ((r = w->waiting) && may_start(w, r->alone)) {
		w->waiting = r->next;
		w->changing++;
		w->alone = r->alone;
		go(w, r);
	}
}

/* ------------------------------------------------------------- the operations */

static void raw_submit(struct image *im, struct image_req *r)
{
	struct raw *w = to_raw(im);

	if (!r->len && r->op != IMAGE_FLUSH) {
		im->owner.done(im->owner.arg, r, 0);
		return;
	}
	if (w->io.file.direct && changes(r) && !admit(w, r))
		return;
	if (r->op == IMAGE_FLUSH && im->readonly)
		finish(w, r, 0);
	else
		go(w, r);
}

static void raw_kick(struct image *im)
{
	struct raw *w = to_raw(im);

	if (w->aio)
		aio_kick(w->aio);
}

static bool raw_ready(const struct image *im)
{
	const struct raw *w = (const struct raw *)((const char *)im - offsetof(struct raw, im));

	return w->aio && aio_ready(w->aio);
}

static void raw_take(struct image *im)
{
	aio_take(to_raw(im)->aio);
}

static void raw_batch(void *arg)
{
	struct raw *w = arg;

	raw_kick(&w->im); /* what the done()s started */
	w->im.owner.batch(w->im.owner.arg);
}

static bool raw_wait(struct image *im)
{
	struct raw *w = to_raw(im);

	/* What the kernel refuses ends in the kick or is a worker's from here on. */
	bool some = w->aio && aio_kick(w->aio);

	return workers_wait(&w->group) || (w->aio && aio_wait(w->aio)) || some;
}

static void raw_free(struct image *im)
{
	struct raw *w = to_raw(im);

	assert(!w->changing && !w->waiting);
	workers_group_fini(&w->group);
	aio_free(w->aio);
	image_file_close(&w->io.file);
	free(im->path);
	free(w);
}

static const struct image_ops raw_ops = {
	.submit = raw_submit,
	.kick = raw_kick,
	.ready = raw_ready,
	.take = raw_take,
	.wait = raw_wait,
	.free = raw_free,
};

static void describe(struct raw *w, const struct disk_config *c, const struct image_env *env)
{
	const struct image_file *f = &w->io.file;

	w->im = (struct image){
		.ops = &raw_ops,
		.owner = env->owner,
		.path = w->im.path,
		.readonly = c->readonly,
		.can_discard = f->can_discard && !c->readonly,
		.size = f->size,
		.physical = f->physical,
		.io_min = f->io_min,
		.io_opt = f->io_opt,
	};
}

int raw_open(struct image **ret, const struct disk_config *c, const struct image_env *env,
	     struct err *e)
{
	struct raw *w = calloc(1, sizeof(*w));
	int r;

	if (!w || !(w->im.path = strdup(c->path))) {
		free(w);
		return err_msg(e, -ENOMEM, "%s: out of memory", c->path);
	}
	r = image_file_open(&w->io.file, c, e);
	if (r < 0)
		goto fail;
	describe(w, c, env);
	w->group.batch = raw_batch;
	w->group.arg = w;
	r = workers_group_init(&w->group, env->workers, env->loop, e);
	if (r < 0)
		goto fail_file;
	if (c->direct) {
		int err = aio_new(&w->aio, AIO_DEPTH, env->loop, raw_batch, w);

		if (err < 0)
			log_info("%s: io_setup: %s: worker threads instead", c->path,
				 strerror(-err));
	}
	*ret = &w->im;
	return 0;

fail_file:
	image_file_close(&w->io.file);
fail:
	free(w->im.path);
	free(w);
	return r;
}
