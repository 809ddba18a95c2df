/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "virtio/doorbell.h"
#include "virtio/msix.h"
#include "virtio/transport.h"
#include "vmm/log.h"

#define VIRTIO_VENDOR 0x1af4
#define VIRTIO_DEVICE_BASE 0x1040 /* section 4.1.2 */

/*
 * BAR 0: one page for each structure. Within a page nothing but its structure
 * answers; the notification page has one dword a queue, so that an ioeventfd
 * on the address alone tells the queue.
 */
#define BAR_SIZE 0x8000u
#define PAGE 0x1000u
enum { PAGE_COMMON, PAGE_ISR, PAGE_DEVICE, PAGE_NOTIFY, PAGE_TABLE, PAGE_PBA };

/* BAR 2: the notification page once more, as ports (doorbell.h); not every driver takes ports. */
enum { BAR_MEMORY = 0, BAR_PORTS = 2 };
_Static_assert(256 / DOORBELL_STRIDE >= VIRTIO_QUEUES_MAX, "an I/O BAR has 256 bytes at most");

/* struct virtio_pci_cap, section 4.1.4 */
enum { CFG_COMMON = 1, CFG_NOTIFY, CFG_ISR, CFG_DEVICE, CFG_PCI };
#define CAP_LEN 16
#define CAP_BAR 4
#define CAP_OFFSET 8
#define CAP_LENGTH 12
#define CAP_EXTRA 16 /* notify_off_multiplier or pci_cfg_data */

/* struct virtio_pci_common_cfg, section 4.1.4.3 */
#define COMMON_DEVICE_SELECT 0x00
#define COMMON_DEVICE_FEATURE 0x04
#define COMMON_DRIVER_SELECT 0x08
#define COMMON_DRIVER_FEATURE 0x0c
#define COMMON_CONFIG_VECTOR 0x10
#define COMMON_NUM_QUEUES 0x12
#define COMMON_STATUS 0x14
#define COMMON_GENERATION 0x15
#define COMMON_QUEUE_SELECT 0x16
#define COMMON_QUEUE_SIZE 0x18
#define COMMON_QUEUE_VECTOR 0x1a
#define COMMON_QUEUE_ENABLE 0x1c
#define COMMON_QUEUE_NOTIFY 0x1e
#define COMMON_QUEUE_DESC 0x20
#define COMMON_QUEUE_AVAIL 0x28
#define COMMON_QUEUE_USED 0x30
#define COMMON_QUEUE_RESET 0x3a
#define COMMON_LEN 0x3c

/*
 * A register and the width the driver must access it with (section 4.1.3.1).
 * An access of any other width or offset reads as zero and writes nothing;
 * 64-bit accesses are two of 32 bits.
 */
#define REG(off, size) ((off) << 4 | (size))

#define ISR_QUEUE 1u /* section 4.1.4.5 */
#define ISR_CONFIG 2u
#define NO_VECTOR 0xffffu

struct vpci {
	struct virtio *v;
	struct pci_func func;
	struct msix msix;
	unsigned pci_cfg; /* offset of the PCI_CFG capability */
	uint32_t device_select, driver_select;
	uint16_t queue_select;
	uint16_t config_vector;
	uint16_t queue_vector[VIRTIO_QUEUES_MAX];
	uint8_t isr;
	struct doorbell memory, ports;
};

/* --------------------------------------------------------------- kicks */

static void kicks_update(struct vpci *t)
{
	doorbell_update(&t->ports);
	doorbell_update(&t->memory);
}

static void vpci_bar_mapped(struct pci_func *f, unsigned bar, uint64_t addr, bool on)
{
	struct vpci *t = f->dev;

	if (bar == BAR_PORTS)
		doorbell_map(&t->ports, addr, on);
	else
		doorbell_map(&t->memory, addr + PAGE_NOTIFY * PAGE, on);
}

/* ---------------------------------------------------------- interrupts */

static void vpci_queue_interrupt(void *arg, unsigned q)
{
	struct vpci *t = arg;

	/* Section 4.1.4.5.1: the queue bit belongs to INTx, which is not wired up: for polling. */
	if (msix_on(&t->msix))
		msix_raise(&t->msix, t->queue_vector[q]);
	else
		t->isr |= ISR_QUEUE;
}

static int vpci_queue_fd(void *arg, unsigned q)
{
	struct vpci *t = arg;

	return msix_fd(&t->msix, t->queue_vector[q]);
}

