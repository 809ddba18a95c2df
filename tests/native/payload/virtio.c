/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/native/payload/virtio.h"

#include "tests/native/payload/pci.h"

#define VIRTIO_VENDOR 0x1af4
#define DEVICE_BASE 0x1040
#define CAP_VENDOR 0x09
#define CAP_MSIX 0x11
enum { CFG_COMMON = 1, CFG_NOTIFY, CFG_ISR, CFG_DEVICE, CFG_PCI };

/* ----------------------------------------------------------- discovery */

bool on_pci(void)
{
	return r32(pci_ecam(0)) != UINT32_MAX;
}

/* There are two: in the ports of BAR 2 and in the memory of BAR 0. */
static void take_notify(struct dev *d, unsigned at)
{
	uint64_t ecam = pci_ecam(d->slot), cfg = ecam + at;

	if (r8(cfg + 4) == 2) {
		d->ports = (uint16_t)((r32(ecam + PCI_BAR2) & ~3u) + r32(cfg + 8));
		d->ports_multiplier = r32(cfg + 16);
	} else {
		d->notify = d->bar + r32(cfg + 8);
		d->multiplier = r32(cfg + 16);
	}
}

static void take_cap(struct dev *d, unsigned at)
{
	uint64_t cfg = pci_ecam(d->slot) + at;
	uint64_t where = d->bar + r32(cfg + 8);

	switch (r8(cfg + 3)) {
	case CFG_COMMON:
		d->common = where;
		break;
	case CFG_NOTIFY:
		take_notify(d, at);
		break;
	case CFG_ISR:
		d->isr = where;
		break;
	case CFG_DEVICE:
		d->config = where;
		break;
	case CFG_PCI:
		d->pci_cfg = at;
		break;
	}
}

/* Everything is found through the capability list, as a driver does. */
static void take_caps(struct dev *d)
{
	uint64_t ecam = pci_ecam(d->slot);

	for (unsigned at = r8(ecam + PCI_CAPS); at; at = r8(ecam + at + 1)) {
		uint8_t id = r8(ecam + at);

		if (id == CAP_VENDOR)
			take_cap(d, at);
		if (id != CAP_MSIX)
			continue;
		d->msix = at;
		d->table = d->bar + (r32(ecam + at + 4) & ~7u);
		d->pba = d->bar + (r32(ecam + at + 8) & ~7u);
	}
}

void dev_bar(struct dev *d, uint64_t addr)
{
	uint64_t ecam = pci_ecam(d->slot);

	w32(ecam + PCI_BAR0, (uint32_t)addr);
	w32(ecam + PCI_BAR0 + 4, (uint32_t)(addr >> 32));
	d->bar = addr;
	take_caps(d);
}

void dev_ports(struct dev *d, uint32_t addr)
{
	w32(pci_ecam(d->slot) + PCI_BAR2, addr);
	take_caps(d);
}

static bool find_pci(struct dev *d, unsigned id, unsigned nth)
{
	for (unsigned slot = 1; slot < 32; slot++) {
		uint64_t ecam = pci_ecam(slot);

		if (r32(ecam) != (VIRTIO_VENDOR | (DEVICE_BASE + id) << 16) || nth--)
			continue;
		d->slot = slot;
		d->bar = (r32(ecam + PCI_BAR0) & ~0xfu) | (uint64_t)r32(ecam + PCI_BAR0 + 4) << 32;
		w16(ecam + PCI_COMMAND, PCI_COMMAND_ON);
		take_caps(d);
		return d->common && d->notify && d->ports && d->isr && d->msix && d->pci_cfg;
	}
	return false;
}

static bool find_mmio(struct dev *d, unsigned id, unsigned nth)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t regs = LAYOUT_VMMIO_BASE + i * LAYOUT_VMMIO_STRIDE;

		if (r32(regs + M_MAGIC) != 0x74726976 || r32(regs + M_VERSION) != 2 ||
		    r32(regs + M_DEVICE_ID) != id || nth--)
			continue;
		d->regs = regs;
		d->config = regs + M_CONFIG;
		d->gsi = LAYOUT_GSI_VMMIO + i;
		return true;
	}
	return false;
}

bool dev_find(struct dev *d, unsigned id, unsigned nth)
{
	*d = (struct dev){.pci = on_pci()};
	return d->pci ? find_pci(d, id, nth) : find_mmio(d, id, nth);
}

