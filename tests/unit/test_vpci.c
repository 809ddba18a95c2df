/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_driver.h"
#include "virtio/transport.h"

#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#include "vmm/layout.h"

#define BAR 0xc0000000ull /* where pci_add puts the first one */
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

static int kvm_ioeventfd(const struct kvm_ioeventfd *a)
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
		if (kvm.on[i].addr == a->addr && kvm.on[i].fd == a->fd) {
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

static struct fixture *self(struct virtio *v)
{
	return (struct fixture *)((char *)v - offsetof(struct fixture, v));
}

static int toy_start(struct virtio *v)
{
	self(v)->starts++;
	return self(v)->start_ret;
}

static void toy_stop(struct virtio *v)
{
	self(v)->stops++;
}

static int toy_queue_start(struct virtio *v, unsigned q)
{
	(void)q;
	self(v)->queue_starts++;
	return 0;
}

static void toy_queue_stop(struct virtio *v, unsigned q)
{
	(void)q;
	self(v)->queue_stops++;
}

static void toy_kick(struct virtio *v, unsigned q)
{
	self(v)->kicks[q]++;
}

static void toy_config(struct virtio *v, unsigned off, unsigned size, uint64_t val)
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

static int setup_queues(void **state, unsigned queues, unsigned config_len)
{
	static struct fixture x;
	const struct pci_window w = {LAYOUT_PCI32_BASE, LAYOUT_PCI32_SIZE, WIN64, 1 << 30};

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
	    pci_bus_new(&x.pci, x.pio, x.mmio, x.loop, &w, NULL) ||
	    virtio_init(&x.v, &toy_ops, "toy", x.ram.gm, x.loop))
		return -1;
	for (unsigned i = 0; i < queues; i++)
		if (virtio_add_queue(&x.v, 64))
			return -1;
	for (unsigned i = 0; i < 2; i++)
		fake_ring_init(&x.ring[i], &x.ram, 8);
	return vpci_new(&x.t, &x.v, x.pci, NULL, &x.vm, NULL);
}

static int setup(void **state)
{
	return setup_queues(state, 3, 10);
}

static int setup_33(void **state)
{
	return setup_queues(state, VIRTIO_QUEUES_MAX, 60);
}

static int setup_bare(void **state)
{
	return setup_queues(state, 1, 0);
}

static int teardown(void **state)
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

static uint64_t cfg_rd(struct fixture *x, unsigned off, unsigned size)
{
	return bus_read(x->mmio, LAYOUT_ECAM_BASE + 0x8000 + off, size) &
	       (~0ull >> (64 - 8 * size));
}

static void cfg_wr(struct fixture *x, unsigned off, unsigned size, uint64_t v)
{
	bus_write(x->mmio, LAYOUT_ECAM_BASE + 0x8000 + off, size, v);
}

static uint64_t rd(struct fixture *x, unsigned off, unsigned size)
{
	return bus_read(x->mmio, BAR + off, size);
}

static void wr(struct fixture *x, unsigned off, unsigned size, uint64_t v)
{
	bus_write(x->mmio, BAR + off, size, v);
}

static void enable_memory(struct fixture *x)
{
	cfg_wr(x, 4, 2, 6);
}

static unsigned find_cap(struct fixture *x, uint8_t id, uint8_t type)
{
	unsigned at = (unsigned)cfg_rd(x, 0x34, 1);

	for (unsigned n = 0; at && n < 48; n++, at = (unsigned)cfg_rd(x, at + 1, 1))
		if (cfg_rd(x, at, 1) == id && (id != 0x09 || cfg_rd(x, at + 3, 1) == type))
			return at;
	return 0;
}

static void msix_control(struct fixture *x, unsigned val)
{
	cfg_wr(x, find_cap(x, 0x11, 0) + 2, 2, val);
}

static bool negotiate(struct fixture *x, uint64_t features)
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

static void ring_registers(struct fixture *x, unsigned q, const struct fake_ring *r)
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
static void go_live(struct fixture *x)
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