static void rewired(struct vpci *t)
{
	for (unsigned q = 0; q < t->v->nqueues; q++)
		virtio_rewired(t->v, q);
}

static void vpci_config_interrupt(void *arg)
{
	struct vpci *t = arg;

	t->isr |= ISR_CONFIG;
	msix_raise(&t->msix, t->config_vector);
}

/* Section 4.1.5.1.2.1: a vector that cannot be had reads back as NO_VECTOR. */
static uint16_t vector_check(const struct vpci *t, uint64_t val)
{
	return val < t->msix.n ? (uint16_t)val : NO_VECTOR;
}

/* ------------------------------------------------------- common config */

static uint64_t *ring_register(struct virtio_queue *q, unsigned off)
{
	switch (off & ~7u) {
	case COMMON_QUEUE_DESC:
		return &q->desc;
	case COMMON_QUEUE_AVAIL:
		return &q->avail;
	default:
		return &q->used;
	}
}

/* queue_select may be out of range: then the queue has size 0 and nothing else (section 4.1.4.3.1).
 */
static uint64_t queue_read(struct vpci *t, unsigned reg)
{
	struct virtio_queue *q = virtio_q(t->v, t->queue_select);

	if (!q)
		return reg == REG(COMMON_QUEUE_VECTOR, 2) ? NO_VECTOR : 0;
	switch (reg) {
	case REG(COMMON_QUEUE_SIZE, 2):
		return q->size;
	case REG(COMMON_QUEUE_VECTOR, 2):
		return t->queue_vector[q->index];
	case REG(COMMON_QUEUE_ENABLE, 2):
		return q->enabled;
	case REG(COMMON_QUEUE_NOTIFY, 2):
		return q->index;
	case REG(COMMON_QUEUE_DESC, 4):
	case REG(COMMON_QUEUE_AVAIL, 4):
	case REG(COMMON_QUEUE_USED, 4):
		return (uint32_t)*ring_register(q, reg >> 4);
	case REG(COMMON_QUEUE_DESC + 4, 4):
	case REG(COMMON_QUEUE_AVAIL + 4, 4):
	case REG(COMMON_QUEUE_USED + 4, 4):
		return *ring_register(q, reg >> 4) >> 32;
	default: /* queue_reset too: a reset is over before the write returns */
		return 0;
	}
}

static uint64_t common_read(struct vpci *t, unsigned off, unsigned size)
{
	struct virtio *v = t->v;

	if (size == 8)
		return common_read(t, off, 4) | common_read(t, off + 4, 4) << 32;
	switch (REG(off, size)) {
	case REG(COMMON_DEVICE_SELECT, 4):
		return t->device_select;
	case REG(COMMON_DEVICE_FEATURE, 4):
		return virtio_get_features(v, t->device_select);
	case REG(COMMON_DRIVER_SELECT, 4):
		return t->driver_select;
	case REG(COMMON_DRIVER_FEATURE, 4):
		return t->driver_select < 2 ? (uint32_t)(v->acked >> (32 * t->driver_select)) : 0;
	case REG(COMMON_CONFIG_VECTOR, 2):
		return t->config_vector;
	case REG(COMMON_NUM_QUEUES, 2):
		return v->nqueues;
	case REG(COMMON_STATUS, 1):
		return v->status;
	case REG(COMMON_GENERATION, 1):
		return v->generation;
	case REG(COMMON_QUEUE_SELECT, 2):
		return t->queue_select;
	default:
		return queue_read(t, REG(off, size));
	}
}

/* Sizes and addresses are frozen once the queue is enabled; the ring module checks them then. */
static void queue_setup_write(struct virtio_queue *q, unsigned reg, uint32_t val)
{
	uint64_t *r;

	if (q->enabled)
		return;
	switch (reg) {
	case REG(COMMON_QUEUE_SIZE, 2):
		/* Too large becomes 0, which no ring starts with: the driver learns of its mistake.
		 */
		q->size = val <= vq_max_size(q->vq) ? (uint16_t)val : 0;
		break;
	case REG(COMMON_QUEUE_DESC, 4):
	case REG(COMMON_QUEUE_AVAIL, 4):
	case REG(COMMON_QUEUE_USED, 4):
		r = ring_register(q, reg >> 4);
		*r = (*r & ~0xffffffffull) | val;
		break;
	case REG(COMMON_QUEUE_DESC + 4, 4):
	case REG(COMMON_QUEUE_AVAIL + 4, 4):
	case REG(COMMON_QUEUE_USED + 4, 4):
		r = ring_register(q, reg >> 4);
		*r = (*r & 0xffffffffull) | (uint64_t)val << 32;
		break;
	}
}

