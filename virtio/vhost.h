/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues that somebody else serves: the host's kernel (vhost-net, vhost-vsock) or
 * another process (vhost-user). To a device both look the same:
 *
 *   struct vhost        a back end: it has rings 0 to nrings-1 and its own features
 *   struct vhost_link   the wiring of a device's queues [first, first+nrings) to its rings
 *
 * A link hands the back end guest memory, the rings' places, the eventfd where
 * the driver's kicks arrive, and one that interrupts the driver: as far as the
 * transport allows, the one that KVM itself watches (virtio_queue_fd), so that
 * neither kick nor interrupt comes by here (but for vuser.h, which watches kicks after a rest).
 * Where it does not, the link has an eventfd of its own and passes the interrupt on.
 *
 * What the rings' addresses are was checked by vq_start when the queue came
 * live; the queue's struct vq is not used otherwise as long as it is linked, but for vq_follow. The
 * back end reads the rings by itself and takes care of what it finds there.
 *
 * Threading: under the device's loop lock. A call may wait for the back end, in the thread that
 * made it and with that lock: VHOST_WAIT_MS at most, however many messages it takes, and not more
 * than a tenth of the time in the long run.
 */
#ifndef VIRTIO_VHOST_H
#define VIRTIO_VHOST_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio/virtio.h"
#include "vmm/err.h"
#include "vmm/gmem.h"

#define VHOST_WAIT_MS 5000

struct vhost;

struct vhost_ring {
	uint16_t size, base;       /* base: the next element of the available ring to take */
	void *desc, *avail, *used; /* in our address space; what is behind them is guest memory */
	uint64_t used_gpa;
	int kick, call, err; /* stay the caller's; err: signalled when the ring cannot go on */
};

/* Each: 0 or a negative errno, logged by who called. A back end that died says -ENOTCONN. */
struct vhost_ops {
	int (*set_features)(struct vhost *h, uint64_t features); /* negotiated; before the rings */
	int (*set_memory)(struct vhost *h, const struct gmem *gm);
	int (*ring_start)(struct vhost *h, unsigned ring, const struct vhost_ring *r);
	int (*ring_call)(struct vhost *h, unsigned ring, int fd); /* of a ring that runs */
	/* When it returns the back end does not touch the ring any more, nor its buffers. */
	int (*ring_stop)(struct vhost *h, unsigned ring, uint16_t *ret_base);
	/* All rings that will be are started; or none will go on. NULL: nothing to do. */
	int (*run)(struct vhost *h, bool on);
	/* What is called until the next of these is one operation. NULL: of no interest. */
	void (*begin)(struct vhost *h);
};

struct vhost { /* embedded in vhost_kernel.c's and vhost_user.c's */
	const struct vhost_ops *ops;
	uint64_t features; /* that the back end offers: device and ring features alike */
	unsigned nrings;
	const char *name; /* for logs: "net0: vhost-net" */
};

struct vhost_link_queue {
	bool started;
	int call; /* what the back end has */
	int relay_fd, err_fd;
	struct loop_fd relay, err;
	struct vhost_link *link;
	unsigned q; /* the device's number */
};

struct vhost_link {
	struct virtio *v;
	struct vhost *h;
	unsigned first;
	bool running;
	struct vhost_link_queue queue[VIRTIO_QUEUES_MAX]; /* by ring */
};

/*
 * What a device may offer of the ring features: takes those away from v->offered that the
 * back end would have to have and has not. After virtio_init; VERSION_1 it must have.
 */
#define VHOST_RING_FEATURES                                                                        \
	(1ull << VIRTIO_F_INDIRECT_DESC | 1ull << VIRTIO_F_EVENT_IDX | 1ull << VIRTIO_F_VERSION_1)
static inline void vhost_limit(struct virtio *v, const struct vhost *h)
{
	v->offered &= ~(VHOST_RING_FEATURES & ~h->features);
}

/*
 * @l zeroed, after virtio_init. The eventfds for relaying, and those where a back end tells of a
 * ring that it cannot go on with (its driver's mistake: NEEDS_RESET), are made and watched here.
 * 0 or a negative errno; vhost_link_fini after a failure too.
 */
int vhost_link_init(struct vhost_link *l, struct virtio *v, struct vhost *h, unsigned first);
void vhost_link_fini(struct vhost_link *l); /* stopped before */

/*
 * A device's start: features (@features: the negotiated ones that are the back
 * end's business), memory, and each queue of the link that is live. A failure leaves nothing
 * started. vhost_link_stop always gets the queues back.
 */
int vhost_link_start(struct vhost_link *l, uint64_t features);
void vhost_link_stop(struct vhost_link *l);

/* The same for one queue of a device that runs; @q is the device's number. One that is not the
 * link's is of no interest. */
