/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two address spaces a vCPU's exits land in: port I/O and MMIO.
 *
 * A region is a range with a read and a write function and the loop its device
 * belongs to. The bus holds that loop's lock around the call, and looks the
 * region up again if the map changed while it waited: once bus_del has
 * returned (called with the loop's lock held), no call is under way or will
 * come. A region whose loop is NULL locks nothing and is called from any vCPU
 * thread at once: its handler uses atomics alone.
 *
 * Accesses of 1, 2, 4 and 8 bytes at any offset within the region, and wholly
 * inside it, reach the handler; everything else reads as all ones and is
 * dropped (said in the log at debug level). Handlers may add and remove regions.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdint.h>

#include <stdbool.h>

#include "vmm/err.h"
#include "vmm/loop.h"

struct bus;

struct bus_ops {
	/* @off: bytes from the region's base; @size: 1, 2, 4 or 8. */
	uint64_t (*read)(void *dev, uint64_t off, unsigned size);
	void (*write)(void *dev, uint64_t off, unsigned size, uint64_t val);
};

struct bus_region {
	uint64_t base;
	uint64_t size;
	const struct bus_ops *ops;
	void *dev;
	struct loop *loop;
	const char *name;
};

int bus_new(struct bus **ret, struct err *e);
void bus_free(struct bus *b);

/* The region is copied; dev must live until bus_del. -EEXIST on overlap, -EINVAL, -ENOMEM. */
int bus_add(struct bus *b, const struct bus_region *r, struct err *e);
/* Removes the region that starts at @base; -ENOENT. Called with its loop's lock held. */
int bus_del(struct bus *b, uint64_t base);

/* Any thread; no loop lock may be held, or the handler of another loop could wait for ours. */
uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size);
void bus_write(struct bus *b, uint64_t addr, unsigned size, uint64_t val);

#endif
