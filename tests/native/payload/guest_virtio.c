/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips of a good driver, over whichever transport the machine has. */
#include "tests/native/payload/virtio.h"

#define RESETS 1000

static struct dev rng, disk, ro; /* vdb is read-only */
static struct ring rng_ring, ring, ro_ring;
static uint8_t buf[8192] __attribute__((aligned(4096)));

static bool all_same(const uint8_t *p, unsigned n)
{
	for (unsigned i = 1; i < n; i++)
		if (p[i] != p[0])
			return false;
	return true;
}

TEST(devices_are_found)
{
	CHECK(dev_find(&disk, ID_BLK, 0));
	CHECK(dev_find(&ro, ID_BLK, 1));
	CHECK(dev_find(&rng, ID_RNG, 0));
	CHECK_EQ(cmdline_has("pci"), on_pci());
}

TEST(version_1_and_ring_features_are_offered)
{
	CHECK_EQ(dev_offered(&disk) & (F_VERSION_1 | F_INDIRECT | F_EVENT_IDX | F_RING_RESET),
		 F_VERSION_1 | F_INDIRECT | F_EVENT_IDX | F_RING_RESET);
	CHECK_EQ(dev_offered(&disk) & F_BLK_RO, 0);
	CHECK_EQ(dev_offered(&ro) & F_BLK_RO, F_BLK_RO);
}

TEST(rng_fills_what_it_says)
{
	uint32_t used;

	CHECK(dev_start(&rng, &rng_ring, 0));
	memset(buf, 0xaa, sizeof(buf));
	CHECK(rng_read(&rng, &rng_ring, buf, 100, &used));
	CHECK_EQ(used, 100);
	CHECK(!all_same(buf, 100));
	CHECK(all_same(buf + 100, 100));
	CHECK_EQ(buf[100], 0xaa);
}

TEST(rng_gives_at_most_a_page)
{
	uint32_t used;

	memset(buf, 0xaa, sizeof(buf));
	CHECK(rng_read(&rng, &rng_ring, buf, sizeof(buf), &used));
	CHECK_EQ(used, 4096);
	CHECK(all_same(buf + 4096, 4096));
}

/* More rounds than the ring has elements: the indices wrap. */
TEST(ring_goes_around)
{
	uint32_t used;

	for (unsigned i = 0; i < 3 * RING_MAX; i++) {
		CHECK(rng_read(&rng, &rng_ring, buf, 1 + i, &used));
		CHECK_EQ(used, 1 + i);
	}
}

TEST(disk_is_read)
{
	struct blk_req q = {.type = BLK_IN, .sector = 3};

	CHECK(dev_start(&disk, &ring, F_BLK_FLUSH | F_RING_RESET));
	CHECK(blk_do(&disk, &ring, &q, buf, 512));
	CHECK_EQ(q.status, BLK_OK);
	CHECK_EQ(q.used, 513);
	CHECK(disk_holds(buf, 3, 1));
	q.sector = 8;
	CHECK(blk_do(&disk, &ring, &q, buf, 8192));
	CHECK_EQ(q.used, 8193);
	CHECK(disk_holds(buf, 8, 16));
}

/* The host looks for these sectors in the image. */
TEST(disk_is_written)
{
	struct blk_req q = {.type = BLK_OUT, .sector = 100};
	uint32_t *w = (uint32_t *)(void *)buf;

	for (unsigned i = 0; i < 1024; i++)
		*w++ = disk_word(7000 + i / 128, i % 128);
	CHECK(blk_do(&disk, &ring, &q, buf, 4096));
	CHECK_EQ(q.status, BLK_OK);
	CHECK_EQ(q.used, 1);
	memset(buf, 0, sizeof(buf));
	q.type = BLK_IN;
	CHECK(blk_do(&disk, &ring, &q, buf, 4096));
	CHECK(disk_holds(buf, 7000, 8));
}

TEST(disk_is_flushed)
{
	struct blk_req q = {.type = BLK_FLUSH};

	CHECK(blk_do(&disk, &ring, &q, NULL, 0));
	CHECK_EQ(q.status, BLK_OK);
	CHECK_EQ(q.used, 1);
}

TEST(disk_says_its_serial)
{
	struct blk_req q = {.type = BLK_GET_ID};

	CHECK(blk_do(&disk, &ring, &q, buf, 20));
	CHECK_EQ(q.status, BLK_OK);
	CHECK_EQ(q.used, 21);
	CHECK(!memcmp(buf, "native-0", 9));
}

