/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings in hostile memory. The input is a program: bytes written anywhere into
 * the guest's memory, descriptors and indices as a driver writes them, and what
 * a device does with the chains it gets. After every step what vq.h promises is
 * checked against a shadow kept here.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake_driver.h"
#include "virtio/vq.h"
#include "vmm/log.h"

#define RAM 32768
#define RAM2 4096
#define BASE2 (FAKE_BASE + RAM) /* adjacent, and yet another region */
#define SIZE_MAX_HERE 16

struct world {
	struct fake_ram m;
	uint8_t *ram2;
	struct fake_ring r;
	struct vq *q;
	uint16_t size; /* of the live queue */
	unsigned broken, interrupts;
	struct vq_chain *out[SIZE_MAX_HERE * 4]; /* chains of this life and orphans */
	unsigned nout, orphans;
	uint16_t returned; /* in this life */
};

static void on_interrupt(void *arg, unsigned index)
{
	CHECK(index == 1);
	((struct world *)arg)->interrupts++;
}

static void on_broken(void *arg, unsigned index)
{
	CHECK(index == 1);
	((struct world *)arg)->broken++;
}

static bool in_ram(const struct world *w, const struct iovec *v)
{
	const uint8_t *p = v->iov_base;

	return (p >= w->m.host && p + v->iov_len <= w->m.host + RAM) ||
	       (p >= w->ram2 && p + v->iov_len <= w->ram2 + RAM2);
}

/* A fresh chain: its head is new, and each byte of both parts is RAM. Works on a copy of the
 * cursors. */
static void check_chain(const struct world *w, const struct vq_chain *c)
{
	struct vq_chain copy = *c;
	struct iovec iov[VQ_SIZE_MAX];
	uint64_t sum = 0;
	int n;

	CHECK(c->head < w->size && c->nseg <= w->size && c->nread <= c->nseg);
	CHECK((uint64_t)c->readable + c->writable <= UINT32_MAX);
	for (unsigned i = 0; i < w->nout; i++)
		CHECK(w->out[i]->orphan || w->out[i]->head != c->head);
	n = chain_pull_iov(&copy, copy.readable, iov, VQ_SIZE_MAX);
	CHECK(n == c->nread);
	for (int i = 0; i < n; i++) {
		CHECK(in_ram(w, &iov[i]) && iov[i].iov_len);
		sum += iov[i].iov_len;
	}
	CHECK(sum == c->readable && copy.readable == 0);
	n = chain_push_iov(&copy, copy.writable, iov, VQ_SIZE_MAX);
	CHECK(n == c->nseg - c->nread);
	for (int i = 0; i < n; i++) {
		CHECK(in_ram(w, &iov[i]) && iov[i].iov_len);
		sum += iov[i].iov_len;
	}
	CHECK(sum == (uint64_t)c->readable + c->writable && copy.used == c->writable);
}

/* ------------------------------------------------------------- the driver's steps */

static void poke(struct world *w, struct input *in)
{
	uint16_t off = (uint16_t)(take(in, 2) % RAM);
	unsigned n = 1 + take(in, 1) % 16;

	for (unsigned i = 0; i < n && off + i < RAM; i++)
		w->m.host[off + i] = (uint8_t)take(in, 1);
}

static uint64_t pick_address(struct input *in)
{
	uint64_t v = take(in, 2);

	switch (take(in, 1) % 8) {
	case 0:
		return take(in, 8);
	case 1:
		return BASE2 - 16 + v % 32;
	default:
		return FAKE_BASE + v;
	}
}

static void driver_desc(struct world *w, struct input *in)
{
	uint16_t i = (uint16_t)(take(in, 1) % w->r.size);
	struct fake_buf b = {.at = pick_address(in), .flags = (uint16_t)(take(in, 1) % 8)};

	b.len = (uint32_t)(take(in, 1) % 4 ? take(in, 1) * 16 : take(in, 4));
	fake_desc(&w->r, i, b, (uint16_t)(take(in, 1) % (w->r.size + 1u)));
}

