/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio over MMIO, version 2: virtio 1.2 section 4.2. Registers are 32 bits wide, little-endian.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/transport.h"
#include "vmm/layout.h"

/* Section 4.2.2, table of registers. */
#define REG_MAGIC 0x000
#define REG_VERSION 0x004
#define REG_DEVICE_ID 0x008
#define REG_VENDOR_ID 0x00c
#define REG_DEVICE_FEATURES 0x010
#define REG_DEVICE_FEATURES_SEL 0x014
#define REG_DRIVER_FEATURES 0x020
#define REG_DRIVER_FEATURES_SEL 0x024
#define REG_QUEUE_SEL 0x030
#define REG_QUEUE_NUM_MAX 0x034
#define REG_QUEUE_NUM 0x038
#define REG_QUEUE_READY 0x044
#define REG_QUEUE_NOTIFY 0x050
#define REG_INTERRUPT_STATUS 0x060
#define REG_INTERRUPT_ACK 0x064
#define REG_STATUS 0x070
#define REG_QUEUE_DESC_LOW 0x080
#define REG_QUEUE_DESC_HIGH 0x084
#define REG_QUEUE_DRIVER_LOW 0x090
#define REG_QUEUE_DRIVER_HIGH 0x094
#define REG_QUEUE_DEVICE_LOW 0x0a0
#define REG_QUEUE_DEVICE_HIGH 0x0a4
#define REG_SHM_LEN_LOW 0x0b0
#define REG_SHM_LEN_HIGH 0x0b4
#define REG_SHM_BASE_LOW 0x0b8
#define REG_SHM_BASE_HIGH 0x0bc
#define REG_QUEUE_RESET 0x0c0
#define REG_CONFIG_GENERATION 0x0fc
#define REG_CONFIG 0x100

#define MAGIC 0x74726976u  /* "virt" */
#define VENDOR 0x204d564du /* "MVM " */

#define ISR_QUEUE 1
#define ISR_CONFIG 2

struct vmmio {
	struct virtio *v;
	struct bus *bus;
	uint64_t base;
	struct irq *irq;
	struct vm *vm;
	unsigned nioeventfds; /* queues whose notification KVM turns into an eventfd */
	uint32_t device_sel, driver_sel, queue_sel;
	uint32_t isr;
	bool direct; /* a back end raises the line by itself: which queue it was for nobody knows */
};

/* ------------------------------------------------------------- interrupts */

/*
 * The line is an edge, so every event raises it, whether or not earlier bits
 * were acknowledged: the driver may have read the status just before this bit.
 */
static void raise_isr(struct vmmio *t, uint32_t bit)
{
	t->isr |= bit;
	irq_raise(t->irq);
}

static void queue_interrupt(void *arg, unsigned q)
{
	(void)q;
	raise_isr(arg, ISR_QUEUE);
}

/*
 * A back end that raises the line itself cannot set the status bit. From here on
 * it reads as set at all times: the driver looks at queues that may be empty, which
 * it has to be ready for anyway.
 */
static int queue_fd(void *arg, unsigned q)
{
	struct vmmio *t = arg;

	(void)q;
	t->direct = true;
	return irq_fd(t->irq);
}

static void config_interrupt(void *arg)
{
	raise_isr(arg, ISR_CONFIG);
}

/* ------------------------------------------------------------- registers */

static uint32_t read_queue(struct vmmio *t, uint64_t off)
{
	struct virtio_queue *q = virtio_q(t->v, t->queue_sel);

	if (!q)
		return 0;
	if (off == REG_QUEUE_NUM_MAX)
		return vq_max_size(q->vq);
	return off == REG_QUEUE_READY && q->enabled;
}

static uint32_t read_reg(struct vmmio *t, uint64_t off)
{
	switch (off) {
	case REG_MAGIC:
		return MAGIC;
	case REG_VERSION:
		return 2;
	case REG_DEVICE_ID:
		return t->v->ops->id;
	case REG_VENDOR_ID:
		return VENDOR;
	case REG_DEVICE_FEATURES:
		return virtio_get_features(t->v, t->device_sel);
	case REG_INTERRUPT_STATUS:
		return t->isr | (t->direct ? ISR_QUEUE : 0);
	case REG_STATUS:
		return t->v->status;
	case REG_SHM_LEN_LOW:
	case REG_SHM_LEN_HIGH:
	case REG_SHM_BASE_LOW:
	case REG_SHM_BASE_HIGH:
		return UINT32_MAX; /* there is no shared memory region, whichever is selected */
	case REG_CONFIG_GENERATION:
		return t->v->generation;
	default: /* QueueReset too: a reset is done when its write returns */
		return read_queue(t, off);
	}
}

static void set_low(uint64_t *reg, uint32_t val)
{
	*reg = (*reg & ~(uint64_t)UINT32_MAX) | val;
}

static void set_high(uint64_t *reg, uint32_t val)
{
	*reg = (*reg & UINT32_MAX) | (uint64_t)val << 32;
}

