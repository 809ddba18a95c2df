/* SPDX-License-Identifier: Apache-2.0 */
/* The network device, virtio 1.2 section 5.1; virtio/net.h says how it is built. */
#include "virtio/net.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* A frame of 64 KiB takes 45 of the small buffers that MRG_RXBUF has: several streams fill more. */
#define QUEUE_SIZE_RX 1024
#define QUEUE_SIZE 256
#define QUEUE_SIZE_LARGE 64 /* of the smallest that holds a packet of 64 KiB */
/*
 * The next frames of a stream from the guest wait for one another for so many of the longest
 * looks: each batch interrupts the guest and wakes who receives them, on processors that the guest
 * may need. No longer than NAP_NS: of one stream Linux hands out about what it sends in 1 ms, and
 * waits then until that is taken (TCP small queues).
 */
#define NAP_LOOKS 3
#define NAP_NS 1500000u

/* ------------------------------------------------------------- the host's side */

static void pair_ready(void *arg, uint32_t events)
{
	struct net_pair *p = arg;

	/* A TAP says so when its device is deleted; a read of a socket says why it ended. */
	if ((events & EPOLLERR) && !net_is_stream(p->n)) {
		net_lost(p->n, "it was deleted");
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		net_rx(p);
	if (events & EPOLLOUT)
		net_tx(p);
	/* Nobody gives buffers, so nobody reads the end; without this it would be told for ever. */
	if ((events & EPOLLHUP) && p->src.loop && !(p->events & EPOLLIN))
		net_lost(p->n, NULL);
}

void net_wait(struct net_pair *p, uint32_t mask, uint32_t on)
{
	uint32_t events = (p->events & ~mask) | on;

	if (events == p->events)
		return;
	p->events = events;
	if (p->src.loop)
		loop_fd_mod(&p->src, events);
}

void net_lost(struct net *n, const char *why)
{
	struct err e = {0};

	if (!n->host->dead) {
		err_msg(&e, -EIO, "%s: %s", n->host->label, why ? why : "it has ended");
		if (!why && n->host->passt)
			child_failed(n->host->passt, &e);
		log_warn("%s; the guest's link is down", e.text);
	}
	n->host->dead = true;
	for (unsigned i = 0; i < n->pairs; i++) {
		struct net_pair *p = &n->pair[i];

		loop_fd_del(&p->src);
		if (!p->tx.held)
			continue;
		vq_return(p->tx.held);
		p->tx.held = NULL;
		virtio_rekick(&n->v, 2 * i + 1);
	}
	net_set_link(n, false);
}

/* ------------------------------------------------------------- the link */

/* Section 5.1.6.5.4 for ANNOUNCE: who comes back may be at another place of the network. */
void net_set_link(struct net *n, bool up)
{
	uint8_t *status = n->v.config + NET_CFG_STATUS;

	if (up == (bool)(*status & NET_S_LINK_UP))
		return;
	*status = up ? NET_S_LINK_UP : 0;
	if (up && n->v.running && virtio_has(&n->v, NET_F_GUEST_ANNOUNCE))
		*status |= NET_S_ANNOUNCE;
	if (virtio_has(&n->v, NET_F_STATUS) || virtio_has(&n->v, NET_F_GUEST_ANNOUNCE))
		virtio_config_changed(&n->v);
}

static void look_at_link(struct net *n)
{
	enum tap_link link = n->host->dead ? TAP_GONE : TAP_UP;

	if (n->host->tap.queues && !n->host->dead)
		link = tap_link(&n->host->tap, n->host->watch);
	if (link == TAP_GONE)
		net_lost(n, "it was deleted");
	else
		net_set_link(n, link != TAP_DOWN);
}

static void link_changed(void *arg, uint32_t events)
{
	struct net *n = arg;

	(void)events;
	tap_watch_drain(n->host->watch);
	look_at_link(n);
}

/* ------------------------------------------------------------- polling */

static bool ctrl_wants(struct net *n)
{
	return n->ctrl != NET_NO_CTRL && !net_ctrl_rests(n) &&
	       vq_pending(virtio_vq(&n->v, n->ctrl));
}

static void poll_begin(void *arg)
{
	struct net *n = arg;

	n->polled = true;
	for (unsigned q = 0; n->enabled && q < n->v.nqueues; q++)
		vq_kicks_off(virtio_vq(&n->v, q));
}

static bool poll_ready(void *arg)
{
	struct net *n = arg;

	for (unsigned i = 0; i < n->enabled; i++)
		vq_notify_soon(net_txq(&n->pair[i]), n->poll.most);
	for (unsigned i = 0; i < n->enabled; i++)
		if (net_tx_wants(&n->pair[i]) || net_rx_wants(&n->pair[i]))
			return true;
	return n->enabled && ctrl_wants(n);
}

static uint64_t poll_run(void *arg)
{
	struct net *n = arg;
	bool stream = false;

	for (unsigned i = 0; i < n->enabled; i++) {
		if (net_tx_wants(&n->pair[i])) {
			net_tx(&n->pair[i]);
			stream |= n->pair[i].tx.large;
		}
		if (net_rx_wants(&n->pair[i]))
			net_rx(&n->pair[i]);
	}
	if (n->enabled && ctrl_wants(n))
		net_ctrl(n);
	for (unsigned i = 0; i < n->enabled; i++)
		stream &= !net_tx_wants(&n->pair[i]);
	if (!stream)
		return 0;
	return n->poll.most < NAP_NS / NAP_LOOKS ? n->poll.most * NAP_LOOKS : NAP_NS;
}

static bool kicks_on(struct net *n, unsigned q)
{
	if (!vq_kicks_on(virtio_vq(&n->v, q)))
		return false;
	virtio_rekick(&n->v, q);
	return true;
}

static bool poll_end(void *arg)
{
	struct net *n = arg;
	bool some = false;

	n->polled = false;
	for (unsigned i = 0; i < n->pairs; i++)
		vq_notify_late(net_txq(&n->pair[i]));
	for (unsigned i = 0; i < n->enabled; i++) {
		if (!n->pair[i].tx.held)
			some |= kicks_on(n, 2 * i + 1);
		if (n->pair[i].rx.hungry)
			some |= kicks_on(n, 2 * i);
	}
	if (n->enabled && n->ctrl != NET_NO_CTRL && !net_ctrl_rests(n))
		some |= kicks_on(n, n->ctrl);
	return some;
}

static const struct loop_poll_ops poll_ops = {
	.begin = poll_begin,
	.ready = poll_ready,
	.run = poll_run,
	.end = poll_end,
};

/* ------------------------------------------------------------- pairs */

static int pair_on(struct net *n, unsigned i)
{
	struct net_pair *p = &n->pair[i];
	int r = 0;

	/* Detached it would be one that frames are sent to and nobody reads. */
	if (i)
		r = tap_attach(&n->host->tap, i, true);
	if (r < 0 && r != -EALREADY)
		return r;
	if (n->vhost)
		r = net_vhost_start(n, i);
	else if (!n->host->dead)
		r = loop_fd_add(n->v.loop, &p->src, p->fd, p->events);
	else
		r = 0;
	p->enabled = r == 0;
	if (r == 0 && !n->vhost) {
		/* What waits in the rings, and to be read; the device may not run yet. */
		virtio_rekick(&n->v, 2 * i);
		virtio_rekick(&n->v, 2 * i + 1);
	}
	return r;
}

static void pair_off(struct net *n, unsigned i)
{
	struct net_pair *p = &n->pair[i];

	p->enabled = false;
	if (n->vhost)
		net_vhost_stop(n, i);
	else
		vq_notify(net_txq(p)); /* nobody asks it any more */
	loop_fd_del(&p->src);
	if (i)
		tap_attach(&n->host->tap, i, false);
}

int net_use_pairs(struct net *n, unsigned pairs)
{
	unsigned before = n->enabled;
	int r = 0;

	while (r == 0 && n->enabled < pairs) {
		r = pair_on(n, n->enabled);
		if (r == 0)
			n->enabled++;
		else
			pair_off(n, n->enabled);
	}
	while (n->enabled > (r < 0 ? before : pairs))
		pair_off(n, --n->enabled);
	return r;
}

/* ------------------------------------------------------------- start and stop */

static bool is_ctrl(const struct net *n, unsigned q)
{
	return q == n->ctrl;
}

static int net_start(struct virtio *v)
{
	struct net *n = (struct net *)v;

	/* Section 5.1.2: without MQ there is one pair, and the control queue follows that. */
	n->ctrl = NET_NO_CTRL;
	if (virtio_has(v, NET_F_CTRL_VQ))
		n->ctrl = virtio_has(v, NET_F_MQ) ? 2 * n->pairs : 2;
	net_ctrl_start(n, v->acked & NET_GUEST_OFFLOADS);
	/* What was queued for another driver may be in pieces that this one did not take. */
	if (n->host->tap.queues)
		tap_drain(n->host->tap.fd[0]);
	return net_use_pairs(n, 1);
}

static int net_queue_start(struct virtio *v, unsigned q)
{
	struct net *n = (struct net *)v;

	/* The driver's number: without MQ or a control queue the last queue is no pair's. */
	if (n->vhost && !is_ctrl(n, q) && q / 2 < n->pairs)
		return net_vhost_queue_start(n, q);
	virtio_rekick(v, q);
	return 0;
}

static void net_queue_stop(struct virtio *v, unsigned q)
{
	struct net *n = (struct net *)v;

	if (is_ctrl(n, q) || q / 2 >= n->pairs)
		return;
	if (n->vhost)
		net_vhost_queue_stop(n, q);
	else if (q & 1)
		net_tx_stop(&n->pair[q / 2]);
	else
		net_rx_stop(&n->pair[q / 2]);
}

static void net_stop(struct virtio *v)
{
	struct net *n = (struct net *)v;
	uint8_t *status = v->config + NET_CFG_STATUS;

	while (n->enabled)
		pair_off(n, --n->enabled);
	for (unsigned i = 0; !n->vhost && i < n->pairs; i++) {
		net_rx_stop(&n->pair[i]);
		net_tx_stop(&n->pair[i]);
	}
	*status &= (uint8_t)~NET_S_ANNOUNCE;
	memcpy(v->config + NET_CFG_MAC, n->mac, ETH_ALEN);
}

static void net_kick(struct virtio *v, unsigned q)
{
	struct net *n = (struct net *)v;

	if (is_ctrl(n, q))
		net_ctrl(n);
	else if (q / 2 >= n->enabled)
		return; /* section 5.1.6.5.5: pairs that are not enabled are not used */
	else if (n->vhost)
		net_vhost_kick(n, q);
	else if (q & 1)
		net_tx(&n->pair[q / 2]);
	else
		net_rx(&n->pair[q / 2]);
}

static void net_rewired(struct virtio *v, unsigned q)
{
	struct net *n = (struct net *)v;

	if (n->vhost && !is_ctrl(n, q) && q / 2 < n->pairs)
		net_vhost_rewired(n, q);
}

static void net_free(struct virtio *v)
{
	struct net *n = (struct net *)v;

	loop_poll_del(&n->poll);
	virtio_fini(v);
	loop_timer_cancel(&n->rest.timer);
	loop_fd_del(&n->watch);
	if (n->host->passt)
		child_watch(n->host->passt, NULL);
	net_vhost_close(n);
	for (unsigned i = 0; n->pair && i < n->pairs; i++)
		net_rx_fini(&n->pair[i]);
	free(n->pair);
	free(n);
}

/*
 * The largest segments take more buffers of the usual 1.5 KiB than a small queue has: where a
 * receive queue is one, the driver cannot have them.
 */
static void net_resized(struct virtio *v)
{
	struct net *n = (struct net *)v;

	v->offered |= n->large;
	for (unsigned i = 0; i < n->pairs; i++)
		if (vq_max_size(net_rxq(&n->pair[i])) < QUEUE_SIZE_LARGE)
			v->offered &= ~n->large;
}

static const struct virtio_ops net_ops = {
	.id = VIRTIO_ID_NET,
	.start = net_start,
	.stop = net_stop,
	.queue_start = net_queue_start,
	.queue_stop = net_queue_stop,
	.kick = net_kick,
	.resized = net_resized,
	.rewired = net_rewired,
	.free = net_free,
};

/* ------------------------------------------------------------- set-up */

static uint64_t features(struct net *n, const struct net_config *c)
{
	uint64_t f = NET_BIT(NET_F_MAC) | NET_BIT(NET_F_STATUS) | NET_BIT(NET_F_MRG_RXBUF) |
		     NET_BIT(NET_F_CTRL_VQ) | NET_BIT(NET_F_CTRL_RX) |
		     NET_BIT(NET_F_CTRL_RX_EXTRA) | NET_BIT(NET_F_CTRL_MAC_ADDR) |
		     NET_BIT(NET_F_GUEST_ANNOUNCE);
	uint64_t guest = net_offloads_known(n->host);

	if (c->mtu)
		f |= NET_BIT(NET_F_MTU);
	if (n->pairs > 1)
		f |= NET_BIT(NET_F_MQ);
	if (c->no_offload || !net_direct(n))
		return f;
	if (guest & NET_BIT(NET_F_GUEST_USO4)) /* then it knows such frames */
		f |= NET_BIT(NET_F_HOST_USO);
	n->large = guest & ~NET_BIT(NET_F_GUEST_CSUM);
	return f | guest | NET_BIT(NET_F_CSUM) | NET_BIT(NET_F_HOST_TSO4) |
	       NET_BIT(NET_F_HOST_TSO6) | NET_BIT(NET_F_HOST_ECN) | NET_BIT(NET_F_HOST_UFO) |
	       NET_BIT(NET_F_CTRL_GUEST_OFFLOADS);
}

static void put16(uint8_t *at, uint16_t v)
{
	v = htole16(v);
	memcpy(at, &v, sizeof(v));
}

/* Section 5.1.4. */
static void fill_config(struct net *n, const struct net_config *c)
{
	memcpy(n->mac, c->mac, ETH_ALEN);
	memcpy(n->v.config + NET_CFG_MAC, c->mac, ETH_ALEN);
	put16(n->v.config + NET_CFG_PAIRS, (uint16_t)n->pairs);
	put16(n->v.config + NET_CFG_MTU, c->mtu);
	n->v.config_len = NET_CFG_LEN;
}

/* Whether the host's kernel will serve the queues: n->vhost. */
static int choose_vhost(struct net *n, const struct net_config *c, struct err *e)
{
	struct err why = {0};
	int r;

	if (c->vhost == CONFIG_OFF || !n->host->tap.queues)
		return 0;
	if (net_direct(n))
		r = net_vhost_open(n, &why);
	else
		r = err_msg(&why, -ENOTSUP, "the TAP's frames have no headers (IFF_VNET_HDR)");
	if (r == 0)
		log_info("%s: served by the host's kernel (vhost-net)", n->host->label);
	else if (c->vhost == CONFIG_ON)
		return err_msg(e, r, "vhost=on: %s", why.text);
	else
		log_info("%s: served by mvm, not by vhost-net: %s", n->host->label, why.text);
	return 0;
}

static int make_pairs(struct net *n)
{
	int r = 0;

	n->pair = calloc(n->pairs, sizeof(*n->pair));
	if (!n->pair)
		return -ENOMEM;
	for (unsigned i = 0; r == 0 && i < n->pairs; i++) {
		struct net_pair *p = &n->pair[i];

		p->n = n;
		p->i = i;
		p->fd = n->host->tap.queues ? n->host->tap.fd[i] : n->host->frames.fd;
		p->src = (struct loop_fd){.fn = pair_ready, .arg = p};
		r = net_rx_init(p);
	}
	return r;
}

static int watch(struct net *n)
{
	struct net_host *h = n->host;
	int r = 0;

	n->poll = (struct loop_poll){.ops = &poll_ops, .arg = n};
	n->watch = (struct loop_fd){.fn = link_changed, .arg = n};
	if (h->watch >= 0)
		r = loop_fd_add(n->v.loop, &n->watch, h->watch, EPOLLIN);
	if (r == 0 && h->passt)
		r = child_watch(h->passt, n->v.loop);
	if (r == 0 && !n->vhost)
		loop_poll_add(n->v.loop, &n->poll);
	look_at_link(n);
	return r;
}

static int set_up(struct net *n, const struct net_config *c, const struct net_env *env)
{
	int r = make_pairs(n);

	n->v.offered = features(n, c);
	fill_config(n, c);
	if (r == 0)
		r = virtio_init(&n->v, &net_ops, n->name, env->gm, env->loop);
	if (r == 0 && n->vhost)
		n->v.offered &= ~net_vhost_lacks(n);
	for (unsigned q = 0; r == 0 && q < 2 * n->pairs + 1; q++) {
		unsigned size = q < 2 * n->pairs && !(q % 2) ? QUEUE_SIZE_RX : QUEUE_SIZE;

		r = virtio_add_queue(&n->v, c->queue_size ? c->queue_size : size);
	}
	if (r == 0)
		net_resized(&n->v);
	return r;
}

int net_new(struct net **ret, const struct net_config *c, const struct net_env *env, struct err *e)
{
	struct net *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return err_msg(e, -ENOMEM, "net%u: out of memory", env->index);
	n->host = env->host;
	n->pairs = c->pairs ? c->pairs : 1;
	n->ctrl = NET_NO_CTRL;
	snprintf(n->name, sizeof(n->name), "net%u", env->index);
	r = choose_vhost(n, c, e);
	if (r == 0 && (r = set_up(n, c, env)) < 0)
		err_msg(e, r, "queues: %s", strerror(-r));
	if (r == 0 && n->vhost)
		r = net_vhost_link(n, e);
	if (r == 0 && (r = watch(n)) < 0)
		err_msg(e, r, "watching its link: %s", strerror(-r));
	if (r < 0) {
		net_free(&n->v);
		return err_ctx(e, "%s", env->host->label);
	}
	*ret = n;
	return 0;
}

struct virtio *net_virtio(struct net *n)
{
	return &n->v;
}
