/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block device over a real file, and a driver in plain memory that asks it:
 * what the tests of blk.c and blk_req.c share. Include cmocka.h before it.
 */
#ifndef TESTS_UNIT_BLK_RIG_H
#define TESTS_UNIT_BLK_RIG_H

#include <errno.h>

#include "tests/unit/disk_file.h"
#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/blk.h"

#define RAM (6u << 20)
#define DISK (4u << 20)
#define SECTORS (DISK / 512)
#define RING 64
#define BITF(n) (1ull << (n))

#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define UNSUPP VIRTIO_BLK_S_UNSUPP
#define NO_STATUS 0xaa

struct blk_rig {
	struct disk_file file;
	struct disk_config c;
	struct fake_ram m;
	struct fake_ring r[2];
	struct fake_bearer bearer;
	struct loop *loop;
	struct workers *w;
	struct blk *b;
	struct virtio *v;
	uint64_t data;                    /* 1 MiB, page-aligned */
	uint64_t hdr[RING], status[RING]; /* of request i */
};

static inline struct blk_rig *begin(void)
{
	struct blk_rig *f = calloc(1, sizeof(*f));

	disk_file_init(&f->file, DISK);
	f->c = (struct disk_config){.path = f->file.path, .queues = 2, .queue_size = RING};
	fake_ram_init(&f->m, RAM);
	memset(f->m.host, 0xdd, RAM);
	f->data = fake_alloc(&f->m, 1 << 20, 4096);
	for (unsigned i = 0; i < RING; i++) {
		f->hdr[i] = fake_alloc(&f->m, 16, 16);
		f->status[i] = fake_alloc(&f->m, 1, 1);
	}
	for (unsigned q = 0; q < 2; q++) {
		fake_ring_init(&f->r[q], &f->m, RING);
		fake_ring_zero(&f->r[q]);
	}
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	assert_int_equal(workers_new(&f->w, 4, NULL), 0);
	return f;
}

static inline void drive(struct blk_rig *f, uint64_t features)
{
	assert_true(fake_negotiate(f->v, features));
	for (unsigned q = 0; q < f->v->nqueues && q < 2; q++)
		fake_enable(f->v, q, &f->r[q]);
	fake_driver_ok(f->v);
	assert_true(f->v->running);
}

static inline struct blk_env rig_env(const struct blk_rig *f, unsigned index)
{
	return (struct blk_env){f->m.gm, f->loop, f->w, .index = index, .cpus = 1};
}

static inline void plug(struct blk_rig *f)
{
	struct err e = {0};
	struct blk_env env = rig_env(f, 3);

	if (blk_new(&f->b, &f->c, &env, &e))
		fail_msg("%s", e.text);
	f->v = blk_virtio(f->b);
	fake_bear(f->v, &f->bearer);
}

static inline struct blk_rig *begin_live(bool direct)
{
	struct blk_rig *f = begin();

	f->c.direct = direct;
	plug(f);
	drive(f, f->v->offered & ~BITF(VIRTIO_F_EVENT_IDX));
	return f;
}

static inline void end(struct blk_rig *f)
{
	blk_free(f->b);
	workers_free(f->w);
	loop_free(f->loop);
	fake_ram_fini(&f->m);
	disk_file_fini(&f->file);
	free(f);
}

/* ------------------------------------------------------------- requests */

static inline void header(struct blk_rig *f, unsigned i, uint32_t type, uint64_t sector)
{
	fake_put32(&f->m, f->hdr[i], type);
	fake_put32(&f->m, f->hdr[i] + 4, 0);
	fake_put64(&f->m, f->hdr[i] + 8, sector);
	*(uint8_t *)fake_at(&f->m, f->status[i]) = NO_STATUS;
}

static inline uint8_t status(const struct blk_rig *f, unsigned i)
{
	return *(uint8_t *)fake_at(&f->m, f->status[i]);
}

/* With one data buffer of @len bytes at data + @at (none for a @len of 0). */
struct question {
	uint32_t type;
	uint64_t sector, at;
	uint32_t len;
};

/* Request @i; returns its head. */
static inline uint16_t send_on(struct blk_rig *f, unsigned q, unsigned i, struct question r)
{
	bool in = r.type == VIRTIO_BLK_T_IN || r.type == VIRTIO_BLK_T_GET_ID;
	struct fake_buf b[3] = {{f->hdr[i], 16, 0}, {f->data + r.at, r.len, in ? FAKE_W : 0}};
	unsigned n = r.len ? 2 : 1;

	header(f, i, r.type, r.sector);
	b[n++] = (struct fake_buf){f->status[i], 1, FAKE_W};
	return fake_send(&f->r[q], b, n);
}

/* Waits for one used element; returns its length. */
static inline uint32_t await(struct blk_rig *f, unsigned q, uint32_t *ret_id)
{
	uint32_t id, len;

	while (!fake_used(&f->r[q], &id, &len))
		turn(f->loop);
	if (ret_id)
		*ret_id = id;
	return len;
}

struct answer {
	uint8_t status;
	uint32_t used;
};

static inline struct answer ask(struct blk_rig *f, uint32_t type, uint64_t sector, uint64_t at,
				uint32_t len)
{
	struct answer a;
	uint32_t id;
	uint16_t head = send_on(f, 0, 0, (struct question){type, sector, at, len});

	virtio_kick(f->v, 0);
	a.used = await(f, 0, &id);
	assert_int_equal(id, head);
	a.status = status(f, 0);
	return a;
}

static inline void assert_answer(struct answer a, uint8_t want, uint32_t used)
{
	if (a.status != want || a.used != used)
		fail_msg("status %u, used %u, not %u and %u", a.status, a.used, want, used);
}

static inline void assert_data(const struct blk_rig *f, uint64_t at, uint64_t sector, uint32_t len)
{
	const uint8_t *p = fake_at(&f->m, f->data + at);

	for (uint32_t i = 0; i < len; i++)
		if (p[i] != disk_byte(sector * 512 + i))
			fail_msg("byte %u of sector %llu is %#x", i, (unsigned long long)sector,
				 p[i]);
}

static inline void assert_disk(const struct blk_rig *f, uint64_t sector, uint32_t len, int v)
{
	uint8_t *p = malloc(len);

	assert_int_equal(pread(f->file.fd, p, len, (off_t)sector * 512), (ssize_t)len);
	for (uint32_t i = 0; i < len; i++)
		if (p[i] != (v < 0 ? disk_byte(sector * 512 + i) : v))
			fail_msg("byte %u of sector %llu is %#x", i, (unsigned long long)sector,
				 p[i]);
	free(p);
}

static inline uint32_t seg(struct blk_rig *f, unsigned i, uint64_t sector, uint32_t n,
			   uint32_t flags)
{
	uint64_t at = f->data + 16ull * i;

	fake_put64(&f->m, at, sector);
	fake_put32(&f->m, at + 8, n);
	fake_put32(&f->m, at + 12, flags);
	return 16 * (i + 1);
}

#endif
