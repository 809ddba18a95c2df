/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio driver in plain memory, for tests: guest RAM over a heap buffer (so
 * ASan sees every byte beyond it), split rings written the way a driver writes
 * them, and the way from reset to DRIVER_OK. It checks nothing: each ring field
 * can be set to what no honest driver would write.
 *
 *	struct fake_ram m;           fake_ram_init(&m, FAKE_RAM);
 *	struct fake_ring r;          fake_ring_init(&r, &m, 8);
 *	fake_send(&r, (struct fake_buf[]){{addr, 16, 0}, {addr2, 64, FAKE_W}}, 2);
 *	... the device works ...
 *	uint32_t id, len;            if (fake_used(&r, &id, &len)) ...
 */
#ifndef TESTS_UNIT_FAKE_DRIVER_H
#define TESTS_UNIT_FAKE_DRIVER_H

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/virtio.h"
#include "vmm/gmem.h"

#define FAKE_BASE 0x10000ull /* RAM starts here: address 0 is not RAM */
#define FAKE_RAM (1u << 20)

/* Descriptor flags. */
#define FAKE_NEXT 1
#define FAKE_W 2
#define FAKE_INDIRECT 4

struct fake_ram {
	struct gmem *gm;
	uint8_t *host;
	uint64_t size, next; /* next: bytes handed out by fake_alloc */
};

/* @size: a multiple of 4096. Page-aligned, as a machine's memory is: O_DIRECT cares. */
static inline void fake_ram_init(struct fake_ram *m, uint64_t size)
{
	*m = (struct fake_ram){.host = aligned_alloc(4096, size), .size = size};
	if (!m->host || gmem_new(&m->gm, NULL) ||
	    gmem_add_fixed(m->gm, gpa(FAKE_BASE), size, m->host, NULL))
		abort();
	memset(m->host, 0, size);
}

static inline void fake_ram_fini(struct fake_ram *m)
{
	gmem_free(m->gm);
	free(m->host);
}

/* The test's own view of guest address @at. */
static inline void *fake_at(const struct fake_ram *m, uint64_t at)
{
	assert(at >= FAKE_BASE && at - FAKE_BASE < m->size);
	return m->host + (at - FAKE_BASE);
}

/* Guest address of @len fresh bytes, aligned to @align. */
static inline uint64_t fake_alloc(struct fake_ram *m, uint64_t len, uint64_t align)
{
	uint64_t at = (m->next + align - 1) & ~(align - 1);

	assert(at + len <= m->size);
	m->next = at + len;
	return FAKE_BASE + at;
}

static inline uint16_t fake_get16(const struct fake_ram *m, uint64_t at)
{
	uint16_t v;

	memcpy(&v, fake_at(m, at), sizeof(v));
	return le16toh(v);
}

static inline uint32_t fake_get32(const struct fake_ram *m, uint64_t at)
{
	uint32_t v;

	memcpy(&v, fake_at(m, at), sizeof(v));
	return le32toh(v);
}

static inline void fake_put16(const struct fake_ram *m, uint64_t at, uint16_t v)
{
	v = htole16(v);
	memcpy(fake_at(m, at), &v, sizeof(v));
}

static inline void fake_put32(const struct fake_ram *m, uint64_t at, uint32_t v)
{
	v = htole32(v);
	memcpy(fake_at(m, at), &v, sizeof(v));
}

static inline void fake_put64(const struct fake_ram *m, uint64_t at, uint64_t v)
{
	v = htole64(v);
	memcpy(fake_at(m, at), &v, sizeof(v));
}

/* ------------------------------------------------------------- rings */

struct fake_ring {
	struct fake_ram *m;
	uint16_t size;
	uint64_t desc, avail, used; /* guest addresses */
	uint16_t next_desc;         /* descriptors are handed out in a circle */
	uint16_t avail_idx, used_idx;
};

struct fake_buf {
	uint64_t at;
	uint32_t len;
	uint16_t flags; /* FAKE_W: device-writable; NEXT is added where it belongs */
};

/* A new ring of @size entries, all zero. */
static inline void fake_ring_init(struct fake_ring *r, struct fake_ram *m, uint16_t size)
{
	*r = (struct fake_ring){.m = m, .size = size};
	r->desc = fake_alloc(m, 16ull * size, 16);
	r->avail = fake_alloc(m, 6 + 2ull * size, 2);
	r->used = fake_alloc(m, 6 + 8ull * size, 4);
}

/* The same memory, as after a reset. */
static inline void fake_ring_zero(struct fake_ring *r)
{
	memset(fake_at(r->m, r->desc), 0, 16ul * r->size);
	memset(fake_at(r->m, r->avail), 0, 6 + 2ul * r->size);
	memset(fake_at(r->m, r->used), 0, 6 + 8ul * r->size);
	r->next_desc = r->avail_idx = r->used_idx = 0;
}

/* One descriptor at @at: a table's start plus 16 times its index. */
static inline void fake_desc_at(struct fake_ram *m, uint64_t at, struct fake_buf b, uint16_t next)
{
	fake_put64(m, at, b.at);
	fake_put32(m, at + 8, b.len);
	fake_put16(m, at + 12, b.flags);
	fake_put16(m, at + 14, next);
}

