/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/evfd.h"
#include "vmm/layout.h"
#include "vmm/log.h"

#define IRQ_MSI_MAX 1280 /* 31 devices of 33 queues need 1054; KVM takes 4096 routes */

struct irqs {
	struct vm *vm;
	pthread_mutex_t lock;         /* the table and its hand-over to KVM */
	struct irq *msi[IRQ_MSI_MAX]; /* index + LAYOUT_GSIS is the GSI */
	struct kvm_irq_routing *table;
	struct log_budget refused; /* addresses that KVM does not take */
};

struct irq {
	struct irqs *q; /* NULL: a fake */
	int fd;
	unsigned gsi;
	bool is_msi, masked;
	bool routed;   /* KVM has this address and data */
	bool assigned; /* KVM watches fd */
	bool lent;     /* others may have it, and for good */
	uint64_t addr;
	uint32_t data;
};

int irqs_new(struct irqs **ret, struct vm *vm, struct err *e)
{
	struct irqs *q = calloc(1, sizeof(*q));

	if (q)
		q->table = calloc(1, sizeof(*q->table) + (LAYOUT_GSIS + 16 + IRQ_MSI_MAX) *
								 sizeof(q->table->entries[0]));
	if (!q || !q->table) {
		free(q);
		return err_msg(e, -ENOMEM, "interrupt routes: out of memory");
	}
	q->vm = vm;
	pthread_mutex_init(&q->lock, NULL);
	*ret = q;
	return 0;
}

void irqs_free(struct irqs *q)
{
	if (!q)
		return;
	pthread_mutex_destroy(&q->lock);
	free(q->table);
	free(q);
}

static void irqs_route(struct irqs *q, unsigned gsi, unsigned chip, unsigned pin)
{
	q->table->entries[q->table->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = chip, .pin = pin},
	};
}

/*
 * KVM takes the whole table at once. The pins keep what KVM_CREATE_IRQCHIP
 * gave them: GSI n on IOAPIC pin n, the first sixteen on the PICs as well.
 */
static int irqs_commit(struct irqs *q)
{
	q->table->nr = 0;
	for (unsigned g = 0; g < LAYOUT_GSIS; g++) {
		if (g < 16)
			irqs_route(q, g, g < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
				   g % 8);
		irqs_route(q, g, KVM_IRQCHIP_IOAPIC, g);
	}
	for (unsigned i = 0; i < IRQ_MSI_MAX; i++) {
		const struct irq *m = q->msi[i];
		if (!m || !m->routed)
			continue;
		q->table->entries[q->table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = m->gsi,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {.address_lo = (uint32_t)m->addr,
				  .address_hi = (uint32_t)(m->addr >> 32),
				  .data = m->data},
		};
	}
	return ioctl(q->vm->fd, KVM_SET_GSI_ROUTING, q->table) < 0 ? -errno : 0;
}

