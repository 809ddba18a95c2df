/* SPDX-License-Identifier: Apache-2.0 */
/* The block device under a driver in plain memory, over real files. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/disk_file.h"
#include "tests/unit/fake_driver.h"
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

struct fixture {
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

/* Page-aligned, as a machine's memory is: O_DIRECT cares. */
static void ram_init(struct fake_ram *m)
{
	*m = (struct fake_ram){.host = aligned_alloc(4096, RAM), .size = RAM};
	memset(m->host, 0xdd, RAM);
	assert_int_equal(gmem_new(&m->gm, NULL), 0);
	assert_int_equal(gmem_add_fixed(m->gm, gpa(FAKE_BASE), RAM, m->host, NULL), 0);
}

static struct fixture *begin(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	disk_file_init(&f->file, DISK);
	f->c = (struct disk_config){.path = f->file.path, .queues = 2, .queue_size = RING};
	ram_init(&f->m);
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

static void drive(struct fixture *f, uint64_t features)
{
	assert_true(fake_negotiate(f->v, features));
	for (unsigned q = 0; q < f->v->nqueues && q < 2; q++)
		fake_enable(f->v, q, &f->r[q]);
	fake_driver_ok(f->v);
	assert_true(f->v->running);
}

static void plug(struct fixture *f)
{
	struct err e = {0};

	if (blk_new(&f->b, &f->c, 3, 1, f->m.gm, f->loop, f->w, &e))
		fail_msg("%s", e.text);
	f->v = blk_virtio(f->b);
	fake_bear(f->v, &f->bearer);
}

static struct fixture *begin_live(bool direct)
{
	struct fixture *f = begin();

	f->c.direct = direct;
	plug(f);
	drive(f, f->v->offered & ~(BITF(VIRTIO_F_EVENT_IDX) | BITF(VIRTIO_F_ACCESS_PLATFORM)));
	return f;
}

static void end(struct fixture *f)
{
	blk_free(f->b);
	workers_free(f->w);
	loop_free(f->loop);
	fake_ram_fini(&f->m);
	disk_file_fini(&f->file);
	free(f);
}

/* ------------------------------------------------------------- requests */

static void header(struct fixture *f, unsigned i, uint32_t type, uint64_t sector)
{
	fake_put32(&f->m, f->hdr[i], type);
	fake_put32(&f->m, f->hdr[i] + 4, 0);
	fake_put64(&f->m, f->hdr[i] + 8, sector);
	*(uint8_t *)fake_at(&f->m, f->status[i]) = NO_STATUS;
}

static uint8_t status(const struct fixture *f, unsigned i)
{
	return *(uint8_t *)fake_at(&f->m, f->status[i]);
}

/* Request @i with one data buffer at data + @at (none for a @len of 0); returns its head. */
static uint16_t send_on(struct fixture *f, unsigned q, unsigned i, uint32_t type, uint64_t sector,
			uint64_t at, uint32_t len)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	struct fake_buf b[3] = {{f->hdr[i], 16, 0}, {f->data + at, len, in ? FAKE_W : 0}};
	unsigned n = len ? 2 : 1;

	header(f, i, type, sector);
	b[n++] = (struct fake_buf){f->status[i], 1, FAKE_W};
	return fake_send(&f->r[q], b, n);
}

static void stop_loop(void *l)
{
	loop_stop(l);
}

/* One turn of the loop, at once. */
static void turn(struct fixture *f)
{
	struct loop_task stop = {.fn = stop_loop, .arg = f->loop};

	loop_post(f->loop, &stop);
	loop_run(f->loop);
}

/* Waits for one used element; returns its length. */
static uint32_t await(struct fixture *f, unsigned q, uint32_t *ret_id)
{
	uint32_t id, len;

	while (!fake_used(&f->r[q], &id, &len))
		turn(f);
	if (ret_id)
		*ret_id = id;
	return len;
}

struct answer {
	uint8_t status;
	uint32_t used;
};

static struct answer ask(struct fixture *f, uint32_t type, uint64_t sector, uint64_t at,
			 uint32_t len)
{
	struct answer a;
	uint32_t id;
	uint16_t head = send_on(f, 0, 0, type, sector, at, len);

	virtio_kick(f->v, 0);
	a.used = await(f, 0, &id);
	assert_int_equal(id, head);
	a.status = status(f, 0);
	return a;
}

