/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device without its transport: features, status, configuration space
 * and queues (virtio 1.2 sections 2.1–2.5, 2.6.1 queue reset, 3.1). A device
 * embeds a struct virtio and gives a const table of operations; a transport
 * (vpci.c, vmmio.c) drives it through the virtio_* calls below and is told of
 * interrupts through its bearer.
 *
 * Everything runs under the device's loop lock.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio/vq.h"
#include "vmm/gmem.h"
#include "vmm/log.h"
#include "vmm/loop.h"

#define VIRTIO_QUEUES_MAX 33
#define VIRTIO_CONFIG_MAX 256

#define VIRTIO_ID_NET 1
#define VIRTIO_ID_BLOCK 2
#define VIRTIO_ID_CONSOLE 3
#define VIRTIO_ID_RNG 4
#define VIRTIO_ID_VSOCK 19
#define VIRTIO_ID_FS 26

/* Feature bits that belong to no device, section 6. */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX 29
#define VIRTIO_F_VERSION_1 32
#define VIRTIO_F_RING_RESET 40

/* Status bits, section 2.1. */
#define VIRTIO_S_ACKNOWLEDGE 1
#define VIRTIO_S_DRIVER 2
#define VIRTIO_S_DRIVER_OK 4
#define VIRTIO_S_FEATURES_OK 8
#define VIRTIO_S_NEEDS_RESET 64
#define VIRTIO_S_FAILED 128

struct virtio;

struct virtio_ops {
	uint16_t id;
	/* DRIVER_OK: the enabled queues are live. Negative: NEEDS_RESET. */
	int (*start)(struct virtio *v);
	/* Reset, or the machine ends. On return nothing touches guest memory any more. Only after a
	 * start. */
	void (*stop)(struct virtio *v);
	/* One queue comes live again, or is reset alone: the same promises for that queue. May be
	 * NULL: RING_RESET is not offered. */
	int (*queue_start)(struct virtio *v, unsigned q);
	void (*queue_stop)(struct virtio *v, unsigned q);
	/* The driver kicked queue @q, which is live. */
	void (*kick)(struct virtio *v, unsigned q);
	/* The driver wrote configuration bytes. NULL: read-only. */
	void (*config_write)(struct virtio *v, unsigned off, unsigned size, uint64_t val);
	/* The queues have other sizes (virtio_resize): what the configuration says of them. NULL:
	 * nothing. */
	void (*resized)(struct virtio *v);
	/* virtio_queue_fd(q) has changed, on a running device. NULL: it is of no interest. */
	void (*rewired)(struct virtio *v, unsigned q);
	/* Nothing is in flight: until the loop's lock, which is held, is let go, nobody reads or
	 * writes guest memory for this device. NULL: always. */
	bool (*at_rest)(const struct virtio *v);
	void (*free)(struct virtio *v); /* the whole device; its transport is gone */
};

/* The transport's side. */
struct virtio_bearer {
	void (*queue_interrupt)(void *t, unsigned q);
	void (*config_interrupt)(void *t);
	/* An eventfd that does what queue_interrupt does, without us, as the driver has wired it
	 * now; -1: there is none. It stays the transport's. */
	int (*queue_fd)(void *t, unsigned q);
	void *t;
};

struct virtio_queue {
	struct vq *vq;
	uint16_t size; /* what the driver wrote, at most the maximum */
	bool enabled;  /* by the driver; registers are frozen then */
	uint64_t desc, avail, used;
	int kick_fd; /* eventfd, ioeventfd's target and watched by the loop */
	struct loop_fd kick_src;
	struct virtio *v; /* back pointers for callbacks */
	unsigned index;
};

struct virtio {
	const struct virtio_ops *ops;
	const char *name; /* "disk0": for logs; lives as long as the device */
	struct gmem *gm;
	struct loop *loop;
	uint64_t offered; /* device features; the device sets its own bits before virtio_init */
	uint64_t acked;
	uint8_t status;
	uint8_t generation; /* config changes */
	uint8_t config[VIRTIO_CONFIG_MAX];
	unsigned config_len;
	unsigned nqueues;
	struct virtio_queue *queue;
	struct virtio_bearer bearer;
	bool running;             /* between start and stop */
	bool driven;              /* a driver set DRIVER_OK once; a reset does not undo it */
	bool ending;              /* its machine goes: nobody uses the guest's memory after it */
	struct log_budget budget; /* for what the driver can provoke */
};