/* ------------------------------------------------------------- PCI identity */

static void vpci_is_a_modern_virtio_function(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(pci_slot(vpci_func(x->t)), 1);
	assert_int_equal(cfg_rd(x, 0, 4), 0x10421af4);
	assert_int_equal(cfg_rd(x, 8, 4), 0x01800001);
	assert_int_equal(cfg_rd(x, 0x2c, 4), 0x10421af4);
	assert_int_equal(cfg_rd(x, 0x3d, 1), 0);
	assert_int_equal(cfg_rd(x, 0x10, 4), BAR | 4);
	assert_int_equal(cfg_rd(x, 4, 2) & 2, 0);
	cfg_wr(x, 0x10, 8, ~0ull);
	assert_int_equal(cfg_rd(x, 0x10, 8), ~(uint64_t)(BAR_SIZE - 1) | 4);
}

static void check_cap(struct fixture *x, uint8_t type, unsigned len, uint64_t off, uint64_t length)
{
	unsigned at = find_cap(x, 0x09, type);

	assert_int_not_equal(at, 0);
	assert_int_equal(cfg_rd(x, at + 2, 1), len);
	assert_int_equal(cfg_rd(x, at + 4, 4), 0); /* bar, id, padding */
	assert_int_equal(cfg_rd(x, at + 8, 4), off);
	assert_int_equal(cfg_rd(x, at + 12, 4), length);
	assert_true(off + length <= BAR_SIZE);
}

static void vpci_capabilities_describe_the_bar(void **state)
{
	struct fixture *x = *state;

	check_cap(x, 1, 16, 0, 60);
	check_cap(x, 2, 20, NOTIFY, 12);
	check_cap(x, 3, 16, ISR, 4);
	check_cap(x, 4, 16, DEVICE, 12); /* 10 bytes of configuration, in dwords */
	check_cap(x, 5, 20, 0, 0);
	assert_int_equal(cfg_rd(x, find_cap(x, 0x09, 2) + 16, 4), 4);
	unsigned msix = find_cap(x, 0x11, 0);

	assert_int_equal(cfg_rd(x, msix + 2, 2), 3); /* 3 queues and the configuration */
	assert_int_equal(cfg_rd(x, msix + 4, 4), TABLE);
	assert_int_equal(cfg_rd(x, msix + 8, 4), PBA);
}

static void vpci_with_33_queues_has_room_for_all(void **state)
{
	struct fixture *x = *state;

	check_cap(x, 2, 20, NOTIFY, 33 * 4);
	assert_int_equal(cfg_rd(x, find_cap(x, 0x11, 0) + 2, 2), 33);
	assert_true(negotiate(x, 0));
	assert_int_equal(rd(x, 0x12, 2), 33);
	wr(x, 0x16, 2, 32);
	assert_int_equal(rd(x, 0x18, 2), 64);
	assert_int_equal(rd(x, 0x1e, 2), 32);
	ring_registers(x, 32, &x->ring[0]);
	wr(x, 0x1a, 2, 33);
	assert_int_equal(rd(x, 0x1a, 2), 33);
	wr(x, 0x1c, 2, 1);
	assert_int_equal(kvm.on[0].addr, BAR + NOTIFY + 32 * 4);
	wr(x, 0x14, 1, 15);
	wr(x, NOTIFY + 32 * 4, 2, 32);
	assert_int_equal(x->kicks[32], 1);
	for (unsigned i = 33 * 4; i < 0x1000; i += 4)
		wr(x, NOTIFY + i, 2, 0);
	assert_int_equal(x->kicks[32], 1);
	assert_int_equal(x->kicks[0], 0);
}

static void vpci_without_configuration_has_no_such_capability(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(find_cap(x, 0x09, 4), 0);
	enable_memory(x);
	assert_int_equal(rd(x, DEVICE, 4), 0);
}

/* ------------------------------------------------------------ common config */

