/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/pci.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/layout.h"

#define SLOT_SIZE 0x8000u /* ECAM of a slot's eight functions */
#define FUNC_SIZE 0x1000u
#define CFG_SIZE 256u

/* Header, PCI 3.0 section 6.1 */
#define HDR_STATUS 0x06
#define HDR_STATUS_CAPS 0x0010
#define HDR_REVISION 0x08
#define HDR_CLASS 0x09
#define HDR_CACHE_LINE 0x0c
#define HDR_SUBVENDOR 0x2c
#define HDR_SUBDEVICE 0x2e
#define HDR_CAPS 0x34
#define HDR_INT_LINE 0x3c
#define HDR_END 0x40

/* Section 6.2.5.1 */
#define BAR_IO 0x1u
#define BAR_64BIT 0x4u
#define BAR_IO_MAX 256u

/* Configuration mechanism #1, section 3.2.2.3.2 */
#define CF8_ENABLE 0x80000000u
#define CF8_WRITABLE 0x80fffffcu

struct pci_bus {
	struct bus *pio, *mmio;
	struct pci_window win;
	struct pci_func *slot[PCI_SLOTS];
	struct pci_func bridge;
	_Atomic uint32_t cf8; /* the guest's own lock keeps an address and its data together */
};

/* ---------------------------------------------------------------- BARs */

static bool bar_in(uint64_t addr, uint64_t size, uint64_t base, uint64_t len)
{
	return addr >= base && size <= len && addr - base <= len - size;
}

static uint64_t bar_register(const struct pci_func *f, unsigned i)
{
	uint64_t v = pci_get(f, PCI_BAR0 + 4 * i, 4) & ~(f->bar[i].io ? 0x3ull : 0xfull);

	if (f->bar[i].is64)
		v |= (uint64_t)pci_get(f, PCI_BAR0 + 4 * i + 4, 4) << 32;
	return v;
}

static struct bus *bar_bus(const struct pci_func *f, unsigned i)
{
	return f->bar[i].io ? f->bus->pio : f->bus->mmio;
}

static void bar_unmap(struct pci_func *f, unsigned i)
{
	struct pci_bar *b = &f->bar[i];

	if (!b->mapped)
		return;
	if (f->ops && f->ops->bar_mapped)
		f->ops->bar_mapped(f, i, b->addr, false);
	bus_del(bar_bus(f, i), b->addr);
	b->mapped = false;
}

/* Without ports the I/O window is empty. */
static bool bar_allowed(const struct pci_window *w, const struct pci_bar *b, uint64_t addr)
{
	if (b->io)
		return bar_in(addr, b->size, w->base_io, w->size_io);
	return bar_in(addr, b->size, w->base32, w->size32) ||
	       bar_in(addr, b->size, w->base64, w->size64);
}

/*
 * The guest chose @addr: it decodes only inside the PCI windows, and bus_add
 * refuses it over any other region there.
 */
static int bar_place(struct pci_func *f, unsigned i, uint64_t addr, struct err *e)
{
	const struct pci_bar *b = &f->bar[i];
	struct bus_region r = {.base = addr,
			       .size = b->size,
			       .ops = b->ops,
			       .dev = b->dev,
			       .loop = f->loop,
			       .name = f->name};

	if (bar_allowed(&f->bus->win, b, addr))
		return bus_add(bar_bus(f, i), &r, e);
	return err_msg(e, -ERANGE, "outside the PCI windows");
}

static void bar_map(struct pci_func *f, unsigned i, uint64_t addr)
{
	struct pci_bar *b = &f->bar[i];
	struct err why;

	if (bar_place(f, i, addr, &why)) {
		if (log_on(LOG_DEBUG))
			log_guest(&f->log, "%s: BAR %u does not decode at 0x%" PRIx64 ": %s",
				  f->name, i, addr, why.text);
		return;
	}
	b->addr = addr;
	b->mapped = true;
	if (f->ops && f->ops->bar_mapped)
		f->ops->bar_mapped(f, i, addr, true);
}

/* What decodes follows the command register and the BARs, whatever the guest wrote to them. */
static void bars_update(struct pci_func *f)
{
	uint32_t command = pci_get(f, PCI_COMMAND, 2);

	for (unsigned i = 0; i < PCI_BARS; i++) {
		struct pci_bar *b = &f->bar[i];
		uint64_t addr;
		bool on;

		if (!b->size)
			continue;
		on = command & (b->io ? PCI_COMMAND_IO : PCI_COMMAND_MEM);
		addr = bar_register(f, i);
		if (b->mapped && (!on || b->addr != addr))
			bar_unmap(f, i);
		if (on && !b->mapped)
			bar_map(f, i, addr);
	}
}

