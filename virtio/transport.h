/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two transports. Both take a device that stays the caller's and put it in
 * front of the guest; freeing the transport takes it away again (the device is
 * stopped first).
 */
#ifndef VIRTIO_TRANSPORT_H
#define VIRTIO_TRANSPORT_H

#include "devices/pci.h"
#include "virtio/virtio.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/kvm.h"

/* virtio/vpci.c: virtio 1.2 section 4.1, modern only. */
struct vpci_env {
	struct pci_bus *pci;
	struct irqs *irqs; /* NULL: fake MSIs, for tests */
	struct vm *vm;     /* NULL: no ioeventfd */
};
struct vpci;
int vpci_new(struct vpci **ret, struct virtio *v, const struct vpci_env *env, struct err *e);
void vpci_free(struct vpci *t);
struct pci_func *vpci_func(struct vpci *t); /* for tests */

/* virtio/vmmio.c: section 4.2, version 2. */
struct vmmio_env {
	struct bus *bus;
	uint64_t base;   /* of LAYOUT_VMMIO_STRIDE bytes */
	struct irq *irq; /* becomes the transport's, at a failure too */
	struct vm *vm;   /* NULL: no ioeventfd */
};
struct vmmio;
int vmmio_new(struct vmmio **ret, struct virtio *v, const struct vmmio_env *env, struct err *e);
void vmmio_free(struct vmmio *t);

#endif