static void queue_write(struct vpci *t, unsigned reg, uint32_t val)
{
	struct virtio_queue *q = virtio_q(t->v, t->queue_select);

	if (!q)
		return;
	switch (reg) {
	case REG(COMMON_QUEUE_VECTOR, 2):
		t->queue_vector[q->index] = vector_check(t, val);
		virtio_rewired(t->v, q->index);
		break;
	case REG(COMMON_QUEUE_ENABLE, 2):
		if (val == 1) /* section 4.1.4.3.2: never anything else */
			virtio_queue_enable(t->v, q->index);
		kicks_update(t);
		break;
	case REG(COMMON_QUEUE_RESET, 2):
		if (val != 1 || !virtio_has(t->v, VIRTIO_F_RING_RESET))
			break;
		virtio_queue_reset(t->v, q->index);
		t->queue_vector[q->index] = NO_VECTOR;
		kicks_update(t);
		break;
	default:
		queue_setup_write(q, reg, val);
	}
}

/* The MSI-X table stays as it is: it belongs to the PCI function. */
static void vpci_reset(struct vpci *t)
{
	virtio_set_status(t->v, 0);
	t->device_select = t->driver_select = t->queue_select = 0;
	t->config_vector = NO_VECTOR;
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
		t->queue_vector[q] = NO_VECTOR;
	t->isr = 0;
	msix_clear(&t->msix);
	kicks_update(t);
}

static void common_write(struct vpci *t, unsigned off, unsigned size, uint64_t val)
{
	if (size == 8) {
		common_write(t, off, 4, (uint32_t)val);
		common_write(t, off + 4, 4, val >> 32);
		return;
	}
	switch (REG(off, size)) {
	case REG(COMMON_DEVICE_SELECT, 4):
		t->device_select = (uint32_t)val;
		break;
	case REG(COMMON_DRIVER_SELECT, 4):
		t->driver_select = (uint32_t)val;
		break;
	case REG(COMMON_DRIVER_FEATURE, 4):
		virtio_set_features(t->v, t->driver_select, (uint32_t)val);
		break;
	case REG(COMMON_CONFIG_VECTOR, 2):
		t->config_vector = vector_check(t, val & 0xffff);
		break;
	case REG(COMMON_STATUS, 1):
		if (val & 0xff)
			virtio_set_status(t->v, (uint8_t)val);
		else
			vpci_reset(t);
		break;
	case REG(COMMON_QUEUE_SELECT, 2):
		t->queue_select = (uint16_t)val;
		break;
	default:
		queue_write(t, REG(off, size), size == 2 ? val & 0xffff : (uint32_t)val);
	}
}

/* ---------------------------------------------------------------- BARs */

static uint64_t isr_read(struct vpci *t, unsigned off)
{
	uint8_t isr = t->isr;

	if (off)
		return 0;
	t->isr = 0; /* section 4.1.4.5: reading clears */
	return isr;
}

/* @off: below BAR_SIZE; an access that crosses from one page into the next is nobody's. */
static uint64_t vpci_bar_read(void *dev, uint64_t off, unsigned size)
{
	struct vpci *t = dev;
	unsigned at = off % PAGE;

	if (at + size > PAGE)
		return 0;
	switch (off / PAGE) {
	case PAGE_COMMON:
		return common_read(t, at, size);
	case PAGE_ISR:
		return isr_read(t, at);
	case PAGE_DEVICE:
		return virtio_config_read(t->v, at, size);
	case PAGE_TABLE:
		return msix_table_read(&t->msix, at, size);
	case PAGE_PBA:
		return msix_pba_read(&t->msix, at, size);
	default:
		return 0;
	}
}

static void vpci_bar_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct vpci *t = dev;
	unsigned at = off % PAGE;

	if (at + size > PAGE)
		return;
	switch (off / PAGE) {
	case PAGE_COMMON:
		common_write(t, at, size, val);
		break;
	case PAGE_DEVICE:
		virtio_config_write(t->v, at, size, val);
		break;
	case PAGE_NOTIFY:
		doorbell_ring(&t->memory, at);
		break;
	case PAGE_TABLE:
		msix_table_write(&t->msix, at, size, val);
		break;
	}
}