int vhost_link_queue_start(struct vhost_link *l, unsigned q);
void vhost_link_queue_stop(struct vhost_link *l, unsigned q);
void vhost_link_rewired(struct vhost_link *l, unsigned q);
/* A kick that came as a write to a register (virtio_ops.kick): the back end hears eventfds. */
void vhost_link_kick(struct vhost_link *l, unsigned q);
static inline bool vhost_link_has(const struct vhost_link *l, unsigned q)
{
	return q - l->first < l->h->nrings;
}

/*
 * ---- the kernel's (vhost_kernel.c), linux/vhost.h. Each open file is one back
 * end with two rings. vhost-net starts and stops them one by one, vhost-vsock both at
 * once (run). A stop that the kernel refuses closes the file: nothing it does can go on then.
 */
struct vhost_kernel {
	struct vhost h;
	int fd;     /* -1: closed */
	int tap[2]; /* net: the TAP queue that each ring is tied to when it starts; stays the
		       caller's */
	bool vsock;
};
/* Opens /dev/vhost-net and looks whether it has what we need; @e says why not. 0 or a negative
 * errno. @tap stays the caller's, open until vhost_kernel_close. @name for logs, as long. */
int vhost_net_open(struct vhost_kernel *k, int tap, const char *name, struct err *e);
/* The CID is this file's until it is closed: -EADDRINUSE when another has it. */
int vhost_vsock_open(struct vhost_kernel *k, uint32_t cid, const char *name, struct err *e);
void vhost_kernel_close(struct vhost_kernel *k); /* fine after an open that failed */

/*
 * ---- another process (vhost_user.c): the front end's side of the vhost-user
 * protocol (QEMU's docs/interop/vhost-user.rst). The connection outlives the
 * machine: after a reboot of the guest the next one goes on with it.
 */
struct vhost_user;
struct vhost_user_owner {
	void (*died)(void *arg); /* the connection broke; on the loop, once */
	void (*config_changed)(
		void *arg); /* the device's configuration, at the peer; on the loop */
	void *arg;
	const char *name; /* the device's, for logs: "fs0 (tag src)" */
};
/*
 * What goes wrong at the peer, or takes it longer than VHOST_WAIT_MS, ends the connection:
 * the reason is logged, at once and for each later machine, and every call from then on says
 * -ENOTCONN. Each call below is an
 * operation of its own.
 */
#define VHOST_USER_NEEDS_CONFIG (1ull << 9)
/*
 * While it is on, all operations of all connections together may wait for VHOST_WAIT_MS, and for
 * 20 ms each after that: a machine's devices start and end one after the other, and however many
 * peers do not answer, nobody waits for more. What else takes time meanwhile does not count. On or
 * off from any thread.
 */
void vhost_user_together(bool on);
/* Connects, exactly once, and negotiates. @want: protocol features that the device cannot do
 * without; with VHOST_USER_NEEDS_CONFIG changes are told of if the peer can. */
int vhost_user_connect(struct vhost_user **ret, const char *path, uint64_t want, struct err *e);
/* The same over a socket that is connected already; becomes the connection's, at a failure too. */
int vhost_user_adopt(struct vhost_user **ret, int fd, uint64_t want, struct err *e);
void vhost_user_free(struct vhost_user *u); /* accepts NULL */
/* Its nrings is for the device to set, at most VIRTIO_QUEUES_MAX, before a link. */
struct vhost *vhost_user_vhost(struct vhost_user *u);
bool vhost_user_dead(const struct vhost_user *u);
/*
 * Dead, but it was we who hung up, while the peer had rings of this owner's: its process may
 * live on, and may write to their buffers still. A peer that hung up itself does not: its
 * process closes the connection after all that it had of guest memory, or says that it is through.
 */
bool vhost_user_may_write(const struct vhost_user *u);
/* Before a device uses it, and NULL when that device goes: watches the connection on @l. One that
 * died in between tells its new owner, too. 0 or a negative errno. */
int vhost_user_bind(struct vhost_user *u, struct loop *l, const struct vhost_user_owner *o);
/* All of @len bytes, at most 256, from the start of the configuration space. */
int vhost_user_get_config(struct vhost_user *u, void *buf, uint32_t len, struct err *e);
/* -EREMOTEIO: the peer, which may acknowledge what it gets, refused; the connection lives. */
int vhost_user_set_config(struct vhost_user *u, uint32_t off, const void *buf, uint32_t len);
/* Queues that the peer can serve, 1 to VIRTIO_QUEUES_MAX (more are as good as that); -ENOTSUP: it
 * does not say; -ENOTCONN. */
int vhost_user_queues(struct vhost_user *u);

#endif
