/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small virtio driver for both transports: enough to be a good one, and with
 * everything open so that a test can be a bad one.
 */
#ifndef PAYLOAD_VIRTIO_H
#define PAYLOAD_VIRTIO_H

#include "tests/native/payload/guest.h"

enum { ID_BLK = 2, ID_RNG = 4 };

/* Section 2.1 */
#define S_ACKNOWLEDGE 1
#define S_DRIVER 2
#define S_DRIVER_OK 4
#define S_FEATURES_OK 8
#define S_NEEDS_RESET 64

#define F_INDIRECT (1ull << 28)
#define F_EVENT_IDX (1ull << 29)
#define F_VERSION_1 (1ull << 32)
#define F_RING_RESET (1ull << 40)
#define F_BLK_RO (1ull << 5)
#define F_BLK_FLUSH (1ull << 9)

/* Section 4.1.4.3 */
#define C_DEVICE_SELECT 0x00
#define C_DEVICE_FEATURE 0x04
#define C_DRIVER_SELECT 0x08
#define C_DRIVER_FEATURE 0x0c
#define C_CONFIG_VECTOR 0x10
#define C_NUM_QUEUES 0x12
#define C_STATUS 0x14
#define C_QUEUE_SELECT 0x16
#define C_QUEUE_SIZE 0x18
#define C_QUEUE_VECTOR 0x1a
#define C_QUEUE_ENABLE 0x1c
#define C_QUEUE_NOTIFY 0x1e
#define C_QUEUE_DESC 0x20
#define C_QUEUE_AVAIL 0x28
#define C_QUEUE_USED 0x30
#define C_QUEUE_RESET 0x3a
#define NO_VECTOR 0xffff

/* Section 4.2.2 */
#define M_MAGIC 0x000
#define M_VERSION 0x004
#define M_DEVICE_ID 0x008
#define M_DEVICE_FEATURE 0x010
#define M_DEVICE_SELECT 0x014
#define M_DRIVER_FEATURE 0x020
#define M_DRIVER_SELECT 0x024
#define M_QUEUE_SELECT 0x030
#define M_QUEUE_NUM_MAX 0x034
#define M_QUEUE_NUM 0x038
#define M_QUEUE_READY 0x044
#define M_QUEUE_NOTIFY 0x050
#define M_ISR 0x060
#define M_ACK 0x064
#define M_STATUS 0x070
#define M_QUEUE_DESC 0x080
#define M_QUEUE_AVAIL 0x090
#define M_QUEUE_USED 0x0a0
#define M_QUEUE_RESET 0x0c0
#define M_CONFIG 0x100

/* Section 2.7 */
#define D_NEXT 1
#define D_WRITE 2
#define D_INDIRECT 4

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

#define RING_MAX 16
struct ring {
	struct desc desc[RING_MAX] __attribute__((aligned(16)));
	struct {
		uint16_t flags, idx, elem[RING_MAX], used_event;
	} avail __attribute__((aligned(4)));
	struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} elem[RING_MAX];
		uint16_t avail_event;
	} used __attribute__((aligned(4)));
	uint16_t seen; /* used elements taken */
	uint16_t queue;
};

struct dev {
	bool pci;
	unsigned slot;
	uint64_t bar;                         /* PCI: BAR 0 */
	uint64_t common, notify, isr, config; /* PCI, from the capabilities; config on both */
	uint32_t multiplier;
	uint16_t ports; /* PCI: BAR 2, another place for kicks */
	uint32_t ports_multiplier;
	unsigned msix, pci_cfg; /* PCI: offsets of the capabilities */
	uint64_t table, pba;
	uint64_t regs; /* MMIO */
	unsigned gsi;
	uint64_t acked;
};

/* The @nth device of that kind, not touched further; false: it is not there. */
bool dev_find(struct dev *d, unsigned id, unsigned nth);
bool on_pci(void);
void dev_bar(struct dev *d, uint64_t addr);   /* moves BAR 0 */
void dev_ports(struct dev *d, uint32_t addr); /* moves BAR 2, which may then be nowhere */

uint8_t dev_status(const struct dev *d);
void dev_set_status(const struct dev *d, uint8_t s);
uint64_t dev_offered(const struct dev *d);
void dev_accept(const struct dev *d, uint64_t features);
void dev_reset(const struct dev *d);

/* Reset, features (VERSION_1 and those of @want that it offers): up to FEATURES_OK. */
bool dev_begin(struct dev *d, uint64_t want);
void dev_select(const struct dev *d, uint16_t q);
uint16_t dev_queue_max(const struct dev *d);
void dev_queue_size(const struct dev *d, uint16_t n);
void dev_queue_addr(const struct dev *d, uint64_t desc, uint64_t avail, uint64_t used);
void dev_queue_enable(const struct dev *d);
bool dev_queue_enabled(const struct dev *d);
void dev_queue_reset(const struct dev *d);
void dev_kick(const struct dev *d, uint16_t q); /* PCI: by ports, as Linux does */

/* A fresh ring for queue @q, of RING_MAX or what the device takes. */
void dev_queue(struct dev *d, struct ring *r, uint16_t q);
/* All of it with one queue, running. */
bool dev_start(struct dev *d, struct ring *r, uint64_t want);

/* ---- MSI-X */
void msix_control(const struct dev *d, uint16_t bits);
#define MSIX_ENABLE 0x8000
#define MSIX_MASK_ALL 0x4000
void msix_entry(const struct dev *d, unsigned i, uint8_t vector, bool masked);
void msix_mask(const struct dev *d, unsigned i, bool masked);
bool msix_pending(const struct dev *d, unsigned i);
void queue_vector(const struct dev *d, uint16_t q, uint16_t entry);

/* ---- rings */
struct buf {
	uint64_t at;
	uint32_t len;
	bool write;
};
#define READ_BY_DEVICE(p, n)                                                                       \
	{                                                                                          \
		addr_of(p), (n), false                                                             \
	}
#define WRITTEN_BY_DEVICE(p, n)                                                                    \
	{                                                                                          \
		addr_of(p), (n), true                                                              \
	}
void ring_chain(struct desc *table, uint16_t first, const struct buf *b, unsigned n);
void ring_publish(struct ring *r, uint16_t head);
bool ring_wait(struct ring *r, uint32_t *id, uint32_t *len);

/* ---- requests, each waited for; false: no answer, or one for something else */
bool rng_read(struct dev *d, struct ring *r, void *buf, uint32_t len, uint32_t *ret_used);

struct blk_req {
	uint32_t type, reserved;
	uint64_t sector;
	uint8_t status;
	uint32_t used;
};
enum { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8 };
enum { BLK_OK = 0, BLK_IOERR = 1, BLK_UNSUPP = 2 };
void blk_put(struct ring *r, uint16_t first, struct blk_req *q, void *buf, uint32_t len);
bool blk_do(struct dev *d, struct ring *r, struct blk_req *q, void *buf, uint32_t len);

/* What the test's disks hold: word @i of sector @s. The Python side writes and reads the same. */
static inline uint32_t disk_word(uint64_t s, unsigned i)
{
	return (uint32_t)s * 2654435761u + i * 40503u + 1u;
}
bool disk_holds(const void *buf, uint64_t sector, unsigned sectors);

#endif
