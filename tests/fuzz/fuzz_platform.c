/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random bus accesses to all small platform devices, from a guest that knows
 * where they are. Eight bytes of input are one access, host input or event.
 */
#include "devices/devices.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/layout.h"
#include "vmm/log.h"

#define GED_ADDR 0x3fffff0000ull

/* ---- the host's end of the serial line: holds the device to its word */
struct chr {
	struct chr_user user;
	size_t waiting; /* bytes the host would like to send */
};

static void feed(struct chr *c)
{
	static const uint8_t text[16] = "0123456789abcdef";
	size_t room = c->user.room(c->user.dev);

	if (room > sizeof(text))
		abort(); /* no more than the chip's FIFO */
	size_t n = room < c->waiting ? room : c->waiting;
	if (n)
		c->user.input(c->user.dev, text, n);
	c->waiting -= n;
}

void chr_bind(struct chr *c, const struct chr_user *u)
{
	c->user = u ? *u : (struct chr_user){0};
}

void chr_write(struct chr *c, const uint8_t *buf, size_t n)
{
	(void)c;
	(void)buf;
	if (n != 1)
		abort();
}

void chr_room(struct chr *c)
{
	feed(c);
}

struct machine {
	struct bus *pio, *mmio;
	struct loop *loop;
	struct irq *irq;
	struct chr chr;
	struct serial *serial;
	struct cmos *cmos;
	struct i8042 *i8042;
	struct acpi_pm *pm;
	struct ged *ged;
	struct pvpanic *pvpanic;
	struct marker *marker;
};

static void machine_start(struct machine *m)
{
	static const struct power_sink sink = {0};
	static const struct marker_user nobody = {0};

	*m = (struct machine){0};
	if (bus_new(&m->pio, NULL) || bus_new(&m->mmio, NULL) || loop_new(&m->loop, "fuzz", NULL) ||
	    irq_fake_new(&m->irq, NULL) ||
	    serial_new(&m->serial, m->pio, m->loop, &(struct serial_env){m->irq, &m->chr, false},
		       NULL) ||
	    cmos_new(&m->cmos, m->pio, m->loop, &(struct cmos_ram){1ull << 30, 0}, NULL) ||
	    i8042_new(&m->i8042, m->pio, m->loop, &sink, NULL) ||
	    acpi_pm_new(&m->pm, m->pio, m->loop, &sink, NULL) ||
	    ged_new(&m->ged, m->mmio, m->loop, &(struct ged_env){GED_ADDR, m->irq}, NULL) ||
	    pvpanic_new(&m->pvpanic, m->pio, m->loop, &sink, NULL) ||
	    marker_new(&m->marker, m->pio, m->loop, &nobody, NULL))
		abort();
}

static void machine_stop(struct machine *m)
{
	serial_free(m->serial);
	cmos_free(m->cmos);
	i8042_free(m->i8042);
	acpi_pm_free(m->pm);
	ged_free(m->ged);
	pvpanic_free(m->pvpanic);
	marker_free(m->marker);
	irq_free(m->irq);
	loop_free(m->loop);
	bus_free(m->mmio);
	bus_free(m->pio);
}

struct step {
	uint8_t what;  /* 0-3 write, 4-7 read of 1, 2, 4, 8 bytes; 8 host input; 9 event */
	uint8_t where; /* of `port` below */
	uint8_t off;   /* of the port's neighbourhood */
	uint8_t val[5];
};

static void machine_step(struct machine *m, const struct step *s)
{
	static const uint16_t port[] = {LAYOUT_PORT_SERIAL,  LAYOUT_PORT_CMOS, LAYOUT_PORT_I8042,
					LAYOUT_PORT_DEBUG,   LAYOUT_PORT_MARK, LAYOUT_PORT_PVPANIC,
					LAYOUT_PORT_PMTIMER, LAYOUT_PORT_ACPI};
	unsigned which = s->where % (sizeof(port) / sizeof(port[0]) + 1);
	bool mmio = which == sizeof(port) / sizeof(port[0]);
	struct bus *b = mmio ? m->mmio : m->pio;
	uint64_t at = (mmio ? GED_ADDR : port[which]) + s->off % 10 - 1;
	unsigned size = 1u << (s->what & 3);
	uint64_t val = 0;

	memcpy(&val, s->val, sizeof(s->val));
	switch (s->what % 10) {
	case 8:
		m->chr.waiting = val & 0xff;
		loop_lock(m->loop);
		feed(&m->chr);
		loop_unlock(m->loop);
		break;
	case 9:
		loop_lock(m->loop);
		ged_event(m->ged, (uint8_t)val);
		loop_unlock(m->loop);
		break;
	case 0:
	case 1:
	case 2:
	case 3:
		bus_write(b, at, size, val);
		break;
	default:
		bus_read(b, at, size);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine m;
	struct step s;

	log_set_level(LOG_ERROR);
	machine_start(&m);
	for (; size >= sizeof(s); data += sizeof(s), size -= sizeof(s)) {
		memcpy(&s, data, sizeof(s));
		machine_step(&m, &s);
	}
	machine_stop(&m);
	return 0;
}
