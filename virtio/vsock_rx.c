/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets to the guest. Connections that have something for it take turns; a turn is
 * one packet without data, or what one read of the socket fills. Such a read goes straight
 * into several of the guest's buffers, behind the room for a header in each; the headers
 * are written when it is known how much there is.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "virtio/vsock.h"

#define TURNS 64
#define NOTIFY_BYTES (32u << 10) /* so much is worth an interrupt of its own */

/* ------------------------------------------------------------- buffers */

/* One more into spare[], which has room for it. */
static bool take(struct vsock *s)
{
	struct vq *vq = virtio_vq(&s->v, VSOCK_RXQ);
	struct vq_chain *chain;

	if (vq_next(vq, &chain) != VQ_CHAIN)
		return false;
	if (chain->writable <= VSOCK_HDR) {
		vq_break(vq, "5.10.6", "a receive buffer has no room for a header and data");
		vq_return(chain);
		return false;
	}
	s->spare[s->nspare++] = chain;
	return true;
}

static bool have(struct vsock *s)
{
	return s->nspare || take(s);
}

/* The first @n of the spare ones were used. */
static void used(struct vsock *s, unsigned n)
{
	s->nspare -= n;
	memmove(s->spare, s->spare + n, s->nspare * sizeof(s->spare[0]));
}

void vsock_rx_drop(struct vsock *s)
{
	for (unsigned i = 0; i < s->nspare; i++)
		vq_return(s->spare[i]);
	s->nspare = 0;
}

/* ------------------------------------------------------------- headers */

/* Each packet tells the guest how much of its data has gone on. */
static struct vsock_hdr header(struct vsock_conn *c, enum vsock_op op, uint32_t len)
{
	c->fwd_told = c->fwd_cnt;
	c->todo &= ~VSOCK_DO_CREDIT;
	return (struct vsock_hdr){
		.src_cid = htole64(VSOCK_HOST_CID),
		.dst_cid = htole64(c->s->cid),
		.src_port = htole32(c->host_port),
		.dst_port = htole32(c->guest_port),
		.len = htole32(len),
		.type = htole16(VSOCK_TYPE_STREAM),
		.op = htole16((uint16_t)op),
		.flags = htole32(op == VSOCK_OP_SHUTDOWN ? c->host_shut : 0),
		.buf_alloc = htole32(c->buf_alloc),
		.fwd_cnt = htole32(c->fwd_cnt),
	};
}

static void put(struct vsock *s, const struct vsock_hdr *h)
{
	/* It has the room: take() looked. */
	chain_push(s->spare[0], h, sizeof(*h));
	vq_return(s->spare[0]);
	used(s, 1);
}

static void send_rst(struct vsock *s)
{
	const struct vsock_rst *r = &s->rst[s->rst_first];
	struct vsock_hdr h = {
		.src_cid = htole64(r->src_cid),
		.dst_cid = htole64(s->cid),
		.src_port = htole32(r->src_port),
		.dst_port = htole32(r->dst_port),
		.type = htole16(r->type),
		.op = htole16(VSOCK_OP_RST),
	};

	put(s, &h);
	s->rst_first = (s->rst_first + 1) % VSOCK_RSTS;
	s->nrst--;
}

static void send_todo(struct vsock_conn *c)
{
	static const uint8_t ops[] = {
		VSOCK_OP_RST,           VSOCK_OP_REQUEST,        VSOCK_OP_RESPONSE,
		VSOCK_OP_CREDIT_UPDATE, VSOCK_OP_CREDIT_REQUEST, VSOCK_OP_SHUTDOWN};
	unsigned bit = (unsigned)__builtin_ctz(c->todo);
	struct vsock_hdr h = header(c, ops[bit], 0);

	c->todo &= ~(1u << bit);
	put(c->s, &h);
	if (ops[bit] == VSOCK_OP_RST)
		vsock_conn_free(c);
}

/* ------------------------------------------------------------- data */

static bool may_read(const struct vsock_conn *c)
{
	return c->state == VSOCK_OPEN && c->readable && !c->eof;
}

/*
 * Lays out the next read: len[i] bytes of the i-th spare buffer. Returns how many
 * buffers, all of whose bytes together are *ret_bytes, in *ret_iovs pieces.
 */
static unsigned lay_out(struct vsock_conn *c, uint32_t len[VSOCK_BATCH], uint32_t *ret_bytes,
			int *ret_iovs)
{
	static const struct vsock_hdr blank;
	uint32_t credit = vsock_conn_credit(c);
	struct vsock *s = c->s;
	unsigned n = 0;

	*ret_bytes = 0;
	*ret_iovs = 0;
	while (n < c->burst && credit && (n < s->nspare || take(s))) {
		struct vq_chain *chain = s->spare[n];
		int k;

		/* Bounded by the buffer, by what the guest takes, by what a packet may be. */
		len[n] =
			chain->writable - VSOCK_HDR < credit ? chain->writable - VSOCK_HDR : credit;
		if (len[n] > VSOCK_DATA_MAX)
			len[n] = VSOCK_DATA_MAX;
		chain_push(chain, &blank, sizeof(blank));
		k = chain_push_iov(chain, len[n], s->iov + *ret_iovs, VSOCK_IOVS - *ret_iovs);
		if (k < 0) { /* no room for its pieces behind those of others */
			chain_rewind(chain);
			break;
		}
		*ret_iovs += k;
		*ret_bytes += len[n];
		credit -= len[n++];
	}
	return n;
}