static void features_come_in_halves_and_nothing_else(void **state)
{
	struct fixture *x = *state;

	enable_memory(x);
	wr(x, 0x00, 4, 0);
	assert_int_equal(rd(x, 0x04, 4), 5 | 1 << 28 | 1 << 29);
	wr(x, 0x00, 4, 1);
	assert_int_equal(rd(x, 0x04, 4), 1 | 1 << 8);
	wr(x, 0x00, 4, 2);
	assert_int_equal(rd(x, 0x04, 4), 0);
	wr(x, 0x00, 4, 0xffffffff);
	assert_int_equal(rd(x, 0x04, 4), 0);
	assert_int_equal(rd(x, 0x00, 4), 0xffffffff);
	wr(x, 0x08, 4, 32);
	wr(x, 0x0c, 4, 0xffffffff);
	assert_int_equal(rd(x, 0x0c, 4), 0);
	assert_int_equal(x->v.acked, 0);
	wr(x, 0x08, 4, 1);
	wr(x, 0x0c, 4, 0x101);
	assert_int_equal(rd(x, 0x0c, 4), 0x101);
	assert_int_equal(x->v.acked, 0x10100000000);
	wr(x, 0x04, 4, 0); /* read-only */
	assert_int_equal(x->v.offered >> 32, 0x101);
}

static void features_not_offered_refuse_features_ok(void **state)
{
	struct fixture *x = *state;

	assert_false(negotiate(x, 1 << 7));
	assert_true(negotiate(x, 1));
}

static void queue_registers_belong_to_the_selected_queue(void **state)
{
	struct fixture *x = *state;

	enable_memory(x);
	ring_registers(x, 2, &x->ring[0]);
	wr(x, 0x24, 4, 0xabcd);
	assert_int_equal(rd(x, 0x16, 2), 2);
	assert_int_equal(rd(x, 0x18, 2), 8);
	assert_int_equal(rd(x, 0x1e, 2), 2);
	assert_int_equal(rd(x, 0x20, 8), x->ring[0].desc | 0xabcd00000000);
	assert_int_equal(rd(x, 0x20, 4), x->ring[0].desc);
	assert_int_equal(rd(x, 0x24, 4), 0xabcd);
	assert_int_equal(rd(x, 0x28, 8), x->ring[0].avail);
	assert_int_equal(rd(x, 0x30, 8), x->ring[0].used);
	wr(x, 0x16, 2, 1);
	assert_int_equal(rd(x, 0x18, 2), 64);
	assert_int_equal(rd(x, 0x20, 8), 0);
	wr(x, 0x12, 2, 7); /* read-only registers */
	wr(x, 0x15, 1, 7);
	wr(x, 0x1e, 2, 7);
	assert_int_equal(rd(x, 0x12, 2), 3);
	assert_int_equal(rd(x, 0x15, 1), 0);
	assert_int_equal(rd(x, 0x1e, 2), 1);
}

static void queue_select_out_of_range_is_no_queue(void **state)
{
	static const uint16_t bad[] = {3, 33, 34, 255, 0x8000, 0xffff};
	struct fixture *x = *state;

	negotiate(x, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		wr(x, 0x16, 2, bad[i]);
		for (unsigned off = 0x18; off < 0x3c; off += 2) {
			wr(x, off, 2, 1);
			assert_int_equal(rd(x, off, 2), off == 0x1a ? NO_VECTOR : 0);
		}
		wr(x, 0x20, 8, ~0ull);
		assert_int_equal(rd(x, 0x20, 8), 0);
	}
	assert_int_equal(kvm.added, 0);
}

