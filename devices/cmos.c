/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818 clock and its battery-backed bytes (Motorola MC146818 data sheet;
 * register names are those of it). The time is the host's UTC and cannot be
 * set; what a guest writes into the time registers is dropped. Interrupts are
 * absent: the enable bits of register B read as zero.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "devices/bytewise.h"
#include "vmm/layout.h"

#define CMOS_BYTES 128u
#define CMOS_INDEX 0 /* offsets of the two ports */
#define CMOS_PORTS 2

enum {
	REG_SECONDS = 0x00,
	REG_MINUTES = 0x02,
	REG_HOURS = 0x04,
	REG_WEEKDAY = 0x06,
	REG_DAY = 0x07,
	REG_MONTH = 0x08,
	REG_YEAR = 0x09,
	REG_A = 0x0a,
	REG_B = 0x0b,
	REG_C = 0x0c,
	REG_D = 0x0d,
	REG_CENTURY = 0x32, /* named by the FADT */
};

#define A_UIP 0x80
#define A_DV_RESET 0x60 /* both divider-reset values have these two bits */
#define A_DEFAULT 0x26  /* 32,768 Hz, 1,024 Hz rate */
#define B_SET 0x80
#define B_BINARY 0x04
#define B_24H 0x02
#define D_VALID 0x80

/* An update cycle is announced at least this long before the second ends (table 6). */
#define UIP_NS 244000

struct cmos {
	struct bus *pio;
	uint8_t index; /* < CMOS_BYTES */
	uint8_t byte[CMOS_BYTES];
};

static uint8_t cmos_digits(const struct cmos *c, int v)
{
	return (uint8_t)(c->byte[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static bool cmos_is_time(unsigned reg)
{
	return reg == REG_SECONDS || reg == REG_MINUTES || reg == REG_HOURS ||
	       (reg >= REG_WEEKDAY && reg <= REG_YEAR) || reg == REG_CENTURY;
}

static uint8_t cmos_time(const struct cmos *c, unsigned reg)
{
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	switch (reg) {
	case REG_SECONDS:
		return cmos_digits(c, tm.tm_sec);
	case REG_MINUTES:
		return cmos_digits(c, tm.tm_min);
	case REG_HOURS:
		return cmos_digits(c, tm.tm_hour);
	case REG_WEEKDAY:
		return cmos_digits(c, tm.tm_wday + 1); /* Sunday is 1 */
	case REG_DAY:
		return cmos_digits(c, tm.tm_mday);
	case REG_MONTH:
		return cmos_digits(c, tm.tm_mon + 1);
	case REG_YEAR:
		return cmos_digits(c, tm.tm_year % 100);
	default:
		return cmos_digits(c, (tm.tm_year + 1900) / 100);
	}
}

/* The bit is a function of the clock, so it cannot stick; SET and a stopped divider hold updates
 * off. */
static uint8_t cmos_uip(const struct cmos *c)
{
	struct timespec now;

	if (c->byte[REG_B] & B_SET || (c->byte[REG_A] & A_DV_RESET) == A_DV_RESET)
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_nsec >= 1000000000 - UIP_NS ? A_UIP : 0;
}

static uint8_t cmos_read_reg(void *dev, unsigned port)
{
	const struct cmos *c = dev;

	if (port == CMOS_INDEX)
		return 0xff; /* write-only in the chip sets that software knows */
	if (cmos_is_time(c->index))
		return cmos_time(c, c->index);
	if (c->index == REG_A)
		return c->byte[REG_A] | cmos_uip(c);
	return c->byte[c->index];
}

static void cmos_write_reg(void *dev, unsigned port, uint8_t val)
{
	struct cmos *c = dev;

	if (port == CMOS_INDEX) {
		c->index = val % CMOS_BYTES; /* bit 7 is the chip set's NMI mask */
		return;
	}
	if (cmos_is_time(c->index) || c->index == REG_C || c->index == REG_D)
		return;
	if (c->index == REG_A)
		val &= (uint8_t)~A_UIP;
	if (c->index == REG_B)
		val = (val & (B_SET | B_BINARY)) | B_24H;
	c->byte[c->index] = val;
}

static uint64_t cmos_read(void *dev, uint64_t off, unsigned size)
{
	return bytewise_read(cmos_read_reg, dev, off, size);
}

static void cmos_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	bytewise_write(cmos_write_reg, dev, off, size, val);
}

static const struct bus_ops cmos_ops = {.read = cmos_read, .write = cmos_write};

static void cmos_put(struct cmos *c, unsigned at, unsigned bytes, uint64_t v)
{
	uint64_t max = (1ull << 8 * bytes) - 1;

	if (v > max)
		v = max;
	for (unsigned i = 0; i < bytes; i++)
		c->byte[at + i] = (uint8_t)(v >> (8 * i));
}

/* The places where PC firmware leaves the memory's size; each stops at what its width can say. */
static void cmos_memory(struct cmos *c, const struct cmos_ram *ram)
{
	uint64_t above1 = ram->low > 1u << 20 ? ram->low - (1u << 20) : 0;
	uint64_t above16 = ram->low > 16u << 20 ? ram->low - (16u << 20) : 0;

	cmos_put(c, 0x15, 2, 640);             /* KiB of base memory */
	cmos_put(c, 0x17, 2, above1 >> 10);    /* KiB above 1 MiB */
	cmos_put(c, 0x30, 2, above1 >> 10);    /* the same again */
	cmos_put(c, 0x34, 2, above16 >> 16);   /* 64 KiB blocks above 16 MiB */
	cmos_put(c, 0x5b, 3, ram->high >> 16); /* 64 KiB blocks above 4 GiB */
}

int cmos_new(struct cmos **ret, struct bus *pio, struct loop *l, const struct cmos_ram *ram,
	     struct err *e)
{
	struct cmos *c = calloc(1, sizeof(*c));

	if (!c)
		return err_msg(e, -ENOMEM, "cmos: out of memory");
	c->pio = pio;
	c->byte[REG_A] = A_DEFAULT;
	c->byte[REG_B] = B_24H;
	c->byte[REG_D] = D_VALID;
	cmos_memory(c, ram);

	struct bus_region r = {
		.base = LAYOUT_PORT_CMOS,
		.size = CMOS_PORTS,
		.ops = &cmos_ops,
		.dev = c,
		.loop = l,
		.name = "cmos",
	};
	int rc = bus_add(pio, &r, e);
	if (rc < 0) {
		free(c);
		return rc;
	}
	*ret = c;
	return 0;
}

void cmos_free(struct cmos *c)
{
	if (!c)
		return;
	bus_del(c->pio, LAYOUT_PORT_CMOS);
	free(c);
}
