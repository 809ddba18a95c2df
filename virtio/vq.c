/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/vq_ring.h"
#include "vmm/loop.h"

/* What is kept for reuse: so many chains, each with at most so many segments' room. */
#define IDLE_MAX 64
#define SEG_KEEP 130
#define SEG_FIRST 8

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

int vq_new(struct vq **ret, struct gmem *gm, unsigned index, uint16_t max_size,
	   const struct vq_owner *o)
{
	struct vq *q;

	if (!max_size || max_size > VQ_SIZE_MAX || (max_size & (max_size - 1)))
		return -EINVAL;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	q->out = calloc(max_size, sizeof(*q->out));
	if (!q->out) {
		free(q);
		return -ENOMEM;
	}
	q->gm = gm;
	q->index = index;
	q->max_size = max_size;
	q->owner = *o;
	*ret = q;
	return 0;
}

void vq_free(struct vq *q)
{
	if (!q)
		return;
	vq_reset(q);
	free(q->out);
	free(q);
}

int vq_start(struct vq *q, const struct vq_setup *s)
{
	uint32_t n = s->size;
	struct gwin desc, avail, used;
	uint64_t *table = NULL;
	int r;

	if (!n || n > q->max_size || (n & (n - 1)))
		return -EINVAL;
	/* Section 2.7: alignment and size of the three parts; the event indices always belong to
	 * them. */
	if ((r = gmem_window(q->gm, s->desc, n * DESC_SIZE, 16, &desc)) ||
	    (r = gmem_window(q->gm, s->avail, RING_ELEMS + n * AVAIL_ELEM + 2, 2, &avail)) ||
	    (r = gmem_window(q->gm, s->used, RING_ELEMS + n * USED_ELEM + 2, 4, &used)))
		return r;
	if (s->indirect && !(table = malloc((size_t)n * DESC_SIZE)))
		return -ENOMEM;
	vq_reset(q);
	q->desc = desc;
	q->avail = avail;
	q->used = used;
	q->table = table;
	q->size = s->size;
	q->event_idx = s->event_idx;
	q->indirect = s->indirect;
	q->live = true;
	return 0;
}

static void vq_chain_free(struct vq_chain *c)
{
	free(c->seg);
	free(c);
}

void vq_reset(struct vq *q)
{
	for (unsigned i = 0; i < q->size; i++) {
		if (q->out[i])
			q->out[i]->orphan = true;
		q->out[i] = NULL;
	}
	while (q->idle) {
		struct vq_chain *c = q->idle;

		q->idle = c->next;
		vq_chain_free(c);
	}
	q->nidle = 0;
	free(q->table);
	free(q->lost);
	free(q->trace);
	q->trace = NULL;
	q->table = NULL;
	q->lost = NULL;
	q->nlost = q->lost_at = 0;
	q->desc = q->avail = q->used = (struct gwin){0};
	q->avail_next = q->avail_seen = q->used_idx = 0;
	q->unsignalled = 0;
	q->quiet = 0;
	q->prompt = 0;
	q->size = 0;
	q->live = q->broken = false;
}

bool vq_live(const struct vq *q)
{
	return q->live;
}

uint16_t vq_max_size(const struct vq *q)
{
	return q->max_size;
}

void vq_break(struct vq *q, const char *section, const char *why)
{
	if (!q->live || q->broken)
		return;
	q->broken = true;
	log_guest(&q->budget, "%s: queue %u is broken: %s (virtio 1.2 section %s)", q->owner.name,
		  q->index, why, section);
	q->owner.broken(q->owner.arg, q->index);
}

/* ------------------------------------------------------------- taking */

static bool refuse(struct vq *q, const char *section, const char *why)
{
	vq_break(q, section, why);
	return false;
}

/* @rest: length, flags and next in one load, so that they are of one moment. */
static struct desc desc_split(uint64_t addr, uint64_t rest)
{
	return (struct desc){
		.addr = addr,
		.len = (uint32_t)rest,
		.flags = (uint16_t)(rest >> 32),
		.next = (uint16_t)(rest >> 48),
	};
}