static void assert_answer(struct answer a, uint8_t want, uint32_t used)
{
	if (a.status != want || a.used != used)
		fail_msg("status %u, used %u, not %u and %u", a.status, a.used, want, used);
}

static void assert_data(const struct fixture *f, uint64_t at, uint64_t sector, uint32_t len)
{
	const uint8_t *p = fake_at(&f->m, f->data + at);

	for (uint32_t i = 0; i < len; i++)
		if (p[i] != disk_byte(sector * 512 + i))
			fail_msg("byte %u of sector %llu is %#x", i, (unsigned long long)sector,
				 p[i]);
}

static void assert_disk(const struct fixture *f, uint64_t sector, uint32_t len, int v)
{
	uint8_t *p = malloc(len);

	assert_int_equal(pread(f->file.fd, p, len, (off_t)sector * 512), (ssize_t)len);
	for (uint32_t i = 0; i < len; i++)
		if (p[i] != (v < 0 ? disk_byte(sector * 512 + i) : v))
			fail_msg("byte %u of sector %llu is %#x", i, (unsigned long long)sector,
				 p[i]);
	free(p);
}

static uint32_t seg(struct fixture *f, unsigned i, uint64_t sector, uint32_t n, uint32_t flags)
{
	uint64_t at = f->data + 16ull * i;

	fake_put64(&f->m, at, sector);
	fake_put32(&f->m, at + 8, n);
	fake_put32(&f->m, at + 12, flags);
	return 16 * (i + 1);
}

/* ------------------------------------------------------------- every request, both ways */

static const bool both[] = {false, true};
#define DIRECT(state) (*(const bool *)*(state))

static void read_gives_the_sectors_and_counts_data_and_status(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));

	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 512), OK, 513);
	assert_data(f, 0, 0, 512);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 7, 4096, 65536), OK, 65537);
	assert_data(f, 4096, 7, 65536);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, SECTORS - 8, 0, 4096), OK, 4097);
	assert_data(f, 0, SECTORS - 8, 4096);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 1 << 20), OK, (1 << 20) + 1);
	assert_data(f, 0, 0, 1 << 20);
	assert_int_equal(f->bearer.queue[0], 4);
	end(f);
}

static void write_changes_the_sectors_and_counts_the_status(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));

	memset(fake_at(&f->m, f->data), 0x42, 8192);
	assert_answer(ask(f, VIRTIO_BLK_T_OUT, 8, 0, 8192), OK, 1);
	assert_disk(f, 8, 8192, 0x42);
	assert_disk(f, 7, 512, -1);
	assert_disk(f, 24, 512, -1);
	assert_answer(ask(f, VIRTIO_BLK_T_OUT, SECTORS - 1, 0, 512), OK, 1);
	assert_disk(f, SECTORS - 1, 512, 0x42);
	assert_answer(ask(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0), OK, 1);
	end(f);
}

static void discard_of_many_segments_zeroes_each(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));
	uint32_t len = 0;

	for (unsigned i = 0; i < BLK_DISCARD_SEGS; i++)
		len = seg(f, i, 64 * i, 8, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, len), OK, 1);
	for (unsigned i = 0; i < BLK_DISCARD_SEGS; i++) {
		assert_disk(f, 64 * i, 4096, 0);
		assert_disk(f, 64 * i + 8, 4096, -1);
	}
	end(f);
}

static void write_zeroes_zeroes_with_and_without_unmap(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));

	assert_answer(ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, seg(f, 0, 3, 5, 0)), OK, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, seg(f, 0, 1024, 2048, 1)), OK, 1);
	assert_disk(f, 0, 3 * 512, -1);
	assert_disk(f, 3, 5 * 512, 0);
	assert_disk(f, 8, 512, -1);
	assert_disk(f, 1024, 2048 * 512, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, seg(f, 0, 3, 0, 0)), OK, 1);
	end(f);
}