static void queue_registers_are_frozen_after_enable(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	wr(x, 0x16, 2, 0);
	wr(x, 0x18, 2, 2);
	for (unsigned off = 0x20; off < 0x38; off += 4)
		wr(x, off, 4, 0xffffffff);
	wr(x, 0x1c, 2, 0);
	assert_int_equal(rd(x, 0x18, 2), 8);
	assert_int_equal(rd(x, 0x1c, 2), 1);
	assert_int_equal(rd(x, 0x20, 8), x->ring[0].desc);
	assert_int_equal(rd(x, 0x28, 8), x->ring[0].avail);
	assert_int_equal(rd(x, 0x30, 8), x->ring[0].used);
}

static void queue_size_beyond_the_maximum_needs_reset(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x18, 2, 128);
	assert_int_equal(rd(x, 0x18, 2), 0);
	wr(x, 0x1c, 2, 1);
	wr(x, 0x14, 1, 15);
	assert_int_equal(rd(x, 0x14, 1), 15 | 64);
	assert_int_equal(x->starts, 0);
	wr(x, 0x14, 1, 0);
	wr(x, 0x16, 2, 0);
	assert_int_equal(rd(x, 0x18, 2), 64);
}

static void queue_outside_memory_needs_reset(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x24, 4, 0xffffffff);
	wr(x, 0x1c, 2, 1);
	wr(x, 0x14, 1, 15);
	assert_int_equal(rd(x, 0x14, 1), 15 | 64);
	assert_int_equal(x->starts, 0);
}

static void device_that_cannot_start_needs_reset(void **state)
{
	struct fixture *x = *state;

	x->start_ret = -EIO;
	negotiate(x, 0);
	wr(x, 0x14, 1, 15);
	assert_int_equal(rd(x, 0x14, 1), 15 | 64);
	assert_int_equal(rd(x, ISR, 1), 2); /* and the driver is told */
}

static void common_accesses_of_other_widths_are_nothing(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	wr(x, 0x16, 2, 1);
	assert_int_equal(rd(x, 0x14, 2), 0);
	assert_int_equal(rd(x, 0x14, 4), 0);
	assert_int_equal(rd(x, 0x12, 1), 0);
	assert_int_equal(rd(x, 0x12, 4), 0);
	assert_int_equal(rd(x, 0x10, 4), 0);
	assert_int_equal(rd(x, 0x11, 2), 0);
	assert_int_equal(rd(x, 0x02, 4), 0);
	wr(x, 0x14, 4, 0); /* no reset */
	wr(x, 0x14, 8, 0);
	wr(x, 0x13, 2, 0);
	assert_int_equal(rd(x, 0x14, 1), 11);
	wr(x, 0x15, 2, 0x0202);
	wr(x, 0x16, 1, 2);
	wr(x, 0x16, 4, 2);
	assert_int_equal(rd(x, 0x16, 2), 1);
	for (unsigned off = 0x3c; off < 0x1000; off += 4) {
		wr(x, off, 4, ~0u);
		assert_int_equal(rd(x, off, 4), 0);
	}
	/* beyond the last register, across the end of the page and of the BAR */
	assert_int_equal(rd(x, 0xffe, 4), 0);
	wr(x, 0xffe, 4, ~0u);
	assert_int_equal(rd(x, ISR - 1, 2), 0);
	assert_int_equal(rd(x, BAR_SIZE - 2, 4), ~0ull);
}

static void common_qword_is_two_dwords(void **state)
{
	struct fixture *x = *state;

	enable_memory(x);
	wr(x, 0x08, 8, 0x100000001); /* select 1, feature bits 32 */
	assert_int_equal(x->v.acked, 1ull << 32);
	wr(x, 0x00, 4, 1);
	assert_int_equal(rd(x, 0x00, 8), 1 | 0x10100000000);
}

static void reset_forgets_selectors_vectors_and_queues(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	wr(x, TABLE, 4, 0xfee00000);
	wr(x, 0x14, 1, 0);
	assert_int_equal(x->stops, 1);
	assert_int_equal(rd(x, 0x14, 1), 0);
	assert_int_equal(rd(x, 0x10, 2), NO_VECTOR);
	assert_int_equal(rd(x, 0x16, 2), 0);
	assert_int_equal(rd(x, 0x1a, 2), NO_VECTOR);
	assert_int_equal(rd(x, 0x1c, 2), 0);
	assert_int_equal(rd(x, 0x18, 2), 64);
	assert_int_equal(rd(x, 0x20, 8), 0);
	assert_int_equal(rd(x, TABLE, 4), 0xfee00000); /* the function's, not the device's */
	assert_int_equal(kvm.n, 0);
	go_live(x); /* and again */
}

