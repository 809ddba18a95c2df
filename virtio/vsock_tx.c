/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of the guest's, section 5.10.6. What is wrong about one is the end of its
 * connection, by RST; only a packet without a whole header breaks the queue.
 */
#include <endian.h>
#include <errno.h>

#include "virtio/vsock.h"

struct packet { /* a header, in our byte order; read once */
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
};

static struct packet decode(const struct vsock_hdr *h)
{
	return (struct packet){
		.src_cid = le64toh(h->src_cid),
		.dst_cid = le64toh(h->dst_cid),
		.src_port = le32toh(h->src_port),
		.dst_port = le32toh(h->dst_port),
		.len = le32toh(h->len),
		.type = le16toh(h->type),
		.op = le16toh(h->op),
		.flags = le32toh(h->flags),
		.buf_alloc = le32toh(h->buf_alloc),
		.fwd_cnt = le32toh(h->fwd_cnt),
	};
}

/* ------------------------------------------------------------- without a connection */

static bool is_full(const struct vsock *s)
{
	return s->nrst == VSOCK_RSTS;
}

/* There is room: no packet is taken while there is none, and each makes at most one. */
static void refuse(struct vsock *s, const struct packet *p)
{
	s->rst[(s->rst_first + s->nrst++) % VSOCK_RSTS] = (struct vsock_rst){
		.src_cid = p->dst_cid,
		.src_port = p->dst_port,
		.dst_port = p->src_port,
		.type = p->type,
	};
}

static void request(struct vsock *s, const struct packet *p)
{
	struct vsock_conn *c = vsock_conn_new(s, -1, VSOCK_RETRYING);
	int r;

	if (!c) {
		log_guest(&s->v.budget, "vsock: more than %u connections: one is refused",
			  s->conns_max);
		refuse(s, p);
		return;
	}
	c->host_port = p->dst_port;
	c->guest_port = p->src_port;
	c->peer_buf_alloc = p->buf_alloc;
	c->peer_fwd_cnt = p->fwd_cnt;
	r = vsock_unix_connect(c);
	if (r == -EAGAIN) {
		c->give_up = loop_now() + s->wait_ns[VSOCK_WAIT_ANSWER];
		vsock_conn_wait(c, VSOCK_WAIT_RETRY);
	} else if (r < 0) {
		vsock_conn_free(c);
		refuse(s, p);
		return;
	}
	vsock_conn_hash(c);
}

static void unknown(struct vsock *s, const struct packet *p)
{
	if (p->op == VSOCK_OP_RST)
		return;
	if (p->op == VSOCK_OP_REQUEST && p->dst_cid == VSOCK_HOST_CID &&
	    p->type == VSOCK_TYPE_STREAM)
		request(s, p);
	else
		refuse(s, p);
}

/* ------------------------------------------------------------- of a connection */

static void shut(struct vsock_conn *c, uint32_t flags)
{
	c->guest_shut |= flags & VSOCK_SHUT_BOTH;
	if (c->state == VSOCK_OPEN) {
		if (c->guest_shut & VSOCK_SHUT_RCV)
			vsock_unix_stop_reading(c);
		vsock_unix_settle(c);
	} else if (c->state != VSOCK_CLOSING || c->guest_shut == VSOCK_SHUT_BOTH) {
		/* Either it was not open yet, or both sides hung up at once. */
		vsock_conn_reset(c);
	}
}

/* True: the chain has become the batch's. */
static bool data(struct vsock_conn *c, const struct packet *p, struct vq_chain *chain)
{
	struct vsock_batch *b = &c->s->batch;
	int n;

	if ((c->state != VSOCK_OPEN && c->state != VSOCK_CLOSING) ||
	    (c->guest_shut & VSOCK_SHUT_SEND)) {
		vsock_conn_reset(c);
		return false;
	}
	/* What was received and not passed on is at most buf_alloc, by this very check. */
	if (p->len > c->buf_alloc - (c->rx_cnt - c->fwd_cnt)) {
		log_guest(&c->s->v.budget,
			  "vsock: the guest sends %u bytes more to port %u than it has credit for",
			  p->len, c->host_port);
		vsock_unix_send(c->s); /* what came before it was in order */
		if (c->state != VSOCK_DYING)
			vsock_conn_reset(c);
		return false;
	}
	c->rx_cnt += p->len;
	if (c->state == VSOCK_CLOSING) {
		vsock_conn_forwarded(c, p->len);
		return false;
	}
	/* As many buffers as the chain has fit: the caller made sure. */
	n = p->len ? chain_pull_iov(chain, p->len, c->s->iov + b->iovs, VSOCK_IOVS - b->iovs) : 0;
	if (n <= 0)
		return false;
	b->c = c;
	b->chain[b->n] = chain;
	b->len[b->n++] = p->len;
	b->iovs += n;
	return true;
}