/* @i < size: checked where it was read from the guest. */
static struct desc desc_direct(const struct vq *q, uint32_t i)
{
	return desc_split(gwin_load64(&q->desc, i * DESC_SIZE),
			  gwin_load64(&q->desc, i * DESC_SIZE + 8));
}

static struct desc desc_indirect(const struct vq *q, uint32_t i)
{
	return desc_split(le64toh(q->table[2 * i]), le64toh(q->table[2 * i + 1]));
}

/*
 * Section 2.7.5.3. The table is copied once, whole: nothing says that it is
 * aligned, and a copy cannot change between check and use. The write flag of
 * the descriptor that refers to it is ignored (2.7.5.3.2).
 */
static bool table_load(struct vq *q, const struct desc *d, uint32_t *ret_n)
{
	if (!q->indirect)
		return refuse(q, "2.7.5.3.1", "an indirect descriptor was not negotiated");
	if (d->flags & DESC_F_NEXT)
		return refuse(q, "2.7.5.3.1", "an indirect descriptor has a next one");
	if (!d->len || d->len % DESC_SIZE)
		return refuse(q, "2.7.5.3", "an indirect table's length is no multiple of 16");
	/* No chain may be longer than the queue (2.7.5.3.1): that bounds the copy too. */
	if (d->len / DESC_SIZE > q->size)
		return refuse(q, "2.7.5.3.1", "an indirect table is longer than the queue");
	if (gmem_read(q->gm, gpa(d->addr), q->table, d->len))
		return refuse(q, "2.7.5.3", "an indirect table is not in memory");
	*ret_n = d->len / DESC_SIZE;
	return true;
}

static bool seg_add(struct vq_chain *c, const struct desc *d)
{
	if (c->nseg == c->cap) {
		/* At most the queue's size of segments, so at most twice VQ_SIZE_MAX. */
		uint16_t cap = c->cap ? (uint16_t)(c->cap * 2) : SEG_FIRST;
		struct vq_seg *seg = realloc(c->seg, cap * sizeof(*seg));

		if (!seg)
			return false;
		c->seg = seg;
		c->cap = cap;
	}
	c->seg[c->nseg++] = (struct vq_seg){gpa(d->addr), d->len};
	return true;
}

static bool buffer_add(struct vq *q, struct vq_chain *c, const struct desc *d, bool *writing)
{
	bool write = d->flags & DESC_F_WRITE;

	if (*writing && !write)
		return refuse(q, "2.7.4.2", "a readable descriptor follows a writable one");
	*writing = write;
	/* Nothing forbids an empty buffer; it carries nothing, so it needs no address and no
	 * segment. */
	if (!d->len)
		return true;
	if (!gmem_ok(q->gm, gpa(d->addr), d->len))
		return refuse(q, "2.7.5", "a buffer is not in memory");
	if ((uint64_t)c->readable + c->writable + d->len > UINT32_MAX)
		return refuse(q, "2.7.5.2", "a chain is 4 GiB long or longer");
	if (!seg_add(c, d))
		return refuse(q, "2.1.2", "the host is out of memory");
	if (write) {
		c->writable += d->len;
	} else {
		c->readable += d->len;
		c->nread = c->nseg;
	}
	return true;
}

/* Reads each descriptor once. Ends after at most size buffers and one table. */
static bool vq_chain_walk(struct vq *q, struct vq_chain *c)
{
	uint32_t n = q->size, i = c->head;
	bool indirect = false, writing = false;

	for (unsigned count = 0;;) {
		struct desc d = indirect ? desc_indirect(q, i) : desc_direct(q, i);

		if (d.flags & DESC_F_INDIRECT) {
			if (indirect)
				return refuse(q, "2.7.5.3.1", "an indirect table holds another");
			if (!table_load(q, &d, &n))
				return false;
			indirect = true;
			i = 0;
			continue;
		}
		if (count++ == q->size)
			return refuse(q, "2.7.5.2", "a chain loops or is longer than the queue");
		if (!buffer_add(q, c, &d, &writing))
			return false;
		if (!(d.flags & DESC_F_NEXT))
			return true;
		if (d.next >= n)
			return refuse(q, "2.7.5", "a next field is out of range");
		i = d.next;
	}
}