static void data_in_many_odd_buffers_is_one_request(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));
	struct fake_buf b[40];
	unsigned n = 0;
	uint64_t at = 1;
	uint32_t left = 16384;

	header(f, 0, VIRTIO_BLK_T_IN, 5);
	/* The header in two parts, and the status at the end of the last data buffer. */
	b[n++] = (struct fake_buf){f->hdr[0], 3, 0};
	b[n++] = (struct fake_buf){f->hdr[0] + 3, 13, 0};
	for (uint32_t len = 1; left; len += 37) {
		uint32_t take = len < left ? len : left;

		b[n++] = (struct fake_buf){f->data + at, take, FAKE_W};
		at += take;
		left -= take;
	}
	b[n - 1].len++;
	fake_send(&f->r[0], b, n);
	virtio_kick(f->v, 0);
	assert_int_equal(await(f, 0, NULL), 16385);
	assert_data(f, 1, 5, 16384);
	assert_int_equal(*(uint8_t *)fake_at(&f->m, f->data + at), OK);
	end(f);
}

static void a_full_queue_completes_with_few_interrupts(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));
	unsigned n = RING / 3;
	bool seen[RING] = {0};

	for (unsigned q = 0; q < 2; q++)
		for (unsigned i = 0; i < n; i++)
			send_on(f, q, q * n + i, VIRTIO_BLK_T_IN, (q * n + i) * 8,
				(q * n + i) * 4096, 4096);
	virtio_kick(f->v, 1);
	virtio_kick(f->v, 0);
	for (unsigned q = 0; q < 2; q++) {
		for (unsigned i = 0; i < n; i++) {
			uint32_t id;

			assert_int_equal(await(f, q, &id), 4097);
			assert_false(seen[id]);
			seen[id] = true;
		}
		memset(seen, 0, sizeof(seen));
		assert_in_range(f->bearer.queue[q], 1, n);
	}
	for (unsigned i = 0; i < 2 * n; i++) {
		assert_int_equal(status(f, i), OK);
		assert_data(f, i * 4096, i * 8, 4096);
	}
	end(f);
}

/*
 * Reset in the middle of long reads and writes: on return nobody touches the
 * guest's memory any more and no used element appears. The memory is gone right
 * after, so that ASan sees who still would.
 */
static void reset_in_flight_leaves_the_memory_alone(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));

	for (unsigned round = 0; round < 8; round++) {
		for (unsigned q = 0; q < 2; q++)
			for (unsigned i = 0; i < 20; i++)
				send_on(f, q, q * 20 + i,
					i % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i * 8, 0,
					1 << 20);
		virtio_kick(f->v, 0);
		virtio_kick(f->v, 1);
		if (round % 2)
			turn(f);
		uint16_t used = fake_get16(&f->m, f->r[0].used + 2);

		virtio_set_status(f->v, 0);
		assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), used);
		memset(fake_at(&f->m, f->data), 0x33, 1 << 20);
		turn(f);
		turn(f);
		for (unsigned i = 0; i < 1 << 20; i++)
			if (((uint8_t *)fake_at(&f->m, f->data))[i] != 0x33)
				fail_msg("byte %u was written after the reset", i);
		fake_ring_zero(&f->r[0]);
		fake_ring_zero(&f->r[1]);
		drive(f, BITF(VIRTIO_BLK_F_FLUSH));
	}
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 512), OK, 513);
	send_on(f, 0, 1, VIRTIO_BLK_T_IN, 0, 0, 1 << 20);
	virtio_kick(f->v, 0);
	end(f); /* with that one in flight */
}

static void reset_of_one_queue_lets_the_other_finish(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));

	assert_true(virtio_has(f->v, VIRTIO_F_RING_RESET));
	for (unsigned i = 0; i < 20; i++) {
		send_on(f, 0, i, VIRTIO_BLK_T_IN, 0, 0, 1 << 20);
		send_on(f, 1, 20 + i, VIRTIO_BLK_T_OUT, 2048, 0, 65536);
	}
	virtio_kick(f->v, 0);
	virtio_kick(f->v, 1);
	uint16_t used = fake_get16(&f->m, f->r[0].used + 2);

	virtio_queue_reset(f->v, 0);
	assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), used);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(await(f, 1, NULL), 1);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(status(f, 20 + i), OK);
	fake_ring_zero(&f->r[0]);
	fake_enable(f->v, 0, &f->r[0]);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 512), OK, 513);
	end(f);
}

static void a_host_error_is_one_requests_status(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));

	assert_int_equal(ftruncate(f->file.fd, 1 << 20), 0);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 4096, 0, 4096), IOERR, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 4096), OK, 4097);
	end(f);
}

