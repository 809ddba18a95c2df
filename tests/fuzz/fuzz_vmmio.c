/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver behind the MMIO transport: any register access in any order,
 * any bytes in memory, resets at any moment, and a device that completes its
 * chains late, also after the reset that orphaned them.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/devices.h"
#include "virtio/transport.h"
#include "vmm/log.h"

#define MMIO 0xf0000000ull
#define RAM 32768
#define HELD 16

struct world {
	struct virtio v;
	struct fake_ram m;
	struct fake_ring r[2];
	struct bus *bus;
	struct loop *loop;
	struct vmmio *t, *t_rng;
	struct rng *rng;
	struct vq_chain *held[HELD];
	unsigned nheld;
	bool started;
	bool up[2]; /* queues between queue_start and queue_stop */
};

static struct world *of(struct virtio *v)
{
	return (struct world *)((char *)v - offsetof(struct world, v));
}

static void give(struct world *w, unsigned i)
{
	struct vq_chain *c = w->held[i];

	w->held[i] = w->held[--w->nheld];
	chain_push(c, "used", c->writable < 4 ? c->writable : 4);
	vq_return(c);
}

/* ------------------------------------------------------------- the device */

static int dev_start(struct virtio *v)
{
	struct world *w = of(v);

	CHECK(!w->started);
	CHECK(v->status & VIRTIO_S_DRIVER_OK && v->status & VIRTIO_S_FEATURES_OK);
	CHECK(virtio_has(v, VIRTIO_F_VERSION_1) && !(v->acked & ~v->offered));
	w->started = true;
	for (unsigned q = 0; q < 2; q++)
		w->up[q] = vq_live(virtio_vq(v, q));
	return 0;
}

static void dev_stop(struct virtio *v)
{
	CHECK(of(v)->started);
	of(v)->started = of(v)->up[0] = of(v)->up[1] = false;
}

static int dev_queue_start(struct virtio *v, unsigned q)
{
	CHECK(of(v)->started && !of(v)->up[q] && vq_live(virtio_vq(v, q)));
	of(v)->up[q] = true;
	return 0;
}

static void dev_queue_stop(struct virtio *v, unsigned q)
{
	CHECK(of(v)->started && of(v)->up[q]);
	of(v)->up[q] = false;
}

/* Keeps chains until it is full; what does not fit goes back at once. */
static void dev_kick(struct virtio *v, unsigned q)
{
	struct world *w = of(v);
	struct vq_chain *c;
	unsigned n = 0;

	CHECK(w->started && w->up[q]);
	vq_kicks_off(virtio_vq(v, q));
	while (n++ < 64 && vq_next(virtio_vq(v, q), &c) == VQ_CHAIN) {
		if (w->nheld == HELD)
			give(w, 0);
		w->held[w->nheld++] = c;
	}
	vq_kicks_on(virtio_vq(v, q));
	vq_notify(virtio_vq(v, q));
}

static void dev_config_write(struct virtio *v, unsigned off, unsigned size, uint64_t val)
{
	for (unsigned i = 0; i < size; i++)
		v->config[off + i] = (uint8_t)(val >> (8 * i));
	virtio_config_changed(v);
}

static const struct virtio_ops ops = {
	.id = 42,
	.start = dev_start,
	.stop = dev_stop,
	.queue_start = dev_queue_start,
	.queue_stop = dev_queue_stop,
	.kick = dev_kick,
	.config_write = dev_config_write,
};

/* ------------------------------------------------------------- the driver's steps */

static void reg_write(struct world *w, struct input *in, uint64_t base)
{
	static const uint16_t regs[] = {0x014, 0x020, 0x024, 0x030, 0x038, 0x044, 0x050, 0x064,
					0x070, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4, 0x0c0};
	uint16_t reg = regs[take(in, 1) % 16];

	bus_write(w->bus, base + reg, 4, take(in, 1) % 4 ? take(in, 1) : take(in, 4));
}

static void any_access(struct world *w, struct input *in, uint64_t base)
{
	uint64_t off = take(in, 2) % 0x1000;
	unsigned size = 1u << take(in, 1) % 4;

	bus_write(w->bus, base + off, size, take(in, 4));
	bus_read(w->bus, base + off, size);
}

