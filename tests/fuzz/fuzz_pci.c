/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest at a virtio PCI function: configuration space through ECAM
 * and ports, BAR accesses wherever the BAR is, the PCI_CFG window, rings in
 * its own memory. What must hold is checked after each access: a BAR, of memory
 * or ports, decodes only inside its windows and never over another region, the host bridge
 * stays what it is, and ioeventfds come and go in pairs.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#include "tests/fuzz/fuzz.h"
#include "virtio/transport.h"
#include "vmm/layout.h"
#include "vmm/log.h"

#define RAM_BASE 0x10000ull
#define RAM_SIZE 0x10000ull
#define WIN64 0x200000000ull
#define WIN64_SIZE (1ull << 30)
#define CANARY 0xc8000000ull /* another device in the PCI window */
#define CANARY_PORT 0x2000u  /* and in that of ports */
#define QUEUES 3

/* Stands in front of libc's: KVM would refuse a second one at an address, and one that is not
 * there. */
static uint64_t ioeventfd[2][QUEUES]; /* of memory, of ports */

int ioctl(int fd, unsigned long req, ...)
{
	const struct kvm_ioeventfd *a;
	va_list ap;
	uint64_t *at = NULL, *all;
	bool on;

	(void)fd;
	va_start(ap, req);
	a = va_arg(ap, const struct kvm_ioeventfd *);
	va_end(ap);
	CHECK(req == KVM_IOEVENTFD);
	on = !(a->flags & KVM_IOEVENTFD_FLAG_DEASSIGN);
	all = ioeventfd[!!(a->flags & KVM_IOEVENTFD_FLAG_PIO)];
	for (unsigned i = 0; i < QUEUES; i++) {
		CHECK(!on || all[i] != a->addr);
		if (all[i] == (on ? 0 : a->addr))
			at = &all[i];
	}
	CHECK(at);
	*at = on ? a->addr : 0;
	return 0;
}

/* ----------------------------------------------------------------- device */

struct guest {
	uint8_t ram[RAM_SIZE] __attribute__((aligned(16)));
	struct bus *pio, *mmio;
	struct loop *loop;
	struct gmem *gm;
	struct pci_bus *pci;
	struct vm vm;
	struct virtio v;
	struct vpci *t;
};

static int dev_start(struct virtio *v)
{
	(void)v;
	return 0;
}

static void dev_stop(struct virtio *v)
{
	(void)v;
}

static int dev_queue_start(struct virtio *v, unsigned q)
{
	CHECK(v->running && q < QUEUES);
	return 0;
}

static void dev_queue_stop(struct virtio *v, unsigned q)
{
	CHECK(v->running && q < QUEUES);
}

#define ZEROS RAM_SIZE
static const uint8_t zeros[ZEROS];

static void dev_kick(struct virtio *v, unsigned q)
{
	struct vq_chain *c;

	CHECK(v->running && q < QUEUES);
	for (unsigned n = 0; n < 64 && vq_next(virtio_vq(v, q), &c) == VQ_CHAIN; n++) {
		while (c->writable)
			CHECK(!chain_push(c, zeros, c->writable < ZEROS ? c->writable : ZEROS));
		vq_return(c);
	}
	vq_notify(virtio_vq(v, q));
}

static void dev_config(struct virtio *v, unsigned off, unsigned size, uint64_t val)
{
	(void)val;
	CHECK(off < v->config_len && size <= v->config_len - off);
}

static const struct virtio_ops dev_ops = {
	.id = VIRTIO_ID_BLOCK,
	.start = dev_start,
	.stop = dev_stop,
	.queue_start = dev_queue_start,
	.queue_stop = dev_queue_stop,
	.kick = dev_kick,
	.config_write = dev_config,
};

static uint64_t canary_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev, (void)off, (void)size;
	return 0x5ca1ab1e;
}

static void canary_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)dev, (void)off, (void)size, (void)val;
}

static const struct bus_ops canary_ops = {canary_read, canary_write};