/* @got bytes are in the first of @n buffers; the others are as they were. */
static void send_data(struct vsock_conn *c, const uint32_t *len, unsigned n, uint32_t got)
{
	struct vsock *s = c->s;
	unsigned i, k = 0;

	c->tx_cnt += got;
	for (i = 0; i < n; i++) {
		uint32_t here = got < len[i] ? got : len[i];
		struct vsock_hdr h;

		if (!here) {
			chain_rewind(s->spare[i]);
			continue;
		}
		h = header(c, VSOCK_OP_RW, here);
		chain_written(s->spare[i], VSOCK_HDR + here);
		chain_poke(s->spare[i], 0, &h, sizeof(h));
		vq_return(s->spare[i]);
		got -= here;
		k++;
	}
	used(s, k);
}

static void move_data(struct vsock_conn *c)
{
	uint32_t len[VSOCK_BATCH], bytes;
	int iovs;
	unsigned n = lay_out(c, len, &bytes, &iovs);
	ssize_t got;

	assert(n); /* there was a buffer, and credit */
	got = vsock_unix_read(c, iovs);
	send_data(c, len, n, got > 0 ? (uint32_t)got : 0);
	if (got > 0 && (uint32_t)got == bytes) {
		c->burst = c->burst < VSOCK_BATCH / 2 ? 2 * c->burst : VSOCK_BATCH;
	} else if (got > 0) {
		/* Little is there now: so little it will be next time, most likely. */
		c->burst = c->burst > 1 ? c->burst / 2 : 1;
		c->readable = c->hup;
	} else if (got == 0) {
		c->eof = true;
		c->readable = false;
		c->host_shut |= VSOCK_SHUT_SEND;
		vsock_conn_do(c, VSOCK_DO_SHUTDOWN);
	} else if (got == -EAGAIN || got == -EINTR) {
		c->readable = got == -EINTR;
	} else { /* the host program hung up on what it had not read */
		vsock_conn_reset(c);
	}
	if (got >= (ssize_t)NOTIFY_BYTES)
		vq_notify(virtio_vq(&c->s->v, VSOCK_RXQ));
	vsock_unix_settle(c);
}

/* ------------------------------------------------------------- turns */

bool vsock_rx_wanted(const struct vsock *s)
{
	return s->nrst || vsock_linked(&s->ready);
}

/* A host program that hung up: what it sent comes first, and then one SHUTDOWN says all. */
static bool goes_last(const struct vsock_conn *c)
{
	return c->todo == VSOCK_DO_SHUTDOWN && c->hup && may_read(c) && vsock_conn_credit(c);
}

/* Something for the guest to do; a buffer at least is there. */
static void turn(struct vsock *s)
{
	struct vsock_conn *c;

	if (s->nrst) {
		send_rst(s);
		return;
	}
	c = VSOCK_OF(s->ready.next, ready);
	vsock_unlink(&c->ready);
	if (may_read(c) && !c->todo && !vsock_conn_credit(c) && !c->asked) {
		c->asked = true;
		c->todo |= VSOCK_DO_ASK;
	}
	if (c->todo & VSOCK_DO_RST) {
		send_todo(c);
		return;
	}
	if (c->todo && !goes_last(c)) {
		send_todo(c);
	} else if (may_read(c) && vsock_conn_credit(c)) {
		c->asked = false;
		move_data(c);
	}
	/* It goes on behind the others; without credit it waits for the guest's word. */
	if (c->todo || (may_read(c) && (vsock_conn_credit(c) || !c->asked)))
		vsock_conn_ready(c);
}

void vsock_rx(struct vsock *s)
{
	struct vq *vq = virtio_vq(&s->v, VSOCK_RXQ);
	unsigned turns = TURNS;

	if (!s->v.running || !vq_live(vq) || !vsock_rx_wanted(s))
		return;
	vq_kicks_off(vq);
	do {
		while (turns && vsock_rx_wanted(s) && have(s)) {
			turn(s);
			turns--;
		}
	} while (turns && vsock_rx_wanted(s) && !s->polled && vq_kicks_on(vq));
	if (!turns && vsock_rx_wanted(s))
		virtio_rekick(&s->v, VSOCK_RXQ);
	vq_notify(vq);
	if (s->held && s->nrst <= VSOCK_RSTS / 2) {
		s->held = false;
		virtio_rekick(&s->v, VSOCK_TXQ);
	}
}