/* What a driver that knows its way does, so that the fuzzer need not find it out. */
static void bring_up(struct world *w, struct input *in, uint64_t base)
{
	uint8_t how = (uint8_t)take(in, 1);

	bus_write(w->bus, base + 0x070, 4, 0);
	bus_write(w->bus, base + 0x070, 4, 3);
	for (unsigned half = 0; half < 2; half++) {
		bus_write(w->bus, base + 0x014, 4, half);
		bus_write(w->bus, base + 0x024, 4, half);
		bus_write(w->bus, base + 0x020, 4, bus_read(w->bus, base + 0x010, 4));
	}
	if (how & 1)
		bus_write(w->bus, base + 0x020, 4, take(in, 4));
	bus_write(w->bus, base + 0x070, 4, 11);
	for (unsigned q = 0; q < 2; q++) {
		if (how & 2)
			fake_ring_zero(&w->r[q]);
		bus_write(w->bus, base + 0x030, 4, q);
		bus_write(w->bus, base + 0x038, 4, w->r[q].size);
		bus_write(w->bus, base + 0x080, 4, w->r[q].desc);
		bus_write(w->bus, base + 0x090, 4, w->r[q].avail);
		bus_write(w->bus, base + 0x0a0, 4, w->r[q].used);
		bus_write(w->bus, base + 0x044, 4, 1);
	}
	if (!(how & 4))
		bus_write(w->bus, base + 0x070, 4, 15);
}

static void send(struct world *w, struct input *in)
{
	struct fake_ring *r = &w->r[take(in, 1) % 2];
	struct fake_buf b[3];
	unsigned n = 1 + take(in, 1) % 3;

	for (unsigned i = 0; i < n; i++) {
		b[i].at = FAKE_BASE + take(in, 2);
		b[i].len = (uint32_t)take(in, 1);
		b[i].flags = (uint16_t)(take(in, 1) % 8);
	}
	fake_send(r, b, n);
}

static void poke(struct world *w, struct input *in)
{
	uint16_t off = (uint16_t)(take(in, 2) % 1024);
	unsigned n = 1 + take(in, 1) % 8;

	for (unsigned i = 0; i < n; i++)
		w->m.host[off + i] = (uint8_t)take(in, 1);
}

static void check(struct world *w, uint64_t base, struct virtio *v)
{
	CHECK(!v->running || (v->status & (VIRTIO_S_DRIVER_OK | VIRTIO_S_FEATURES_OK)) ==
				     (VIRTIO_S_DRIVER_OK | VIRTIO_S_FEATURES_OK));
	CHECK(!(v->status & VIRTIO_S_FEATURES_OK) || !(v->acked & ~v->offered));
	CHECK(bus_read(w->bus, base + 0x070, 4) == v->status);
	CHECK(bus_read(w->bus, base, 4) == 0x74726976);
	for (unsigned q = 0; q < v->nqueues; q++)
		CHECK(v->queue[q].size <= vq_max_size(v->queue[q].vq));
	if (v == &w->v) {
		CHECK(v->running == w->started);
		for (unsigned q = 0; q < v->nqueues; q++)
			CHECK(!v->running || vq_live(virtio_vq(v, q)) == w->up[q]);
	}
}

static void step(struct world *w, struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1);
	uint64_t base = op & 0x80 ? MMIO + 0x1000 : MMIO;

	switch (op % 8) {
	case 0:
	case 1:
		reg_write(w, in, base);
		break;
	case 2:
		any_access(w, in, base);
		break;
	case 3:
		bring_up(w, in, base);
		break;
	case 4:
		send(w, in);
		break;
	case 5:
		poke(w, in);
		break;
	case 6:
		if (w->nheld)
			give(w, (unsigned)(take(in, 1) % w->nheld));
		vq_notify(virtio_vq(&w->v, 0));
		break;
	case 7:
		turn(w->loop);
		break;
	}
	check(w, MMIO, &w->v);
	check(w, MMIO + 0x1000, rng_virtio(w->rng));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct world w = {0};
	struct irq *irq, *irq_rng;

	log_set_level(LOG_ERROR);
	fake_ram_init(&w.m, RAM);
	fake_ring_init(&w.r[0], &w.m, 8);
	fake_ring_init(&w.r[1], &w.m, 4);
	CHECK(!loop_new(&w.loop, "fuzz", NULL) && !bus_new(&w.bus, NULL));
	w.v.config_len = 20;
	CHECK(!virtio_init(&w.v, &ops, "fuzz", w.m.gm, w.loop));
	CHECK(!virtio_add_queue(&w.v, 8) && !virtio_add_queue(&w.v, 16));
	CHECK(!rng_new(&w.rng, w.m.gm, w.loop, NULL));
	CHECK(!irq_fake_new(&irq, NULL) && !irq_fake_new(&irq_rng, NULL));
	struct vmmio_env env = {.bus = w.bus, .base = MMIO, .irq = irq};
	struct vmmio_env env_rng = {.bus = w.bus, .base = MMIO + 0x1000, .irq = irq_rng};
	CHECK(!vmmio_new(&w.t, &w.v, &env, NULL));
	CHECK(!vmmio_new(&w.t_rng, rng_virtio(w.rng), &env_rng, NULL));
	while (in.left)
		step(&w, &in);
	vmmio_free(w.t_rng);
	rng_free(w.rng);
	vmmio_free(w.t);
	virtio_fini(&w.v);
	CHECK(!w.started);
	while (w.nheld)
		give(&w, 0);
	bus_free(w.bus);
	loop_free(w.loop);
	fake_ram_fini(&w.m);
	return 0;
}
