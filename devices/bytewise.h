/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For devices whose registers are single bytes: a wider access is that many
 * byte cycles at rising addresses, as on the ISA bus. The bus has checked that
 * all of them lie inside the region.
 */
#ifndef DEVICES_BYTEWISE_H
#define DEVICES_BYTEWISE_H

#include <stdint.h>

static inline uint64_t bytewise_read(uint8_t (*fn)(void *dev, unsigned reg), void *dev,
				     uint64_t off, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)fn(dev, (unsigned)off + i) << (8 * i);
	return v;
}

static inline void bytewise_write(void (*fn)(void *dev, unsigned reg, uint8_t val), void *dev,
				  uint64_t off, unsigned size, uint64_t val)
{
	for (unsigned i = 0; i < size; i++)
		fn(dev, (unsigned)off + i, (uint8_t)(val >> (8 * i)));
}

#endif