/* ------------------------------------------------------------- what a driver may get wrong */

static void out_of_range_is_an_error_status(void **state)
{
	struct fixture *f = begin_live(false);
	static const uint64_t sector[] = {SECTORS,        SECTORS - 1,      1ull << 32,
					  1ull << 54,     (1ull << 55) - 1, (1ull << 55) | 1,
					  UINT64_MAX - 1, UINT64_MAX};

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		assert_answer(ask(f, VIRTIO_BLK_T_IN, sector[i], 0, 1024), IOERR, 0);
		assert_answer(ask(f, VIRTIO_BLK_T_OUT, sector[i], 0, 1024), IOERR, 1);
		assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 0, sector[i], 2, 0)), IOERR,
			      1);
		assert_answer(ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, seg(f, 0, sector[i], 2, 0)),
			      IOERR, 1);
	}
	assert_disk(f, 0, DISK, -1);
	end(f);
}

static void a_length_that_is_no_multiple_of_512_is_an_error_status(void **state)
{
	struct fixture *f = begin_live(false);

	(void)state;
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 511), IOERR, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 513), IOERR, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_OUT, 0, 0, 1), IOERR, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 0), OK, 1);
	end(f);
}

static void an_unknown_type_is_unsupported(void **state)
{
	struct fixture *f = begin_live(false);

	(void)state;
	assert_answer(ask(f, 2, 0, 0, 512), UNSUPP, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_SECURE_ERASE, 0, 0, seg(f, 0, 0, 8, 0)), UNSUPP, 1);
	assert_answer(ask(f, UINT32_MAX, 0, 0, 0), UNSUPP, 1);
	end(f);
}

static void flags_and_counts_of_segments_are_checked(void **state)
{
	struct fixture *f = begin_live(false);
	uint32_t len = 0;

	(void)state;
	/* Section 5.2.6.2: unmap in a discard, unknown flags. */
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 0, 0, 8, 1)), UNSUPP, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 0, 0, 8, 2)), UNSUPP, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, seg(f, 0, 0, 8, 2)), UNSUPP, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, seg(f, 0, 0, 8, 1u << 31)), UNSUPP,
		      1);
	/* A bad segment behind a good one: neither is carried out. */
	seg(f, 0, 0, 8, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 1, SECTORS, 8, 0)), IOERR, 1);
	for (unsigned i = 0; i <= BLK_DISCARD_SEGS; i++)
		len = seg(f, i, i, 1, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, len), IOERR, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, 0), IOERR, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, 15), IOERR, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, 32), IOERR, 1);
	assert_disk(f, 0, DISK, -1);
	end(f);
}

static void a_segment_is_at_most_what_the_configuration_says(void **state)
{
	struct fixture *f = begin();

	(void)state;
	assert_int_equal(ftruncate(f->file.fd, 2ll << 30), 0);
	plug(f);
	drive(f, BITF(VIRTIO_BLK_F_DISCARD) | BITF(VIRTIO_BLK_F_WRITE_ZEROES));
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 0, 0, BLK_DISCARD_SECTORS + 1, 0)),
		      IOERR, 1);
	assert_answer(
		ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, seg(f, 0, 0, BLK_ZEROES_SECTORS + 1, 0)),
		IOERR, 1);
	assert_disk(f, 0, DISK, -1);
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 0, 0, BLK_DISCARD_SECTORS, 0)), OK,
		      1);
	assert_disk(f, 0, DISK, 0);
	end(f);
}

/* Only the first segment was carried out. */
static void a_reset_ends_a_discard_between_its_segments(void **state)
{
	struct fixture *f = begin_live(DIRECT(state));
	uint8_t b = 1;

	seg(f, 0, 0, 8, 0);
	send_on(f, 0, 0, VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 1, 8, 8, 0));
	virtio_kick(f->v, 0);
	/* A worker has done it, but the loop did not see it yet. */
	while (b)
		assert_int_equal(pread(f->file.fd, &b, 1, 8), 1);
	virtio_set_status(f->v, 0);
	assert_disk(f, 8, 4096, -1);
	end(f);
}

