/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X of one PCI function: capability, vector table and pending bits (PCI
 * Local Bus 3.0, section 6.8.2).
 *
 * Each vector is an irq with an eventfd of its own. It is unmasked towards KVM
 * only while MSI-X is enabled, the function mask is clear and the vector's own
 * mask bit is clear; what is raised in between waits in the eventfd, shows in
 * the pending bits, and is delivered by unmasking.
 *
 * Table accesses are aligned dwords and qwords (section 6.8.2: all others are
 * undefined); here the others read as zero and write nothing.
 *
 * Threading: under the function's loop lock; msix_raise from any thread while
 * the guest cannot change the enable bit, that is under the same lock too.
 */
#ifndef VIRTIO_MSIX_H
#define VIRTIO_MSIX_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/pci.h"
#include "vmm/irq.h"

#define MSIX_VECTORS_MAX 64
#define MSIX_ENTRY 16u /* bytes of table a vector takes */

struct msix_vector {
	struct irq *irq;
	uint64_t addr;
	uint32_t data;
	uint32_t ctrl; /* bit 0: masked */
	bool masked;   /* what the irq was told last */
};

struct msix {
	struct msix_vector *vec;
	unsigned n;
	uint16_t control; /* enable and function mask, as in message control */
	unsigned cap;     /* offset of the capability in configuration space */
};

/* @n vectors, 1 to MSIX_VECTORS_MAX. @irqs NULL: fakes, for tests without KVM. */
int msix_init(struct msix *m, unsigned n, struct irqs *irqs, struct err *e);
void msix_fini(struct msix *m); /* also after a failed init, or on zeroed storage */

/* Adds the capability: table at @table and pending bits at @pba in BAR @bar. 0, -ENOSPC. */
int msix_cap(struct msix *m, struct pci_func *f, unsigned bar, uint32_t table, uint32_t pba);
/* The guest wrote [off, off+size) of configuration space. */
void msix_cfg_written(struct msix *m, const struct pci_func *f, unsigned off, unsigned size);

bool msix_on(const struct msix *m);
/* Any @vector: one out of range, or MSI-X disabled, raises nothing. */
void msix_raise(struct msix *m, unsigned vector);
/* The eventfd that raises @vector, masked or not; -1 where msix_raise would raise nothing. */
int msix_fd(const struct msix *m, unsigned vector);
void msix_clear(struct msix *m); /* device reset: forgets what is pending, keeps the table */

uint64_t msix_table_read(const struct msix *m, uint64_t off, unsigned size);
void msix_table_write(struct msix *m, uint64_t off, unsigned size, uint64_t val);
uint64_t msix_pba_read(const struct msix *m, uint64_t off, unsigned size); /* read-only */

#endif