TEST(beyond_the_end_is_an_error)
{
	uint64_t sectors = r32(disk.config) | (uint64_t)r32(disk.config + 4) << 32;
	struct blk_req q = {.type = BLK_IN, .sector = sectors};

	CHECK_EQ(sectors, 8192);
	CHECK(blk_do(&disk, &ring, &q, buf, 512));
	CHECK_EQ(q.status, BLK_IOERR);
	CHECK_EQ(q.used, 0); /* nothing is at the start of what was writable */
	q.sector = sectors - 1;
	CHECK(blk_do(&disk, &ring, &q, buf, 1024));
	CHECK_EQ(q.status, BLK_IOERR);
	CHECK(blk_do(&disk, &ring, &q, buf, 512));
	CHECK_EQ(q.status, BLK_OK);
	q.sector = UINT64_MAX / 512;
	CHECK(blk_do(&disk, &ring, &q, buf, 512));
	CHECK_EQ(q.status, BLK_IOERR);
	q = (struct blk_req){.type = BLK_OUT, .sector = UINT64_MAX};
	CHECK(blk_do(&disk, &ring, &q, buf, 512));
	CHECK_EQ(q.status, BLK_IOERR);
	CHECK_EQ(q.used, 1);
}

TEST(unknown_requests_are_unsupported)
{
	struct blk_req q = {.type = 0x7777};

	CHECK(blk_do(&disk, &ring, &q, buf, 512));
	CHECK_EQ(q.status, BLK_UNSUPP);
}

TEST(readonly_disk_refuses_writes)
{
	struct blk_req q = {.type = BLK_OUT, .sector = 1};

	CHECK(dev_start(&ro, &ro_ring, F_BLK_RO));
	memset(buf, 0x55, 512);
	CHECK(blk_do(&ro, &ro_ring, &q, buf, 512));
	CHECK_EQ(q.status, BLK_IOERR);
	CHECK_EQ(q.used, 1);
	q.type = BLK_IN;
	CHECK(blk_do(&ro, &ro_ring, &q, buf, 512));
	CHECK_EQ(q.status, BLK_OK);
	CHECK(disk_holds(buf, 1, 1));
}

TEST(five_requests_in_one_kick)
{
	static struct blk_req q[5];
	uint32_t id, len, done = 0;

	for (unsigned i = 0; i < 5; i++) {
		q[i] = (struct blk_req){.type = BLK_IN, .sector = 10 * i};
		blk_put(&ring, (uint16_t)(3 * i), &q[i], buf + 512 * i, 512);
	}
	dev_kick(&disk, 0);
	for (unsigned i = 0; i < 5; i++) {
		CHECK(ring_wait(&ring, &id, &len));
		CHECK(id % 3 == 0 && id < 15);
		CHECK_EQ(len, 513);
		done |= 1u << id / 3;
	}
	CHECK_EQ(done, 31);
	for (unsigned i = 0; i < 5; i++) {
		CHECK_EQ(q[i].status, BLK_OK);
		CHECK(disk_holds(buf + 512 * i, 10 * i, 1));
	}
}

TEST(indirect_tables_work)
{
	static struct desc table[RING_MAX];
	struct blk_req q = {.type = BLK_IN, .sector = 30, .status = 0xee};
	const struct buf b[4] = {
		READ_BY_DEVICE(&q, 16),
		WRITTEN_BY_DEVICE(buf, 700),
		WRITTEN_BY_DEVICE(buf + 700, 324),
		WRITTEN_BY_DEVICE(&q.status, 1),
	};
	uint32_t id, len;

	CHECK(dev_start(&disk, &ring, F_INDIRECT));
	CHECK(disk.acked & F_INDIRECT);
	ring_chain(table, 0, b, 4);
	ring.desc[7] = (struct desc){addr_of(table), 4 * 16, D_INDIRECT, 0};
	ring_publish(&ring, 7);
	dev_kick(&disk, 0);
	CHECK(ring_wait(&ring, &id, &len));
	CHECK_EQ(id, 7);
	CHECK_EQ(len, 1025);
	CHECK_EQ(q.status, BLK_OK);
	CHECK(disk_holds(buf, 30, 2));
}

TEST(event_idx_asks_for_the_next_kick)
{
	uint32_t used;
	volatile uint16_t *event = &rng_ring.used.avail_event;

	CHECK(dev_start(&rng, &rng_ring, F_EVENT_IDX));
	CHECK(rng.acked & F_EVENT_IDX);
	for (uint16_t i = 1; i <= 20; i++) {
		CHECK(rng_read(&rng, &rng_ring, buf, 8, &used));
		/* Written when the device goes to sleep, perhaps just after the answer. */
		CHECK(WAIT(*event == i));
	}
	CHECK_EQ(rng_ring.used.flags, 0);
}

