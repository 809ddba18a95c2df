/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pvpanic (docs/specs/pvpanic in QEMU's documentation): a port that tells the
 * host that the guest's kernel has panicked, or that its crash kernel takes over.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/layout.h"

#define PVPANIC_PANICKED 1
#define PVPANIC_CRASHLOADED 2

struct pvpanic {
	struct bus *pio;
	struct power_sink power;
};

static uint64_t pvpanic_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	(void)off;
	(void)size;
	return PVPANIC_PANICKED | PVPANIC_CRASHLOADED;
}

static void pvpanic_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct pvpanic *d = dev;

	(void)off;
	(void)size;
	if (val & PVPANIC_PANICKED)
		power_report(&d->power, POWER_PANIC);
	if (val & PVPANIC_CRASHLOADED)
		power_report(&d->power, POWER_CRASHLOADED);
}

static const struct bus_ops pvpanic_ops = {.read = pvpanic_read, .write = pvpanic_write};

int pvpanic_new(struct pvpanic **ret, struct bus *pio, struct loop *l, const struct power_sink *p,
		struct err *e)
{
	struct pvpanic *d = calloc(1, sizeof(*d));

	if (!d)
		return err_msg(e, -ENOMEM, "pvpanic: out of memory");
	d->pio = pio;
	d->power = *p;

	struct bus_region r = {
		.base = LAYOUT_PORT_PVPANIC,
		.size = 1,
		.ops = &pvpanic_ops,
		.dev = d,
		.loop = l,
		.name = "pvpanic",
	};
	int rc = bus_add(pio, &r, e);
	if (rc < 0) {
		free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

void pvpanic_free(struct pvpanic *d)
{
	if (!d)
		return;
	bus_del(d->pio, LAYOUT_PORT_PVPANIC);
	free(d);
}
