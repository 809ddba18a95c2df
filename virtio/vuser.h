/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the devices have in common that another process serves (fs.c, vublk.c): queues and
 * rings linked one to one, and what becomes of them when that process goes away. Then the
 * device takes its rings over and answers every request with an error, those that were under way
 * too, so that nobody in the guest waits for ever. A reboot brings a new one where it is ours to
 * start (fs.c); a socket that somebody gave stays dead.
 *
 * But a process that is there still, and does not answer or breaks the protocol, may go on with the
 * requests it has taken. What is answered for it the guest uses anew, and it might write into
 * that: so where it cannot be ended nothing is answered, and the machine ends.
 *
 * Which requests are under way the rings alone do not show for ever, so they are looked at every
 * few milliseconds as long as there are some, and from the next kick on when there are none.
 *
 * A device embeds a struct vuser first, and its ops are made of the functions below.
 *
 * Threading: under the device's loop lock.
 */
#ifndef VIRTIO_VUSER_H
#define VIRTIO_VUSER_H

#include "virtio/vhost.h"
#include "vmm/power.h"

struct vuser {
	struct virtio v;
	struct vhost_user *u; /* lent */
	struct vhost_link link;
	char name[16];
	char label[128]; /* for logs, with what the user calls it: "fs0 (tag src)" */
	struct power_sink power;
	bool adopted[VIRTIO_QUEUES_MAX]; /* its ring was taken over */
	bool at_large;                   /* no ring ever will be: the machine ends */
	struct loop_timer follow;
	uint64_t follow_ns;                      /* from one look at the rings to the next */
	struct loop_fd kicks[VIRTIO_QUEUES_MAX]; /* while nothing is under way */
	/* Writes an error into a request; it is returned by who called. */
	void (*refuse)(struct vuser *d, struct vq_chain *c);
	/* The back end is not to touch guest memory any more: whether it is ended for sure. NULL:
	 * it is not ours to end. Is called again. */
	bool (*end_backend)(struct vuser *d);
};

struct vuser_env {
	struct gmem *gm;
	struct loop *loop;
	struct power_sink power;
	unsigned queues;
	uint16_t queue_size;
};
/*
 * @d zeroed, but for name, label, u, refuse, end_backend and the device's own bits in v.offered.
 * @ops: of the functions below, or the device's own around them; @config_changed: what to call on
 * the loop when the back end says so, or NULL. 0 or a negative errno; vuser_fini
 * after a failure, too.
 */
int vuser_init(struct vuser *d, const struct virtio_ops *ops, const struct vuser_env *env,
	       void (*config_changed)(void *d));
void vuser_fini(struct vuser *d);

/* struct virtio_ops */
int vuser_start(struct virtio *v);
void vuser_stop(struct virtio *v);
int vuser_queue_start(struct virtio *v, unsigned q);
void vuser_queue_stop(struct virtio *v, unsigned q);
void vuser_kick(struct virtio *v, unsigned q);
void vuser_rewired(struct virtio *v, unsigned q);

#endif
