/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/doorbell.h"

#include "vmm/log.h"

/* A failure leaves the slower way through the bus. */
static void queue_update(struct doorbell *d, unsigned q)
{
	const struct vm_ioeventfd kick = {
		.addr = d->addr + q * DOORBELL_STRIDE,
		.pio = d->pio,
		.fd = d->v->queue[q].kick_fd,
	};
	bool on = d->mapped && d->v->queue[q].enabled && (d->rung || !d->late);
	int ret;

	if (on == d->ioeventfd[q])
		return;
	ret = vm_ioeventfd(d->vm, &kick, on);
	if (ret)
		log_guest_at(LOG_DEBUG, &d->v->budget, "%s: ioeventfd of queue %u: error %d",
			     d->v->name, q, -ret);
	d->ioeventfd[q] = on && !ret;
}

/*
 * An enabled queue of a mapped BAR has an ioeventfd, no other has: a change
 * costs KVM a grace period each time, so what no driver uses gets none. The
 * memory beside ports is used by few, and by those for the first time here. They
 * match any length (the fast path of Intel hosts that skips decoding a write to
 * memory wants that); all an odd length can do is kick.
 */
void doorbell_update(struct doorbell *d)
{
	for (unsigned q = 0; d->vm && q < d->v->nqueues; q++)
		queue_update(d, q);
}

void doorbell_map(struct doorbell *d, uint64_t addr, bool on)
{
	d->mapped = on;
	if (on)
		d->addr = addr;
	doorbell_update(d);
}

/* virtio_kick bounds the queue. */
void doorbell_ring(struct doorbell *d, uint64_t at)
{
	if (at % DOORBELL_STRIDE)
		return;
	if (!d->rung) {
		d->rung = true;
		doorbell_update(d);
	}
	virtio_kick(d->v, (unsigned)(at / DOORBELL_STRIDE));
}