static int irq_assign(struct irq *i, bool on)
{
	struct kvm_irqfd a = {
		.fd = (uint32_t)i->fd,
		.gsi = i->gsi,
		.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	if (i->assigned == on)
		return 0;
	if (ioctl(i->q->vm->fd, KVM_IRQFD, &a) < 0)
		return -errno;
	i->assigned = on;
	return 0;
}

static struct irq *irq_alloc(struct irqs *q, struct err *e)
{
	struct irq *i = calloc(1, sizeof(*i));

	if (!i) {
		err_msg(e, -ENOMEM, "interrupt: out of memory");
		return NULL;
	}
	i->q = q;
	i->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (i->fd < 0) {
		err_sys(e, "eventfd");
		free(i);
		return NULL;
	}
	return i;
}

int irq_line_new(struct irq **ret, struct irqs *q, unsigned gsi, struct err *e)
{
	struct irq *i = irq_alloc(q, e);

	if (!i)
		return e ? e->code : -ENOMEM;
	i->gsi = gsi;
	int r = irq_assign(i, true);
	if (r < 0) {
		r = err_msg(e, r, "irqfd on GSI %u: %s", gsi, strerror(-r));
		irq_free(i);
		return r;
	}
	*ret = i;
	return 0;
}

int irq_msi_new(struct irq **ret, struct irqs *q, struct err *e)
{
	struct irq *i = irq_alloc(q, e);
	unsigned slot = 0;

	if (!i)
		return e ? e->code : -ENOMEM;
	i->is_msi = i->masked = true;
	pthread_mutex_lock(&q->lock);
	while (slot < IRQ_MSI_MAX && q->msi[slot])
		slot++;
	if (slot < IRQ_MSI_MAX)
		q->msi[slot] = i;
	pthread_mutex_unlock(&q->lock);
	if (slot == IRQ_MSI_MAX) {
		i->q = NULL;
		irq_free(i);
		return err_msg(e, -ENOSPC, "more than %d MSI vectors", IRQ_MSI_MAX);
	}
	i->gsi = LAYOUT_GSIS + slot;
	*ret = i;
	return 0;
}

int irq_fake_new(struct irq **ret, struct err *e)
{
	struct irq *i = irq_alloc(NULL, e);

	if (!i)
		return e ? e->code : -ENOMEM;
	i->is_msi = i->masked = true;
	*ret = i;
	return 0;
}

void irq_free(struct irq *i)
{
	if (!i)
		return;
	if (i->q) {
		irq_assign(i, false);
		if (i->is_msi) {
			pthread_mutex_lock(&i->q->lock);
			i->q->msi[i->gsi - LAYOUT_GSIS] = NULL;
			pthread_mutex_unlock(&i->q->lock);
		}
	}
	close(i->fd);
	free(i);
}

void irq_raise(struct irq *i)
{
	const uint64_t one = 1;

	/* Most are ours alone, and cost one call. EAGAIN: full, so it is pending anyway. */
	if (i->lent)
		evfd_add(i->fd);
	else if (write(i->fd, &one, sizeof(one)) < 0)
		return;
}

int irq_fd(struct irq *i)
{
	i->lent = true;
	return i->fd;
}

/* Brings KVM up to date with an unmasked vector. */
static void irq_msi_commit(struct irq *i)
{
	int r = 0;

	if (!i->q)
		return;
	pthread_mutex_lock(&i->q->lock);
	if (!i->routed) {
		i->routed = true;
		r = irqs_commit(i->q);
		/* Left in the table it would fail every other device's update as well. */
		i->routed = r == 0;
	}
	pthread_mutex_unlock(&i->q->lock);
	if (r == 0)
		r = irq_assign(i, true);
	else
		irq_assign(i, false); /* what it raises stays pending */
	if (r < 0)
		log_guest(&i->q->refused, "MSI route %u to %#llx: %s", i->gsi,
			  (unsigned long long)i->addr, strerror(-r));
}

void irq_msi_set(struct irq *i, uint64_t addr, uint32_t data)
{
	if (i->addr == addr && i->data == data)
		return;
	/* Another vector's commit, under another device's lock, reads these. */
	if (i->q)
		pthread_mutex_lock(&i->q->lock);
	i->addr = addr;
	i->data = data;
	i->routed = false;
	if (i->q)
		pthread_mutex_unlock(&i->q->lock);
	if (!i->masked)
		irq_msi_commit(i);
}

void irq_msi_mask(struct irq *i, bool masked)
{
	if (i->masked == masked)
		return;
	i->masked = masked;
	if (!masked)
		irq_msi_commit(i);
	else if (i->q)
		irq_assign(i, false);
}

bool irq_pending(const struct irq *i)
{
	struct pollfd p = {.fd = i->fd, .events = POLLIN};

	/* While KVM watches the fd it empties the counter itself. */
	return !i->assigned && poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

void irq_clear(struct irq *i)
{
	if (!i->assigned)
		evfd_clear(i->fd);
}
