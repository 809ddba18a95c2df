/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI: one segment, one bus, 32 slots, function 0 only (PCI Local Bus 3.0,
 * PCI Express ECAM). Slot 0 is the host bridge.
 *
 * A function's configuration space is 256 bytes with a mask of what the guest
 * may write; its 4 KiB of ECAM are a bus region of their own under the
 * function's own loop, so an access to configuration space holds the lock of
 * the device it reaches. 0xCF8/0xCFC translate to ECAM. Functions are
 * conventional PCI: extended space and what is absent read as all ones, which
 * saves a guest the walk through extended capabilities that are not there.
 *
 * Accesses are those that stay within one aligned dword, and 8 bytes as two
 * dwords; all others read as all ones and write nothing.
 *
 * BARs are of memory or of I/O (section 6.2.5.1); the bus assigns addresses in
 * the 32-bit window or the I/O window at pci_add and follows the guest when it
 * moves them. A BAR decodes only while the command register's bit of its kind is
 * set, and only at an address inside the windows of its kind: a guest cannot lay
 * a BAR over RAM or another device (such a BAR simply does not decode; logged).
 * The bits are clear at first: then Linux need not switch decoding off and on
 * around sizing each BAR, and still keeps the addresses it finds; each BAR is
 * mapped once, when its driver enables it. Where there are no ports (another
 * architecture) an I/O BAR's register reads as zero, and so does its command bit.
 *
 * Threading: pci_bus_new, pci_add, pci_del and pci_bus_free on the thread that
 * assembles the machine; everything else under the function's loop lock.
 */
#ifndef DEVICES_PCI_H
#define DEVICES_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/bus.h"
#include "vmm/err.h"
#include "vmm/log.h"
#include "vmm/loop.h"

#define PCI_SLOTS 32
#define PCI_BARS 6

/* Header, PCI 3.0 section 6.1 */
#define PCI_COMMAND 0x04
#define PCI_COMMAND_IO 0x0001
#define PCI_COMMAND_MEM 0x0002
#define PCI_COMMAND_MASTER 0x0004
#define PCI_BAR0 0x10

#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_MSIX 0x11

struct pci_bus;
struct pci_func;

struct pci_ops {
	/*
	 * After the common part has stored (@write) or before it returns what is
	 * stored (read): lets a function react to or supply bytes of its own
	 * capabilities. @off: first byte, @size: 1, 2 or 4. May be NULL.
	 */
	void (*cfg_written)(struct pci_func *f, unsigned off, unsigned size);
	void (*cfg_reading)(struct pci_func *f, unsigned off, unsigned size);
	/*
	 * BAR @bar begins (@on) or stops decoding at @addr, a port for an I/O BAR:
	 * (de)register ioeventfds. May be NULL.
	 */
	void (*bar_mapped)(struct pci_func *f, unsigned bar, uint64_t addr, bool on);
};

struct pci_bar {
	uint64_t size;             /* a power of two: >= 4096, I/O 4 to 256; 0: absent */
	bool is64;                 /* takes two registers */
	bool io;                   /* ports, decoded on all 32 bits of the register */
	const struct bus_ops *ops; /* called with dev as given here */
	void *dev;
	uint64_t addr; /* where it decodes now; valid while mapped */
	bool mapped;
	uint64_t home; /* private: what pci_add assigned, and nobody else gets */
};

struct pci_func { /* the caller's storage, zeroed, lives until pci_del */
	const struct pci_ops *ops;
	void *dev;
	struct loop *loop;
	const char *name;
	uint8_t cfg[256];
	uint8_t wmask[256]; /* bits the guest may write */
	struct pci_bar bar[PCI_BARS];
	/* private to pci.c */
	struct pci_bus *bus;
	uint8_t slot;
	uint16_t cap_next; /* first free byte; 0: no capability yet */
	uint8_t cap_last;
	struct log_budget log;
};

struct pci_window {
	uint64_t base32, size32, base64, size64;
	uint64_t base_io, size_io; /* ports of no other device; size 0: none */
};

struct pci_bus_env {
	struct bus *pio; /* NULL: no 0xCF8/0xCFC, no I/O BARs */
	struct bus *mmio;
	struct loop *loop; /* the host bridge's */
	struct pci_window window;
};
int pci_bus_new(struct pci_bus **ret, const struct pci_bus_env *env, struct err *e);
void pci_bus_free(struct pci_bus *b);     /* after pci_del of all functions; accepts NULL */
bool pci_has_io(const struct pci_bus *b); /* whether an I/O BAR would be there */

struct pci_id {
	uint16_t vendor, device;
	uint16_t subvendor, subdevice;
	uint32_t class24; /* base class, sub-class, interface */
	uint8_t revision;
};
void pci_header(struct pci_func *f, const struct pci_id *id); /* before pci_add */
/* Appends a capability of @len bytes (id and next included, filled in here), 4-aligned; returns its
 * offset, 0 when full. */
unsigned pci_cap(struct pci_func *f, uint8_t id, const void *body, unsigned len);

/* Lowest free slot from 1 on; assigns BARs. -ENOSPC when the bus or a window is full. */
int pci_add(struct pci_bus *b, struct pci_func *f, struct err *e);
void pci_del(struct pci_func *f); /* loop's lock held or no vCPU running */

/* Configuration space of @slot as a guest reads it, for tests and the PCI_CFG capability: through
 * the function's ops. */
uint32_t pci_cfg_read(struct pci_func *f, unsigned off, unsigned size);
void pci_cfg_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val);

/* Whether an access [off, off+size) touches [at, at+len). */
static inline bool pci_touches(unsigned off, unsigned size, unsigned at, unsigned len)
{
	return off < at + len && at < off + size;
}

/* What is stored, without any callback; @off is the caller's own arithmetic. */
static inline uint32_t pci_get(const struct pci_func *f, unsigned off, unsigned size)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint32_t)f->cfg[off + i] << (8 * i);
	return v;
}

static inline void pci_put(struct pci_func *f, unsigned off, unsigned size, uint32_t val)
{
	for (unsigned i = 0; i < size; i++)
		f->cfg[off + i] = (uint8_t)(val >> (8 * i));
}

#endif
