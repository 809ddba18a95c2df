/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts into the guest. Every one leaves through an eventfd that KVM
 * watches (KVM_IRQFD), so raising it is one write(2) from any thread and the
 * same fd can be handed to vhost or a vhost-user process.
 *
 * A line is an edge on a GSI of the interrupt controller. An MSI has a GSI
 * route of its own; while it is masked its irqfd is unassigned and the
 * eventfd's counter is the pending bit: KVM finds it when it is assigned again.
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/err.h"
#include "vmm/kvm.h"

struct irqs; /* the VM's routing table */
struct irq;

int irqs_new(struct irqs **ret, struct vm *vm, struct err *e);
void irqs_free(struct irqs *q); /* accepts NULL */

/* Edge-triggered line on @gsi (0–23). */
int irq_line_new(struct irq **ret, struct irqs *q, unsigned gsi, struct err *e);

/* A masked MSI without address. */
int irq_msi_new(struct irq **ret, struct irqs *q, struct err *e);
void irq_free(struct irq *i); /* accepts NULL */

/* For tests without KVM: raising is visible through irq_pending and irq_fd alone. */
int irq_fake_new(struct irq **ret, struct err *e);

void irq_raise(struct irq *i); /* any thread, never blocks */
/* For others to raise it by, in another process, too; stays the irq's. Under the loop's lock of the
 * device that raises it. */
int irq_fd(struct irq *i);

/* MSI only; called under the owning device's loop lock. Masked changes cost nothing. */
void irq_msi_set(struct irq *i, uint64_t addr, uint32_t data);
void irq_msi_mask(struct irq *i, bool masked);
bool irq_pending(const struct irq *i); /* raised while masked and not delivered yet */
void irq_clear(struct irq *i);         /* forget what is pending (device reset) */

#endif
