/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs that the host's kernel serves: one vhost-net each, tied to the pair's TAP queue. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/net.h"

struct net_vhost {
	struct vhost_kernel k;
	struct vhost_link link;
	bool open, started;
};

/* Who serves the rings must know these; all others are the device's or the TAP's. */
#define THEIRS                                                                                     \
	(NET_BIT(VIRTIO_F_VERSION_1) | NET_BIT(VIRTIO_F_EVENT_IDX) |                               \
	 NET_BIT(VIRTIO_F_INDIRECT_DESC) | NET_BIT(NET_F_MRG_RXBUF))

int net_vhost_open(struct net *n, struct err *e)
{
	int r = 0;

	n->vhost = calloc(n->pairs, sizeof(*n->vhost));
	if (!n->vhost)
		return err_msg(e, -ENOMEM, "out of memory");
	for (unsigned i = 0; r == 0 && i < n->pairs; i++) {
		r = vhost_net_open(&n->vhost[i].k, n->host->tap.fd[i], n->name, e);
		n->vhost[i].open = r == 0;
	}
	if (r < 0)
		net_vhost_close(n);
	return r;
}

int net_vhost_link(struct net *n, struct err *e)
{
	for (unsigned i = 0; i < n->pairs; i++) {
		struct net_vhost *h = &n->vhost[i];
		int r = vhost_link_init(&h->link, &n->v, &h->k.h, 2 * i);

		if (r < 0)
			return err_msg(e, r, "vhost-net: %s", strerror(-r));
	}
	return 0;
}

void net_vhost_close(struct net *n)
{
	for (unsigned i = 0; n->vhost && i < n->pairs; i++) {
		vhost_link_fini(&n->vhost[i].link); /* fine after an init that failed, or none */
		if (n->vhost[i].open)
			vhost_kernel_close(&n->vhost[i].k);
	}
	free(n->vhost);
	n->vhost = NULL;
}

uint64_t net_vhost_lacks(const struct net *n)
{
	return THEIRS & ~n->vhost[0].k.h.features;
}

int net_vhost_start(struct net *n, unsigned pair)
{
	int r = vhost_link_start(&n->vhost[pair].link, n->v.acked & THEIRS);

	n->vhost[pair].started = r == 0; /* else the link said why */
	return r;
}

void net_vhost_stop(struct net *n, unsigned pair)
{
	if (n->vhost[pair].started)
		vhost_link_stop(&n->vhost[pair].link);
	n->vhost[pair].started = false;
}

/* A queue that is reset alone, of a pair that runs. */
int net_vhost_queue_start(struct net *n, unsigned q)
{
	return n->vhost[q / 2].started ? vhost_link_queue_start(&n->vhost[q / 2].link, q) : 0;
}

void net_vhost_queue_stop(struct net *n, unsigned q)
{
	if (n->vhost[q / 2].started)
		vhost_link_queue_stop(&n->vhost[q / 2].link, q);
}

void net_vhost_kick(struct net *n, unsigned q)
{
	if (n->vhost[q / 2].started)
		vhost_link_kick(&n->vhost[q / 2].link, q);
}

void net_vhost_rewired(struct net *n, unsigned q)
{
	if (n->vhost[q / 2].started)
		vhost_link_rewired(&n->vhost[q / 2].link, q);
}