/* -------------------------------------------------- status and features */

uint8_t dev_status(const struct dev *d)
{
	return d->pci ? r8(d->common + C_STATUS) : (uint8_t)r32(d->regs + M_STATUS);
}

void dev_set_status(const struct dev *d, uint8_t s)
{
	if (d->pci)
		w8(d->common + C_STATUS, s);
	else
		w32(d->regs + M_STATUS, s);
}

static void feature(const struct dev *d, unsigned pci, unsigned mmio, uint32_t v)
{
	w32(d->pci ? d->common + pci : d->regs + mmio, v);
}

uint64_t dev_offered(const struct dev *d)
{
	uint64_t at = d->pci ? d->common + C_DEVICE_FEATURE : d->regs + M_DEVICE_FEATURE, low;

	feature(d, C_DEVICE_SELECT, M_DEVICE_SELECT, 0);
	low = r32(at);
	feature(d, C_DEVICE_SELECT, M_DEVICE_SELECT, 1);
	return low | (uint64_t)r32(at) << 32;
}

void dev_accept(const struct dev *d, uint64_t features)
{
	for (unsigned half = 0; half < 2; half++) {
		feature(d, C_DRIVER_SELECT, M_DRIVER_SELECT, half);
		feature(d, C_DRIVER_FEATURE, M_DRIVER_FEATURE, (uint32_t)(features >> 32 * half));
	}
}

void dev_reset(const struct dev *d)
{
	dev_set_status(d, 0);
}

