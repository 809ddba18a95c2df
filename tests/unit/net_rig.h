/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network device and a driver in plain memory. In the place of a TAP stands a
 * socket that keeps frames apart as a TAP does, in that of passt a stream. Include
 * cmocka.h before it.
 */
#ifndef TESTS_UNIT_NET_RIG_H
#define TESTS_UNIT_NET_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/net.h"

#define RAM (8u << 20)
#define RING 64
#define BUF 2048u
#define BITF(n) (1ull << (n))
#define MRG BITF(NET_F_MRG_RXBUF)
#define CVQ BITF(NET_F_CTRL_VQ)

enum end { END_TAP, END_BARE /* a TAP without headers */, END_STREAM };

struct net_rig {
	struct net_host *host;
	struct net_config c;
	struct fake_ram m;
	struct fake_ring r[5];
	struct fake_bearer bearer;
	struct loop *loop;
	struct net *n;
	struct virtio *v;
	int far;      /* the other end */
	uint64_t buf; /* RING pieces of BUF bytes for receiving, then 256 KiB to send from */
	uint64_t out, cmd;
};

static inline struct net_rig *net_begin(enum end end, unsigned pairs)
{
	struct net_rig *f = calloc(1, sizeof(*f));
	struct net_host *h = calloc(1, sizeof(*h));
	int type = end == END_STREAM ? SOCK_STREAM : SOCK_SEQPACKET, sv[2], big = 1 << 20;

	assert_int_equal(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
	for (int i = 0; i < 2; i++)
		setsockopt(sv[i], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	f->far = sv[1];
	h->watch = -1;
	snprintf(h->label, sizeof(h->label), "net3: test");
	if (end == END_STREAM)
		assert_int_equal(frames_init(&h->frames, sv[0]), 0);
	else
		h->tap = (struct tap){.name = "test", .queues = pairs, .vnet_hdr = end == END_TAP};
	for (unsigned i = 0; i < pairs; i++)
		h->tap.fd[i] = i ? dup(sv[0]) : sv[0];
	if (end == END_TAP)
		h->tap.offloads = 0x7f;
	f->host = h;
	f->c = (struct net_config){.kind = end == END_STREAM ? NET_USER : NET_TAP,
				   .mac = {2, 0, 0, 0, 0, 9},
				   .has_mac = true,
				   .pairs = (uint16_t)pairs,
				   .queue_size = RING,
				   .vhost = CONFIG_OFF};
	fake_ram_init(&f->m, RAM);
	f->buf = fake_alloc(&f->m, RING * BUF, 4096);
	f->out = fake_alloc(&f->m, 256 << 10, 4096);
	f->cmd = fake_alloc(&f->m, 128 << 10, 4096);
	for (unsigned q = 0; q < 5; q++)
		fake_ring_init(&f->r[q], &f->m, RING);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	return f;
}

static inline void net_plug(struct net_rig *f)
{
	struct err e = {0};
	struct net_env env = {f->m.gm, f->loop, f->host, .index = 3};

	if (net_new(&f->n, &f->c, &env, &e))
		fail_msg("%s", e.text);
	f->v = net_virtio(f->n);
	fake_bear(f->v, &f->bearer);
	loop_poll_most(f->loop, 0); /* it does not look unless a test does */
}

static inline void net_drive(struct net_rig *f, uint64_t features)
{
	for (unsigned q = 0; q < 5; q++)
		fake_ring_zero(&f->r[q]);
	assert_true(fake_negotiate(f->v, features));
	for (unsigned q = 0; q < f->v->nqueues && q < 5; q++)
		fake_enable(f->v, q, &f->r[q]);
	fake_driver_ok(f->v);
	assert_true(f->v->running);
	turn(f->loop);
}

static inline struct net_rig *net_live(enum end end, uint64_t features)
{
	struct net_rig *f = net_begin(end, 1);

	net_plug(f);
	net_drive(f, features);
	return f;
}

static inline void net_unplug(struct net_rig *f)
{
	f->v->ops->free(f->v);
	f->n = NULL;
}

static inline void net_end(struct net_rig *f)
{
	if (f->n)
		net_unplug(f);
	loop_free(f->loop);
	if (f->far >= 0)
		close(f->far);
	if (net_is_stream(&(struct net){.host = f->host}))
		close(f->host->frames.fd);
	net_host_close(f->host);
	fake_ram_fini(&f->m);
	free(f);
}

/* ------------------------------------------------------------- frames */

static inline uint8_t net_byte(unsigned i)
{
	return (uint8_t)(i * 7 + i / 251);
}

/* From the network: with a header as a TAP's, or behind a length. */
static inline void net_arrive(struct net_rig *f, uint32_t len)
{
	uint8_t *b = calloc(1, NET_HDR + len);
	uint32_t pre = htonl(len);

	for (unsigned i = 0; i < len; i++)
		b[NET_HDR + i] = net_byte(i);
	b[0] = net_direct(f->n) ? 1 : 0; /* flags: only a TAP's header may say something */
	memcpy(b + 8, &pre, 4);
	if (net_is_stream(f->n))
		assert_int_equal(send(f->far, b + 8, len + 4, 0), len + 4);
	else if (net_direct(f->n))
		assert_int_equal(send(f->far, b, NET_HDR + len, 0), NET_HDR + len);
	else
		assert_int_equal(send(f->far, b + NET_HDR, len, 0), len);
	free(b);
}

/* @n receive buffers of @len bytes, from number @i on. */
static inline void net_give(struct net_rig *f, unsigned i, unsigned n, uint32_t len)
{
	for (; n; n--, i++)
		fake_send(&f->r[0], &(struct fake_buf){f->buf + i % RING * BUF, len, FAKE_W}, 1);
}

/* The next packet in the guest, of @len bytes behind its header: in so many buffers. */
static inline void net_assert_got(struct net_rig *f, uint32_t len, unsigned buffers)
{
	uint32_t id = 0, used = 0, at = 0;

	for (unsigned k = 0; k < buffers; k++) {
		if (!fake_used(&f->r[0], &id, &used))
			fail_msg("buffer %u of %u did not come", k, buffers);
		const uint8_t *p = fake_at(&f->m, f->r[0].desc + 16 * id);
		uint64_t addr;

		memcpy(&addr, p, 8);
		p = fake_at(&f->m, addr);
		if (k == 0) {
			assert_int_equal(p[0], net_direct(f->n) ? 1 : 0);
			assert_int_equal(fake_get16(&f->m, addr + 10), buffers);
		}
		for (uint32_t i = k ? 0 : NET_HDR; i < used; i++, at++)
			if (p[i] != net_byte(at))
				fail_msg("byte %u is %#x", at, p[i]);
	}
	assert_int_equal(at, len);
}

/* Sends a frame of @len bytes in pieces of @piece, behind a header. */
static inline void net_send(struct net_rig *f, uint32_t len, uint32_t piece)
{
	struct fake_buf b[RING];
	unsigned n = 0;
	uint8_t *p = fake_at(&f->m, f->out);

	memset(p, 0, NET_HDR);
	for (uint32_t i = 0; i < len; i++)
		p[NET_HDR + i] = net_byte(i);
	for (uint32_t at = 0; at < NET_HDR + len; at += piece, n++)
		b[n] = (struct fake_buf){
			f->out + at, NET_HDR + len - at < piece ? NET_HDR + len - at : piece, 0};
	fake_send(&f->r[1], b, n);
}

/* The next frame that left, without header or length; -1: none. */
static inline ssize_t net_left(struct net_rig *f)
{
	static uint8_t b[80 << 10];
	ssize_t n, skip = net_direct(f->n) ? NET_HDR : 0;
	uint32_t len;

	if (net_is_stream(f->n)) {
		if (recv(f->far, &len, 4, 0) != 4)
			return -1;
		n = recv(f->far, b, ntohl(len), MSG_WAITALL);
		assert_int_equal(n, ntohl(len));
	} else {
		n = recv(f->far, b, sizeof(b), 0);
	}
	if (n < 0)
		return -1;
	assert_true(n >= skip);
	for (ssize_t i = skip; i < n; i++)
		if (b[i] != net_byte((unsigned)(i - skip)))
			fail_msg("byte %zd is %#x", i - skip, b[i]);
	return n - skip;
}

/* ------------------------------------------------------------- the control queue */

#define ACK_NONE 0xaa

static inline unsigned ctrl_ring(const struct net_rig *f)
{
	return f->n->ctrl;
}

/* Class, command, data; what was answered. */
static inline uint8_t net_command(struct net_rig *f, unsigned what, const void *data, uint32_t len)
{
	uint8_t *p = fake_at(&f->m, f->cmd);
	uint64_t ack = f->cmd + (127 << 10);
	struct fake_buf b[3] = {{f->cmd, 2, 0}, {f->cmd + 2, len, 0}, {ack, 1, FAKE_W}};
	struct fake_ring *r = &f->r[ctrl_ring(f)];
	uint32_t id, used;

	p[0] = (uint8_t)(what >> 8);
	p[1] = (uint8_t)what;
	if (len)
		memcpy(p + 2, data, len);
	*(uint8_t *)fake_at(&f->m, ack) = ACK_NONE;
	fake_send(r, b, 3);
	virtio_kick(f->v, ctrl_ring(f));
	assert_true(fake_used(r, &id, &used));
	assert_int_equal(used, 1);
	return *(uint8_t *)fake_at(&f->m, ack);
}

#define EACH_END(e) for (enum end e = END_TAP; e <= END_STREAM; e++)

#endif
