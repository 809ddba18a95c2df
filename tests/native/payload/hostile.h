/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hostile driver attacks and what must hold afterwards: the victim, two
 * devices beside it, and the checks that all three work.
 */
#ifndef PAYLOAD_HOSTILE_H
#define PAYLOAD_HOSTILE_H

#include "tests/native/payload/pci.h"
#include "tests/native/payload/virtio.h"

#define NO_RAM 0x4000000000ull /* far beyond what the machine has */

static struct dev victim, disk, rng; /* vdb is the victim */
static struct ring vring, disk_ring, rng_ring;
static uint8_t buf[8192] __attribute__((aligned(4096)));
static struct blk_req req;

/* The three are there, and those beside the victim run. */
static inline bool all_found(void)
{
	return dev_find(&disk, ID_BLK, 0) && dev_find(&victim, ID_BLK, 1) &&
	       dev_find(&rng, ID_RNG, 0) && dev_start(&disk, &disk_ring, 0) &&
	       dev_start(&rng, &rng_ring, 0);
}

static inline bool others_work(void)
{
	struct blk_req q = {.type = BLK_IN, .sector = random32() % 8192};
	uint32_t used;

	return rng_read(&rng, &rng_ring, buf, 33, &used) && used == 33 &&
	       blk_do(&disk, &disk_ring, &q, buf, 512) && q.status == BLK_OK && q.used == 513 &&
	       disk_holds(buf, q.sector, 1);
}

static inline bool start(void)
{
	req = (struct blk_req){.type = BLK_IN, .sector = 1};
	return dev_start(&victim, &vring, F_RING_RESET);
}

static inline bool works(void)
{
	struct blk_req q = {.type = BLK_IN, .sector = 17};

	return blk_do(&victim, &vring, &q, buf, 512) && q.status == BLK_OK && q.used == 513 &&
	       disk_holds(buf, 17, 1);
}

#define CHECK_SURVIVED()                                                                           \
	do {                                                                                       \
		CHECK(others_work());                                                              \
		CHECK(start());                                                                    \
		CHECK(works());                                                                    \
	} while (0)

/* What was prepared in the victim's ring must break it and nothing else. */
#define CHECK_BREAKS()                                                                             \
	do {                                                                                       \
		dev_kick(&victim, 0);                                                              \
		CHECK(WAIT(dev_status(&victim) & S_NEEDS_RESET));                                  \
		CHECK_EQ(vring.used.idx, 0);                                                       \
		CHECK_SURVIVED();                                                                  \
	} while (0)

/* ---- random walks */

/* One access to [base, base + span), any width, either way. */
static inline void walk(uint64_t base, uint32_t span)
{
	uint32_t r = random32(), off = random32() % span;
	unsigned size = 1u << (r & 3);

	if (r & 4)
		mmio_read(base + off, size);
	else
		mmio_write(base + off, size, (uint64_t)random32() << 32 | random32() >> (r >> 27));
}

/* The victim's command register and BARs come back, for a walk may have changed them. */
static inline void revive(uint64_t home)
{
	uint64_t cfg = pci_ecam(victim.slot);

	if (!victim.pci)
		return;
	w32(cfg + PCI_BAR0, (uint32_t)home);
	w32(cfg + PCI_BAR0 + 4, (uint32_t)(home >> 32));
	w32(cfg + PCI_BAR2, victim.ports);
	w16(cfg + PCI_COMMAND, PCI_COMMAND_ON);
	w16(cfg + victim.msix + 2, 0);
}

#endif