/* The end of an assigned BAR that @want, of the same kind, would overlap at @addr, or 0. */
static uint64_t home_conflict(const struct pci_func *f, const struct pci_bar *want, uint64_t addr)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		const struct pci_bar *b = &f->bar[i];

		if (b->home && b->io == want->io && addr < b->home + b->size &&
		    b->home < addr + want->size)
			return b->home + b->size;
	}
	return 0;
}

/* First fit among what pci_add assigned, naturally aligned; where guests moved BARs does not count.
 */
static uint64_t home_find(const struct pci_bus *bus, const struct pci_func *f,
			  const struct pci_bar *b)
{
	uint64_t base = b->io ? bus->win.base_io : bus->win.base32;
	uint64_t len = b->io ? bus->win.size_io : bus->win.size32;
	uint64_t size = b->size, addr = (base + size - 1) & ~(size - 1);

	while (bar_in(addr, size, base, len)) {
		uint64_t end = home_conflict(f, b, addr);

		for (unsigned s = 0; s < PCI_SLOTS && !end; s++)
			if (bus->slot[s])
				end = home_conflict(bus->slot[s], b, addr);
		if (!end)
			return addr;
		addr = (end + size - 1) & ~(size - 1);
	}
	return 0;
}

/* The owner's mistakes, not a guest's. */
static bool bar_is_proper(const struct pci_func *f, unsigned i)
{
	const struct pci_bar *b = &f->bar[i];

	if (b->size & (b->size - 1))
		return false;
	if (b->io)
		return b->size >= 4 && b->size <= BAR_IO_MAX && !b->is64;
	return b->size >= 4096 && b->size <= 1u << 31 &&
	       (!b->is64 || (i + 1 < PCI_BARS && !f->bar[i + 1].size));
}

static int bar_assign(const struct pci_bus *bus, struct pci_func *f, unsigned i, struct err *e)
{
	struct pci_bar *b = &f->bar[i];
	unsigned at = PCI_BAR0 + 4 * i;

	assert(bar_is_proper(f, i));
	b->home = home_find(bus, f, b);
	if (!b->home)
		return err_msg(e, -ENOSPC, "no room for BAR %u in the PCI %s window", i,
			       b->io ? "I/O" : "memory");
	for (unsigned k = 0; k < 4; k++)
		f->wmask[at + k] = (uint8_t)(-(uint32_t)b->size >> (8 * k));
	if (b->io) {
		pci_put(f, at, 4, (uint32_t)b->home | BAR_IO);
		f->wmask[PCI_COMMAND] |= PCI_COMMAND_IO;
		return 0;
	}
	pci_put(f, at, 4, (uint32_t)b->home | (b->is64 ? BAR_64BIT : 0));
	if (b->is64) {
		pci_put(f, at + 4, 4, 0);
		memset(&f->wmask[at + 4], 0xff, 4);
	}
	return 0;
}

static int bars_assign(const struct pci_bus *bus, struct pci_func *f, struct err *e)
{
	int ret = 0;

	for (unsigned i = 0; i < PCI_BARS; i++)
		f->bar[i].home = 0;
	for (unsigned i = 0; i < PCI_BARS && !ret; i++)
		if (f->bar[i].size && (!f->bar[i].io || pci_has_io(bus)))
			ret = bar_assign(bus, f, i, e);
	return ret;
}

/* ------------------------------------------------- configuration space */

/* Within configuration space and within one dword: bounds every index below. */
static bool cfg_fits(unsigned off, unsigned size)
{
	return off < CFG_SIZE && (size == 1 || size == 2 || size == 4) && (off & 3) + size <= 4;
}

uint32_t pci_cfg_read(struct pci_func *f, unsigned off, unsigned size)
{
	if (!cfg_fits(off, size))
		return UINT32_MAX;
	if (f->ops && f->ops->cfg_reading)
		f->ops->cfg_reading(f, off, size);
	return pci_get(f, off, size);
}