/* Of the selected queue, which is not enabled: its registers are frozen from then on. */
static void write_queue_setup(struct virtio_queue *q, uint64_t off, uint32_t val)
{
	switch (off) {
	case REG_QUEUE_NUM:
		/* Above the maximum: 0, so that the queue cannot start with a size the driver does
		 * not mean. */
		q->size = val <= vq_max_size(q->vq) ? (uint16_t)val : 0;
		break;
	case REG_QUEUE_DESC_LOW:
		set_low(&q->desc, val);
		break;
	case REG_QUEUE_DESC_HIGH:
		set_high(&q->desc, val);
		break;
	case REG_QUEUE_DRIVER_LOW:
		set_low(&q->avail, val);
		break;
	case REG_QUEUE_DRIVER_HIGH:
		set_high(&q->avail, val);
		break;
	case REG_QUEUE_DEVICE_LOW:
		set_low(&q->used, val);
		break;
	case REG_QUEUE_DEVICE_HIGH:
		set_high(&q->used, val);
		break;
	}
}

static void write_queue(struct vmmio *t, uint64_t off, uint32_t val)
{
	struct virtio_queue *q = virtio_q(t->v, t->queue_sel);

	if (!q)
		return;
	if (off == REG_QUEUE_READY) {
		if (val == 1)
			virtio_queue_enable(t->v, q->index);
		else if (val == 0)
			virtio_queue_disable(t->v, q->index);
	} else if (off == REG_QUEUE_RESET) {
		if (val == 1)
			virtio_queue_reset(t->v, q->index);
	} else if (!q->enabled) {
		write_queue_setup(q, off, val);
	}
}

static void write_status(struct vmmio *t, uint32_t val)
{
	/* Only the low byte is defined; a write with nothing in it resets (section 2.1.1). */
	virtio_set_status(t->v, (uint8_t)val);
	if (!(uint8_t)val) {
		t->isr = 0;
		t->direct = false;
		t->device_sel = t->driver_sel = t->queue_sel = 0;
	}
}

static void write_reg(struct vmmio *t, uint64_t off, uint32_t val)
{
	switch (off) {
	case REG_DEVICE_FEATURES_SEL:
		t->device_sel = val;
		break;
	case REG_DRIVER_FEATURES:
		virtio_set_features(t->v, t->driver_sel, val);
		break;
	case REG_DRIVER_FEATURES_SEL:
		t->driver_sel = val;
		break;
	case REG_QUEUE_SEL:
		t->queue_sel = val; /* any value: virtio_q bounds it at each use */
		break;
	case REG_QUEUE_NOTIFY:
		virtio_kick(t->v, val);
		break;
	case REG_INTERRUPT_ACK:
		t->isr &= ~val;
		break;
	case REG_STATUS:
		write_status(t, val);
		break;
	default:
		write_queue(t, off, val);
	}
}

/* Section 4.2.2.2: registers are accessed 32 bits wide and aligned; configuration space in any
 * width. */
static uint64_t vmmio_read(void *dev, uint64_t off, unsigned size)
{
	struct vmmio *t = dev;

	if (off >= REG_CONFIG)
		return virtio_config_read(t->v, (unsigned)(off - REG_CONFIG), size);
	if (size != 4 || off % 4)
		return 0;
	return read_reg(t, off);
}

static void vmmio_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct vmmio *t = dev;

	if (off >= REG_CONFIG)
		virtio_config_write(t->v, (unsigned)(off - REG_CONFIG), size, val);
	else if (size == 4 && off % 4 == 0)
		write_reg(t, off, (uint32_t)val);
}

static const struct bus_ops vmmio_bus_ops = {.read = vmmio_read, .write = vmmio_write};

/* ------------------------------------------------------------- life */

static int notify_fd(struct vmmio *t, unsigned q, bool add)
{
	const uint64_t match = q;
	const struct vm_ioeventfd kick = {
		.addr = t->base + REG_QUEUE_NOTIFY,
		.len = 4,
		.match = &match,
		.fd = virtio_q(t->v, q)->kick_fd,
	};

	return vm_ioeventfd(t->vm, &kick, add);
}

static int notify_fds(struct vmmio *t, struct err *e)
{
	while (t->vm && t->nioeventfds < t->v->nqueues) {
		int r = notify_fd(t, t->nioeventfds, true);

		if (r < 0)
			return err_msg(e, r, "%s: ioeventfd of queue %u: %s", t->v->name,
				       t->nioeventfds, strerror(-r));
		t->nioeventfds++;
	}
	return 0;
}

static void vmmio_discard(struct vmmio *t)
{
	while (t->nioeventfds)
		notify_fd(t, --t->nioeventfds, false);
	irq_free(t->irq);
	free(t);
}

int vmmio_new(struct vmmio **ret, struct virtio *v, const struct vmmio_env *env, struct err *e)
{
	struct vmmio *t = calloc(1, sizeof(*t));
	struct bus_region region = {
		.base = env->base,
		.size = LAYOUT_VMMIO_STRIDE,
		.ops = &vmmio_bus_ops,
		.dev = t,
		.loop = v->loop,
		.name = v->name,
	};
	int r;

	if (!t) {
		irq_free(env->irq);
		return err_msg(e, -ENOMEM, "%s: out of memory", v->name);
	}
	t->v = v;
	t->bus = env->bus;
	t->base = env->base;
	t->irq = env->irq;
	t->vm = env->vm;
	r = notify_fds(t, e);
	if (!r)
		r = bus_add(t->bus, &region, e);
	if (r < 0) {
		vmmio_discard(t);
		return r;
	}
	v->bearer = (struct virtio_bearer){queue_interrupt, config_interrupt, queue_fd, t};
	*ret = t;
	return 0;
}

void vmmio_free(struct vmmio *t)
{
	if (!t)
		return;
	bus_del(t->bus, t->base);
	virtio_set_status(t->v, 0);
	t->v->bearer = (struct virtio_bearer){0};
	vmmio_discard(t);
}