static void guest_new(struct guest *g)
{
	const struct bus_region canary = {CANARY, 0x1000, &canary_ops, NULL, NULL, "canary"};
	const struct bus_region port = {CANARY_PORT, 8, &canary_ops, NULL, NULL, "canary"};

	g->vm.fd = -1;
	g->v.config_len = 20;
	CHECK(!bus_new(&g->pio, NULL) && !bus_new(&g->mmio, NULL) && !gmem_new(&g->gm, NULL));
	CHECK(!loop_new(&g->loop, "fuzz", NULL));
	CHECK(!gmem_add_fixed(g->gm, gpa(RAM_BASE), RAM_SIZE, g->ram, NULL));
	CHECK(!bus_add(g->mmio, &canary, NULL) && !bus_add(g->pio, &port, NULL));
	const struct pci_bus_env bus = {
		.pio = g->pio,
		.mmio = g->mmio,
		.loop = g->loop,
		.window = {LAYOUT_PCI32_BASE, LAYOUT_PCI32_SIZE, WIN64, WIN64_SIZE,
			   LAYOUT_PCI_IO_BASE, LAYOUT_PCI_IO_SIZE},
	};
	CHECK(!pci_bus_new(&g->pci, &bus, NULL));
	CHECK(!virtio_init(&g->v, &dev_ops, "fuzz", g->gm, g->loop));
	for (unsigned i = 0; i < QUEUES; i++)
		CHECK(!virtio_add_queue(&g->v, 16));
	const struct vpci_env env = {.pci = g->pci, .vm = &g->vm};
	CHECK(!vpci_new(&g->t, &g->v, &env, NULL));
}

static void guest_free(struct guest *g)
{
	vpci_free(g->t);
	for (unsigned i = 0; i < QUEUES; i++)
		CHECK(!ioeventfd[0][i] && !ioeventfd[1][i]);
	virtio_fini(&g->v);
	pci_bus_free(g->pci);
	bus_free(g->pio);
	bus_free(g->mmio);
	gmem_free(g->gm);
	loop_free(g->loop);
}

/* ------------------------------------------------------------------ guest */

static void check_ports(struct guest *g)
{
	const struct pci_bar *b = &vpci_func(g->t)->bar[2];
	bool in = b->addr >= LAYOUT_PCI_IO_BASE &&
		  b->addr + b->size <= LAYOUT_PCI_IO_BASE + LAYOUT_PCI_IO_SIZE;

	CHECK(!b->mapped || (in && b->addr % b->size == 0));
	CHECK(bus_read(g->pio, CANARY_PORT, 4) == 0x5ca1ab1e);
	for (unsigned i = 0; i < QUEUES; i++)
		CHECK(!ioeventfd[1][i] || (b->mapped && ioeventfd[1][i] - b->addr < b->size));
}

static void check(struct guest *g)
{
	const struct pci_bar *b = &vpci_func(g->t)->bar[0];
	bool in32 = b->addr >= LAYOUT_PCI32_BASE &&
		    b->addr + b->size <= LAYOUT_PCI32_BASE + LAYOUT_PCI32_SIZE;
	bool in64 = b->addr >= WIN64 && b->addr + b->size <= WIN64 + WIN64_SIZE;

	CHECK(!b->mapped || in32 || in64);
	CHECK(!b->mapped || b->addr % b->size == 0);
	CHECK(bus_read(g->mmio, CANARY, 4) == 0x5ca1ab1e);
	CHECK((uint32_t)bus_read(g->mmio, LAYOUT_ECAM_BASE, 4) == 0x0d578086);
	CHECK((uint32_t)bus_read(g->mmio, LAYOUT_ECAM_BASE + 0x8000, 4) == 0x10421af4);
	for (unsigned i = 0; i < QUEUES; i++) {
		CHECK(g->v.queue[i].size <= 16);
		CHECK(!ioeventfd[0][i] || (b->mapped && ioeventfd[0][i] - b->addr < b->size));
	}
	check_ports(g);
}

static void access_at(struct bus *b, struct input *in, uint64_t addr)
{
	uint8_t how = (uint8_t)take(in, 1);
	unsigned size = 1u << (how & 3);

	if (how & 4)
		bus_write(b, addr, size, take(in, size));
	else
		bus_read(b, addr, size);
}

