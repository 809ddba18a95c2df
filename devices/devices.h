/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small devices a Linux guest on x86-64 expects besides virtio. Each is
 * created with what it needs, puts itself on the bus, and is freed by its
 * _free (which accepts NULL and takes it off the bus). All run under the loop
 * they are given.
 */
#ifndef DEVICES_DEVICES_H
#define DEVICES_DEVICES_H

#include <stdint.h>

#include "vmm/bus.h"
#include "vmm/chr.h"
#include "vmm/err.h"
#include "vmm/irq.h"
#include "vmm/loop.h"
#include "vmm/power.h"

/* devices/serial.c: 16550A at LAYOUT_PORT_SERIAL (National Semiconductor PC16550D). */
struct serial_env { /* both outlive the device */
	struct irq *irq;
	struct chr *chr;
	bool hold; /* input waits at the host until the guest listens: serial.c says why */
};
struct serial;
int serial_new(struct serial **ret, struct bus *pio, struct loop *l, const struct serial_env *env,
	       struct err *e);
void serial_free(struct serial *s);
void serial_listen(struct serial *s); /* the guest reads from now on; accepts NULL */

/* devices/cmos.c: MC146818 clock, read-only UTC time; memory size bytes. Alarm and periodic
 * interrupts are absent. */
struct cmos_ram {
	uint64_t low, high; /* bytes below and from 4 GiB */
};
struct cmos;
int cmos_new(struct cmos **ret, struct bus *pio, struct loop *l, const struct cmos_ram *ram,
	     struct err *e);
void cmos_free(struct cmos *c);

/* devices/i8042.c: a controller without devices that self-tests; command 0xFE resets the machine.
 */
struct i8042;
int i8042_new(struct i8042 **ret, struct bus *pio, struct loop *l, const struct power_sink *p,
	      struct err *e);
void i8042_free(struct i8042 *d);

/* devices/acpi_pm.c: sleep control and status, reset register at 0x600; 24/32-bit PM timer at 0x608
 * (3.579545 MHz). */
struct acpi_pm;
int acpi_pm_new(struct acpi_pm **ret, struct bus *pio, struct loop *l, const struct power_sink *p,
		struct err *e);
void acpi_pm_free(struct acpi_pm *d);

/* devices/ged.c: generic event device; one byte of events that clears on read. */
#define GED_POWER 8 /* the power button */
struct ged_env {
	uint64_t addr;   /* of the register */
	struct irq *irq; /* outlives the device */
};
struct ged;
int ged_new(struct ged **ret, struct bus *mmio, struct loop *l, const struct ged_env *env,
	    struct err *e);
void ged_free(struct ged *g);
void ged_event(struct ged *g, uint8_t bits); /* loop's lock held */

/* devices/pvpanic.c: port 0x505; reads say which events there are (1 panicked, 2 crash loaded). */
struct pvpanic;
int pvpanic_new(struct pvpanic **ret, struct bus *pio, struct loop *l, const struct power_sink *p,
		struct err *e);
void pvpanic_free(struct pvpanic *d);

/* devices/marker.c: LAYOUT_PORT_MARK (guest/init's stages, for the timeline and for @u) and the
 * debug port 0x80. */
struct marker_user {
	void (*marked)(void *arg,
		       uint8_t mark); /* any byte, not MARK_* alone; NULL: nobody listens */
	void *arg;
};
struct marker;
int marker_new(struct marker **ret, struct bus *pio, struct loop *l, const struct marker_user *u,
	       struct err *e);
void marker_free(struct marker *m);

#endif
