/* SPDX-License-Identifier: Apache-2.0 */
/* The block device under a driver in plain memory, over real files: every request, and resets. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/blk_rig.h"

static void read_gives_the_sectors_and_counts_data_and_status(void **state)
{
	struct blk_rig *f = begin_live(DISK_DIRECT(state));

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
	struct blk_rig *f = begin_live(DISK_DIRECT(state));

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
	struct blk_rig *f = begin_live(DISK_DIRECT(state));
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
	struct blk_rig *f = begin_live(DISK_DIRECT(state));

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
	struct blk_rig *f = begin_live(DISK_DIRECT(state));
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
	struct blk_rig *f = begin_live(DISK_DIRECT(state));
	unsigned n = RING / 3;
	bool seen[RING] = {0};

	for (unsigned q = 0; q < 2; q++)
		for (unsigned i = 0; i < n; i++)
			send_on(f, q, q * n + i,
				(struct question){VIRTIO_BLK_T_IN, (q * n + i) * 8,
						  (q * n + i) * 4096, 4096});
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
	struct blk_rig *f = begin_live(DISK_DIRECT(state));

	for (unsigned round = 0; round < 8; round++) {
		for (unsigned q = 0; q < 2; q++)
			for (unsigned i = 0; i < 20; i++)
				send_on(f, q, q * 20 + i,
					(struct question){i % 2 ? VIRTIO_BLK_T_IN
								: VIRTIO_BLK_T_OUT,
							  i * 8, 0, 1 << 20});
		virtio_kick(f->v, 0);
		virtio_kick(f->v, 1);
		if (round % 2)
			turn(f->loop);
		uint16_t used = fake_get16(&f->m, f->r[0].used + 2);

		virtio_set_status(f->v, 0);
		assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), used);
		memset(fake_at(&f->m, f->data), 0x33, 1 << 20);
		turn(f->loop);
		turn(f->loop);
		for (unsigned i = 0; i < 1 << 20; i++)
			if (((uint8_t *)fake_at(&f->m, f->data))[i] != 0x33)
				fail_msg("byte %u was written after the reset", i);
		fake_ring_zero(&f->r[0]);
		fake_ring_zero(&f->r[1]);
		drive(f, BITF(VIRTIO_BLK_F_FLUSH));
	}
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 512), OK, 513);
	send_on(f, 0, 1, (struct question){VIRTIO_BLK_T_IN, 0, 0, 1 << 20});
	virtio_kick(f->v, 0);
	end(f); /* with that one in flight */
}

static void reset_of_one_queue_lets_the_other_finish(void **state)
{
	struct blk_rig *f = begin_live(DISK_DIRECT(state));

	assert_true(virtio_has(f->v, VIRTIO_F_RING_RESET));
	for (unsigned i = 0; i < 20; i++) {
		send_on(f, 0, i, (struct question){VIRTIO_BLK_T_IN, 0, 0, 1 << 20});
		send_on(f, 1, 20 + i, (struct question){VIRTIO_BLK_T_OUT, 2048, 0, 65536});
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

static void at_rest_it_leaves_the_memory_alone_and_lives_on(void **state)
{
	struct blk_rig *f = begin_live(DISK_DIRECT(state));

	for (unsigned i = 0; i < 40; i++)
		send_on(f, i / 20, i,
			(struct question){i % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i * 8, 0,
					  1 << 20});
	virtio_kick(f->v, 0);
	virtio_kick(f->v, 1);
	assert_false(blk_virtio(f->b)->ops->at_rest(blk_virtio(f->b)));
	while (!blk_virtio(f->b)->ops->at_rest(blk_virtio(f->b)))
		turn(f->loop);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(status(f, i), OK);
	memset(fake_at(&f->m, f->data), 0x33, 1 << 20);
	turn(f->loop);
	turn(f->loop);
	for (unsigned i = 0; i < 1 << 20; i++)
		if (((uint8_t *)fake_at(&f->m, f->data))[i] != 0x33)
			fail_msg("byte %u was written after it came to rest", i);
	for (unsigned i = 0; i < 40; i++)
		await(f, i / 20, NULL);
	assert_true(blk_virtio(f->b)->ops->at_rest(blk_virtio(f->b)));
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 512), OK, 513);
	end(f);
}

static void a_host_error_is_one_requests_status(void **state)
{
	struct blk_rig *f = begin_live(DISK_DIRECT(state));

	assert_int_equal(ftruncate(f->file.fd, 1 << 20), 0);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 4096, 0, 4096), IOERR, 0);
	assert_answer(ask(f, VIRTIO_BLK_T_IN, 0, 0, 4096), OK, 4097);
	end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_BOTH(read_gives_the_sectors_and_counts_data_and_status),
		DISK_BOTH(write_changes_the_sectors_and_counts_the_status),
		DISK_BOTH(discard_of_many_segments_zeroes_each),
		DISK_BOTH(write_zeroes_zeroes_with_and_without_unmap),
		DISK_BOTH(data_in_many_odd_buffers_is_one_request),
		DISK_BOTH(a_full_queue_completes_with_few_interrupts),
		DISK_BOTH(reset_in_flight_leaves_the_memory_alone),
		DISK_BOTH(reset_of_one_queue_lets_the_other_finish),
		DISK_BOTH(at_rest_it_leaves_the_memory_alone_and_lives_on),
		DISK_BOTH(a_host_error_is_one_requests_status),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
