/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames to the guest, section 5.1.6.4.
 *
 * From a TAP with headers the kernel writes straight into the guest's buffers:
 * chains for the largest packet are taken ahead of it (one, without MRG_RXBUF),
 * one readv fills as many of them as the packet needs, and those are given back
 * together. Behind the last chain stands the tail, a buffer of ours, so that a
 * packet is never cut: what is there is pushed into chains that are taken
 * later, or the packet is dropped. Without headers a frame comes from a buffer
 * of ours altogether, behind a header that says nothing.
 *
 * A chain too small for the header (the driver MUST NOT give one, 5.1.6.3.1) comes
 * back empty. Without MRG_RXBUF a packet that is longer than its chain is
 * dropped.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "virtio/net.h"

#define PACKET_MAX (NET_HDR + FRAME_MAX)

/*
 * The driver hears of so much that is new in the middle of a turn: it has work for a while,
 * and its acknowledgements come while the rest is read. (Until it is through it wants no more
 * interrupts.)
 */
#define TELL (128u << 10)

/*
 * Longer than an acknowledgement, shorter than the parts of a stream: it may be a question, and
 * what the guest answers must not wait in a nap, however large the answers are.
 */
#define QUESTION 128u

/* A packet waits so long for buffers; then the driver is taken to have no more. */
#define PATIENCE_NS 200000000ull

enum rx { RX_DONE, RX_NONE, RX_HUNGRY, RX_LOST };

/* ------------------------------------------------------------- chains */

static bool mergeable(const struct net_pair *p)
{
	return virtio_has(&p->n->v, NET_F_MRG_RXBUF);
}

static void refuse(struct net_pair *p, struct vq_chain *c)
{
	log_guest(&p->n->budget,
		  "%s: a receive buffer has no room for a header, or is in too many pieces "
		  "(virtio 1.2 section 5.1.6.3.1)",
		  p->n->name);
	vq_return(c);
}

/* The next chain that a header fits into; false: there is none. */
static bool take(struct net_pair *p, struct vq_chain **ret)
{
	struct net_rx *rx = &p->rx;
	struct vq *vq = net_rxq(p);

	*ret = rx->spare;
	rx->spare = NULL;
	if (*ret)
		return true;
	while (rx->refused < NET_TURN && vq_next(vq, ret) == VQ_CHAIN) {
		if ((*ret)->writable >= NET_HDR)
			return true;
		rx->refused++;
		refuse(p, *ret);
	}
	return false;
}

/* Chains in hand are at most those of the queue, and iovecs of them fewer than NET_IOV. */
static void append(struct net_rx *rx, struct vq_chain *c, uint32_t len, unsigned iovs)
{
	if (rx->first >= NET_IOV) {
		unsigned n = rx->end - rx->first;

		memmove(rx->chain, rx->chain + rx->first, n * sizeof(rx->chain[0]));
		memmove(rx->len, rx->len + rx->first, n * sizeof(rx->len[0]));
		memmove(rx->iovs, rx->iovs + rx->first, n * sizeof(rx->iovs[0]));
		rx->first = 0;
		rx->end = n;
	}
	rx->chain[rx->end] = c;
	rx->len[rx->end] = len;
	rx->iovs[rx->end++] = (uint16_t)iovs;
	rx->iov_end += iovs;
	rx->room += len;
}

static void iov_to_front(struct net_rx *rx)
{
	if (rx->iov_first < NET_IOV)
		return;
	rx->iov_end -= rx->iov_first;
	memmove(rx->iov, rx->iov + rx->iov_first, rx->iov_end * sizeof(rx->iov[0]));
	rx->iov_first = 0;
}

/* Chains for the largest packet, as far as there are. One that is refused ends it, and so is
 * counted by who asks again. */
static void fill(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;
	uint32_t want = mergeable(p) ? PACKET_MAX : 1;
	struct vq_chain *c;

	while (rx->room < want && take(p, &c)) {
		/* The driver's length: of a chain that is longer only as much as a packet. */
		uint32_t len = c->writable < PACKET_MAX ? c->writable : PACKET_MAX;

		iov_to_front(rx);
		/* One iovec stays for the tail. */
		int max = (int)(NET_IOV - 1 - (rx->iov_end - rx->iov_first));
		int n = chain_push_iov(c, len, rx->iov + rx->iov_end, max);

		if (n < 0) {
			if (rx->first != rx->end)
				rx->spare = c;
			else
				refuse(p, c);
			break;
		}
		append(rx, c, len, (unsigned)n);
	}
}