bool dev_begin(struct dev *d, uint64_t want)
{
	dev_reset(d);
	if (dev_status(d))
		return false;
	dev_set_status(d, S_ACKNOWLEDGE);
	dev_set_status(d, S_ACKNOWLEDGE | S_DRIVER);
	d->acked = dev_offered(d) & (want | F_VERSION_1);
	dev_accept(d, d->acked);
	dev_set_status(d, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
	return dev_status(d) & S_FEATURES_OK;
}

/* --------------------------------------------------------------- queues */

void dev_select(const struct dev *d, uint16_t q)
{
	if (d->pci)
		w16(d->common + C_QUEUE_SELECT, q);
	else
		w32(d->regs + M_QUEUE_SELECT, q);
}

uint16_t dev_queue_max(const struct dev *d)
{
	return d->pci ? r16(d->common + C_QUEUE_SIZE) : (uint16_t)r32(d->regs + M_QUEUE_NUM_MAX);
}

void dev_queue_size(const struct dev *d, uint16_t n)
{
	if (d->pci)
		w16(d->common + C_QUEUE_SIZE, n);
	else
		w32(d->regs + M_QUEUE_NUM, n);
}

static void put_addr(const struct dev *d, unsigned pci, unsigned mmio, uint64_t v)
{
	uint64_t at = d->pci ? d->common + pci : d->regs + mmio;

	w32(at, (uint32_t)v);
	w32(at + 4, (uint32_t)(v >> 32));
}

void dev_queue_addr(const struct dev *d, uint64_t desc, uint64_t avail, uint64_t used)
{
	put_addr(d, C_QUEUE_DESC, M_QUEUE_DESC, desc);
	put_addr(d, C_QUEUE_AVAIL, M_QUEUE_AVAIL, avail);
	put_addr(d, C_QUEUE_USED, M_QUEUE_USED, used);
}

void dev_queue_enable(const struct dev *d)
{
	if (d->pci)
		w16(d->common + C_QUEUE_ENABLE, 1);
	else
		w32(d->regs + M_QUEUE_READY, 1);
}

bool dev_queue_enabled(const struct dev *d)
{
	return d->pci ? r16(d->common + C_QUEUE_ENABLE) : r32(d->regs + M_QUEUE_READY);
}

void dev_queue_reset(const struct dev *d)
{
	if (d->pci)
		w16(d->common + C_QUEUE_RESET, 1);
	else
		w32(d->regs + M_QUEUE_RESET, 1);
}

void dev_kick(const struct dev *d, uint16_t q)
{
	if (!d->pci) {
		w32(d->regs + M_QUEUE_NOTIFY, q);
		return;
	}
	/* Every queue's offset is its number here; the tests of the capabilities check it. */
	outw((uint16_t)(d->ports + q * d->ports_multiplier), q);
}

void dev_queue(struct dev *d, struct ring *r, uint16_t q)
{
	memset(r, 0, sizeof(*r));
	r->queue = q;
	dev_select(d, q);
	dev_queue_size(d, RING_MAX);
	dev_queue_addr(d, addr_of(r->desc), addr_of(&r->avail), addr_of(&r->used));
	dev_queue_enable(d);
}

bool dev_start(struct dev *d, struct ring *r, uint64_t want)
{
	if (!dev_begin(d, want))
		return false;
	dev_queue(d, r, 0);
	dev_set_status(d, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
	return dev_status(d) == (S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
}

/* ---------------------------------------------------------------- MSI-X */

void msix_control(const struct dev *d, uint16_t bits)
{
	w16(pci_ecam(d->slot) + d->msix + 2, bits);
}

void msix_mask(const struct dev *d, unsigned i, bool masked)
{
	w32(d->table + 16 * i + 12, masked);
}

void msix_entry(const struct dev *d, unsigned i, uint8_t vector, bool masked)
{
	msix_mask(d, i, true);
	w32(d->table + 16 * i, MSI_ADDR);
	w32(d->table + 16 * i + 4, 0);
	w32(d->table + 16 * i + 8, vector);
	msix_mask(d, i, masked);
}

bool msix_pending(const struct dev *d, unsigned i)
{
	return r32(d->pba + i / 32 * 4) >> (i % 32) & 1;
}

void queue_vector(const struct dev *d, uint16_t q, uint16_t entry)
{
	dev_select(d, q);
	w16(d->common + C_QUEUE_VECTOR, entry);
}

/* ---------------------------------------------------------------- rings */

void ring_chain(struct desc *table, uint16_t first, const struct buf *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		table[first + i] = (struct desc){
			.addr = b[i].at,
			.len = b[i].len,
			.flags = (uint16_t)((b[i].write ? D_WRITE : 0) | (i + 1 < n ? D_NEXT : 0)),
			.next = (uint16_t)(i + 1 < n ? first + i + 1 : 0),
		};
}

void ring_publish(struct ring *r, uint16_t head)
{
	r->avail.elem[r->avail.idx % RING_MAX] = head;
	barrier(); /* x86 keeps the order of stores; the compiler must, too */
	r->avail.idx++;
	fence();
}

bool ring_wait(struct ring *r, uint32_t *id, uint32_t *len)
{
	volatile uint16_t *idx = &r->used.idx;

	if (!WAIT(*idx != r->seen))
		return false;
	*id = r->used.elem[r->seen % RING_MAX].id;
	*len = r->used.elem[r->seen % RING_MAX].len;
	r->seen++;
	return true;
}

/* ------------------------------------------------------------- requests */

bool rng_read(struct dev *d, struct ring *r, void *buf, uint32_t len, uint32_t *ret_used)
{
	const struct buf b = WRITTEN_BY_DEVICE(buf, len);
	uint32_t id;

	ring_chain(r->desc, 0, &b, 1);
	ring_publish(r, 0);
	dev_kick(d, r->queue);
	return ring_wait(r, &id, ret_used) && id == 0;
}

void blk_put(struct ring *r, uint16_t first, struct blk_req *q, void *buf, uint32_t len)
{
	struct buf b[3] = {READ_BY_DEVICE(q, 16)};
	unsigned n = 1;

	q->status = 0xee;
	if (len)
		b[n++] = (struct buf){addr_of(buf), len, q->type != BLK_OUT};
	b[n++] = (struct buf)WRITTEN_BY_DEVICE(&q->status, 1);
	ring_chain(r->desc, first, b, n);
	ring_publish(r, first);
}

bool blk_do(struct dev *d, struct ring *r, struct blk_req *q, void *buf, uint32_t len)
{
	uint32_t id;

	blk_put(r, 0, q, buf, len);
	dev_kick(d, r->queue);
	return ring_wait(r, &id, &q->used) && id == 0;
}

bool disk_holds(const void *buf, uint64_t sector, unsigned sectors)
{
	const uint32_t *w = buf;

	for (unsigned s = 0; s < sectors; s++)
		for (unsigned i = 0; i < 128; i++)
			if (*w++ != disk_word(sector + s, i))
				return false;
	return true;
}
