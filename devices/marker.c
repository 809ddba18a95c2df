/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ports that only listen: guest/init reports its stages for the timeline,
 * and the PC's POST port, which kernels write to for its delay.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#include "guest/marks.h"
#include "vmm/layout.h"
#include "vmm/timeline.h"

struct marker {
	struct bus *pio;
	struct marker_user user;
};

static uint64_t marker_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	(void)off;
	(void)size;
	return ~0ull;
}

static void marker_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct marker *m = dev;

	(void)off;
	(void)size;
	switch (val) {
	case MARK_INIT_STARTED:
		timeline_mark(STAGE_INIT);
		break;
	case MARK_ROOT_MOUNTED:
		timeline_mark(STAGE_ROOT);
		break;
	case MARK_ROOT_INIT:
		timeline_mark(STAGE_ROOT_INIT);
		break;
	}
	if (m->user.marked)
		m->user.marked(m->user.arg, (uint8_t)val);
}

static void marker_ignore(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)dev;
	(void)off;
	(void)size;
	(void)val;
}

static const struct bus_ops mark_ops = {.read = marker_read, .write = marker_write};
static const struct bus_ops debug_ops = {.read = marker_read, .write = marker_ignore};

int marker_new(struct marker **ret, struct bus *pio, struct loop *l, const struct marker_user *u,
	       struct err *e)
{
	struct marker *m = calloc(1, sizeof(*m));

	if (!m)
		return err_msg(e, -ENOMEM, "marker: out of memory");
	m->pio = pio;
	m->user = *u;

	struct bus_region r = {
		.base = LAYOUT_PORT_MARK,
		.size = 1,
		.ops = &mark_ops,
		.dev = m,
		.loop = l,
		.name = "marker",
	};
	int rc = bus_add(pio, &r, e);
	if (rc == 0) {
		r.base = LAYOUT_PORT_DEBUG;
		r.ops = &debug_ops;
		r.name = "debug port";
		rc = bus_add(pio, &r, e);
		if (rc < 0)
			bus_del(pio, LAYOUT_PORT_MARK);
	}
	if (rc < 0) {
		free(m);
		return rc;
	}
	*ret = m;
	return 0;
}

void marker_free(struct marker *m)
{
	if (!m)
		return;
	bus_del(m->pio, LAYOUT_PORT_MARK);
	bus_del(m->pio, LAYOUT_PORT_DEBUG);
	free(m);
}