TEST(one_queue_is_reset_and_comes_back)
{
	struct blk_req q = {.type = BLK_IN, .sector = 5};

	CHECK(dev_start(&disk, &ring, F_RING_RESET));
	CHECK(disk.acked & F_RING_RESET);
	for (unsigned i = 0; i < 10; i++) {
		CHECK(blk_do(&disk, &ring, &q, buf, 512));
		blk_put(&ring, 4, &q, buf, 4096); /* in flight when it is reset */
		dev_kick(&disk, 0);
		dev_select(&disk, 0);
		dev_queue_reset(&disk);
		CHECK(!dev_queue_enabled(&disk));
		dev_queue(&disk, &ring, 0);
		CHECK(dev_queue_enabled(&disk));
	}
	CHECK(blk_do(&disk, &ring, &q, buf, 512));
	CHECK_EQ(q.status, BLK_OK);
	CHECK_EQ(dev_status(&disk) & S_NEEDS_RESET, 0);
}

/* After the reset nothing of the old life touches memory. */
TEST(reset_in_mid_flight)
{
	static struct blk_req q[5];

	for (unsigned n = 0; n < RESETS; n++) {
		CHECK(dev_start(&disk, &ring, 0));
		for (unsigned i = 0; i < 3; i++) {
			q[i] = (struct blk_req){.type = BLK_IN, .sector = n};
			blk_put(&ring, (uint16_t)(3 * i), &q[i], buf, 4096);
		}
		dev_kick(&disk, 0);
		dev_reset(&disk);
		CHECK_EQ(dev_status(&disk), 0);
		w32(addr_of(buf), 0xdeadbeef);
		w32(addr_of(&ring.used), 0xdeadbeef);
	}
	/* One that outlived its reset would have had the time of another request. */
	CHECK(dev_start(&ro, &ro_ring, 0));
	q[0] = (struct blk_req){.type = BLK_IN};
	CHECK(blk_do(&ro, &ro_ring, &q[0], buf + 4096, 512));
	CHECK_EQ(r32(addr_of(buf)), 0xdeadbeef);
	CHECK_EQ(r32(addr_of(&ring.used)), 0xdeadbeef);
	CHECK(dev_start(&disk, &ring, 0));
	CHECK(blk_do(&disk, &ring, &q[0], buf, 512));
	CHECK(disk_holds(buf, 0, 1));
}

/* By memory on PCI too: of ports KVM counts what it handles itself as well. */
static void kick_by_memory(uint16_t q)
{
	if (rng.pci)
		w16(rng.notify + q * rng.multiplier, q);
	else
		dev_kick(&rng, q);
}

/* Between the marks the host counts exits: kicks through an ioeventfd are none. */
TEST(kicks_do_not_leave_kvm)
{
	CHECK(dev_start(&rng, &rng_ring, 0));
	kick_by_memory(0); /* beside ports memory is watched from its first kick on */
	outb(LAYOUT_PORT_MARK, MARK_INIT_STARTED);
	for (unsigned i = 0; i < 200; i++)
		kick_by_memory(0);
	outb(LAYOUT_PORT_MARK, MARK_ROOT_MOUNTED);
	for (unsigned i = 0; i < 200; i++)
		kick_by_memory(1); /* no such queue: nothing watches there */
	outb(LAYOUT_PORT_MARK, MARK_ROOT_INIT);
}

void guest_main(void)
{
	static const struct test tests[] = {
		T(devices_are_found),
		T(version_1_and_ring_features_are_offered),
		T(rng_fills_what_it_says),
		T(rng_gives_at_most_a_page),
		T(ring_goes_around),
		T(disk_is_read),
		T(disk_is_written),
		T(disk_is_flushed),
		T(disk_says_its_serial),
		T(beyond_the_end_is_an_error),
		T(unknown_requests_are_unsupported),
		T(readonly_disk_refuses_writes),
		T(five_requests_in_one_kick),
		T(indirect_tables_work),
		T(event_idx_asks_for_the_next_kick),
		T(one_queue_is_reset_and_comes_back),
		T(reset_in_mid_flight),
		T(kicks_do_not_leave_kvm),
	};

	run_tests(tests, sizeof(tests) / sizeof(tests[0]));
}
