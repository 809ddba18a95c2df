/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The register behind ACPI's generic event device (ACPI 6.4, 5.6.9): one byte of
 * events that reading takes. The DSDT's _EVT reads it once per interrupt, so an
 * event that comes between interrupt and read is served by that read, and the
 * later interrupt finds zero.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

struct ged {
	struct bus *mmio;
	struct irq *irq;
	uint64_t addr;
	uint8_t events;
};

static uint64_t ged_read(void *dev, uint64_t off, unsigned size)
{
	struct ged *g = dev;
	uint8_t v = g->events;

	(void)off;
	(void)size;
	g->events = 0;
	return v;
}

static void ged_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)dev; /* read-only */
	(void)off;
	(void)size;
	(void)val;
}

static const struct bus_ops ged_ops = {.read = ged_read, .write = ged_write};

int ged_new(struct ged **ret, struct bus *mmio, struct loop *l, const struct ged_env *env,
	    struct err *e)
{
	struct ged *g = calloc(1, sizeof(*g));

	if (!g)
		return err_msg(e, -ENOMEM, "ged: out of memory");
	*g = (struct ged){.mmio = mmio, .irq = env->irq, .addr = env->addr};

	struct bus_region r = {
		.base = env->addr,
		.size = 1,
		.ops = &ged_ops,
		.dev = g,
		.loop = l,
		.name = "ged",
	};
	int rc = bus_add(mmio, &r, e);
	if (rc < 0) {
		free(g);
		return rc;
	}
	*ret = g;
	return 0;
}

void ged_free(struct ged *g)
{
	if (!g)
		return;
	bus_del(g->mmio, g->addr);
	free(g);
}

void ged_event(struct ged *g, uint8_t bits)
{
	g->events |= bits;
	irq_raise(g->irq);
}