static void reset_of_a_queue_takes_its_kicks_and_vector(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	assert_int_equal(kvm.n, 2);
	wr(x, 0x16, 2, 1);
	wr(x, 0x3a, 2, 0); /* only 1 resets */
	wr(x, 0x3a, 2, 2);
	assert_int_equal(x->queue_stops, 0);
	wr(x, 0x3a, 2, 1);
	assert_int_equal(rd(x, 0x3a, 2), 0);
	assert_int_equal(x->queue_stops, 1);
	assert_int_equal(rd(x, 0x1c, 2), 0);
	assert_int_equal(rd(x, 0x1a, 2), NO_VECTOR);
	assert_int_equal(rd(x, 0x18, 2), 64);
	assert_int_equal(kvm.n, 1);
	assert_int_equal(kvm.on[0].addr, BAR + NOTIFY);
	fake_ring_zero(&x->ring[1]);
	ring_registers(x, 1, &x->ring[1]);
	wr(x, 0x1c, 2, 1);
	assert_int_equal(x->queue_starts, 1);
	assert_int_equal(kvm.n, 2);
	assert_int_equal(rd(x, 0x14, 1), 15);
}

static void reset_of_a_queue_not_negotiated_is_nothing(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x1c, 2, 1);
	wr(x, 0x1a, 2, 1);
	wr(x, 0x14, 1, 15);
	wr(x, 0x3a, 2, 1);
	assert_int_equal(rd(x, 0x1c, 2), 1);
	assert_int_equal(rd(x, 0x1a, 2), 1);
	assert_int_equal(x->queue_stops, 0);
}

/* ---------------------------------------------- device configuration, kicks */

static void device_configuration_reads_any_width_and_zeros_beyond(void **state)
{
	struct fixture *x = *state;

	enable_memory(x);
	assert_int_equal(rd(x, DEVICE, 1), 0x10);
	assert_int_equal(rd(x, DEVICE + 2, 2), 0x1312);
	assert_int_equal(rd(x, DEVICE, 8), 0x1716151413121110);
	assert_int_equal(rd(x, DEVICE + 8, 4), 0x1918);
	assert_int_equal(rd(x, DEVICE + 12, 4), 0);
	assert_int_equal(rd(x, DEVICE + 0xffc, 4), 0);
	wr(x, DEVICE + 4, 2, 0xbeef);
	assert_int_equal(x->cfg_off, 4);
	assert_int_equal(x->cfg_size, 2);
	assert_int_equal(x->cfg_val & 0xffff, 0xbeef);
	wr(x, DEVICE + 9, 2, 1); /* past the end */
	assert_int_equal(x->cfg_off, 4);
}

static void generation_and_interrupt_tell_of_a_change(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	assert_int_equal(rd(x, 0x15, 1), 0);
	virtio_config_changed(&x->v);
	assert_int_equal(rd(x, 0x15, 1), 1);
	assert_int_equal(rd(x, PBA, 8), 1);
	assert_int_equal(rd(x, ISR, 1), 2);
	assert_int_equal(rd(x, ISR, 1), 0);
}

static void notify_page_kicks_the_queue_of_its_address(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	wr(x, NOTIFY + 4, 2, 0);
	assert_int_equal(x->kicks[1], 1);
	wr(x, NOTIFY, 4, 77);
	assert_int_equal(x->kicks[0], 1);
	wr(x, NOTIFY + 8, 2, 2); /* not enabled */
	wr(x, NOTIFY + 2, 2, 0); /* no queue's */
	wr(x, NOTIFY + 12, 2, 3);
	wr(x, NOTIFY + 0xffc, 4, 0);
	assert_int_equal(x->kicks[0] + x->kicks[1] + x->kicks[2], 2);
	assert_int_equal(rd(x, NOTIFY, 4), 0);
}