/* The PCI_CFG window, laid at any offset of any BAR, then read or written. */
static void through_window(struct guest *g, struct input *in)
{
	struct pci_func *f = vpci_func(g->t);
	unsigned at = 0x34;

	while (f->cfg[at] && !(f->cfg[f->cfg[at]] == 0x09 && f->cfg[f->cfg[at] + 3] == 5))
		at = f->cfg[at] + 1u;
	at = LAYOUT_ECAM_BASE + 0x8000 + f->cfg[at];
	bus_write(g->mmio, at + 4, 1, take(in, 1) & 7);
	bus_write(g->mmio, at + 8, 4, take(in, 2));
	bus_write(g->mmio, at + 12, 4, 1u << (take(in, 1) & 3));
	access_at(g->mmio, in, at + 16);
}

/* Writes to the ports and around them, or lays them around the other device's. */
static void at_ports(struct guest *g, struct input *in)
{
	const struct pci_bar *b = &vpci_func(g->t)->bar[2];
	uint64_t near = take(in, 1) & 0x3f;

	if (near & 0x20)
		bus_write(g->mmio, LAYOUT_ECAM_BASE + 0x8018, 4,
			  CANARY_PORT - 32 + 2 * (near & 0x1f));
	else
		access_at(g->pio, in, (b->mapped ? b->addr : b->home) + near);
}

static void device_side(struct guest *g, struct input *in)
{
	switch (take(in, 1) & 3) {
	case 0:
		virtio_config_changed(&g->v);
		break;
	case 1:
		virtio_needs_reset(&g->v);
		break;
	default:
		g->v.bearer.queue_interrupt(g->v.bearer.t, (unsigned)take(in, 1) % QUEUES);
	}
}

static void step(struct guest *g, struct input *in)
{
	const struct pci_bar *b = &vpci_func(g->t)->bar[0];
	uint64_t at;

	switch (take(in, 1) % 9) {
	case 0:
		access_at(g->pio, in, LAYOUT_PORT_PCI + (take(in, 1) & 7));
		break;
	case 1:
		access_at(g->mmio, in, LAYOUT_ECAM_BASE + (take(in, 3) & (LAYOUT_ECAM_SIZE - 1)));
		break;
	case 2:
		access_at(g->mmio, in, LAYOUT_ECAM_BASE + 0x8000 + take(in, 1));
		break;
	case 3:
		at = take(in, 2);
		g->ram[take(in, 1) & 1 ? at & 0xfff : at] = (uint8_t)take(in, 1);
		break;
	case 4:
		through_window(g, in);
		break;
	case 5:
		device_side(g, in);
		break;
	case 6: /* common configuration */
		access_at(g->mmio, in, (b->mapped ? b->addr : b->home) + (take(in, 1) & 0x3f));
		break;
	case 7:
		at_ports(g, in);
		break;
	default:
		access_at(g->mmio, in, (b->mapped ? b->addr : b->home) + (take(in, 2) & 0x7fff));
	}
}

/* As far as an honest driver gets before it turns, one bit a stage. */
static void driver(struct guest *g, unsigned stages)
{
	if (stages & 1)
		bus_write(g->mmio, LAYOUT_ECAM_BASE + 0x8004, 2, 3);
	if (!(stages & 2))
		return;
	virtio_set_features(&g->v, 1, (uint32_t)(g->v.offered >> 32));
	virtio_set_status(&g->v, 11);
	if (!(stages & 4))
		return;
	for (unsigned i = 0; i < QUEUES; i++) {
		struct virtio_queue *q = &g->v.queue[i];

		q->desc = RAM_BASE + 0x400 * i;
		q->avail = q->desc + 0x100;
		q->used = q->desc + 0x200;
	}
	if (stages & 8) {
		virtio_queue_enable(&g->v, 0);
		virtio_queue_enable(&g->v, 1);
		virtio_set_status(&g->v, 15);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct guest *g = calloc(1, sizeof(*g));

	if (!g)
		return 0;
	log_set_level(LOG_ERROR);
	guest_new(g);
	driver(g, (unsigned)take(&in, 1));
	while (in.left) {
		step(g, &in);
		check(g);
	}
	guest_free(g);
	free(g);
	return 0;
}
