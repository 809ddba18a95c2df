/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring that another process served and left, with anything in it: what vq_adopt makes of it
 * is given once, as chains that hold, and the queue ends empty or broken.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake_driver.h"
#include "virtio/vq.h"
#include "vmm/log.h"

#define RAM 16384

static unsigned broken;

static void on_interrupt(void *arg, unsigned index)
{
	(void)arg, (void)index;
}

static void on_broken(void *arg, unsigned index)
{
	(void)arg, (void)index;
	broken++;
}

/* Heads that are in range but for now and then, and indices that are not too far apart. */
static void fill(struct fake_ring *r, struct input *in)
{
	uint16_t used = (uint16_t)(fake_get16(r->m, r->used + 2) + take(in, 1) % (r->size + 2u));
	uint32_t how = (uint32_t)take(in, 1), mask = how & 1 ? r->size - 1u : 0xffff;

	fake_put16(r->m, r->used + 2, used);
	fake_put16(r->m, r->avail + 2, (uint16_t)(used + (how >> 1) % (r->size + 2u)));
	for (unsigned i = 0; i < r->size; i++) {
		fake_put16(r->m, r->avail + 4 + 2 * i, (uint16_t)(take(in, 1) & mask));
		fake_put32(r->m, r->used + 4 + 8 * i, (uint32_t)(take(in, 1) & mask));
	}
	for (uint16_t i = 0; i < r->size; i++)
		fake_desc(r, i, (struct fake_buf){FAKE_BASE + (uint16_t)take(in, 2), 16, FAKE_W},
			  0);
}

static void drain(struct vq *q, struct fake_ring *r, unsigned found)
{
	uint16_t before = fake_get16(r->m, r->used + 2);
	struct vq_chain *c;
	unsigned n = 0;
	enum vq_take t;

	while ((t = vq_next(q, &c)) == VQ_CHAIN) {
		CHECK(c->head < r->size);
		vq_return(c);
		n++;
	}
	CHECK(n <= found && (t == VQ_BROKEN || n == found));
	CHECK((t == VQ_BROKEN) == (broken == 1));
	CHECK(fake_get16(r->m, r->used + 2) == (uint16_t)(before + n));
	vq_notify(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vq_owner o = {on_interrupt, on_broken, NULL, "fuzz"};
	struct input in = {data, size};
	struct vq_adopted a;
	struct fake_ring r;
	struct fake_ram m;
	struct vq_setup s;
	struct vq *q;

	broken = 0;
	log_set_level(-1);
	fake_ram_init(&m, RAM);
	fake_ring_init(&r, &m, (uint16_t)(1u << take(&in, 1) % 7));
	fill(&r, &in);
	s = fake_setup(&r, true, true);
	CHECK(!vq_new(&q, m.gm, 0, 64, &o) && !vq_start(q, &s));
	for (unsigned n = take(&in, 1) % 8; n; n--) {
		vq_follow(q);
		fill(&r, &in);
	}
	CHECK(!vq_adopt(q, &a));
	CHECK(a.found <= r.size && a.hidden <= r.size - a.found);
	drain(q, &r, a.found);
	vq_free(q);
	fake_ram_fini(&m);
	return 0;
}
