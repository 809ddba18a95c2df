/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver may get wrong, and what it may not know. */
#define _GNU_SOURCE 1
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/blk_rig.h"

static void out_of_range_is_an_error_status(void **state)
{
	struct blk_rig *f = begin_live(false);
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
	struct blk_rig *f = begin_live(false);

	(void)state;
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 511), IOERR, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 513), IOERR, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_OUT, 0, 0, 1), IOERR, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 0), OK, 1);
	end(f);
}

static void an_unknown_type_is_unsupported(void **state)
{
	struct blk_rig *f = begin_live(false);

	(void)state;
	assert_answer(ask(f, 2, 0, 0, 512), UNSUPP, 1);
	assert_answer(ask(f, VIRTIO_BLK_T_SECURE_ERASE, 0, 0, seg(f, 0, 0, 8, 0)), UNSUPP, 1);
	assert_answer(ask(f, UINT32_MAX, 0, 0, 0), UNSUPP, 1);
	end(f);
}

static void flags_and_counts_of_segments_are_checked(void **state)
{
	struct blk_rig *f = begin_live(false);
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
	struct blk_rig *f = begin();

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
	struct blk_rig *f = begin_live(DISK_DIRECT(state));
	uint8_t b = 1;

	seg(f, 0, 0, 8, 0);
	send_on(f, 0, 0, (struct question){VIRTIO_BLK_T_DISCARD, 0, 0, seg(f, 1, 8, 8, 0)});
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
	struct blk_rig *f = begin_live(false);

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
	struct blk_rig *f = begin_live(false);
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
	struct blk_rig *f = begin_live(true);
	uint16_t head = send_on(f, 0, 0, (struct question){VIRTIO_BLK_T_IN, 0, 0, 1 << 20});

	(void)state;
	fake_avail(&f->r[0], head);
	virtio_kick(f->v, 0);
	assert_true(f->v->status & VIRTIO_S_NEEDS_RESET);
	turn(f->loop);
	virtio_set_status(f->v, 0);
	end(f);
}

/* More requests that are answered at once than one callback takes: the rest comes with a later
 * turn. */
static void a_flood_gives_the_loop_its_turns(void **state)
{
	struct blk_rig *f = begin();
	unsigned n = 0, first, chains = 512 / 3;
	uint32_t id, len;

	(void)state;
	f->c.queue_size = 512;
	fake_ring_init(&f->r[0], &f->m, 512);
	fake_ring_zero(&f->r[0]);
	plug(f);
	drive(f, 0);
	for (unsigned i = 0; i < chains; i++)
		send_on(f, 0, 0, (struct question){VIRTIO_BLK_T_GET_ID, 0, 0, 20});
	virtio_kick(f->v, 0);
	while (fake_used(&f->r[0], &id, &len))
		n++;
	first = n;
	assert_in_range(first, 1, chains - 1);
	while (n < chains) {
		turn(f->loop);
		while (fake_used(&f->r[0], &id, &len))
			n++;
	}
	assert_int_equal(f->bearer.queue[0], 2);
	end(f);
}

/* ------------------------------------------------------------- too much at once */

#define MANY 400 /* of data in a table */

/* Every head's own descriptor, all of one table: a write, which ends at once nowhere. */
static void one_table_for_all_heads(struct blk_rig *f, unsigned q, unsigned buffers)
{
	static struct fake_buf b[MANY + 2];
	uint64_t table = fake_alloc(&f->m, 16 * (buffers + 2), 16);

	header(f, q, VIRTIO_BLK_T_OUT, 8);
	b[0] = (struct fake_buf){f->hdr[q], 16, 0};
	for (unsigned i = 1; i <= buffers; i++)
		b[i] = (struct fake_buf){f->data + 64 * i, 32, 0};
	b[buffers].len = 512 - (buffers - 1) * 32 % 512; /* whole sectors */
	b[buffers + 1] = (struct fake_buf){f->status[q], 1, FAKE_W};
	fake_ring_init(&f->r[q], &f->m, 512);
	fake_ring_zero(&f->r[q]);
	for (unsigned i = 0; i < 512; i++)
		fake_avail(&f->r[q], fake_indirect(&f->r[q], table, b, buffers + 2));
}

