/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a PCI driver's kicks arrive: one dword a queue, in a BAR of memory or of
 * I/O, so that the address alone tells the queue. While the BAR decodes and is
 * in use, each enabled queue has an ioeventfd there; what reaches user space
 * anyway kicks the same. Owned by the transport, which zeroes it; under its loop's lock.
 *
 * Of the two kinds ports are the cheaper: a write is an exit that names port and
 * data, and KVM signals the eventfd at once. A write to memory is a fault on a
 * nested page, and on AMD KVM has to fetch and decode the instruction.
 */
#ifndef VIRTIO_DOORBELL_H
#define VIRTIO_DOORBELL_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio/virtio.h"
#include "vmm/kvm.h"

#define DOORBELL_STRIDE 4u /* notify_off_multiplier; queue_notify_off is the queue's number */

struct doorbell {
	struct virtio *v;
	struct vm *vm; /* NULL: no ioeventfd */
	bool pio;
	bool late; /* no ioeventfd before it is first rung: the driver may use another */
	/* private */
	bool rung;
	bool mapped;
	uint64_t addr;
	bool ioeventfd[VIRTIO_QUEUES_MAX];
};

/* Its first dword begins (@on) or stops decoding at @addr. */
void doorbell_map(struct doorbell *d, uint64_t addr, bool on);
/* After queues were enabled, reset or taken away. */
void doorbell_update(struct doorbell *d);
/* The guest wrote to byte @at of it; any number. */
void doorbell_ring(struct doorbell *d, uint64_t at);

#endif
