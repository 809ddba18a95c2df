/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/aio.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BATCH 64 /* operations a system call */

struct aio {
	io_context_t ctx;
	int fd;
	struct loop_fd src;
	unsigned depth, in_flight;
	struct aio_op *head, *tail; /* not yet submitted */
	loop_fn *batch;
	void *arg;
};

void aio_add(struct aio *a, struct aio_op *op)
{
	op->next = NULL;
	if (a->head)
		a->tail->next = op;
	else
		a->head = op;
	a->tail = op;
}

static void finish_head(struct aio *a, long res)
{
	struct aio_op *op = a->head;

	a->head = op->next;
	op->done(op, res);
}

/* What the kernel may get now, up to an operation that was cancelled. */
static unsigned collect(const struct aio *a, struct iocb **list)
{
	unsigned n = 0, room = a->depth - a->in_flight;

	for (struct aio_op *op = a->head; op && n < BATCH && n < room; op = op->next) {
		if (op->cancelled)
			break;
		io_set_eventfd(&op->iocb, a->fd);
		op->iocb.data = op;
		list[n++] = &op->iocb;
	}
	return n;
}

/*
 * io_submit fails for the first of its list alone. EAGAIN is for lack of
 * resources: they come back with a completion, and when nothing is in flight the
 * owner has to do it otherwise.
 */
static bool submit(struct aio *a, struct iocb **list, unsigned n, bool *ended)
{
	int r = io_submit(a->ctx, (long)n, list);

	if (r == -EAGAIN && a->in_flight)
		return false;
	if (r <= 0 && r != -EINTR) {
		finish_head(a, r ? r : -EAGAIN);
		*ended = true;
	}
	for (int i = 0; i < r; i++)
		a->head = a->head->next;
	if (r > 0)
		a->in_flight += (unsigned)r;
	return true;
}

/* done() may add operations, at the tail. */
bool aio_kick(struct aio *a)
{
	struct iocb *list[BATCH];
	bool ended = false;

	for (;;) {
		if (a->head && a->head->cancelled) {
			finish_head(a, -ECANCELED);
			ended = true;
			continue;
		}
		unsigned n = collect(a, list);

		if (!n || !submit(a, list, n, &ended))
			return ended;
	}
}

static int reap(struct aio *a, long min)
{
	struct io_event ev[BATCH];
	struct timespec now = {0};
	int n = io_getevents(a->ctx, min, BATCH, ev, min ? NULL : &now);

	for (int i = 0; i < n; i++) {
		struct aio_op *op = ev[i].data;

		a->in_flight--;
		op->done(op, (long)ev[i].res);
	}
	return n;
}

void aio_take(struct aio *a)
{
	unsigned budget = a->in_flight;
	eventfd_t count;

	eventfd_read(a->fd, &count);
	while (budget) {
		int n = reap(a, 0);

		if (n <= 0)
			break;
		budget -= (unsigned)n < budget ? (unsigned)n : budget;
		if (n < BATCH)
			break;
	}
	/* Completions beyond the budget are of operations submitted in between: once more, later.
	 */
	if (!budget && a->in_flight)
		eventfd_write(a->fd, 1);
	aio_kick(a);
	a->batch(a->arg);
}

static void aio_event(void *arg, uint32_t events)
{
	(void)events;
	aio_take(arg);
}

/*
 * The context is the address of the ring of completions, which the kernel maps
 * for programs to look at (struct aio_ring in its fs/aio.c; the magic says that
 * the layout is this one). Only whether there are any is read here.
 */
struct ring {
	uint32_t id, nr, head, tail, magic;
};
#define RING_MAGIC 0xa10a10a1u

bool aio_ready(const struct aio *a)
{
	const struct ring *r = (const struct ring *)a->ctx;

	return a->in_flight && r->magic == RING_MAGIC &&
	       __atomic_load_n(&r->head, __ATOMIC_RELAXED) !=
		       __atomic_load_n(&r->tail, __ATOMIC_RELAXED);
}

bool aio_wait(struct aio *a)
{
	if (!a->in_flight)
		return false;
	while (reap(a, 1) == -EINTR)
		;
	aio_kick(a);
	a->batch(a->arg);
	return true;
}

int aio_new(struct aio **ret, unsigned depth, struct loop *l, loop_fn *batch, void *arg)
{
	struct aio *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	*a = (struct aio){.fd = -1, .depth = depth, .batch = batch, .arg = arg};
	a->src = (struct loop_fd){.fn = aio_event, .arg = a};
	a->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = a->fd < 0 ? -errno : io_setup((int)depth, &a->ctx);
	if (!r)
		r = loop_fd_add(l, &a->src, a->fd, EPOLLIN);
	if (r < 0) {
		aio_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

void aio_free(struct aio *a)
{
	if (!a)
		return;
	assert(!a->in_flight && !a->head);
	loop_fd_del(&a->src);
	if (a->ctx)
		io_destroy(a->ctx);
	if (a->fd >= 0)
		close(a->fd);
	free(a);
}