static void a_header_too_short_is_an_error_status(void **state)
{
	struct fixture *f = begin_live(false);

	(void)state;
	header(f, 0, VIRTIO_BLK_T_IN, 0);
	fake_send(&f->r[0],
		  (struct fake_buf[]){
			  {f->hdr[0], 15, 0}, {f->data, 512, FAKE_W}, {f->status[0], 1, FAKE_W}},
		  3);
	virtio_kick(f->v, 0);
	assert_int_equal(await(f, 0, NULL), 0);
	assert_int_equal(status(f, 0), IOERR);
	assert_false(f->v->status & VIRTIO_S_NEEDS_RESET);
	end(f);
}

static void a_request_without_status_byte_breaks_the_queue(void **state)
{
	struct fixture *f = begin_live(false);
	uint32_t id, len;

	(void)state;
	header(f, 0, VIRTIO_BLK_T_OUT, 0);
	fake_send(&f->r[0], (struct fake_buf[]){{f->hdr[0], 16, 0}, {f->data, 512, 0}}, 2);
	virtio_kick(f->v, 0);
	assert_true(f->v->status & VIRTIO_S_NEEDS_RESET);
	assert_false(fake_used(&f->r[0], &id, &len));
	assert_disk(f, 0, 512, -1);
	/* And comes back after a reset. */
	virtio_set_status(f->v, 0);
	fake_ring_zero(&f->r[0]);
	drive(f, BITF(VIRTIO_BLK_F_FLUSH));
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 512), OK, 513);
	end(f);
}

static void the_same_head_in_flight_twice_breaks_the_queue(void **state)
{
	struct fixture *f = begin_live(true);
	uint16_t head = send_on(f, 0, 0, VIRTIO_BLK_T_IN, 0, 0, 1 << 20);

	(void)state;
	fake_avail(&f->r[0], head);
	virtio_kick(f->v, 0);
	assert_true(f->v->status & VIRTIO_S_NEEDS_RESET);
	turn(f);
	virtio_set_status(f->v, 0);
	end(f);
}

/* More requests that are answered at once than one callback takes: the rest comes with a later
 * turn. */
static void a_flood_gives_the_loop_its_turns(void **state)
{
	struct fixture *f = begin();
	unsigned n = 0, first, chains = 512 / 3;
	uint32_t id, len;

	(void)state;
	f->c.queue_size = 512;
	fake_ring_init(&f->r[0], &f->m, 512);
	fake_ring_zero(&f->r[0]);
	plug(f);
	drive(f, 0);
	for (unsigned i = 0; i < chains; i++)
		send_on(f, 0, 0, VIRTIO_BLK_T_GET_ID, 0, 0, 20);
	virtio_kick(f->v, 0);
	while (fake_used(&f->r[0], &id, &len))
		n++;
	first = n;
	assert_in_range(first, 1, chains - 1);
	while (n < chains) {
		turn(f);
		while (fake_used(&f->r[0], &id, &len))
			n++;
	}
	assert_int_equal(f->bearer.queue[0], 2);
	end(f);
}

/* ------------------------------------------------------------- identity and configuration */

static void get_id_gives_the_serial(void **state)
{
	struct fixture *f = begin();

	(void)state;
	snprintf(f->c.serial, sizeof(f->c.serial), "%s", "ABCDEFGHIJKLMNOPQRST");
	plug(f);
	drive(f, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_GET_ID, 0, 0, 20), OK, 21);
	assert_memory_equal(fake_at(&f->m, f->data), "ABCDEFGHIJKLMNOPQRST", 20);
	blk_free(f->b);
	f->c.serial[0] = '\0';
	for (unsigned q = 0; q < 2; q++)
		fake_ring_zero(&f->r[q]);
	plug(f);
	drive(f, 0);
	/* The order is the name; padded with NULs. */
	assert_answer(ask(f, VIRTIO_BLK_T_GET_ID, 0, 0, 20), OK, 21);
	assert_memory_equal(fake_at(&f->m, f->data), "disk3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	/* A buffer longer or shorter than the ID: no byte is claimed that was not written. */
	assert_answer(ask(f, VIRTIO_BLK_T_GET_ID, 0, 0, 512), OK, 20);
	assert_answer(ask(f, VIRTIO_BLK_T_GET_ID, 0, 0, 4), OK, 5);
	end(f);
}

static uint64_t config(struct fixture *f, size_t off, unsigned size)
{
	return virtio_config_read(f->v, (unsigned)off, size);
}
#define CONFIG(f, field)                                                                           \
	config(f, offsetof(struct virtio_blk_config, field),                                       \
	       sizeof(((struct virtio_blk_config *)0)->field))