static void kicks_before_driver_ok_are_nothing(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x1c, 2, 1);
	wr(x, NOTIFY, 2, 0);
	assert_int_equal(x->kicks[0], 0);
}

static void ioeventfds_are_those_of_enabled_queues(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	assert_int_equal(kvm.n, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x1c, 2, 1);
	wr(x, 0x1c, 2, 1); /* again: once */
	assert_int_equal(kvm.added, 1);
	assert_int_equal(kvm.on[0].addr, BAR + NOTIFY);
	assert_int_equal(kvm.on[0].len, 0);
	assert_int_equal(kvm.on[0].flags, 0);
	assert_int_equal(kvm.on[0].fd, x->v.queue[0].kick_fd);
}

static void ioeventfds_move_with_the_bar(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	cfg_wr(x, 4, 2, 0);
	assert_int_equal(kvm.n, 0);
	cfg_wr(x, 4, 2, 2);
	assert_int_equal(kvm.n, 2);
	cfg_wr(x, 0x10, 8, WIN64 + BAR_SIZE);
	assert_int_equal(kvm.n, 2);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(kvm.on[i].addr & ~4ull, WIN64 + BAR_SIZE + NOTIFY);
	cfg_wr(x, 0x10, 4, ~0u);
	assert_int_equal(kvm.n, kvm.added - kvm.removed);
	cfg_wr(x, 0x10, 8, 0x1000); /* over RAM: decodes nowhere */
	assert_int_equal(kvm.n, 0);
}

static void ioeventfd_that_kvm_refuses_leaves_the_bus(void **state)
{
	struct fixture *x = *state;

	kvm.fail = true;
	go_live(x);
	wr(x, NOTIFY, 2, 0);
	assert_int_equal(x->kicks[0], 1);
	wr(x, 0x14, 1, 0);
	kvm.fail = false;
	assert_int_equal(kvm.removed, 0);
}

/* --------------------------------------------------------------- interrupts */

static void queue_interrupt_goes_to_its_vector(void **state)
{
	struct fixture *x = *state;

	go_live(x); /* the table's vectors are masked: what is raised waits */
	x->v.bearer.queue_interrupt(x->v.bearer.t, 0);
	assert_int_equal(rd(x, PBA, 8), 2);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 1);
	assert_int_equal(rd(x, PBA, 8), 6);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 2); /* has no vector */
	assert_int_equal(rd(x, PBA, 8), 6);
	assert_int_equal(rd(x, ISR, 1), 0);
	wr(x, PBA, 8, 0); /* read-only */
	assert_int_equal(rd(x, PBA, 8), 6);
	wr(x, 0x14, 1, 0);
	assert_int_equal(rd(x, PBA, 8), 0);
}

static void vector_out_of_range_reads_back_no_vector(void **state)
{
	static const uint32_t bad[] = {4, 5, 0x7ff, 0x800, 0xfffe, 0xffff};
	struct fixture *x = *state;

	enable_memory(x);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		wr(x, 0x10, 2, 3);
		assert_int_equal(rd(x, 0x10, 2), 3);
		wr(x, 0x10, 2, bad[i]);
		assert_int_equal(rd(x, 0x10, 2), NO_VECTOR);
		wr(x, 0x1a, 2, 3);
		assert_int_equal(rd(x, 0x1a, 2), 3);
		wr(x, 0x1a, 2, bad[i]);
		assert_int_equal(rd(x, 0x1a, 2), NO_VECTOR);
	}
	msix_control(x, 0x8000);
	x->v.bearer.config_interrupt(x->v.bearer.t);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 0);
	assert_int_equal(rd(x, PBA, 8), 0);
	wr(x, TABLE + 4 * 16, 4, ~0u);
	assert_int_equal(rd(x, TABLE + 4 * 16, 4), 0);
}

