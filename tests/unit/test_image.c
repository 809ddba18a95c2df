/* SPDX-License-Identifier: Apache-2.0 */
/* Every operation of a disk image on real files, with and without O_DIRECT. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/image_rig.h"

static void reads_and_writes_move_the_bytes(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));

	assert_int_equal(one(f, IMAGE_READ, 0, RIG_SIZE), 0);
	assert_read(f, 0, RIG_SIZE);
	memset(f->mem + 65536, 0x5a, 8192);
	assert_int_equal(one(f, IMAGE_WRITE, 65536, 8192), 0);
	assert_disk_is(f, 65536, 8192, 0x5a);
	assert_int_equal(on_disk(f, 65535), disk_byte(65535));
	assert_int_equal(on_disk(f, 65536 + 8192), disk_byte(65536 + 8192));
	assert_int_equal(one(f, IMAGE_FLUSH, 0, 0), 0);
	end(f);
}

static void single_sectors_and_odd_addresses_work(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));
	struct image_req *r;

	for (uint64_t off = 512; off < 16384; off += 1536) {
		assert_int_equal(one(f, IMAGE_READ, off, 512), 0);
		assert_read(f, off, 512);
		memset(f->mem + off, (int)(off / 512), 512);
		assert_int_equal(one(f, IMAGE_WRITE, off, 512), 0);
		assert_disk_is(f, off, 512, (uint8_t)(off / 512));
		assert_int_equal(on_disk(f, off - 1), disk_byte(off - 1));
	}
	/* Memory that O_DIRECT would not take, in vectors of odd lengths. */
	r = req(f, 0, IMAGE_READ, 1 << 20, 4096);
	f->iov[0][0] = (struct iovec){f->mem + 1, 1};
	f->iov[0][1] = (struct iovec){f->mem + 2, 4000};
	f->iov[0][2] = (struct iovec){f->mem + 4002, 95};
	r->niov = 3;
	image_submit(f->im, r);
	drain(f);
	assert_int_equal(f->res[0], 0);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(f->mem[1 + i], disk_byte((1 << 20) + i));
	end(f);
}

static void a_request_of_many_pieces_is_done_whole(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));
	struct image_req *r = req(f, 0, IMAGE_READ, 0, RIG_SIZE);
	const size_t len[] = {512, (1 << 20) - 512, (1 << 20) + 4096, 3 << 20, 4096, 512};
	size_t at = 0;

	for (r->niov = 0; r->niov < 6; r->niov++) {
		f->iov[0][r->niov] = (struct iovec){f->mem + at, len[r->niov]};
		at += len[r->niov];
	}
	r->len = at;
	image_submit(f->im, r);
	drain(f);
	assert_int_equal(f->res[0], 0);
	assert_read(f, 0, at);
	assert_int_equal(f->mem[at], 0xee);
	end(f);
}

static void many_at_once_complete_on_the_loop_in_batches(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));

	for (unsigned i = 0; i < RIG_REQS; i++)
		image_submit(f->im, req(f, i, i % 4 ? IMAGE_READ : IMAGE_FLUSH, i * 65536,
					i % 4 ? 65536 : 0));
	run(f, RIG_REQS);
	for (unsigned i = 0; i < RIG_REQS; i++) {
		assert_int_equal(f->res[i], 0);
		if (i % 4)
			assert_read(f, i * 65536, 65536);
	}
	assert_in_range(f->batches, 1, RIG_REQS);
	end(f);
}

/*
 * Eight sectors of a page, each written by a request of its own, half of them
 * from memory that forces the page cache: none may be lost to another's
 * read-modify-write.
 */
static void neighbouring_small_writes_do_not_undo_each_other(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));

	for (unsigned round = 1; round < 100; round++) {
		for (unsigned i = 0; i < RIG_REQS; i++) {
			uint8_t *from = f->mem + i * 1024 + i % 2;
			struct image_req *r = req(f, i, IMAGE_WRITE, i * 512, 512);

			memset(from, (int)(round + i), 512);
			r->iov->iov_base = from;
			image_submit(f->im, r);
		}
		drain(f);
		for (unsigned i = 0; i < RIG_REQS; i++) {
			assert_int_equal(f->res[i], 0);
			assert_disk_is(f, i * 512, 512, (uint8_t)(round + i));
		}
	}
	end(f);
}