static void configuration_says_what_holds(void **state)
{
	struct fixture *f = begin();

	(void)state;
	plug(f);
	assert_int_equal(CONFIG(f, capacity), SECTORS);
	assert_int_equal(CONFIG(f, seg_max), RING - 2);
	assert_int_equal(CONFIG(f, blk_size), 512);
	assert_int_equal(512u << CONFIG(f, physical_block_exp), f->b->im->physical);
	assert_int_equal(CONFIG(f, wce), 1);
	assert_int_equal(CONFIG(f, num_queues), 2);
	assert_int_equal(CONFIG(f, max_discard_sectors), BLK_DISCARD_SECTORS);
	assert_int_equal(CONFIG(f, max_discard_seg), BLK_DISCARD_SEGS);
	assert_int_equal(CONFIG(f, max_write_zeroes_sectors), BLK_ZEROES_SECTORS);
	assert_int_equal(CONFIG(f, max_write_zeroes_seg), BLK_ZEROES_SEGS);
	assert_int_equal(CONFIG(f, write_zeroes_may_unmap), 1);
	assert_false(f->v->offered & BITF(VIRTIO_BLK_F_RO));
	assert_true(f->v->offered & BITF(VIRTIO_BLK_F_MQ));
	/* Nothing but the cache mode is the driver's. */
	virtio_config_write(f->v, 0, 8, 1);
	assert_int_equal(CONFIG(f, capacity), SECTORS);
	end(f);
}

static void the_number_of_queues_follows_the_cpus(void **state)
{
	struct fixture *f = begin();
	static const unsigned want[][2] = {{1, 1}, {3, 3}, {8, 8}, {32, 8}};

	(void)state;
	f->c.queues = 0;
	f->c.queue_size = 0;
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(blk_new(&f->b, &f->c, 0, want[i][0], f->m.gm, f->loop, f->w, NULL),
				 0);
		f->v = blk_virtio(f->b);
		assert_int_equal(f->v->nqueues, want[i][1]);
		assert_int_equal(CONFIG(f, num_queues), want[i][1]);
		assert_int_equal(!!(f->v->offered & BITF(VIRTIO_BLK_F_MQ)), want[i][1] > 1);
		assert_int_equal(vq_max_size(virtio_vq(f->v, 0)), 256);
		blk_free(f->b);
	}
	f->b = NULL;
	end(f);
}

static void a_read_only_disk_takes_no_change(void **state)
{
	struct fixture *f = begin();

	(void)state;
	f->c.readonly = true;
	plug(f);
	assert_true(f->v->offered & BITF(VIRTIO_BLK_F_RO));
	assert_false(f->v->offered & BITF(VIRTIO_BLK_F_DISCARD));
	assert_false(f->v->offered & BITF(VIRTIO_BLK_F_WRITE_ZEROES));
	drive(f, BITF(VIRTIO_BLK_F_RO) | BITF(VIRTIO_BLK_F_FLUSH));
	assert_answer(ask(f, VIRTIO_BLK_T_OUT, 0, 0, 512), IOERR, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 0, 0, 8, 0)), UNSUPP, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, seg(f, 0, 0, 8, 0)), UNSUPP, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0), OK, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 512), OK, 513);
	assert_disk(f, 0, DISK, -1);
	end(f);
}

static void what_was_not_negotiated_is_unsupported(void **state)
{
	struct fixture *f = begin();

	(void)state;
	plug(f);
	drive(f, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 0, 0, 8, 0)), UNSUPP, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, seg(f, 0, 0, 8, 0)), UNSUPP, 1);
	end(f);
}

#define WCE BITF(VIRTIO_BLK_F_CONFIG_WCE)
#define FLUSH BITF(VIRTIO_BLK_F_FLUSH)
#define WCE_AT offsetof(struct virtio_blk_config, wce)