static void driver_table(struct world *w, struct input *in)
{
	uint64_t table = FAKE_BASE + 16384 + take(in, 1);
	struct fake_buf b[8];
	unsigned n = 1 + take(in, 1) % 8;

	for (unsigned i = 0; i < n; i++)
		b[i] = (struct fake_buf){pick_address(in), (uint32_t)take(in, 1),
					 (uint16_t)(i > n / 2 ? FAKE_W : 0)};
	fake_avail(&w->r, fake_indirect(&w->r, table, b, n));
}

static void driver_avail(struct world *w, struct input *in)
{
	fake_avail(&w->r, (uint16_t)(take(in, 1) % (w->r.size + 1u)));
}

/* ------------------------------------------------------------- the device's steps */

static void device_next(struct world *w)
{
	struct vq_chain *c = NULL;
	bool live = vq_live(w->q);

	if (w->nout == sizeof(w->out) / sizeof(w->out[0]))
		return;
	switch (vq_next(w->q, &c)) {
	case VQ_CHAIN:
		CHECK(live && !w->broken);
		check_chain(w, c);
		w->out[w->nout++] = c;
		CHECK(w->nout - w->orphans <= w->size);
		break;
	case VQ_EMPTY:
		CHECK(!w->broken && !c);
		break;
	case VQ_BROKEN:
		CHECK(live && w->broken == 1 && !c);
		break;
	}
}

static void device_move(struct world *w, struct input *in)
{
	static uint8_t buf[70000];
	struct iovec iov[8];
	struct vq_chain *c;
	uint32_t len, was;
	int r = 0;

	if (!w->nout)
		return;
	c = w->out[take(in, 1) % w->nout];
	len = (uint32_t)take(in, 2);
	was = c->readable + c->writable;
	switch (take(in, 1) % 6) {
	case 0:
		r = chain_pull(c, buf, len);
		break;
	case 1:
		r = chain_push(c, buf, len);
		break;
	case 2:
		r = chain_push_gap(c, len);
		break;
	case 3:
		r = chain_pull_iov(c, len, iov, 8);
		break;
	case 4:
		r = chain_push_iov(c, len, iov, 8);
		break;
	case 5:
		chain_unwritten(c);
		len = 0;
		break;
	}
	CHECK(c->readable + c->writable == (r < 0 ? was : was - len));
	CHECK(r >= 0 || c->orphan || len);
	CHECK(!c->orphan || r < 0 || !len);
}

static void device_return(struct world *w, struct input *in)
{
	unsigned i;
	struct vq_chain *c;
	bool orphan, counts;
	uint16_t head;
	uint32_t used;
	uint64_t elem = w->r.used + 4 + 8ull * (w->size ? w->returned % w->size : 0);

	if (!w->nout)
		return;
	i = (unsigned)(take(in, 1) % w->nout);
	c = w->out[i];
	w->out[i] = w->out[--w->nout];
	orphan = c->orphan;
	counts = !orphan && !w->broken;
	head = c->head;
	used = c->used;
	vq_return(c);
	if (orphan)
		w->orphans--;
	if (!counts)
		return;
	CHECK(fake_get32(&w->m, elem) == head);
	CHECK(fake_get32(&w->m, elem + 4) == used);
	w->returned++;
	CHECK(fake_get16(&w->m, w->r.used + 2) == w->returned);
}

static void reset(struct world *w)
{
	vq_reset(w->q);
	for (unsigned i = 0; i < w->nout; i++)
		CHECK(w->out[i]->orphan);
	w->orphans = w->nout;
	w->broken = 0;
	w->returned = 0;
	w->size = 0;
	CHECK(!vq_live(w->q));
}

static struct vq_setup pick_setup(struct world *w, struct input *in, uint8_t how)
{
	struct vq_setup s;