/* The first @n chains are the driver's again, all at once (section 5.1.6.4.1). */
static void give(struct net_rx *rx, unsigned n)
{
	vq_return_all(rx->chain + rx->first, n);
	for (; n; n--) {
		rx->iov_first += rx->iovs[rx->first];
		rx->room -= rx->len[rx->first];
		rx->first++;
	}
	if (rx->first == rx->end)
		rx->first = rx->end = rx->iov_first = rx->iov_end = 0;
}

/* The first @n chains hold a packet. */
static void deliver(struct net_pair *p, unsigned n)
{
	uint16_t num = htole16((uint16_t)n); /* 1 without MRG_RXBUF: section 5.1.6.4.1 */

	chain_poke(p->rx.chain[p->rx.first], NET_HDR_NUM_BUFFERS, &num, sizeof(num));
	give(&p->rx, n);
	p->rx.untold += p->rx.packet;
	if (p->rx.packet > QUESTION && p->rx.packet < NET_LARGE)
		loop_hurry(p->n->v.loop);
}

/* ------------------------------------------------------------- packets that need more chains */

/* A packet that nobody has room for: its chains go back without it. */
static void drop_left(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;

	for (unsigned i = rx->first; i < rx->end; i++)
		chain_written(rx->chain[i], 0);
	give(rx, rx->end - rx->first);
	rx->left_len = 0;
	loop_timer_cancel(&rx->patience);
}

static void out_of_patience(void *arg)
{
	struct net_pair *p = arg;

	drop_left(p);
	net_rx(p);
}

/* The chain that is written next: the last one in hand, or one more. */
static struct vq_chain *writable(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;
	struct vq_chain *c = rx->first == rx->end ? NULL : rx->chain[rx->end - 1];
	static const uint8_t header[NET_HDR];

	if (c && c->writable)
		return c;
	if (!take(p, &c))
		return NULL;
	/* take() saw that it fits. */
	if (rx->first == rx->end)
		chain_push(c, header, sizeof(header));
	append(rx, c, 0, 0);
	return c;
}

static enum rx push_left(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;

	while (rx->left_len) {
		struct vq_chain *c = writable(p);

		if (!c) {
			/* More will not come: the driver has given all that the queue holds. */
			if (rx->end - rx->first >= p->n->v.queue[2 * p->i].size) {
				drop_left(p);
				return RX_DONE;
			}
			if (!rx->patience.loop)
				loop_timer_set(p->n->v.loop, &rx->patience,
					       loop_now() + PATIENCE_NS);
			return RX_HUNGRY;
		}
		uint32_t len = c->writable < rx->left_len ? c->writable : rx->left_len;

		if (chain_push(c, rx->left, len))
			break; /* an orphan; those are gone before we come here */
		rx->left += len;
		rx->left_len -= len;
	}
	loop_timer_cancel(&rx->patience);
	deliver(p, rx->end - rx->first);
	return RX_DONE;
}

/* ------------------------------------------------------------- one packet */

static enum rx failed(struct net_pair *p, int err)
{
	switch (err) {
	case EAGAIN:
	case EINTR:
		return RX_NONE;
	case EBADFD:
		net_lost(p->n, "it was deleted");
		return RX_LOST;
	default: /* of this frame alone */
		return RX_DONE;
	}
}

/* @total bytes are in the chains in hand; @total ≤ room. */
static enum rx filled(struct net_pair *p, uint32_t total)
{
	struct net_rx *rx = &p->rx;
	unsigned n = 0;

	while (total) {
		uint32_t len = rx->len[rx->first + n];
		uint32_t used = total < len ? total : len;

		chain_written(rx->chain[rx->first + n++], used);
		total -= used;
	}
	deliver(p, n);
	return RX_DONE;
}

