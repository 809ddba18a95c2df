/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver that resets its device with I/O in flight, a hundred times, or ten
 * thousand ("many"). Whatever the device was doing, a reset is done when its status reads
 * 0: from then on no byte of what the driver had given it changes.
 */
#include "tests/native/payload/virtio.h"

enum { ID_NET = 1, ID_VSOCK = 19, ID_FS = 26 };

#define QUEUES 3
#define CHAINS 4 /* a queue */
#define PART 2048

static struct dev dev;
static struct ring ring[QUEUES];
static uint8_t out[QUEUES][CHAINS][PART], in[QUEUES][CHAINS][PART];
static unsigned rounds = 100;

/* What chain @i of queue @q asks for: bytes for the device, and room for its answer. */
struct ask {
	uint32_t out, in;
};
typedef struct ask fill_fn(unsigned q, unsigned i);

struct kind {
	unsigned id, queues;
	fill_fn *fill;
};

/* ------------------------------------------------------------- requests */

static void word(uint8_t *at, unsigned off, uint32_t v)
{
	memcpy(at + off, &v, sizeof(v));
}

/* Section 5.1.6: buffers to receive into, frames to all, and control commands, good and bad. */
static struct ask net_fill(unsigned q, unsigned i)
{
	uint8_t *p = out[q][i];

	if (q == 0)
		return (struct ask){0, PART};
	if (q == 1) {
		memset(p + 12, 0xff, 6);
		p[10] = (uint8_t)random32();
		return (struct ask){12 + 14 + random32() % 1500, 0};
	}
	p[0] = (uint8_t)(random32() % 6);
	p[1] = (uint8_t)(random32() % 3);
	word(p, 2, random32());
	return (struct ask){2 + random32() % 12, 1};
}

/* Section 5.2.6 */
static struct ask blk_fill(unsigned q, unsigned i)
{
	word(out[q][i], 0, BLK_IN);
	word(out[q][i], 8, random32() % 8000);
	return (struct ask){16, 513 + 512 * (random32() % 3)};
}

static struct ask rng_fill(unsigned q, unsigned i)
{
	(void)q, (void)i;
	return (struct ask){0, 1 + random32() % PART};
}

/* Section 5.10.6: connections begun, used and dropped in any order; some to where nobody is. */
static struct ask vsock_fill(unsigned q, unsigned i)
{
	uint8_t *p = out[q][i];
	uint32_t len = random32() % 512;

	if (q != 1)
		return (struct ask){0, PART};
	word(p, 0, 7); /* our CID */
	word(p, 8, 2);
	word(p, 16, 1000 + random32() % 4);
	word(p, 20, 50 + random32() % 2);
	word(p, 28, 1 | (i ? random32() % 8 : 1) << 16);
	word(p, 24, len);
	word(p, 32, random32() % 4);
	word(p, 36, 65536);
	return (struct ask){44 + len, 0};
}

/* A FUSE request's header (linux/fuse.h): INIT, or something that has to wait for one. */
static struct ask fs_fill(unsigned q, unsigned i)
{
	uint8_t *p = out[q][i];
	bool init = random32() & 1;

	word(p, 0, init ? 104 : 40);
	word(p, 4, init ? 26 : 3);
	word(p, 8, random32());
	word(p, 16, 1);
	word(p, 40, 7);
	word(p, 44, 36);
	return (struct ask){init ? 104 : 40, 16 + 112};
}

static const struct kind net = {ID_NET, 3, net_fill}, blk = {ID_BLK, 1, blk_fill},
			 rng = {ID_RNG, 1, rng_fill}, vsock = {ID_VSOCK, 3, vsock_fill},
			 fs = {ID_FS, 2, fs_fill};

/* ------------------------------------------------------------- rounds */

static void put_chain(const struct kind *k, unsigned q, unsigned i)
{
	struct ask a = k->fill(q, i);
	struct buf b[2];
	unsigned n = 0;

	if (a.out)
		b[n++] = (struct buf)READ_BY_DEVICE(out[q][i], a.out);
	if (a.in)
		b[n++] = (struct buf)WRITTEN_BY_DEVICE(in[q][i], a.in);
	ring_chain(ring[q].desc, (uint16_t)(2 * i), b, n);
	ring_publish(&ring[q], (uint16_t)(2 * i));
}

static bool begin(const struct kind *k)
{
	uint64_t want = random32() & 1 ? F_EVENT_IDX | F_INDIRECT | 1ull << 15 | 1ull << 17 : 0;

	if (!dev_begin(&dev, want))
		return false;
	for (unsigned q = 0; q < k->queues; q++)
		dev_queue(&dev, &ring[q], (uint16_t)q);
	for (unsigned q = 0; q < k->queues; q++)
		for (unsigned i = 0; i < CHAINS; i++)
			put_chain(k, q, i);
	dev_set_status(&dev, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
	for (unsigned q = 0; q < k->queues; q++)
		if (random32() & 3)
			dev_kick(&dev, (uint16_t)q);
	for (unsigned i = random32() % 64; i; i--)
		barrier();
	return true;
}

/* Sums over all that the device may write: cheap enough for every round. */
static uint64_t sum(void)
{
	uint64_t s = 0;

	for (unsigned q = 0; q < QUEUES; q++) {
		s = s * 31 + ring[q].used.idx;
		for (unsigned i = 0; i < CHAINS; i++)
			s = s * 31 + *(volatile uint32_t *)(void *)in[q][i] +
			    *(volatile uint32_t *)(void *)(in[q][i] + 16);
	}
	return s;
}

static void storm(const struct kind *k)
{
	CHECK(dev_find(&dev, k->id, 0));
	for (unsigned n = 0; n < rounds; n++) {
		uint64_t before;

		CHECK(begin(k));
		dev_reset(&dev);
		CHECK_EQ(dev_status(&dev), 0);
		before = sum();
		for (unsigned i = 0; i < 50; i++)
			barrier();
		CHECK_EQ(sum(), before);
	}
	/* And it still starts. */
	CHECK(begin(k));
	CHECK((dev_status(&dev) & (S_DRIVER_OK | S_FEATURES_OK)) == (S_DRIVER_OK | S_FEATURES_OK));
	dev_reset(&dev);
}

#define STORM(kind)                                                                                \
	static void test_##kind(void)                                                              \
	{                                                                                          \
		storm(&(kind));                                                                    \
	}
STORM(net)
STORM(blk)
STORM(rng)
STORM(vsock)
STORM(fs)

void guest_main(void)
{
	static const struct test tests[] = {T(net), T(blk), T(rng), T(vsock), T(fs)};
	static const char *const words[] = {"net", "blk", "rng", "vsock", "fs"};

	if (cmdline_has("many"))
		rounds = 10000;
	for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		if (cmdline_has(words[i]))
			run_tests(&tests[i], 1);
}