static struct vq_chain *vq_chain_get(struct vq *q, uint16_t head)
{
	struct vq_chain *c = q->idle, blank = {.vq = q, .gm = q->gm, .head = head};

	if (c) {
		q->idle = c->next;
		q->nidle--;
		blank.seg = c->seg;
		blank.cap = c->cap;
	} else if (!(c = malloc(sizeof(*c)))) {
		return NULL;
	}
	*c = blank;
	return c;
}

static void vq_chain_put(struct vq *q, struct vq_chain *c)
{
	if (q->nidle == IDLE_MAX) {
		vq_chain_free(c);
		return;
	}
	if (c->cap > SEG_KEEP) {
		free(c->seg);
		c->seg = NULL;
		c->cap = 0;
	}
	c->next = q->idle;
	q->idle = c;
	q->nidle++;
}

/* Whether there is a chain to take: a lost one, or an element of the available ring. */
static bool avail_any(struct vq *q)
{
	if (q->lost_at < q->nlost || q->avail_seen != q->avail_next)
		return true;
	/*
	 * Acquire: the ring element and the descriptors are read after the index
	 * that covers them. Pairs with the driver's write barrier before it
	 * stores the index (2.7.13.3.1).
	 */
	q->avail_seen = gwin_load16_acquire(&q->avail, RING_IDX);
	return q->avail_seen != q->avail_next;
}

bool vq_pending(struct vq *q)
{
	return q->live && !q->broken && avail_any(q);
}

/* The head of the chain that vq_next takes; it may be garbage. False: the queue is broken. */
static bool next_head(struct vq *q, uint16_t *ret)
{
	if (q->lost_at < q->nlost) {
		*ret = q->lost[q->lost_at];
		return true;
	}
	/* More than the ring holds: the driver wrote over elements, or its index is garbage. */
	if ((uint16_t)(q->avail_seen - q->avail_next) > q->size)
		return refuse(q, "2.7.13",
			      "the available index jumped by more than the queue's size");
	*ret = avail_elem(q, q->avail_next);
	return true;
}

enum vq_take vq_next(struct vq *q, struct vq_chain **ret)
{
	struct vq_chain *c;
	uint16_t head;

	if (q->broken)
		return VQ_BROKEN;
	if (!q->live || !avail_any(q))
		return VQ_EMPTY;
	if (!next_head(q, &head))
		return VQ_BROKEN;
	if (head >= q->size) {
		vq_break(q, "2.7.6", "a chain's head is out of range");
		return VQ_BROKEN;
	}
	if (q->out[head]) {
		vq_break(q, "2.7.13", "a chain that is in flight was made available again");
		return VQ_BROKEN;
	}
	if (!(c = vq_chain_get(q, head))) {
		vq_break(q, "2.1.2", "the host is out of memory");
		return VQ_BROKEN;
	}
	if (!vq_chain_walk(q, c)) {
		vq_chain_put(q, c);
		return VQ_BROKEN;
	}
	c->wseg = c->nread;
	c->iov_from = UINT32_MAX;
	q->out[head] = c;
	if (q->lost_at < q->nlost)
		q->lost_at++;
	else
		q->avail_next++;
	*ret = c;
	return VQ_CHAIN;
}

/* ------------------------------------------------------------- giving back */

static void used_element(struct vq *q, uint16_t idx, const struct vq_chain *c)
{
	uint32_t at = RING_ELEMS + (idx & (q->size - 1u)) * USED_ELEM;

	gwin_store32(&q->used, at, c->head);
	gwin_store32(&q->used, at + 4, c->used);
}