static void seven(struct image_rig *f)
{
	for (unsigned i = 0; i < 6; i++) {
		struct image_req *r = req(f, i, IMAGE_WRITE, i * 4096, 4096);

		if (i % 3 == 1)
			r->iov->iov_base = f->mem + 1;
		image_submit(f->im, r);
	}
	image_submit(f->im, req(f, 6, IMAGE_READ, 1 << 20, 512)); /* waits for nobody */
}

/* The same as an order: what needs the page cache is alone, and later ones stay behind it. */
static void a_direct_write_through_the_page_cache_is_alone(void **state)
{
	struct image_rig *f = begin_open(true);

	(void)state;
	seven(f);
	run(f, 7);
	f->done = 0;
	seven(f);
	drain(f);
	assert_int_equal(f->done, 7);
	unsigned at[7];

	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(f->res[i], 0);
		at[f->order[i]] = i;
	}
	assert_true(at[0] < at[1] && at[1] < at[2] && at[1] < at[3]);
	assert_true(at[2] < at[4] && at[3] < at[4] && at[4] < at[5]);
	end(f);
}

static uint64_t blocks_of(const struct image_rig *f)
{
	struct stat st;

	assert_int_equal(fstat(f->file.fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void discard_frees_and_zeroes_keep_or_free(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));
	uint64_t before = blocks_of(f);

	assert_true(f->im->can_discard);
	assert_int_equal(one(f, IMAGE_DISCARD, 1 << 20, 1 << 20), 0);
	assert_in_range(blocks_of(f), 0, before - (1 << 20));
	assert_disk_is(f, 1 << 20, 1 << 20, 0);
	before = blocks_of(f);
	struct image_req *r = req(f, 0, IMAGE_ZEROES, 4 << 20, 1 << 20);

	r->unmap = true;
	image_submit(f->im, r);
	drain(f);
	assert_int_equal(f->res[0], 0);
	assert_in_range(blocks_of(f), 0, before - (1 << 20));
	assert_disk_is(f, 4 << 20, 1 << 20, 0);
	before = blocks_of(f);
	assert_int_equal(one(f, IMAGE_ZEROES, 6 << 20, 1 << 20), 0);
	assert_in_range(blocks_of(f), before, RIG_SIZE);
	assert_disk_is(f, 6 << 20, 1 << 20, 0);
	end(f);
}

static void zeroes_of_odd_sectors_touch_nothing_else(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));
	struct image_req *r;

	for (int unmap = 0; unmap < 2; unmap++) {
		uint64_t off = (2u << 20) + 512 + (uint64_t)unmap * 65536;

		r = req(f, 0, IMAGE_ZEROES, off, 512 * 21);
		r->unmap = unmap;
		r->through = true;
		image_submit(f->im, r);
		drain(f);
		assert_int_equal(f->res[0], 0);
		assert_disk_is(f, off, 512 * 21, 0);
		assert_int_equal(on_disk(f, off - 1), disk_byte(off - 1));
		assert_int_equal(on_disk(f, off + 512 * 21), disk_byte(off + 512 * 21));
	}
	end(f);
}

static void a_write_through_is_written(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));
	struct image_req *r = req(f, 0, IMAGE_WRITE, 4096, 4096);

	memset(f->mem + 4096, 0x77, 4096);
	r->through = true;
	image_submit(f->im, r);
	drain(f);
	assert_int_equal(f->res[0], 0);
	assert_disk_is(f, 4096, 4096, 0x77);
	end(f);
}

static void a_file_that_shrank_is_an_error_for_the_request(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));

	assert_int_equal(ftruncate(f->file.fd, 1 << 20), 0);
	assert_int_equal(one(f, IMAGE_READ, (1 << 20) - 4096, 8192), -EIO);
	assert_int_equal(one(f, IMAGE_READ, 2 << 20, 4096), -EIO);
	assert_int_equal(one(f, IMAGE_READ, 0, 4096), 0);
	end(f);
}

