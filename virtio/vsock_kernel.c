/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket device, virtio 1.2 section 5.10, in front of the host kernel's vhost-vsock: programs on
 * the host reach the guest's with AF_VSOCK. The kernel serves the receive and the transmit queue.
 *
 * No RING_RESET: vhost-vsock runs with both queues or not at all.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/devices.h"
#include "virtio/vhost.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUES }; /* section 5.10.2 */

/*
 * Linux fills the receive queue with buffers of 4 KiB, as many as it has entries, at the guest's
 * expense, and lets a connection have 256 KiB on the way: two of them fill 128.
 */
#define QUEUE_SIZE 128
#define EVENT_QUEUE_SIZE 16 /* Linux puts 8 there */

struct vsock_kernel {
	struct virtio v;
	struct vhost_kernel k;
	struct vhost_link link;
};

static int start(struct virtio *v)
{
	struct vsock_kernel *s = (struct vsock_kernel *)v;

	if (!vq_live(virtio_vq(v, QUEUE_RX)) || !vq_live(virtio_vq(v, QUEUE_TX))) {
		log_guest(&v->budget, "%s: the driver left a queue out", v->name);
		return -EINVAL;
	}
	/*
	 * The one event there is tells a guest that it is a copy of another (section 5.10.6.7),
	 * which none is yet: its buffers stay where they are.
	 */
	vq_kicks_off(virtio_vq(v, QUEUE_EVENT));
	return vhost_link_start(&s->link, v->acked);
}

static void stop(struct virtio *v)
{
	vhost_link_stop(&((struct vsock_kernel *)v)->link);
}

/* The event queue's say nothing. */
static void kick(struct virtio *v, unsigned q)
{
	vhost_link_kick(&((struct vsock_kernel *)v)->link, q);
}

static void rewired(struct virtio *v, unsigned q)
{
	vhost_link_rewired(&((struct vsock_kernel *)v)->link, q);
}

static void vsock_kernel_free(struct virtio *v)
{
	struct vsock_kernel *s = (struct vsock_kernel *)v;

	virtio_fini(v);
	vhost_link_fini(&s->link);
	vhost_kernel_close(&s->k);
	free(s);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_VSOCK,
	.start = start,
	.stop = stop,
	.kick = kick,
	.rewired = rewired,
	.free = vsock_kernel_free,
};

static int set_up(struct vsock_kernel *s, const struct vsock_config *c, const struct vsock_env *env)
{
	const uint64_t cid = htole64(c->cid);
	uint16_t size = c->queue_size ? c->queue_size : QUEUE_SIZE;
	int r = virtio_init(&s->v, &ops, "vsock", env->gm, env->loop);

	if (r == 0)
		r = virtio_add_queue(&s->v, size);
	if (r == 0)
		r = virtio_add_queue(&s->v, size);
	if (r == 0)
		r = virtio_add_queue(&s->v, EVENT_QUEUE_SIZE);
	if (r == 0)
		r = vhost_link_init(&s->link, &s->v, &s->k.h, QUEUE_RX);
	if (r < 0)
		return r;
	s->v.offered |= s->k.h.features;
	vhost_limit(&s->v, &s->k.h);
	memcpy(s->v.config, &cid, sizeof(cid)); /* section 5.10.4 */
	s->v.config_len = sizeof(cid);
	return 0;
}

int vsock_kernel_new(struct virtio **ret, const struct vsock_config *c, const struct vsock_env *env,
		     struct err *e)
{
	struct vsock_kernel *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_msg(e, -ENOMEM, "--vsock: out of memory");
	s->k.fd = -1;
	r = vhost_vsock_open(&s->k, c->cid, "vsock", e);
	if (r == 0) {
		r = set_up(s, c, env);
		if (r < 0)
			err_msg(e, r, "queues: %s", strerror(-r));
	}
	if (r < 0) {
		vsock_kernel_free(&s->v);
		err_ctx(e, "--vsock");
		return r;
	}
	*ret = &s->v;
	return 0;
}
