/* SPDX-License-Identifier: Apache-2.0 */
/* The block device's identity, configuration space and cache mode. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/blk_rig.h"

static void get_id_gives_the_serial(void **state)
{
	struct blk_rig *f = begin();

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

static uint64_t config(struct blk_rig *f, size_t off, unsigned size)
{
	return virtio_config_read(f->v, (unsigned)off, size);
}
#define CONFIG(f, field)                                                                           \
	config(f, offsetof(struct virtio_blk_config, field),                                       \
	       sizeof(((struct virtio_blk_config *)0)->field))

/* Requests may go to any queue: the smallest one bounds them. */
static void segments_follow_the_queues_sizes(void **state)
{
	struct blk_rig *f = begin();

	(void)state;
	plug(f);
	assert_int_equal(virtio_resize(f->v, (const uint16_t[]){256, 64}, 2), 0);
	assert_int_equal(CONFIG(f, seg_max), 62);
	assert_int_equal(virtio_resize(f->v, (const uint16_t[]){2}, 1), 0);
	assert_int_equal(CONFIG(f, seg_max), 1);
	assert_int_equal(CONFIG(f, capacity), SECTORS);
	assert_int_equal(CONFIG(f, blk_size), 512);
	end(f);
}

static void configuration_says_what_holds(void **state)
{
	struct blk_rig *f = begin();

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
	struct blk_rig *f = begin();
	static const unsigned want[][2] = {{1, 1}, {3, 3}, {8, 8}, {32, 8}};

	(void)state;
	f->c.queues = 0;
	f->c.queue_size = 0;
	for (unsigned i = 0; i < 4; i++) {
		struct blk_env env = rig_env(f, 0);

		env.cpus = want[i][0];
		assert_int_equal(blk_new(&f->b, &f->c, &env, NULL), 0);
		f->v = blk_virtio(f->b);
		assert_int_equal(f->v->nqueues, want[i][1]);
		assert_int_equal(CONFIG(f, num_queues), want[i][1]);
		assert_int_equal(!!(f->v->offered & BITF(VIRTIO_BLK_F_MQ)), want[i][1] > 1);
		assert_int_equal(vq_max_size(virtio_vq(f->v, 0)), 512);
		blk_free(f->b);
	}
	f->b = NULL;
	end(f);
}

static void a_read_only_disk_takes_no_change(void **state)
{
	struct blk_rig *f = begin();

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
	struct blk_rig *f = begin();

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
		struct blk_rig *f = begin();

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
	struct blk_rig *f = begin();

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

/* Section 5.2.5.1: with the feature too, and whatever part of the write lies on the field. */
static void a_write_that_is_not_the_cache_mode_changes_nothing(void **state)
{
	struct blk_rig *f = begin();
	uint8_t before[VIRTIO_CONFIG_MAX];

	(void)state;
	plug(f);
	drive(f, WCE | FLUSH);
	memcpy(before, f->v->config, sizeof(before));
	for (unsigned off = 0; off < f->v->config_len; off++)
		for (unsigned size = 1; size <= 8; size *= 2) {
			if (off == WCE_AT && size == 1)
				continue;
			virtio_config_write(f->v, off, size, 0);
			assert_memory_equal(f->v->config, before, sizeof(before));
			assert_false(f->b->through);
		}
	end(f);
}

static void a_disk_that_cannot_open_says_why(void **state)
{
	struct blk_rig *f = begin();
	struct blk_env env = rig_env(f, 1);
	struct err e = {0};

	(void)state;
	f->c.path = (char *)"/nonexistent/x.img";
	assert_int_equal(blk_new(&f->b, &f->c, &env, &e), -ENOENT);
	assert_string_equal(e.text, "open /nonexistent/x.img: No such file or directory");
	assert_null(f->b);
	end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(get_id_gives_the_serial),
		cmocka_unit_test(configuration_says_what_holds),
		cmocka_unit_test(segments_follow_the_queues_sizes),
		cmocka_unit_test(the_number_of_queues_follows_the_cpus),
		cmocka_unit_test(a_read_only_disk_takes_no_change),
		cmocka_unit_test(what_was_not_negotiated_is_unsupported),
		cmocka_unit_test(the_cache_mode_follows_what_was_negotiated),
		cmocka_unit_test(the_driver_switches_the_cache_until_reset),
		cmocka_unit_test(a_write_that_is_not_the_cache_mode_changes_nothing),
		cmocka_unit_test(a_disk_that_cannot_open_says_why),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