static uint64_t vpci_ports_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev, (void)off, (void)size;
	return 0;
}

static void vpci_ports_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)size, (void)val;
	doorbell_ring(&((struct vpci *)dev)->ports, off);
}

static const struct bus_ops bar_ops = {vpci_bar_read, vpci_bar_write};
static const struct bus_ops ports_ops = {vpci_ports_read, vpci_ports_write};

/* ------------------------------------------------- PCI_CFG, section 4.1.4.9 */

/*
 * The window's BAR, offset and length are the guest's: 1, 2 or 4 aligned bytes
 * within a BAR that is there, else there is no window (NULL) and pci_cfg_data is
 * plain storage. An access counts when it begins at pci_cfg_data's first byte.
 */
static const struct pci_bar *window(const struct vpci *t, unsigned off, uint32_t *ret_at,
				    uint32_t *ret_len)
{
	const struct pci_func *f = &t->func;
	uint32_t at = pci_get(f, t->pci_cfg + CAP_OFFSET, 4);
	uint32_t len = pci_get(f, t->pci_cfg + CAP_LENGTH, 4);
	unsigned bar = f->cfg[t->pci_cfg + CAP_BAR];

	if (off != t->pci_cfg + CAP_EXTRA || bar >= PCI_BARS)
		return NULL;
	/* A BAR that is not there has size 0; sizes are powers of two from 4 on. */
	if ((len != 1 && len != 2 && len != 4) || at % len || at >= f->bar[bar].size)
		return NULL;
	*ret_at = at;
	*ret_len = len;
	return &f->bar[bar];
}

static void vpci_cfg_reading(struct pci_func *f, unsigned off, unsigned size)
{
	struct vpci *t = f->dev;
	uint32_t at, len;
	const struct pci_bar *b = window(t, off, &at, &len);

	(void)size;
	if (b)
		pci_put(f, t->pci_cfg + CAP_EXTRA, len, (uint32_t)b->ops->read(b->dev, at, len));
}

static void vpci_cfg_written(struct pci_func *f, unsigned off, unsigned size)
{
	struct vpci *t = f->dev;
	uint32_t at, len;
	const struct pci_bar *b = window(t, off, &at, &len);

	bool was_on = msix_on(&t->msix);

	msix_cfg_written(&t->msix, f, off, size);
	if (msix_on(&t->msix) != was_on)
		rewired(t);
	if (b)
		b->ops->write(b->dev, at, len, pci_get(f, t->pci_cfg + CAP_EXTRA, len));
}

static const struct pci_ops func_ops = {vpci_cfg_written, vpci_cfg_reading, vpci_bar_mapped};

/* -------------------------------------------------------------- set-up */

static unsigned vpci_cap(struct vpci *t, uint8_t type, unsigned bar, uint32_t offset,
			 uint32_t length)
{
	bool extra = type == CFG_NOTIFY || type == CFG_PCI;
	uint8_t body[CAP_LEN + 4] = {0};
	unsigned len = extra ? sizeof(body) : CAP_LEN, at;

	body[2] = (uint8_t)len;
	body[3] = type;
	body[CAP_BAR] = (uint8_t)bar;
	at = pci_cap(&t->func, PCI_CAP_VENDOR, body, len);
	assert(at); /* a fixed set that fits: at most 120 of 192 bytes */
	pci_put(&t->func, at + CAP_OFFSET, 4, offset);
	pci_put(&t->func, at + CAP_LENGTH, 4, length);
	return at;
}

static void vpci_notify_cap(struct vpci *t, unsigned bar, uint32_t offset)
{
	unsigned at = vpci_cap(t, CFG_NOTIFY, bar, offset, t->v->nqueues * DOORBELL_STRIDE);

	pci_put(&t->func, at + CAP_EXTRA, 4, DOORBELL_STRIDE);
}

/*
 * In the order in which Linux looks for them; MSI-X before the one it never
 * does. Of several of a type a driver takes the first it can use (section 4.1.4):
 * ports before memory.
 */
