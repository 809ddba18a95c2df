/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues, virtio 1.2 section 2.7: the only code that reads or writes
 * descriptor tables and rings, the one place where a chain is taken (vq_next)
 * and given back (vq_return). virtio/README.md explains the ring once.
 *
 * vq_next snapshots and validates a whole chain, indirect tables included,
 * before anybody sees a byte of it: head and every next in range, no loop, at
 * most the queue's size in descriptors, device-readable before
 * device-writable, every address RAM, total length below 4 GiB, head not in
 * flight already. A violation latches the queue broken: it is logged once with
 * the section, the owner's broken() is called (NEEDS_RESET), and vq_next says
 * VQ_BROKEN until reset.
 *
 * Used lengths are computed here from what was pushed.
 *
 * Threading: under the device's loop lock. Lifetime: chains belong to the
 * queue; a chain that is still out at reset is an orphan, and returning it
 * only frees it.
 */
#ifndef VIRTIO_VQ_H
#define VIRTIO_VQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/gmem.h"

#define VQ_SIZE_MAX 1024

struct vq;

struct vq_owner {
	void (*interrupt)(void *arg, unsigned index); /* used buffers: tell the driver */
	void (*broken)(void *arg, unsigned index);    /* latch NEEDS_RESET */
	void *arg;
	const char *name; /* for the log: "disk0" */
};

struct vq_seg { /* private to vq.c and chain.c */
	gpa_t at;
	uint32_t len; /* never 0 */
};

struct vq_chain {
	struct vq *vq; /* dangles once an orphan's queue is freed */
	uint16_t head;
	uint32_t readable, writable; /* bytes not yet pulled, not yet pushed */
	/* the rest is private to vq.c and chain.c */
	struct gmem *gm;
	struct vq_seg *seg;
	uint16_t nseg, cap, nread; /* seg[0..nread) device-readable */
	uint16_t rseg, wseg;       /* cursors */
	uint32_t roff, woff;
	uint32_t used;     /* contiguous bytes written from the start of the writable part */
	uint32_t iov_from; /* what used was at the first chain_push_iov */
	bool gap;          /* something before the cursor was not written */
	bool orphan;       /* its queue was reset: moves no bytes, is only freed */
	struct vq_chain *next;
};

int vq_new(struct vq **ret, struct gmem *gm, unsigned index, uint16_t max_size,
	   const struct vq_owner *o);
void vq_free(struct vq *q); /* chains still out become orphans; accepts NULL */

/* ---- the transport's side */
struct vq_setup {
	uint16_t size; /* a power of two, 1..max_size */
	gpa_t desc, avail, used;
	bool event_idx, indirect; /* negotiated */
};
/* 0, -EINVAL (size, alignment 16/2/4), -EFAULT (not RAM), -ENOMEM; the queue is live from here. */
int vq_start(struct vq *q, const struct vq_setup *s);
/*
 * Looks where a live ring that another process serves is by now, for vq_adopt: where it is done
 * before the ring was once around since the last time, nothing is missed. Cheap: two indices and
 * what is new.
 */
enum vq_pace {
	VQ_AT_REST, /* nothing is out, nor has been since; or there is no memory to follow it */
	VQ_AT_WORK,
	VQ_FAST, /* more than a quarter of the ring went by */
};
enum vq_pace vq_follow(struct vq *q);
/*
 * Goes on with a live ring which another process served until it went away: from the indices that
 * stand there, and with the chains that it had taken and not returned, as far as vq_follow saw them
 * come: vq_next gives those first. What the rings hold is not believed. The driver may be owed an
 * interrupt. 0 or -ENOMEM.
 */
struct vq_adopted {
	unsigned found;  /* vq_next will give them */
	unsigned hidden; /* out, too, but which they are is not known */
};
int vq_adopt(struct vq *q, struct vq_adopted *ret);
void vq_reset(struct vq *q); /* device or queue reset: forgets everything */
bool vq_live(const struct vq *q);
/* Buffers of a chain, readable and writable ones: most iovecs that its bytes can take. */
static inline unsigned chain_buffers(const struct vq_chain *c)
{
	return c->nseg;
}
uint16_t vq_max_size(const struct vq *q);

/* ---- the device's side */
enum vq_take { VQ_CHAIN, VQ_EMPTY, VQ_BROKEN };
enum vq_take vq_next(struct vq *q, struct vq_chain **ret);
bool vq_pending(struct vq *q); /* vq_next would not say VQ_EMPTY; false once it said VQ_BROKEN */

/*
 * Put a chain into the used ring. Makes it visible to the driver at once;
 * whether to interrupt is decided by vq_notify, once a batch.
 */
void vq_return(struct vq_chain *c);
/*
 * The same for chains that are one answer (section 5.1.6.4.1): the driver sees all of them or none.
 * All were taken from one queue since its last reset, or all before that.
 */
void vq_return_all(struct vq_chain *const *c, unsigned n);
void vq_notify(struct vq *q);
/*
 * For a device that looks at its queue by itself, and chains that the driver hardly waits for
 * because an answer follows: the interrupt may stay away, for an eighth of the queue and @most ns
 * at most, if this is called at every look; a nap between two adds to that. vq_notify_late makes up
 * for it, before the device stops looking; where that was needed no answer came, and vq_notify_soon
 * does not wait for the next ones.
 */
void vq_notify_soon(struct vq *q, uint64_t most);
void vq_notify_late(struct vq *q);

/*
 * While the device works off a queue, or looks at it by itself, it needs no
 * kicks: vq_kicks_off (one that was under way may still come); when it
 * found the queue empty, vq_kicks_on, and true means that buffers came in
 * between: go on working.
 */
void vq_kicks_off(struct vq *q);
bool vq_kicks_on(struct vq *q);

/*
 * A queue broken by what a request said (a wrong shape no error status can
 * carry). @section of the standard. Chains that are out stay the device's and
 * are returned as ever; the driver sees no more of them.
 */
void vq_break(struct vq *q, const char *section, const char *why);

/* ---- a chain's bytes (chain.c). Lengths beyond what is left, and orphans, give -EINVAL and move
 * nothing. */
int chain_pull(struct vq_chain *c, void *buf, uint32_t len);
int chain_push(struct vq_chain *c, const void *buf, uint32_t len);
/*
 * The next @len bytes as iovecs for a system call; returns their number, or
 * -EINVAL, or -E2BIG when more than @max are needed. push_iov counts the bytes
 * as written; chain_unwritten() takes that back after a failure (the used
 * length then ends where they began).
 */
int chain_pull_iov(struct vq_chain *c, uint32_t len, struct iovec *iov, int max);
int chain_push_iov(struct vq_chain *c, uint32_t len, struct iovec *iov, int max);
void chain_unwritten(struct vq_chain *c);
/* Of what was pushed only the first @len bytes were written, at most as many as were counted. */
void chain_written(struct vq_chain *c, uint32_t len);
/* Writes over bytes of the writable part that were pushed already; cursor and count stay. -EINVAL
 * beyond what was. */
int chain_poke(struct vq_chain *c, uint32_t off, const void *buf, uint32_t len);
/* Leaves a gap of unwritten bytes so that the next push lands behind it (a status byte at the end).
 */
int chain_push_gap(struct vq_chain *c, uint32_t len);
/* As it was taken: nothing pulled, nothing pushed. For buffers that were offered to a system call
 * which did not get as far as them. */
void chain_rewind(struct vq_chain *c);

#endif
