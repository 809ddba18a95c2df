/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames from the guest, section 5.1.6.2.
 *
 * To a TAP with headers a chain goes as it is, header and all, in one writev;
 * the host's kernel checks the header, which is the guest's word. Else the
 * header is left away: without offloads it says nothing (5.1.6.2.1). When the
 * host's side is full the chain in hand waits, and those behind it stay in
 * their ring. What is no packet (shorter than a header, longer than any frame) and
 * what the host refuses is dropped, and the chain is given back as ever.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "virtio/net.h"

enum tx { TX_DONE, TX_FULL, TX_NONE };

static bool is_packet(const struct vq_chain *c)
{
	return c->readable > NET_HDR && c->readable <= NET_HDR + FRAME_MAX;
}

/* One write of what iov holds. */
static enum tx write_held(struct net_pair *p)
{
	struct net_tx *tx = &p->tx;

	if (!p->n->host->dead && writev(p->fd, tx->iov, tx->niov) < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return TX_FULL;
		if (errno == EBADFD)
			net_lost(p->n, "it was deleted");
	}
	return TX_DONE;
}

static enum tx write_frame(struct net_pair *p)
{
	struct net_tx *tx = &p->tx;
	struct vq_chain *c = tx->held;
	uint8_t header[NET_HDR];

	if (!is_packet(c) || (!net_direct(p->n) && chain_pull(c, header, sizeof(header))))
		return TX_DONE;
	/* At most a queue's size of pieces, which NET_IOV is. */
	tx->niov = chain_pull_iov(c, c->readable, tx->iov, NET_IOV);
	return tx->niov < 0 ? TX_DONE : write_held(p);
}

/* Into the stream's buffer; flush() sends it. */
static enum tx put_frame(struct net_pair *p)
{
	struct frames *f = &p->n->host->frames;
	struct vq_chain *c = p->tx.held;
	uint8_t header[NET_HDR], *at;

	if (!is_packet(c) || p->n->host->dead)
		return TX_DONE;
	at = frames_put(f, c->readable - NET_HDR);
	if (!at && frames_flush(f) >= 0)
		at = frames_put(f, c->readable - NET_HDR);
	if (!at)
		return TX_FULL;
	/* What is_packet saw is there. */
	chain_pull(c, header, sizeof(header));
	chain_pull(c, at, c->readable);
	return TX_DONE;
}

static enum tx one(struct net_pair *p)
{
	struct net_tx *tx = &p->tx;
	bool again = tx->held;
	enum tx r;

	if (!again) {
		if (vq_next(net_txq(p), &tx->held) != VQ_CHAIN)
			return TX_NONE;
		tx->large = tx->held->readable >= NET_LARGE;
	}
	if (net_is_stream(p->n))
		r = put_frame(p);
	else
		r = again ? write_held(p) : write_frame(p);
	/* net_lost() gave it back already. */
	if (r == TX_FULL || !tx->held)
		return r;
	vq_return(tx->held);
	tx->held = NULL;
	return TX_DONE;
}

/* True: the socket did not take all of it. */
static bool flush(struct net_pair *p)
{
	int r = 0;

	if (net_is_stream(p->n) && !p->n->host->dead)
		r = frames_flush(&p->n->host->frames);
	if (r < 0)
		net_lost(p->n, NULL);
	return r > 0;
}

void net_tx(struct net_pair *p)
{
	struct vq *vq = net_txq(p);
	unsigned budget = NET_TURN;
	enum tx r = TX_DONE;

	if (!p->enabled)
		return;
	if (!vq_live(vq)) {
		/* What a queue that was reset left in the stream's buffer. */
		net_wait(p, EPOLLOUT, flush(p) ? EPOLLOUT : 0);
		return;
	}
	vq_kicks_off(vq);
	do {
		while (budget && (r = one(p)) == TX_DONE)
			budget--;
	} while (r == TX_NONE && net_kicks_on(p, vq));
	if (!budget && !p->n->polled)
		virtio_rekick(&p->n->v, 2 * p->i + 1);
	bool full = flush(p) || r == TX_FULL;

	net_wait(p, EPOLLOUT, full ? EPOLLOUT : 0);
	if (p->n->polled)
		vq_notify_soon(vq, p->n->poll.most);
	else
		vq_notify(vq);
}

void net_tx_stop(struct net_pair *p)
{
	struct net_tx *tx = &p->tx;

	vq_reset(net_txq(p)); /* the chain answers nobody from here on */
	if (tx->held)
		vq_return(tx->held);
	tx->held = NULL;
	tx->niov = 0;
}