/* Adds VERSION_1, EVENT_IDX, INDIRECT_DESC, and RING_RESET where the ops can. 0 or -ENOMEM. */
int virtio_init(struct virtio *v, const struct virtio_ops *ops, const char *name, struct gmem *gm,
		struct loop *l);
/* Before any transport; in order. @max_size: a power of two up to VQ_SIZE_MAX. 0 or a negative
 * errno. */
int virtio_add_queue(struct virtio *v, uint16_t max_size);
/*
 * Other maximum sizes, for queues 0 to @n - 1 and the last one for the rest; before any
 * transport. @n: 1 to nqueues. 0, -EINVAL (no power of two up to VQ_SIZE_MAX) or -ENOMEM;
 * after an error all is as it was.
 */
int virtio_resize(struct virtio *v, const uint16_t *size, unsigned n);
void virtio_fini(
	struct virtio *v); /* stops it when it runs; fine after an init that failed, or none */

/* ---- for devices */
static inline bool virtio_has(const struct virtio *v, unsigned bit)
{
	return v->acked & v->offered & (1ull << bit);
}
void virtio_needs_reset(struct virtio *v); /* latch and tell the driver */
void virtio_config_changed(
	struct virtio *v); /* after changing config[]: generation and interrupt */
/* Come back to queue @q through kick() after the rest of the loop had its turn: bounds the work of
 * one call. */
void virtio_rekick(struct virtio *v, unsigned q);
/*
 * For a back end outside of this process or in the kernel, which serves a queue
 * itself: the eventfd where kicks arrive, not watched here any more until it is
 * given back; and one that interrupts the driver, or -1 (then the back end gets an eventfd
 * of the device's own, and virtio_interrupt follows). Between start and stop of the queue.
 */
int virtio_lend_kicks(struct virtio *v, unsigned q);
void virtio_return_kicks(struct virtio *v, unsigned q); /* does nothing when they were not lent */
int virtio_queue_fd(struct virtio *v, unsigned q);
void virtio_interrupt(struct virtio *v, unsigned q);
static inline struct vq *virtio_vq(struct virtio *v, unsigned q)
{
	return v->queue[q].vq;
}

/*
 * ---- for transports: what the driver wrote, checked here. A queue's size,
 * desc, avail and used the transport stores itself, while it is not enabled.
 * Addresses, sizes and alignments are checked when the queue comes live: at
 * DRIVER_OK or, on a running device, at enable. Bad ones latch NEEDS_RESET.
 */
void virtio_set_status(struct virtio *v, uint8_t status); /* 0 resets */
void virtio_set_features(struct virtio *v, unsigned half,
			 uint32_t bits); /* half 0 or 1; others are ignored */
uint32_t virtio_get_features(const struct virtio *v, unsigned half);
uint64_t virtio_config_read(struct virtio *v, unsigned off,
			    unsigned size); /* beyond the end: zeros */
void virtio_config_write(struct virtio *v, unsigned off, unsigned size, uint64_t val);
void virtio_queue_enable(struct virtio *v,
			 unsigned q); /* @q < nqueues checked by the caller through virtio_q() */
void virtio_queue_reset(struct virtio *v,
			unsigned q); /* RING_RESET, section 2.6.1; done on return */
void virtio_queue_disable(struct virtio *v,
			  unsigned q); /* the same without the feature (MMIO's QueueReady = 0) */
void virtio_kick(struct virtio *v, unsigned q);              /* any @q */
void virtio_rewired(struct virtio *v, unsigned q);           /* any @q: queue_fd changed */
struct virtio_queue *virtio_q(struct virtio *v, unsigned q); /* NULL when out of range */

#endif