static inline void fake_desc(struct fake_ring *r, uint16_t i, struct fake_buf b, uint16_t next)
{
	fake_desc_at(r->m, r->desc + 16ull * i, b, next);
}

/* Makes @head available. */
static inline void fake_avail(struct fake_ring *r, uint16_t head)
{
	fake_put16(r->m, r->avail + 4 + 2ull * (r->avail_idx % r->size), head);
	fake_put16(r->m, r->avail + 2, ++r->avail_idx);
}

/* Writes a chain of @n buffers into the next free descriptors; returns its head. */
static inline uint16_t fake_chain(struct fake_ring *r, const struct fake_buf *b, unsigned n)
{
	uint16_t head = r->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint16_t at = r->next_desc;
		struct fake_buf d = b[i];

		r->next_desc = (uint16_t)((at + 1) % r->size);
		if (i + 1 < n)
			d.flags |= FAKE_NEXT;
		fake_desc(r, at, d, r->next_desc);
	}
	return head;
}

/* Writes the buffers as an indirect table at @table and one descriptor that refers to it. */
static inline uint16_t fake_indirect(struct fake_ring *r, uint64_t table, const struct fake_buf *b,
				     unsigned n)
{
	struct fake_buf ref = {table, 16 * n, FAKE_INDIRECT};

	for (unsigned i = 0; i < n; i++) {
		struct fake_buf d = b[i];

		if (i + 1 < n)
			d.flags |= FAKE_NEXT;
		fake_desc_at(r->m, table + 16ull * i, d, (uint16_t)(i + 1));
	}
	return fake_chain(r, &ref, 1);
}

/* fake_chain and fake_avail. */
static inline uint16_t fake_send(struct fake_ring *r, const struct fake_buf *b, unsigned n)
{
	uint16_t head = fake_chain(r, b, n);

	fake_avail(r, head);
	return head;
}

/* Takes the next element of the used ring; false when there is none. */
static inline bool fake_used(struct fake_ring *r, uint32_t *ret_id, uint32_t *ret_len)
{
	uint64_t at = r->used + 4 + 8ull * (r->used_idx % r->size);

	if (fake_get16(r->m, r->used + 2) == r->used_idx)
		return false;
	*ret_id = fake_get32(r->m, at);
	*ret_len = fake_get32(r->m, at + 4);
	r->used_idx++;
	return true;
}

/* Without EVENT_IDX: NO_INTERRUPT is 1, NO_NOTIFY is 1. */
static inline void fake_avail_flags(struct fake_ring *r, uint16_t flags)
{
	fake_put16(r->m, r->avail, flags);
}

static inline uint16_t fake_used_flags(const struct fake_ring *r)
{
	return fake_get16(r->m, r->used);
}

/* With EVENT_IDX: interrupt me when used index @event is written; kick me at avail_event. */
static inline void fake_used_event(struct fake_ring *r, uint16_t event)
{
	fake_put16(r->m, r->avail + 4 + 2ull * r->size, event);
}

static inline uint16_t fake_avail_event(const struct fake_ring *r)
{
	return fake_get16(r->m, r->used + 4 + 8ull * r->size);
}

static inline struct vq_setup fake_setup(const struct fake_ring *r, bool event_idx, bool indirect)
{
	return (struct vq_setup){r->size,      gpa(r->desc), gpa(r->avail),
				 gpa(r->used), event_idx,    indirect};
}

/* ------------------------------------------------------------- a device without a transport */

/* Counts what would have been interrupts. */
struct fake_bearer {
	unsigned queue[VIRTIO_QUEUES_MAX], config;
};

static inline void fake_queue_interrupt(void *t, unsigned q)
{
	((struct fake_bearer *)t)->queue[q]++;
}

static inline void fake_config_interrupt(void *t)
{
	((struct fake_bearer *)t)->config++;
}

static inline void fake_bear(struct virtio *v, struct fake_bearer *b)
{
	*b = (struct fake_bearer){0};
	v->bearer = (struct virtio_bearer){
		.queue_interrupt = fake_queue_interrupt,
		.config_interrupt = fake_config_interrupt,
		.t = b,
	};
}

/* Reset, ACKNOWLEDGE, DRIVER, @features and VERSION_1; whether FEATURES_OK stuck. */
static inline bool fake_negotiate(struct virtio *v, uint64_t features)
{
	uint8_t s = VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER;

	features |= 1ull << VIRTIO_F_VERSION_1;
	virtio_set_status(v, 0);
	virtio_set_status(v, VIRTIO_S_ACKNOWLEDGE);
	virtio_set_status(v, s);
	virtio_set_features(v, 0, (uint32_t)features);
	virtio_set_features(v, 1, (uint32_t)(features >> 32));
	virtio_set_status(v, s | VIRTIO_S_FEATURES_OK);
	return v->status & VIRTIO_S_FEATURES_OK;
}

static inline void fake_enable(struct virtio *v, unsigned q, const struct fake_ring *r)
{
	struct virtio_queue *vq = virtio_q(v, q);

	vq->size = r->size;
	vq->desc = r->desc;
	vq->avail = r->avail;
	vq->used = r->used;
	virtio_queue_enable(v, q);
}

static inline void fake_driver_ok(struct virtio *v)
{
	virtio_set_status(v, v->status | VIRTIO_S_DRIVER_OK);
}

#endif
