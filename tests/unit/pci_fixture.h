/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI bus on two plain buses, and a function that remembers what it was told:
 * what the tests of pci.c share.
 */
#ifndef TESTS_UNIT_PCI_FIXTURE_H
#define TESTS_UNIT_PCI_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "devices/pci.h"
#include "vmm/layout.h"

#define WIN64 0x200000000ull
#define WIN64_SIZE (1ull << 30)
#define ONES 0xffffffffull
#define CMD 0x04
#define MEM 0x0002
#define IO 0x0001

struct fixture {
	struct bus *pio, *mmio;
	struct loop *loop;
	struct pci_bus *pci;
};

/* A function that remembers what it was told. */
struct toy {
	struct pci_func f;
	uint64_t last_off, last_val, mapped_at[PCI_BARS];
	unsigned last_size, maps, unmaps, written, reading;
};

static inline uint64_t toy_read(void *dev, uint64_t off, unsigned size)
{
	struct toy *t = dev;

	t->last_off = off;
	t->last_size = size;
	return 0x5a5a5a5a;
}

static inline void toy_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct toy *t = dev;

	t->last_off = off;
	t->last_size = size;
	t->last_val = val;
}

static const struct bus_ops toy_bar = {toy_read, toy_write};

static inline void toy_written(struct pci_func *f, unsigned off, unsigned size)
{
	(void)off, (void)size;
	((struct toy *)f->dev)->written++;
}

static inline void toy_reading(struct pci_func *f, unsigned off, unsigned size)
{
	(void)size;
	((struct toy *)f->dev)->reading++;
	if (off == 0xf0)
		f->cfg[0xf0] = 0x77;
}

static inline void toy_mapped(struct pci_func *f, unsigned bar, uint64_t addr, bool on)
{
	struct toy *t = f->dev;

	t->mapped_at[bar] = addr;
	on ? t->maps++ : t->unmaps++;
}

static const struct pci_ops toy_ops = {toy_written, toy_reading, toy_mapped};

static inline void toy_init(struct toy *t, struct fixture *x, uint64_t size0, bool is64)
{
	*t = (struct toy){.f = {.ops = &toy_ops, .dev = t, .loop = x->loop, .name = "toy"}};
	t->f.bar[0] = (struct pci_bar){.size = size0, .is64 = is64, .ops = &toy_bar, .dev = t};
	pci_header(&t->f, &(struct pci_id){.vendor = 0x1234,
					   .device = 0x5678,
					   .revision = 3,
					   .class24 = 0x020304,
					   .subvendor = 0xaabb,
					   .subdevice = 0xccdd});
}

static inline int bus_with(struct fixture *x, struct bus *pio)
{
	const struct pci_bus_env env = {
		.pio = pio,
		.mmio = x->mmio,
		.loop = x->loop,
		.window = {LAYOUT_PCI32_BASE, LAYOUT_PCI32_SIZE, WIN64, WIN64_SIZE,
			   LAYOUT_PCI_IO_BASE, LAYOUT_PCI_IO_SIZE},
	};

	return pci_bus_new(&x->pci, &env, NULL);
}

static inline int setup(void **state)
{
	static struct fixture x;

	*state = &x;
	if (bus_new(&x.pio, NULL) || bus_new(&x.mmio, NULL) || loop_new(&x.loop, "test", NULL))
		return -1;
	return bus_with(&x, x.pio);
}

static inline int teardown(void **state)
{
	struct fixture *x = *state;

	pci_bus_free(x->pci);
	bus_free(x->pio);
	bus_free(x->mmio);
	loop_free(x->loop);
	return 0;
}

static inline uint64_t ecam(unsigned slot, unsigned off)
{
	return LAYOUT_ECAM_BASE + slot * 0x8000 + off;
}

static inline uint64_t rd(struct fixture *x, unsigned slot, unsigned off, unsigned size)
{
	uint64_t v = bus_read(x->mmio, ecam(slot, off), size);

	return size == 8 ? v : v & ((1ull << 8 * size) - 1);
}

static inline void wr(struct fixture *x, unsigned slot, unsigned off, unsigned size, uint64_t v)
{
	bus_write(x->mmio, ecam(slot, off), size, v);
}

static inline void out(struct fixture *x, unsigned port, unsigned size, uint32_t v)
{
	bus_write(x->pio, port, size, v);
}

static inline uint32_t in(struct fixture *x, unsigned port, unsigned size)
{
	return (uint32_t)(bus_read(x->pio, port, size) & ((1ull << 8 * size) - 1));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