static void cancelled_requests_still_come_back(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));

	for (unsigned i = 0; i < RIG_REQS; i++) {
		enum image_op op = i % 3 == 0   ? IMAGE_ZEROES
				   : i % 3 == 1 ? IMAGE_READ
						: IMAGE_WRITE;

		image_submit(f->im, req(f, i, op, i * 512, 4u << 20));
		if (i == RIG_REQS / 2)
			image_kick(f->im);
	}
	for (unsigned i = 0; i < RIG_REQS; i++)
		if (f->res[i] == 1)
			image_cancel(f->im, &f->req[i]);
	drain(f);
	assert_int_equal(f->done, RIG_REQS);
	for (unsigned i = 0; i < RIG_REQS; i++)
		assert_true(!f->res[i] || f->res[i] == -ECANCELED);
	/* Nothing of it is left: the image works on. */
	memset(f->mem, 0x21, 4096);
	assert_int_equal(one(f, IMAGE_WRITE, 0, 4096), 0);
	assert_disk_is(f, 0, 4096, 0x21);
	end(f);
}

/* tmpfs takes O_DIRECT but not RWF_NOWAIT: io_submit itself refuses. */
static void what_aio_refuses_a_worker_does(void **state)
{
	struct image_rig *f = begin(4096);
	char path[] = "/dev/shm/mvm-disk-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	close(f->file.fd);
	f->file.fd = fd;
	assert_int_equal(ftruncate(fd, RIG_SIZE), 0);
	f->c.path = path;
	f->c.direct = true;
	int r = open_it(f, &f->im);

	if (r == -EINVAL) {
		unlink(path);
		end(f);
		print_message("this kernel's tmpfs has no direct I/O\n");
		skip();
	}
	assert_int_equal(r, 0);
	for (unsigned round = 0; round < 3; round++) {
		memset(f->mem, 0x51 + (int)round, 65536);
		f->done = 0;
		image_submit(f->im, req(f, 0, IMAGE_WRITE, 0, 4096));
		image_submit(f->im, req(f, 1, IMAGE_WRITE, 4096, 4096));
		/* Without a kick: what is refused while it waits is not forgotten. */
		while (image_wait(f->im))
			;
		assert_int_equal(f->done, 2);
		assert_int_equal(f->res[0], 0);
		assert_int_equal(f->res[1], 0);
		assert_disk_is(f, 0, 8192, (uint8_t)(0x51 + round));
	}
	unlink(path);
	end(f);
}

static void an_empty_request_succeeds(void **state)
{
	struct image_rig *f = begin_open(DISK_DIRECT(state));

	assert_int_equal(one(f, IMAGE_READ, RIG_SIZE, 0), 0);
	assert_int_equal(one(f, IMAGE_WRITE, 0, 0), 0);
	assert_int_equal(one(f, IMAGE_DISCARD, 0, 0), 0);
	end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_BOTH(reads_and_writes_move_the_bytes),
		DISK_BOTH(single_sectors_and_odd_addresses_work),
		DISK_BOTH(a_request_of_many_pieces_is_done_whole),
		DISK_BOTH(many_at_once_complete_on_the_loop_in_batches),
		DISK_BOTH(neighbouring_small_writes_do_not_undo_each_other),
		cmocka_unit_test(a_direct_write_through_the_page_cache_is_alone),
		DISK_BOTH(discard_frees_and_zeroes_keep_or_free),
		DISK_BOTH(zeroes_of_odd_sectors_touch_nothing_else),
		DISK_BOTH(a_write_through_is_written),
		DISK_BOTH(a_file_that_shrank_is_an_error_for_the_request),
		DISK_BOTH(cancelled_requests_still_come_back),
		cmocka_unit_test(what_aio_refuses_a_worker_does),
		DISK_BOTH(an_empty_request_succeeds),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