static int vpci_caps(struct vpci *t)
{
	struct pci_func *f = &t->func;
	unsigned at;
	int ret;

	vpci_cap(t, CFG_COMMON, BAR_MEMORY, PAGE_COMMON * PAGE, COMMON_LEN);
	vpci_cap(t, CFG_ISR, BAR_MEMORY, PAGE_ISR * PAGE, 4);
	if (f->bar[BAR_PORTS].size)
		vpci_notify_cap(t, BAR_PORTS, 0);
	vpci_notify_cap(t, BAR_MEMORY, PAGE_NOTIFY * PAGE);
	if (t->v->config_len)
		vpci_cap(t, CFG_DEVICE, BAR_MEMORY, PAGE_DEVICE * PAGE,
			 (t->v->config_len + 3) & ~3u);
	ret = msix_cap(&t->msix, f, BAR_MEMORY, PAGE_TABLE * PAGE, PAGE_PBA * PAGE);
	at = vpci_cap(t, CFG_PCI, 0, 0, 0);
	f->wmask[at + CAP_BAR] = 0xff;
	for (unsigned i = CAP_OFFSET; i < CAP_EXTRA + 4; i++)
		f->wmask[at + i] = 0xff;
	t->pci_cfg = at;
	return ret;
}

static void vpci_bars(struct vpci *t, const struct pci_bus *pci)
{
	struct pci_bar memory = {.size = BAR_SIZE, .is64 = true, .ops = &bar_ops, .dev = t};
	struct pci_bar ports = {.size = DOORBELL_STRIDE, .io = true, .ops = &ports_ops, .dev = t};

	while (ports.size < t->v->nqueues * DOORBELL_STRIDE)
		ports.size *= 2;
	t->func.bar[BAR_MEMORY] = memory;
	if (pci_has_io(pci))
		t->func.bar[BAR_PORTS] = ports;
}

static uint32_t vpci_class(uint16_t id)
{
	switch (id) {
	case VIRTIO_ID_NET:
		return 0x020000; /* Ethernet */
	case VIRTIO_ID_BLOCK:
		return 0x018000; /* other mass storage */
	case VIRTIO_ID_CONSOLE:
		return 0x078000; /* other communication */
	default:
		return 0xff0000; /* fits no class */
	}
}

static int vpci_set_up(struct vpci *t, const struct vpci_env *env, struct err *e)
{
	struct pci_func *f = &t->func;
	uint16_t device = (uint16_t)(VIRTIO_DEVICE_BASE + t->v->ops->id);
	const struct pci_id id = {
		.vendor = VIRTIO_VENDOR,
		.device = device,
		.subvendor = VIRTIO_VENDOR,
		.subdevice = device,
		.class24 = vpci_class(t->v->ops->id),
		.revision = 1, /* section 4.1.2.1: not transitional */
	};
	int ret = msix_init(&t->msix, t->v->nqueues + 1, env->irqs, e);

	if (ret)
		return ret;
	f->ops = &func_ops;
	f->dev = t;
	f->loop = t->v->loop;
	f->name = t->v->name;
	vpci_bars(t, env->pci);
	pci_header(f, &id);
	ret = vpci_caps(t);
	if (ret)
		return err_msg(e, ret, "no room for capabilities");
	vpci_reset(t);
	ret = pci_add(env->pci, f, e);
	if (ret)
		return ret;
	t->v->bearer = (struct virtio_bearer){vpci_queue_interrupt, vpci_config_interrupt,
					      vpci_queue_fd, t};
	return 0;
}

int vpci_new(struct vpci **ret, struct virtio *v, const struct vpci_env *env, struct err *e)
{
	struct vpci *t = calloc(1, sizeof(*t));
	int code;

	if (!t)
		return err_msg(e, -ENOMEM, "%s: out of memory", v->name);
	t->v = v;
	t->memory = (struct doorbell){.v = v, .vm = env->vm, .late = pci_has_io(env->pci)};
	t->ports = (struct doorbell){.v = v, .vm = env->vm, .pio = true};
	code = vpci_set_up(t, env, e);
	if (code) {
		msix_fini(&t->msix);
		free(t);
		err_ctx(e, "%s", v->name);
		return code;
	}
	*ret = t;
	return 0;
}

void vpci_free(struct vpci *t)
{
	if (!t)
		return;
	vpci_reset(t); /* the device stops before its way in is gone */
	pci_del(&t->func);
	t->v->bearer = (struct virtio_bearer){0};
	msix_fini(&t->msix);
	free(t);
}

struct pci_func *vpci_func(struct vpci *t)
{
	return &t->func;
}
