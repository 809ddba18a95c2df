/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux asynchronous I/O (io_submit(2)): one context, its completions announced
 * through an eventfd that the loop watches.
 *
 * Operations are collected by aio_add and handed to the kernel together by
 * aio_kick. What the kernel has no room for waits here until something
 * completes. An operation the kernel refuses completes with its error.
 *
 * Threading: under the loop's lock.
 */
#ifndef VIRTIO_AIO_H
#define VIRTIO_AIO_H

#include <libaio.h>
#include <stdbool.h>

#include "vmm/loop.h"

struct aio;

struct aio_op {
	struct iocb
		iocb; /* prepared by the caller: io_prep_preadv, io_prep_pwritev, aio_rw_flags */
	/* Bytes, or a negative errno; -EAGAIN: not now. May call aio_add; aio_kick follows the
	 * batch. */
	void (*done)(struct aio_op *op, long res);
	bool cancelled;      /* set by the caller: if not submitted yet, done(-ECANCELED) */
	struct aio_op *next; /* private */
};

/* @batch: once after the done()s that came together. -errno of io_setup(2). */
int aio_new(struct aio **ret, unsigned depth, struct loop *l, loop_fn *batch, void *arg);
void aio_free(struct aio *a); /* nothing is in flight; accepts NULL */

void aio_add(struct aio *a, struct aio_op *op);

/* True: an operation ended in it, cancelled or refused. */
bool aio_kick(struct aio *a);

/*
 * Without a system call: something has completed. aio_take calls done() and
 * batch(), and the loop is not woken up for what it took.
 */
bool aio_ready(const struct aio *a);
void aio_take(struct aio *a);

/* Blocks until something has completed and calls done(); false: the kernel has nothing. */
bool aio_wait(struct aio *a);

#endif
