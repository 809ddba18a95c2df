/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver against the block device: the input is a program of chains
 * (headers, lengths and descriptor flags of its choice), kicks, turns of the
 * loop, resets, configuration writes and pokes into memory. Two devices over
 * files live through all inputs, one with O_DIRECT where the host can.
 */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/blk.h"

#define RAM (256u << 10)
#define DISK (192u << 10)
#define RING 32

struct target {
	struct loop *loop;
	struct workers *w;
	struct fake_ram m;
	struct fake_ring r[2];
	struct fake_bearer bearer;
	struct blk *b[2];
	uint64_t hdr, data;
};

static struct blk *device(struct target *t, unsigned index, bool direct)
{
	char path[] = "/tmp/mvm-fuzz-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	struct disk_config c = {.path = path, .queues = 2, .queue_size = RING, .direct = direct};
	struct blk_env env = {t->m.gm, t->loop, t->w, index, .cpus = 1};
	struct blk *b = NULL;
	struct err e = {0};

	if (fd < 0 || ftruncate(fd, DISK))
		abort();
	if (blk_new(&b, &c, &env, &e) && !direct) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	unlink(path);
	close(fd);
	return b;
}

static struct target *target(void)
{
	static struct target t;

	if (t.loop)
		return &t;
	log_set_level(LOG_ERROR);
	fake_ram_init(&t.m, RAM);
	for (unsigned q = 0; q < 2; q++)
		fake_ring_init(&t.r[q], &t.m, RING);
	t.hdr = fake_alloc(&t.m, 64, 16);
	t.data = fake_alloc(&t.m, 160 << 10, 4096);
	if (loop_new(&t.loop, "fuzz", NULL) || workers_new(&t.w, 2, NULL))
		abort();
	t.b[0] = device(&t, 0, false);
	t.b[1] = device(&t, 1, true);
	if (!t.b[1])
		t.b[1] = t.b[0];
	return &t;
}

static void drive(struct target *t, struct virtio *v, uint8_t how)
{
	for (unsigned q = 0; q < 2; q++)
		fake_ring_zero(&t->r[q]);
	fake_negotiate(v, how & 1 ? v->offered : v->offered & 0xffffffff & ~(1ull << 29));
	fake_enable(v, 0, &t->r[0]);
	fake_enable(v, 1, &t->r[1]);
	fake_driver_ok(v);
}

/* Most headers are nearly right, so that the input gets behind them. */
static void put_header(struct target *t, struct input *in, uint64_t at)
{
	static const uint32_t type[] = {VIRTIO_BLK_T_IN,      VIRTIO_BLK_T_OUT,
					VIRTIO_BLK_T_FLUSH,   VIRTIO_BLK_T_GET_ID,
					VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
	uint32_t k = take(in, 1);

	fake_put32(&t->m, at, k < 250 ? type[k % 6] : take(in, 4));
	fake_put64(&t->m, at + 8, k & 64 ? take(in, 8) : take(in, 2));
}

static void put_segments(struct target *t, struct input *in)
{
	for (unsigned i = 0; i < 4; i++) {
		fake_put64(&t->m, t->data + 16 * i, take(in, 2));
		fake_put32(&t->m, t->data + 16 * i + 8, take(in, 2));
		fake_put32(&t->m, t->data + 16 * i + 12, take(in, 1));
	}
}

static void send(struct target *t, struct input *in, unsigned q)
{
	struct fake_buf b[RING];
	unsigned n = 0, k = take(in, 1);
	uint64_t hdr = t->hdr + 16 * (k & 3);

	put_header(t, in, hdr);
	b[n++] = (struct fake_buf){hdr, k & 128 ? take(in, 1) : 16, 0};
	for (unsigned i = 0; i < ((k >> 2) & 7) * (k & 64 ? 3 : 1); i++) {
		uint32_t how = take(in, 1);
		uint32_t len = how & 2 ? take(in, 2) : (how & 0xfc) * 128;

		b[n++] = (struct fake_buf){t->data + (how & 4 ? take(in, 2) : 0), len,
					   how & 1 ? FAKE_W : 0};
	}
	if (k & 32)
		b[n++] = (struct fake_buf){t->hdr + take(in, 1) % 64, 1, FAKE_W};
	fake_send(&t->r[q], b, n);
}

static void poke(struct target *t, struct input *in)
{
	uint64_t at = FAKE_BASE + take(in, 3) % (RAM - 4);

	fake_put32(&t->m, at, take(in, 4));
}

static void step(struct target *t, struct virtio *v, struct input *in)
{
	uint32_t op = take(in, 1), q = (op >> 4) & 1;

	switch (op % 10) {
	case 0:
	case 1:
	case 2:
		send(t, in, q);
		break;
	case 3:
		virtio_kick(v, q);
		break;
	case 4:
		turn(t->loop);
		break;
	case 5:
		poke(t, in);
		break;
	case 6:
		put_segments(t, in);
		break;
	case 7:
		virtio_config_write(v, take(in, 1), 1u << (op >> 5 & 3), take(in, 4));
		break;
	case 8:
		virtio_queue_reset(v, q);
		fake_ring_zero(&t->r[q]);
		fake_enable(v, q, &t->r[q]);
		break;
	default:
		drive(t, v, (uint8_t)take(in, 1));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct target *t = target();
	struct input in = {data, size};
	uint32_t how = take(&in, 1);
	struct virtio *v = blk_virtio(t->b[how & 1]);

	fake_bear(v, &t->bearer);
	memset(fake_at(&t->m, t->hdr), 0, RAM - (t->hdr - FAKE_BASE));
	drive(t, v, (uint8_t)(how >> 1));
	for (unsigned i = 0; in.left && i < 100; i++)
		step(t, v, &in);
	virtio_kick(v, 0);
	virtio_kick(v, 1);
	virtio_set_status(v, 0);
	turn(t->loop);
	return 0;
}