void vq_return_all(struct vq_chain *const *c, unsigned n)
{
	struct vq *q = n && !c[0]->orphan ? c[0]->vq : NULL;

	if (q && !q->broken) {
		for (unsigned i = 0; i < n; i++)
			used_element(q, (uint16_t)(q->used_idx + i), c[i]);
		q->used_idx += (uint16_t)n;
		/*
		 * Release: the buffers' bytes and the elements are there before the
		 * index says so. Pairs with the driver's read barrier after it loads
		 * the index (2.7.14).
		 */
		gwin_store16_release(&q->used, RING_IDX, q->used_idx);
		q->unsignalled += n;
	}
	for (unsigned i = 0; i < n; i++) {
		/* Its rings are gone or belong to another life of the queue. */
		if (!q) {
			vq_chain_free(c[i]);
			continue;
		}
		q->out[c[i]->head] = NULL;
		vq_chain_put(q, c[i]);
	}
}

void vq_return(struct vq_chain *c)
{
	vq_return_all(&c, 1);
}

/* Section 2.7.7.2: whether (old, new] holds event + 1, in arithmetic modulo 2^16. */
static bool event_passed(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

/* True: the driver wanted to hear of what was returned. */
static bool notify(struct vq *q)
{
	uint32_t n = q->unsignalled;
	bool wanted;

	if (!q->live || !n)
		return false;
	q->unsignalled = 0;
	q->quiet = 0;
	/*
	 * The used index is visible before the driver's wish is read. Pairs with
	 * the driver's barrier between setting used_event (or clearing
	 * NO_INTERRUPT) and looking at the used index again: one of the two sees
	 * the other's store, so no wake-up is lost (2.7.7.2, 2.7.14).
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->event_idx)
		wanted = !(gwin_load16(&q->avail, RING_FLAGS) & AVAIL_F_NO_INTERRUPT);
	else /* after 2^16 chains every event index was passed */
		wanted = n > UINT16_MAX ||
			 event_passed(gwin_load16(&q->avail, RING_ELEMS + q->size * AVAIL_ELEM),
				      q->used_idx, (uint16_t)(q->used_idx - n));
	if (wanted)
		q->owner.interrupt(q->owner.arg, q->index);
	return wanted;
}

void vq_notify(struct vq *q)
{
	notify(q);
}

#define QUIET_PART 8 /* of the queue */
#define PROMPT_CALLS 8

void vq_notify_soon(struct vq *q, uint64_t most)
{
	bool now = q->prompt || q->unsignalled >= q->size / QUIET_PART;

	if (!q->unsignalled)
		return;
	q->prompt -= q->prompt > 0;
	if (!now) {
		uint64_t t = loop_now();

		if (!q->quiet)
			q->quiet = t;
		now = t - q->quiet >= most;
	}
	if (now)
		notify(q);
}

void vq_notify_late(struct vq *q)
{
	if (notify(q))
		q->prompt = PROMPT_CALLS;
}

void vq_kicks_off(struct vq *q)
{
	if (!q->live || q->broken)
		return;
	/*
	 * An event index that was passed already is not passed again for 2^16 chains
	 * (2.7.10.1). One kick then, as that of a driver under way now, does no harm.
	 */
	if (q->event_idx)
		gwin_store16(&q->used, RING_ELEMS + q->size * USED_ELEM,
			     (uint16_t)(q->avail_next - 1));
	else
		gwin_store16(&q->used, RING_FLAGS, USED_F_NO_NOTIFY);
}

bool vq_kicks_on(struct vq *q)
{
	if (!q->live || q->broken)
		return false;
	if (q->event_idx)
		gwin_store16(&q->used, RING_ELEMS + q->size * USED_ELEM, q->avail_next);
	else
		gwin_store16(&q->used, RING_FLAGS, 0);
	/*
	 * The wish for a kick is visible before the available index is read again.
	 * Pairs with the driver's barrier between storing the available index and
	 * reading avail_event or NO_NOTIFY (2.7.13.4.1): either it kicks or we see
	 * its buffers here.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return avail_any(q);
}
