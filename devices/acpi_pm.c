/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI's fixed registers of a hardware-reduced machine (ACPI 6.4, 4.8.3.7 sleep
 * control and status, 4.8.3.6 reset register, 4.8.2.1 PM timer). Control,
 * status and reset share the byte at LAYOUT_PORT_ACPI: reset is the value 1,
 * which sets no defined bit of sleep control.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#include "devices/bytewise.h"
#include "vmm/layout.h"

#define SLEEP_PORTS 4 /* wide accesses reach the register in their low byte */
#define TIMER_PORTS 4

#define RESET_VALUE 1
#define SLP_EN 0x20
#define SLP_TYP(v) ((v) >> 2 & 7)
#define SLP_TYP_S5 5 /* what the DSDT's _S5 says */
#define WAK_STS 0x80

#define PM_TIMER_HZ 3579545ull
#define NSEC 1000000000ull

struct acpi_pm {
	struct bus *pio;
	struct power_sink power;
	uint8_t status;
	uint64_t epoch; /* loop_now() at which the timer read zero */
};

static uint8_t acpi_pm_read_reg(void *dev, unsigned reg)
{
	const struct acpi_pm *d = dev;

	return reg == 0 ? d->status : 0;
}

static void acpi_pm_write_reg(void *dev, unsigned reg, uint8_t val)
{
	struct acpi_pm *d = dev;

	if (reg != 0)
		return;
	if (val == RESET_VALUE) {
		power_report(&d->power, POWER_RESET);
	} else if (!(val & SLP_EN)) {
		if (val & WAK_STS)
			d->status = 0; /* write one to clear */
	} else if (SLP_TYP(val) == SLP_TYP_S5) {
		power_report(&d->power, POWER_OFF);
	} else {
		/* No other state exists. The machine is awake again at once, so a guest that waits
		 * goes on. */
		d->status = WAK_STS;
	}
}

static uint64_t acpi_pm_read(void *dev, uint64_t off, unsigned size)
{
	return bytewise_read(acpi_pm_read_reg, dev, off, size);
}

static void acpi_pm_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	bytewise_write(acpi_pm_write_reg, dev, off, size, val);
}

static uint64_t acpi_pm_read_timer(void *dev, uint64_t off, unsigned size)
{
	const struct acpi_pm *d = dev;
	uint64_t ns = loop_now() - d->epoch;
	/* Seconds and the rest apart: their product with the rate stays below 2^64. */
	uint64_t ticks = ns / NSEC * PM_TIMER_HZ + ns % NSEC * PM_TIMER_HZ / NSEC;

	(void)size; /* the bus takes what was asked for; @off < TIMER_PORTS */
	return (uint32_t)ticks >> (8 * off);
}

static void acpi_pm_write_timer(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)dev; /* read-only */
	(void)off;
	(void)size;
	(void)val;
}

static const struct bus_ops sleep_ops = {.read = acpi_pm_read, .write = acpi_pm_write};
static const struct bus_ops timer_ops = {.read = acpi_pm_read_timer, .write = acpi_pm_write_timer};

int acpi_pm_new(struct acpi_pm **ret, struct bus *pio, struct loop *l, const struct power_sink *p,
		struct err *e)
{
	struct acpi_pm *d = calloc(1, sizeof(*d));

	if (!d)
		return err_msg(e, -ENOMEM, "acpi registers: out of memory");
	d->pio = pio;
	d->power = *p;
	d->epoch = loop_now();

	struct bus_region r = {
		.base = LAYOUT_PORT_ACPI,
		.size = SLEEP_PORTS,
		.ops = &sleep_ops,
		.dev = d,
		.loop = l,
		.name = "acpi sleep",
	};
	int rc = bus_add(pio, &r, e);
	if (rc == 0) {
		r.base = LAYOUT_PORT_PMTIMER;
		r.size = TIMER_PORTS;
		r.ops = &timer_ops;
		r.name = "acpi timer";
		rc = bus_add(pio, &r, e);
		if (rc < 0)
			bus_del(pio, LAYOUT_PORT_ACPI);
	}
	if (rc < 0) {
		free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

void acpi_pm_free(struct acpi_pm *d)
{
	if (!d)
		return;
	bus_del(d->pio, LAYOUT_PORT_ACPI);
	bus_del(d->pio, LAYOUT_PORT_PMTIMER);
	free(d);
}