/* Section 5.2.6.2, the three conditions of a stable write. */
static void the_cache_mode_follows_what_was_negotiated(void **state)
{
	static const struct {
		bool writethrough;
		uint64_t features;
		bool want;
	} t[] = {
		{false, 0, true},   {false, FLUSH, false},
		{false, WCE, true}, {false, WCE | FLUSH, false},
		{true, 0, true},    {true, FLUSH, true},
		{true, WCE, true},  {true, WCE | FLUSH, true},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct fixture *f = begin();

		f->c.writethrough = t[i].writethrough;
		plug(f);
		drive(f, t[i].features);
		if (f->b->through != t[i].want)
			fail_msg("case %u: %d", i, f->b->through);
		assert_answer(ask(f, VIRTIO_BLK_T_OUT, 0, 0, 4096), OK, 1);
		if (t[i].features & WCE)
			assert_int_equal(CONFIG(f, wce), !t[i].want);
		end(f);
	}
}

static void the_driver_switches_the_cache_until_reset(void **state)
{
	struct fixture *f = begin();

	(void)state;
	plug(f);
	drive(f, WCE | FLUSH);
	virtio_config_write(f->v, WCE_AT, 1, 0);
	assert_true(f->b->through);
	assert_int_equal(CONFIG(f, wce), 0);
	assert_answer(ask(f, VIRTIO_BLK_T_OUT, 0, 0, 4096), OK, 1);
	virtio_config_write(f->v, WCE_AT, 1, 1);
	assert_false(f->b->through);
	virtio_config_write(f->v, WCE_AT, 1, 0);
	virtio_set_status(f->v, 0);
	assert_int_equal(CONFIG(f, wce), 1);
	/* Without CONFIG_WCE it is not the driver's to write. */
	for (unsigned q = 0; q < 2; q++)
		fake_ring_zero(&f->r[q]);
	drive(f, FLUSH);
	virtio_config_write(f->v, WCE_AT, 1, 0);
	assert_int_equal(CONFIG(f, wce), 1);
	assert_false(f->b->through);
	end(f);
}

static void a_disk_that_cannot_open_says_which(void **state)
{
	struct fixture *f = begin();
	struct err e = {0};

	(void)state;
	f->c.path = (char *)"/nonexistent/x.img";
	assert_int_equal(blk_new(&f->b, &f->c, 1, 1, f->m.gm, f->loop, f->w, &e), -ENOENT);
	assert_string_equal(e.text, "disk 1: open /nonexistent/x.img: No such file or directory");
	assert_null(f->b);
	end(f);
}

#define BOTH(t)                                                                                    \
	{#t ", page cache", t, NULL, NULL, (void *)&both[0]},                                      \
	{                                                                                          \
#t ", direct", t, NULL, NULL, (void *)&both[1]                                     \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(read_gives_the_sectors_and_counts_data_and_status),
		BOTH(write_changes_the_sectors_and_counts_the_status),
		BOTH(discard_of_many_segments_zeroes_each),
		BOTH(write_zeroes_zeroes_with_and_without_unmap),
		BOTH(data_in_many_odd_buffers_is_one_request),
		BOTH(a_full_queue_completes_with_few_interrupts),
		BOTH(reset_in_flight_leaves_the_memory_alone),
		BOTH(reset_of_one_queue_lets_the_other_finish),
		BOTH(a_host_error_is_one_requests_status),
		cmocka_unit_test(out_of_range_is_an_error_status),
		cmocka_unit_test(a_length_that_is_no_multiple_of_512_is_an_error_status),
		cmocka_unit_test(an_unknown_type_is_unsupported),
		cmocka_unit_test(flags_and_counts_of_segments_are_checked),
		cmocka_unit_test(a_segment_is_at_most_what_the_configuration_says),
		BOTH(a_reset_ends_a_discard_between_its_segments),
		cmocka_unit_test(a_header_too_short_is_an_error_status),
		cmocka_unit_test(a_request_without_status_byte_breaks_the_queue),
		cmocka_unit_test(the_same_head_in_flight_twice_breaks_the_queue),
		cmocka_unit_test(a_flood_gives_the_loop_its_turns),
		cmocka_unit_test(get_id_gives_the_serial),
		cmocka_unit_test(configuration_says_what_holds),
		cmocka_unit_test(the_number_of_queues_follows_the_cpus),
		cmocka_unit_test(a_read_only_disk_takes_no_change),
		cmocka_unit_test(what_was_not_negotiated_is_unsupported),
		cmocka_unit_test(the_cache_mode_follows_what_was_negotiated),
		cmocka_unit_test(the_driver_switches_the_cache_until_reset),
		cmocka_unit_test(a_disk_that_cannot_open_says_which),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