void pci_cfg_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val)
{
	if (!cfg_fits(off, size))
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t mask = f->wmask[off + i], byte = (uint8_t)(val >> (8 * i));

		f->cfg[off + i] = (uint8_t)((f->cfg[off + i] & ~mask) | (byte & mask));
	}
	if (pci_touches(off, size, PCI_COMMAND, 2) ||
	    pci_touches(off, size, PCI_BAR0, 4 * PCI_BARS))
		bars_update(f);
	if (f->ops && f->ops->cfg_written)
		f->ops->cfg_written(f, off, size);
}

void pci_header(struct pci_func *f, const struct pci_id *id)
{
	pci_put(f, 0, 2, id->vendor);
	pci_put(f, 2, 2, id->device);
	pci_put(f, HDR_REVISION, 1, id->revision);
	pci_put(f, HDR_CLASS, 3, id->class24);
	pci_put(f, HDR_SUBVENDOR, 2, id->subvendor);
	pci_put(f, HDR_SUBDEVICE, 2, id->subdevice);
	/* No INTx: interrupt pin 0; the line is the guest's scratch byte. */
	f->wmask[PCI_COMMAND] = PCI_COMMAND_MEM | PCI_COMMAND_MASTER;
	f->wmask[PCI_COMMAND + 1] = 0x04; /* interrupt disable: Linux tests that it sticks */
	f->wmask[HDR_CACHE_LINE] = 0xff;
	f->wmask[HDR_INT_LINE] = 0xff;
}

unsigned pci_cap(struct pci_func *f, uint8_t id, const void *body, unsigned len)
{
	unsigned at = f->cap_next ? f->cap_next : HDR_END;

	assert(len >= 2);
	if (len > CFG_SIZE - at)
		return 0;
	memcpy(&f->cfg[at], body, len);
	f->cfg[at] = id;
	f->cfg[at + 1] = 0;
	f->cfg[f->cap_last ? f->cap_last + 1 : HDR_CAPS] = (uint8_t)at;
	f->cfg[HDR_STATUS] |= HDR_STATUS_CAPS;
	f->cap_last = (uint8_t)at;
	f->cap_next = (uint16_t)((at + len + 3) & ~3u);
	return at;
}

/* ---------------------------------------------------------------- ECAM */

static uint64_t ecam_read(void *dev, uint64_t off, unsigned size)
{
	struct pci_func *f = dev;

	/* Functions 1 to 7 are absent; pci_cfg_read bounds the rest. */
	if (off >= FUNC_SIZE)
		return UINT64_MAX;
	if (size == 8)
		return pci_cfg_read(f, (unsigned)off, 4) |
		       (uint64_t)pci_cfg_read(f, (unsigned)off + 4, 4) << 32;
	return pci_cfg_read(f, (unsigned)off, size);
}

static void ecam_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct pci_func *f = dev;

	if (off >= FUNC_SIZE)
		return;
	pci_cfg_write(f, (unsigned)off, size == 8 ? 4 : size, (uint32_t)val);
	if (size == 8)
		pci_cfg_write(f, (unsigned)off + 4, 4, (uint32_t)(val >> 32));
}

static uint64_t absent_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev, (void)off, (void)size;
	return UINT64_MAX;
}

static void absent_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)dev, (void)off, (void)size, (void)val;
}

static const struct bus_ops ecam_ops = {ecam_read, ecam_write};
static const struct bus_ops absent_ops = {absent_read, absent_write};

/* A slot's ECAM; an empty slot answers too, so that a bus scan is nothing unusual to the bus. */
static int slot_map(struct pci_bus *b, unsigned slot, struct pci_func *f, struct err *e)
{
	struct bus_region r = {.base = LAYOUT_ECAM_BASE + slot * SLOT_SIZE,
			       .size = SLOT_SIZE,
			       .ops = f ? &ecam_ops : &absent_ops,
			       .dev = f,
			       .loop = f ? f->loop : NULL,
			       .name = f ? f->name : "empty PCI slot"};

	return bus_add(b->mmio, &r, e);
}

static void slot_unmap(struct pci_bus *b, unsigned slot)
{
	bus_del(b->mmio, LAYOUT_ECAM_BASE + slot * SLOT_SIZE);
}

static int slot_fill(struct pci_bus *b, unsigned slot, struct pci_func *f, struct err *e)
{
	int ret;

	slot_unmap(b, slot);
	ret = slot_map(b, slot, f, e);
	if (ret) {
		slot_map(b, slot, NULL, NULL);
		return ret;
	}
	f->bus = b;
	f->slot = (uint8_t)slot;
	b->slot[slot] = f;
	return 0;
}