static bool known(struct vsock_conn *c, const struct packet *p, struct vq_chain *chain)
{
	if (p->op == VSOCK_OP_RST) {
		vsock_conn_gone(c);
		return false;
	}
	if (c->state == VSOCK_DYING) /* the RST that answers this is on its way */
		return false;
	c->peer_buf_alloc = p->buf_alloc;
	c->peer_fwd_cnt = p->fwd_cnt;
	if (c->readable)
		vsock_conn_ready(c); /* there may be credit now */
	switch (p->op) {
	case VSOCK_OP_RW:
		return data(c, p, chain);
	case VSOCK_OP_CREDIT_UPDATE:
		break;
	case VSOCK_OP_CREDIT_REQUEST:
		vsock_conn_do(c, VSOCK_DO_CREDIT);
		break;
	case VSOCK_OP_SHUTDOWN:
		shut(c, p->flags);
		break;
	case VSOCK_OP_RESPONSE:
		if (c->state == VSOCK_ASKED && !(c->todo & VSOCK_DO_REQUEST)) {
			vsock_unix_accepted(c);
			break;
		}
		/* fall through */
	default: /* REQUEST too: the guest knows nothing of a connection that we have */
		vsock_conn_reset(c);
	}
	return false;
}

/* ------------------------------------------------------------- the queue */

/* The batch goes first, unless this packet may join it. */
static void make_way(struct vsock *s, const struct packet *p, const struct vq_chain *chain)
{
	const struct vsock_batch *b = &s->batch;

	if (b->n && (p->op != VSOCK_OP_RW || b->n == VSOCK_BATCH ||
		     p->src_port != b->c->guest_port || p->dst_port != b->c->host_port ||
		     chain_buffers(chain) > (unsigned)(VSOCK_IOVS - b->iovs)))
		vsock_unix_send(s);
}

static bool take(struct vsock *s, struct vq_chain *chain)
{
	struct vsock_conn *c = NULL;
	struct vsock_hdr h;
	struct packet p;

	if (chain_pull(chain, &h, sizeof(h))) {
		vq_break(virtio_vq(&s->v, VSOCK_TXQ), "5.10.6",
			 "a packet is shorter than a header");
		return false;
	}
	p = decode(&h);
	if (p.src_cid != s->cid) { /* section 5.10.6.2; there is nobody to answer */
		log_guest(&s->v.budget, "vsock: the guest sends as CID %llu, which is not its own",
			  (unsigned long long)p.src_cid);
		return false;
	}
	if (p.len > chain->readable || p.len > VSOCK_DATA_MAX) {
		log_guest(&s->v.budget, "vsock: a packet of the guest's says %u bytes, and has %u",
			  p.len, chain->readable);
		p.op = p.op == VSOCK_OP_RST ? VSOCK_OP_RST : VSOCK_OP_INVALID;
	}
	make_way(s, &p, chain);
	if (p.dst_cid == VSOCK_HOST_CID && p.type == VSOCK_TYPE_STREAM)
		c = vsock_conn_find(s, p.dst_port, p.src_port);
	if (c)
		return known(c, &p, chain);
	unknown(s, &p);
	return false;
}

void vsock_tx(struct vsock *s)
{
	struct vq *vq = virtio_vq(&s->v, VSOCK_TXQ);
	enum vq_take took = VQ_EMPTY;
	struct vq_chain *chain;
	unsigned turn = VSOCK_TURN;

	vq_kicks_off(vq);
	do {
		while (turn && !is_full(s) && (took = vq_next(vq, &chain)) == VQ_CHAIN) {
			if (!take(s, chain))
				vq_return(chain);
			turn--;
		}
		vsock_unix_send(s);
	} while (turn && !is_full(s) && took == VQ_EMPTY && !s->polled && vq_kicks_on(vq));
	s->held = is_full(s);
	if (!turn && !s->held)
		virtio_rekick(&s->v, VSOCK_TXQ);
	if (s->polled)
		vq_notify_soon(vq, s->poll.most);
	else
		vq_notify(vq);
}