/* From the TAP into the guest's memory. */
static enum rx read_direct(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;

	fill(p);
	if (!rx->room)
		return RX_HUNGRY;
	rx->iov[rx->iov_end] = (struct iovec){rx->tail, PACKET_MAX};
	ssize_t n = readv(p->fd, rx->iov + rx->iov_first, (int)(rx->iov_end - rx->iov_first) + 1);

	if (n < 0)
		return failed(p, errno);
	if (n == 0)
		return failed(p, EBADFD);
	if (n < (ssize_t)NET_HDR || n > (ssize_t)PACKET_MAX)
		return RX_DONE; /* dropped: the chains stay for the next */
	rx->packet = (uint32_t)n;
	if ((size_t)n <= rx->room)
		return filled(p, (uint32_t)n);
	if (!mergeable(p))
		return RX_DONE; /* likewise */
	rx->left = rx->tail;
	rx->left_len = (uint32_t)n - rx->room;
	return push_left(p);
}

/* A frame without a header. */
static enum rx next_frame(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;
	ssize_t n;

	if (net_is_stream(p->n)) {
		int r = frames_next(&p->n->host->frames, &rx->left, &rx->left_len);

		if (r < 0) {
			rx->left_len = 0;
			net_lost(p->n, r == -EPROTO ? "it sent what is no frame" : NULL);
			return RX_LOST;
		}
		if (!r)
			rx->left_len = 0;
		return r ? RX_DONE : RX_NONE;
	}
	n = read(p->fd, rx->tail, PACKET_MAX);
	if (n < 0)
		return failed(p, errno);
	if (n == 0)
		return failed(p, EBADFD);
	rx->left = rx->tail;
	rx->left_len = n <= (ssize_t)FRAME_MAX ? (uint32_t)n : 0;
	return RX_DONE;
}

static enum rx read_copy(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;
	struct vq_chain *c = NULL;
	enum rx r;

	/* Without a buffer nothing is read, so that the host's side keeps it. */
	if (!take(p, &c))
		return RX_HUNGRY;
	rx->spare = c;
	r = next_frame(p);
	if (r != RX_DONE || !rx->left_len)
		return r;
	rx->packet = rx->left_len + NET_HDR;
	if (!mergeable(p) && c->writable - NET_HDR < rx->left_len) {
		rx->left_len = 0;
		return RX_DONE;
	}
	return push_left(p);
}

/* ------------------------------------------------------------- the queue */

static enum rx one(struct net_pair *p)
{
	if (p->rx.left_len)
		return push_left(p);
	return net_direct(p->n) ? read_direct(p) : read_copy(p);
}

static void tell(struct net_pair *p)
{
	p->rx.untold = 0;
	vq_notify(net_rxq(p));
}

void net_rx(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;
	struct vq *vq = net_rxq(p);
	unsigned budget = NET_TURN;
	enum rx r = RX_DONE;

	if (!p->enabled || !vq_live(vq) || p->n->host->dead) {
		rx->hungry &= !p->n->host->dead;
		return;
	}
	if (rx->hungry)
		vq_kicks_off(vq);
	rx->refused = 0;
	for (;;) {
		while (budget && (r = one(p)) == RX_DONE) {
			budget--;
			if (rx->untold >= TELL)
				tell(p);
		}
		if (r != RX_HUNGRY || !budget || !net_kicks_on(p, vq))
			break;
		budget--;
	}
	rx->hungry = r == RX_HUNGRY;
	/* For what is in our own buffer, or came into the ring by now, there is no wake-up. */
	if (!budget && (rx->hungry || net_is_stream(p->n)))
		virtio_rekick(&p->n->v, 2 * p->i);
	net_wait(p, EPOLLIN, rx->hungry ? 0 : EPOLLIN);
	tell(p);
}

int net_rx_init(struct net_pair *p)
{
	p->rx.patience = (struct loop_timer){.fn = out_of_patience, .arg = p};
	p->rx.hungry = true; /* as the ring begins: kicks are on */
	p->rx.tail = malloc(PACKET_MAX);
	return p->rx.tail ? 0 : -ENOMEM;
}

void net_rx_fini(struct net_pair *p)
{
	free(p->rx.tail);
}

void net_rx_stop(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;

	vq_reset(net_rxq(p)); /* the chains answer nobody from here on */
	loop_timer_cancel(&rx->patience);
	rx->left_len = 0;
	give(rx, rx->end - rx->first);
	if (rx->spare)
		vq_return(rx->spare);
	rx->spare = NULL;
	rx->hungry = true;
	net_wait(p, EPOLLIN, 0);
}
