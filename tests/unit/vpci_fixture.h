/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A toy device behind the PCI transport, KVM's ioeventfds as the transport asks
 * for them, and a driver's accesses: what the tests of vpci.c share.
 */
#ifndef TESTS_UNIT_VPCI_FIXTURE_H
#define TESTS_UNIT_VPCI_FIXTURE_H

#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "virtio/transport.h"
#include "vmm/layout.h"

#define BAR 0xc0000000ull /* where pci_add puts the first one */
#define PORTS LAYOUT_PCI_IO_BASE
#define WIN64 0x200000000ull
#define NO_VECTOR 0xffff

/* The pages of BAR 0 as the capabilities say; vpci_capabilities_describe_the_bar holds them to it.
 */
#define ISR 0x1000
#define DEVICE 0x2000
#define NOTIFY 0x3000
#define TABLE 0x4000
#define PBA 0x5000
#define BAR_SIZE 0x8000

/* KVM's ioeventfds: this program's ioctl() stands in front of libc's. */
static struct {
	unsigned n, added, removed;
	bool fail;
	struct kvm_ioeventfd on[128];
} kvm;

static inline int kvm_ioeventfd(const struct kvm_ioeventfd *a)
{
	if (kvm.fail) {
		errno = ENOSPC;
		return -1;
	}
	if (!(a->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)) {
		kvm.on[kvm.n++] = *a;
		kvm.added++;
		return 0;
	}
	for (unsigned i = 0; i < kvm.n; i++)
		if (kvm.on[i].addr == a->addr && kvm.on[i].fd == a->fd &&
		    kvm.on[i].flags == (a->flags & ~KVM_IOEVENTFD_FLAG_DEASSIGN)) {
			kvm.on[i] = kvm.on[--kvm.n];
			kvm.removed++;
			return 0;
		}
	errno = ENOENT;
	return -1;
}

int ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	int r = 0;

	(void)fd;
	va_start(ap, req);
	if (req == KVM_IOEVENTFD)
		r = kvm_ioeventfd(va_arg(ap, const struct kvm_ioeventfd *));
	va_end(ap);
	return r;
}

/* How many of them are ports, or are not. */
static inline unsigned kvm_count(bool pio)
{
	unsigned n = 0;

	for (unsigned i = 0; i < kvm.n; i++)
		n += !!(kvm.on[i].flags & KVM_IOEVENTFD_FLAG_PIO) == pio;
	return n;
}

struct fixture {
	struct bus *pio, *mmio;
	struct loop *loop;
	struct pci_bus *pci;
	struct vm vm;
	struct vpci *t;
	struct fake_ram ram;
	struct fake_ring ring[2];
	struct virtio v; /* the device */
	unsigned starts, stops, kicks[VIRTIO_QUEUES_MAX], queue_starts, queue_stops;
	unsigned cfg_off, cfg_size;
	uint64_t cfg_val;
	int start_ret;
};

static inline struct fixture *self(struct virtio *v)
{
	return (struct fixture *)((char *)v - offsetof(struct fixture, v));
}

static inline int toy_start(struct virtio *v)
{
	self(v)->starts++;
	return self(v)->start_ret;
}

static inline void toy_stop(struct virtio *v)
{
	self(v)->stops++;
}

static inline int toy_queue_start(struct virtio *v, unsigned q)
{
	(void)q;
	self(v)->queue_starts++;
	return 0;
}

static inline void toy_queue_stop(struct virtio *v, unsigned q)
{
	(void)q;
	self(v)->queue_stops++;
}

static inline void toy_kick(struct virtio *v, unsigned q)
{
	self(v)->kicks[q]++;
}

static inline void toy_config(struct virtio *v, unsigned off, unsigned size, uint64_t val)
{
	self(v)->cfg_off = off;
	self(v)->cfg_size = size;
	self(v)->cfg_val = val;
}

static const struct virtio_ops toy_ops = {
	.id = VIRTIO_ID_BLOCK,
	.start = toy_start,
	.stop = toy_stop,
	.queue_start = toy_queue_start,
	.queue_stop = toy_queue_stop,
	.kick = toy_kick,
	.config_write = toy_config,
};

static inline int plug(struct fixture *x)
{
	const struct vpci_env env = {.pci = x->pci, .vm = &x->vm};

	return vpci_new(&x->t, &x->v, &env, NULL);
}

static inline int pci_bus(struct fixture *x, struct bus *pio)
{
	const struct pci_bus_env bus = {
		.pio = pio,
		.mmio = x->mmio,
		.loop = x->loop,
		.window = {LAYOUT_PCI32_BASE, LAYOUT_PCI32_SIZE, WIN64, 1 << 30, LAYOUT_PCI_IO_BASE,
			   LAYOUT_PCI_IO_SIZE},
	};

	return pci_bus_new(&x->pci, &bus, NULL);
}