static struct blk_rig *begin_crowded(bool direct, unsigned buffers)
{
	struct blk_rig *f = begin();

	f->c.direct = direct;
	f->c.queue_size = 512;
	plug(f);
	for (unsigned q = 0; q < 2; q++)
		one_table_for_all_heads(f, q, buffers);
	drive(f, BITF(VIRTIO_F_INDIRECT_DESC));
	return f;
}

static unsigned answers(struct blk_rig *f)
{
	unsigned n = 0;
	uint32_t id, len;

	for (unsigned q = 0; q < 2; q++)
		for (; fake_used(&f->r[q], &id, &len); n++) {
			assert_int_equal(len, 1);
			assert_int_equal(status(f, q), OK);
		}
	return n;
}

/* Returns how many buffers were in flight at the most. */
static unsigned serve_all(struct blk_rig *f)
{
	unsigned done = 0, most = 0;

	virtio_kick(f->v, 0);
	virtio_kick(f->v, 1);
	while (done < 1024) {
		unsigned n;

		if (f->b->buffers > most)
			most = f->b->buffers;
		TURNS_UNTIL(f->loop, (n = answers(f)));
		done += n;
	}
	assert_int_equal(f->b->buffers, 0);
	return most;
}

static void a_disk_takes_no_more_than_its_share_of_memory(void **state)
{
	struct blk_rig *f = begin_crowded(DISK_DIRECT(state), MANY);

	assert_int_equal(f->b->buffers_max, BLK_BUFFERS_MAX);
	f->b->buffers_max = 3 * MANY;
	assert_in_range(serve_all(f), MANY, 4 * MANY + 8);
	end(f);
}

/* Chains whose segments are few enough to be kept; the allocator of a sanitizer counts nothing. */
static void a_disk_at_rest_keeps_little_memory(void **state)
{
	struct blk_rig *f = begin_crowded(DISK_DIRECT(state), 100);
	size_t before = mallinfo2().uordblks;

	assert_true(serve_all(f) > 200 * 102);
	if (mallinfo2().uordblks > before + (512u << 10))
		fail_msg("%zu bytes", mallinfo2().uordblks - before);
	end(f);
}

/* What one queue had in flight was all there may be; its reset lets the other go on. */
static void a_reset_of_the_queue_that_has_it_all_lets_the_other_go_on(void **state)
{
	struct blk_rig *f = begin_live(DISK_DIRECT(state));

	f->b->buffers_max = 3;
	send_on(f, 0, 0, (struct question){VIRTIO_BLK_T_IN, 0, 0, 1 << 20});
	send_on(f, 1, 1, (struct question){VIRTIO_BLK_T_IN, 8, 0, 512});
	virtio_kick(f->v, 0);
	virtio_kick(f->v, 1);
	assert_int_equal(f->b->buffers, 3);
	assert_true(f->b->queue[1].held);
	virtio_queue_reset(f->v, 0);
	assert_int_equal(await(f, 1, NULL), 513);
	assert_int_equal(status(f, 1), OK);
	end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(out_of_range_is_an_error_status),
		cmocka_unit_test(a_length_that_is_no_multiple_of_512_is_an_error_status),
		cmocka_unit_test(an_unknown_type_is_unsupported),
		cmocka_unit_test(flags_and_counts_of_segments_are_checked),
		cmocka_unit_test(a_segment_is_at_most_what_the_configuration_says),
		DISK_BOTH(a_reset_ends_a_discard_between_its_segments),
		cmocka_unit_test(a_header_too_short_is_an_error_status),
		cmocka_unit_test(a_request_without_status_byte_breaks_the_queue),
		cmocka_unit_test(the_same_head_in_flight_twice_breaks_the_queue),
		cmocka_unit_test(a_flood_gives_the_loop_its_turns),
		DISK_BOTH(a_disk_takes_no_more_than_its_share_of_memory),
		DISK_BOTH(a_disk_at_rest_keeps_little_memory),
		DISK_BOTH(a_reset_of_the_queue_that_has_it_all_lets_the_other_go_on),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