static void without_msix_interrupts_are_isr_bits(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	msix_control(x, 0);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 0);
	x->v.bearer.config_interrupt(x->v.bearer.t);
	assert_int_equal(rd(x, PBA, 8), 0);
	assert_int_equal(rd(x, ISR + 1, 1), 0); /* clears nothing */
	assert_int_equal(rd(x, ISR, 1), 3);
	assert_int_equal(rd(x, ISR, 1), 0);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 0);
	wr(x, 0x14, 1, 0);
	assert_int_equal(rd(x, ISR, 4), 0);
}

static void needs_reset_shows_in_the_status(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	vq_break(virtio_vq(&x->v, 0), "2.7.4", "a test");
	assert_int_equal(rd(x, 0x14, 1), 15 | 64);
	assert_int_equal(rd(x, ISR, 1), 2);
	assert_int_equal(rd(x, PBA, 8), 1);
	wr(x, 0x14, 1, 0);
	assert_int_equal(rd(x, 0x14, 1), 0);
}

/* ------------------------------------------------------------------ PCI_CFG */

static unsigned pci_cfg_window(struct fixture *x, uint32_t bar, uint32_t off, uint32_t len)
{
	unsigned at = find_cap(x, 0x09, 5);

	cfg_wr(x, at + 4, 1, bar);
	cfg_wr(x, at + 8, 4, off);
	cfg_wr(x, at + 12, 4, len);
	return at + 16;
}

static void pci_cfg_reaches_the_bar_without_decoding(void **state)
{
	struct fixture *x = *state;
	unsigned data = pci_cfg_window(x, 0, 0x16, 2);

	assert_false(vpci_func(x->t)->bar[0].mapped);
	cfg_wr(x, data, 2, 2);
	data = pci_cfg_window(x, 0, 0x1e, 2);
	assert_int_equal(cfg_rd(x, data, 2), 2);
	pci_cfg_window(x, 0, DEVICE + 4, 4);
	assert_int_equal(cfg_rd(x, data, 4), 0x17161514);
	pci_cfg_window(x, 0, DEVICE + 9, 1);
	assert_int_equal(cfg_rd(x, data, 1), 0x19);
	pci_cfg_window(x, 0, TABLE + 8, 4);
	cfg_wr(x, data, 4, 0x1234);
	enable_memory(x);
	assert_int_equal(rd(x, TABLE + 8, 4), 0x1234);
}

static void pci_cfg_kicks(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	cfg_wr(x, pci_cfg_window(x, 0, NOTIFY + 4, 2), 2, 1);
	assert_int_equal(x->kicks[1], 1);
}

static void pci_cfg_reads_once_for_an_access_to_its_first_byte(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	virtio_config_changed(&x->v);
	unsigned data = pci_cfg_window(x, 0, ISR, 1);

	assert_int_equal(cfg_rd(x, data + 1, 1), 0);
	assert_int_equal(cfg_rd(x, data, 1), 2);
	assert_int_equal(cfg_rd(x, data, 1), 0);
}

static void pci_cfg_bad_windows_are_nothing(void **state)
{
	static const struct {
		uint32_t bar, off, len;
	} bad[] = {
		{1, 0x14, 1},
		{255, 0x14, 1},
		{0, 0x14, 0},
		{0, 0x14, 3},
		{0, 0x14, 5},
		{0, 0x14, 8},
		{0, 0x14, 257},
		{0, 0x14, 0x80000001},
		{0, BAR_SIZE, 4},
		{0, ~0u, 1},
		{0, ~0u - 1, 2},
		{0, ~0u - 3, 4},
		{0, 0x8000014, 1},
		{0, BAR_SIZE + 0x14, 1},
		{0, 1, 4},
		{0, 2, 4},
		{0, BAR_SIZE - 2, 4},
		{0, 1, 2},
	};
	struct fixture *x = *state;

	negotiate(x, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		unsigned data = pci_cfg_window(x, bad[i].bar, bad[i].off, bad[i].len);

		cfg_wr(x, data, 4, 0); /* a write of 0 to the status would be a reset */
		cfg_wr(x, data, 4, 0x5a5a5a5a);
		assert_int_equal(cfg_rd(x, data, 4), 0x5a5a5a5a);
		assert_int_equal(rd(x, 0x14, 1), 11);
	}
}