int pci_add(struct pci_bus *b, struct pci_func *f, struct err *e)
{
	unsigned slot = 1;
	int ret;

	while (slot < PCI_SLOTS && b->slot[slot])
		slot++;
	if (slot == PCI_SLOTS)
		return err_msg(e, -ENOSPC, "the PCI bus is full (%u devices)", PCI_SLOTS - 1);
	ret = bars_assign(b, f, e);
	return ret ? ret : slot_fill(b, slot, f, e);
}

void pci_del(struct pci_func *f)
{
	struct pci_bus *b = f->bus;

	if (!b)
		return;
	for (unsigned i = 0; i < PCI_BARS; i++)
		bar_unmap(f, i);
	slot_unmap(b, f->slot);
	slot_map(b, f->slot, NULL, NULL); /* out of memory: the bus itself then reads as all ones */
	b->slot[f->slot] = NULL;
	f->bus = NULL;
}

/* ------------------------------------------------------- 0xCF8, 0xCFC */

/* Where a data access at @off (4 to 7: 0xcfc to 0xcff) goes; false: nowhere. */
static bool cf8_target(struct pci_bus *b, uint64_t off, unsigned size, uint64_t *ret)
{
	uint32_t cf8 = atomic_load_explicit(&b->cf8, memory_order_relaxed);

	if (off < 4 || size > 4 || off + size > 8 || !(cf8 & CF8_ENABLE) || (cf8 >> 16 & 0xff))
		return false;
	/* Bus 0: device and function (15:8), dword (7:2), byte; below LAYOUT_ECAM_SIZE. */
	*ret = LAYOUT_ECAM_BASE + ((cf8 & 0xff00u) << 4) + (cf8 & 0xfc) + (off & 3);
	return true;
}

static uint64_t cf8_read(void *dev, uint64_t off, unsigned size)
{
	struct pci_bus *b = dev;
	uint64_t at;

	if (off == 0 && size == 4)
		return atomic_load_explicit(&b->cf8, memory_order_relaxed);
	return cf8_target(b, off, size, &at) ? bus_read(b->mmio, at, size) : UINT64_MAX;
}

static void cf8_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct pci_bus *b = dev;
	uint64_t at;

	if (off == 0 && size == 4)
		atomic_store_explicit(&b->cf8, (uint32_t)val & CF8_WRITABLE, memory_order_relaxed);
	else if (cf8_target(b, off, size, &at))
		bus_write(b->mmio, at, size, val);
}

/* ----------------------------------------------------------------- bus */

static const struct bus_ops cf8_ops = {cf8_read, cf8_write};

static int bus_fill(struct pci_bus *b, struct err *e)
{
	/* Only atomics behind it: no loop. ECAM takes the lock of the function that is addressed.
	 */
	struct bus_region r = {
		.base = LAYOUT_PORT_PCI, .size = 8, .ops = &cf8_ops, .dev = b, .name = "PCI ports"};

	int ret = 0;

	for (unsigned s = 0; s < PCI_SLOTS && !ret; s++)
		ret = slot_map(b, s, NULL, e);
	if (!ret && b->pio)
		ret = bus_add(b->pio, &r, e);
	if (ret)
		return ret;
	return slot_fill(b, 0, &b->bridge, e);
}

int pci_bus_new(struct pci_bus **ret, const struct pci_bus_env *env, struct err *e)
{
	const struct pci_id bridge = {.vendor = 0x8086, .device = 0x0d57, .class24 = 0x060000};
	struct pci_bus *b = calloc(1, sizeof(*b));
	int code;

	if (!b)
		return err_msg(e, -ENOMEM, "PCI bus: out of memory");
	b->pio = env->pio;
	b->mmio = env->mmio;
	b->win = env->window;
	if (!b->pio)
		b->win.size_io = 0;
	b->bridge.loop = env->loop;
	b->bridge.name = "PCI host bridge";
	pci_header(&b->bridge, &bridge);
	code = bus_fill(b, e);
	if (code) {
		pci_bus_free(b);
		return code;
	}
	*ret = b;
	return 0;
}

bool pci_has_io(const struct pci_bus *b)
{
	return b->win.size_io;
}

void pci_bus_free(struct pci_bus *b)
{
	if (!b)
		return;
	for (unsigned s = 0; s < PCI_SLOTS; s++)
		slot_unmap(b, s);
	if (b->pio)
		bus_del(b->pio, LAYOUT_PORT_PCI);
	free(b);
}