	if (how & 4)
		fake_ring_zero(&w->r);
	s = fake_setup(&w->r, how & 1, how & 2);
	if (how & 8)
		s.size = (uint16_t)take(in, 1);
	if (how & 16)
		s.desc.v = take(in, 8);
	if (how & 32)
		s.avail.v = pick_address(in);
	if (how & 64 && (how & 128))
		s.used.v = pick_address(in);
	return s;
}

/* The shadow follows rings of the usual layout only; the others just must not crash. */
static void run_unchecked(struct world *w)
{
	struct vq_chain *c;

	for (unsigned i = 0; i < 8 && vq_next(w->q, &c) == VQ_CHAIN; i++)
		vq_return(c);
	vq_notify(w->q);
	vq_kicks_off(w->q);
	vq_kicks_on(w->q);
	vq_reset(w->q);
	w->broken = 0;
}

static void restart(struct world *w, struct input *in)
{
	uint8_t how = (uint8_t)take(in, 1);
	struct vq_setup s;

	reset(w);
	s = pick_setup(w, in, how);
	if (vq_start(w->q, &s))
		return;
	CHECK(s.size && s.size <= SIZE_MAX_HERE && !(s.size & (s.size - 1)));
	if (s.size == w->r.size && s.desc.v == w->r.desc && s.avail.v == w->r.avail &&
	    s.used.v == w->r.used)
		w->size = s.size;
	else
		run_unchecked(w);
}

static void notify_twice(struct world *w)
{
	unsigned before = w->interrupts;

	vq_notify(w->q);
	CHECK(w->interrupts - before <= 1);
	vq_notify(w->q);
	CHECK(w->interrupts - before <= 1);
}

/* ------------------------------------------------------------- all of them */

static void driver_step(struct world *w, struct input *in, unsigned what)
{
	switch (what) {
	case 0:
	case 1:
		poke(w, in);
		break;
	case 2:
	case 3:
		driver_desc(w, in);
		break;
	case 4:
		driver_table(w, in);
		break;
	case 5:
	case 6:
		driver_avail(w, in);
		break;
	}
}

static void device_step(struct world *w, struct input *in, unsigned what)
{
	switch (what) {
	case 7:
	case 8:
		device_next(w);
		break;
	case 9:
	case 10:
		device_move(w, in);
		break;
	case 11:
	case 12:
		device_return(w, in);
		break;
	case 13:
		notify_twice(w);
		break;
	case 14:
		vq_kicks_off(w->q);
		vq_kicks_on(w->q);
		break;
	case 15:
		restart(w, in);
		break;
	}
}

static void step(struct world *w, struct input *in)
{
	unsigned what = (unsigned)take(in, 1) % 16;

	if (what < 7)
		driver_step(w, in, what);
	else
		device_step(w, in, what);
	CHECK(w->broken <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct world w = {0};
	struct vq_owner o = {on_interrupt, on_broken, &w, "fuzz"};
	struct vq_setup s;

	log_set_level(LOG_ERROR);
	fake_ram_init(&w.m, RAM);
	w.ram2 = calloc(1, RAM2);
	CHECK(w.ram2 && !gmem_add_fixed(w.m.gm, gpa(BASE2), RAM2, w.ram2, NULL));
	fake_ring_init(&w.r, &w.m, (uint16_t)(1u << take(&in, 1) % 5));
	CHECK(!vq_new(&w.q, w.m.gm, 1, SIZE_MAX_HERE, &o));
	s = fake_setup(&w.r, size & 1, true);
	CHECK(!vq_start(w.q, &s));
	w.size = w.r.size;
	while (in.left)
		step(&w, &in);
	vq_free(w.q);
	while (w.nout)
		vq_return(w.out[--w.nout]);
	free(w.ram2);
	fake_ram_fini(&w.m);
	return 0;
}