static inline int setup_queues(void **state, unsigned queues, unsigned config_len)
{
	static struct fixture x;

	memset(&x, 0, sizeof(x));
	memset(&kvm, 0, sizeof(kvm));
	*state = &x;
	fake_ram_init(&x.ram, FAKE_RAM);
	x.vm.fd = -1;
	x.v.config_len = config_len;
	for (unsigned i = 0; i < config_len; i++)
		x.v.config[i] = (uint8_t)(0x10 + i);
	x.v.offered = 5;
	if (bus_new(&x.pio, NULL) || bus_new(&x.mmio, NULL) || loop_new(&x.loop, "test", NULL) ||
	    virtio_init(&x.v, &toy_ops, "toy", x.ram.gm, x.loop))
		return -1;
	if (pci_bus(&x, x.pio))
		return -1;
	for (unsigned i = 0; i < queues; i++)
		if (virtio_add_queue(&x.v, 64))
			return -1;
	for (unsigned i = 0; i < 2; i++)
		fake_ring_init(&x.ring[i], &x.ram, 8);
	return plug(&x);
}

static inline int setup(void **state)
{
	return setup_queues(state, 3, 10);
}

static inline int teardown(void **state)
{
	struct fixture *x = *state;

	vpci_free(x->t);
	virtio_fini(&x->v);
	pci_bus_free(x->pci);
	bus_free(x->pio);
	bus_free(x->mmio);
	loop_free(x->loop);
	fake_ram_fini(&x->ram);
	return kvm.n != 0; /* none may be left behind */
}

/* -------------------------------------------------------- a driver's accesses */

static inline uint64_t cfg_rd(struct fixture *x, unsigned off, unsigned size)
{
	return bus_read(x->mmio, LAYOUT_ECAM_BASE + 0x8000 + off, size) &
	       (~0ull >> (64 - 8 * size));
}

static inline void cfg_wr(struct fixture *x, unsigned off, unsigned size, uint64_t v)
{
	bus_write(x->mmio, LAYOUT_ECAM_BASE + 0x8000 + off, size, v);
}

static inline uint64_t rd(struct fixture *x, unsigned off, unsigned size)
{
	return bus_read(x->mmio, BAR + off, size);
}

static inline void wr(struct fixture *x, unsigned off, unsigned size, uint64_t v)
{
	bus_write(x->mmio, BAR + off, size, v);
}

static inline void out(struct fixture *x, unsigned port, unsigned size, uint32_t v)
{
	bus_write(x->pio, port, size, v);
}

/* Kicks in memory count from here on, with ioeventfds; this one is for no queue. */
static inline void use_memory(struct fixture *x)
{
	wr(x, NOTIFY + 0xffc, 2, 0);
}

static inline void enable_memory(struct fixture *x)
{
	cfg_wr(x, 4, 2, 6);
}

static inline void enable_all(struct fixture *x)
{
	cfg_wr(x, 4, 2, 7);
}

/* Behind the one at @from; 0: the first. */
static inline unsigned find_cap_after(struct fixture *x, unsigned from, uint8_t id, uint8_t type)
{
	unsigned at = (unsigned)cfg_rd(x, from ? from + 1 : 0x34, 1);

	for (unsigned n = 0; at && n < 48; n++, at = (unsigned)cfg_rd(x, at + 1, 1))
		if (cfg_rd(x, at, 1) == id && (id != 0x09 || cfg_rd(x, at + 3, 1) == type))
			return at;
	return 0;
}

static inline unsigned find_cap(struct fixture *x, uint8_t id, uint8_t type)
{
	return find_cap_after(x, 0, id, type);
}

static inline void msix_control(struct fixture *x, unsigned val)
{
	cfg_wr(x, find_cap(x, 0x11, 0) + 2, 2, val);
}

static inline bool negotiate(struct fixture *x, uint64_t features)
{
	enable_memory(x);
	wr(x, 0x14, 1, 0);
	wr(x, 0x14, 1, 1);
	wr(x, 0x14, 1, 3);
	wr(x, 0x08, 4, 0);
	wr(x, 0x0c, 4, (uint32_t)features);
	wr(x, 0x08, 4, 1);
	wr(x, 0x0c, 4, (features >> 32) | 1);
	wr(x, 0x14, 1, 11);
	return rd(x, 0x14, 1) == 11;
}

static inline void ring_registers(struct fixture *x, unsigned q, const struct fake_ring *r)
{
	wr(x, 0x16, 2, q);
	wr(x, 0x18, 2, r->size);
	wr(x, 0x20, 4, (uint32_t)r->desc);
	wr(x, 0x24, 4, r->desc >> 32);
	wr(x, 0x28, 8, r->avail);
	wr(x, 0x30, 4, (uint32_t)r->used);
	wr(x, 0x34, 4, r->used >> 32);
}

/* Queues 0 and 1 live with vectors 1 and 2, the configuration with vector 0. */
static inline void go_live(struct fixture *x)
{
	unsigned before = x->starts;

	assert_true(negotiate(x, 1ull << VIRTIO_F_RING_RESET));
	msix_control(x, 0x8000);
	wr(x, 0x10, 2, 0);
	for (unsigned q = 0; q < 2; q++) {
		ring_registers(x, q, &x->ring[q]);
		wr(x, 0x1a, 2, q + 1);
		wr(x, 0x1c, 2, 1);
	}
	wr(x, 0x14, 1, 15);
	assert_int_equal(rd(x, 0x14, 1), 15);
	assert_int_equal(x->starts, before + 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