/* ---------------------------------------------------------------- lifetime */

static void vpci_free_stops_the_device_and_leaves_no_trace(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	vpci_free(x->t);
	assert_int_equal(x->stops, 1);
	assert_int_equal(kvm.n, 0);
	assert_null(x->v.bearer.queue_interrupt);
	assert_int_equal(rd(x, 0x14, 1), ~0ull);
	assert_int_equal(cfg_rd(x, 0, 4), 0xffffffff);
	assert_int_equal(vpci_new(&x->t, &x->v, x->pci, NULL, &x->vm, NULL), 0);
	go_live(x);
}

static void vpci_on_a_full_bus_says_which_device(void **state)
{
	struct fixture *x = *state;
	struct vpci *more[PCI_SLOTS] = {NULL}, *one;
	struct err e;
	unsigned n = 0;
	int ret;

	/* Only set-up: the same device stands behind all. */
	while ((ret = vpci_new(&one, &x->v, x->pci, NULL, NULL, &e)) == 0)
		more[n++] = one;
	assert_int_equal(ret, -ENOSPC);
	assert_string_equal(e.text, "toy: the PCI bus is full (31 devices)");
	while (n)
		vpci_free(more[--n]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(vpci_is_a_modern_virtio_function),
		T(vpci_capabilities_describe_the_bar),
		cmocka_unit_test_setup_teardown(vpci_with_33_queues_has_room_for_all, setup_33,
						teardown),
		cmocka_unit_test_setup_teardown(vpci_without_configuration_has_no_such_capability,
						setup_bare, teardown),
		T(features_come_in_halves_and_nothing_else),
		T(features_not_offered_refuse_features_ok),
		T(queue_registers_belong_to_the_selected_queue),
		T(queue_select_out_of_range_is_no_queue),
		T(queue_registers_are_frozen_after_enable),
		T(queue_size_beyond_the_maximum_needs_reset),
		T(queue_outside_memory_needs_reset),
		T(device_that_cannot_start_needs_reset),
		T(common_accesses_of_other_widths_are_nothing),
		T(common_qword_is_two_dwords),
		T(reset_forgets_selectors_vectors_and_queues),
		T(reset_of_a_queue_takes_its_kicks_and_vector),
		T(reset_of_a_queue_not_negotiated_is_nothing),
		T(device_configuration_reads_any_width_and_zeros_beyond),
		T(generation_and_interrupt_tell_of_a_change),
		T(notify_page_kicks_the_queue_of_its_address),
		T(kicks_before_driver_ok_are_nothing),
		T(ioeventfds_are_those_of_enabled_queues),
		T(ioeventfds_move_with_the_bar),
		T(ioeventfd_that_kvm_refuses_leaves_the_bus),
		T(queue_interrupt_goes_to_its_vector),
		T(vector_out_of_range_reads_back_no_vector),
		T(without_msix_interrupts_are_isr_bits),
		T(needs_reset_shows_in_the_status),
		T(pci_cfg_reaches_the_bar_without_decoding),
		T(pci_cfg_kicks),
		T(pci_cfg_reads_once_for_an_access_to_its_first_byte),
		T(pci_cfg_bad_windows_are_nothing),
		T(vpci_free_stops_the_device_and_leaves_no_trace),
		T(vpci_on_a_full_bus_says_which_device),
	};

	return cmocka_run_group_tests_name("vpci", tests, NULL, NULL);
}
