/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver, and where there is a stream a hostile peer, against the network
 * device: the input is a program of chains on all queues (headers, commands, lengths
 * and descriptor flags of its choice), frames that arrive, kicks, turns of the loop,
 * looks, resets of the device and of queues, and pokes into memory. Three devices live
 * through all inputs: over what stands for a TAP with headers, one without, a stream.
 */
#define _GNU_SOURCE 1
#include <stdio.h>

#include "tests/fuzz/fuzz.h"

/* In the place of cmocka's, for the rig. */
#define assert_true(a) CHECK(a)
#define assert_int_equal(a, b) CHECK((a) == (b))
#define fail_msg(...) abort()

#include "tests/unit/net_rig.h"

#define ENDS 3
#define OUR_QUEUES 3

static struct net_rig *rig(unsigned i)
{
	static struct net_rig *f[ENDS];

	if (f[i])
		return f[i];
	log_set_level(LOG_ERROR);
	f[i] = net_begin((enum end)i, 1);
	net_plug(f[i]);
	return f[i];
}

/* A stream whose peer lied is dead for good: the next input gets a new one. */
static void revive(struct net_rig *f)
{
	int sv[2];

	if (!f->host->dead)
		return;
	net_unplug(f);
	close(f->far);
	close(f->host->frames.fd);
	frames_fini(&f->host->frames);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv) ||
	    frames_init(&f->host->frames, sv[0]))
		abort();
	f->far = sv[1];
	f->host->dead = false;
	net_plug(f);
}

static void drive(struct net_rig *f, uint64_t features)
{
	for (unsigned q = 0; q < OUR_QUEUES; q++)
		fake_ring_zero(&f->r[q]);
	fake_negotiate(f->v, f->v->offered & features);
	for (unsigned q = 0; q < OUR_QUEUES; q++)
		fake_enable(f->v, q, &f->r[q]);
	fake_driver_ok(f->v);
}

/* Buffers for receiving, most of them honest. */
static void give(struct net_rig *f, struct input *in)
{
	unsigned how = (unsigned)take(in, 1), n = how & 15;

	for (unsigned i = 0; i <= n; i++) {
		struct fake_buf b[3] = {{f->buf + take(in, 2), (how & 16) ? take(in, 1) : BUF,
					 (how & 32) && i == 3 ? 0 : FAKE_W},
					{f->buf + 64, (how & 64) ? take(in, 2) : 100, FAKE_W},
					{f->buf + 9000, 70000, FAKE_W}};

		fake_send(&f->r[0], b, 1 + (how >> 6 & 1) + (how >> 7));
	}
}

static void transmit(struct net_rig *f, struct input *in)
{
	unsigned how = (unsigned)take(in, 1), n = how & 7;
	struct fake_buf b[8];

	for (unsigned i = 0; i < NET_HDR; i++)
		*(uint8_t *)fake_at(&f->m, f->out + i) = how & 8 ? (uint8_t)take(in, 1) : 0;
	b[0] = (struct fake_buf){f->out, how & 16 ? (uint32_t)take(in, 1) : NET_HDR, 0};
	for (unsigned i = 1; i <= n; i++)
		b[i] = (struct fake_buf){f->out + take(in, 1), (uint32_t)take(in, 2),
					 how & 32 ? FAKE_W : 0};
	fake_send(&f->r[1], b, n + 1);
}

static void command(struct net_rig *f, struct input *in)
{
	unsigned how = (unsigned)take(in, 1), len = (unsigned)take(in, how & 1 ? 2 : 1);
	struct fake_buf b[3] = {{f->cmd, 2, 0},
				{f->cmd + 2, how & 2 ? len & 15 : len, 0},
				{f->cmd + 4096, how & 4 ? 0 : 1, how & 8 ? 0 : FAKE_W}};

	*(uint8_t *)fake_at(&f->m, f->cmd) = (uint8_t)take(in, 1) % (how & 16 ? 7 : 255);
	*(uint8_t *)fake_at(&f->m, f->cmd + 1) = (uint8_t)take(in, 1) % (how & 16 ? 7 : 255);
	for (unsigned i = 0; i < 24; i++)
		*(uint8_t *)fake_at(&f->m, f->cmd + 2 + i) = (uint8_t)take(in, 1);
	fake_send(&f->r[2], b, how & 32 ? 2 : 3);
}

static void arrive(struct net_rig *f, struct input *in)
{
	static uint8_t b[80 << 10];
	unsigned how = (unsigned)take(in, 1);
	size_t len = take(in, 2) * (how & 1 ? 2 : 1), n = len;

	if (net_is_stream(f->n)) {
		uint32_t said = htonl((uint32_t)len);

		if (how & 2) /* a length that is not true */
			said = htonl((uint32_t)take(in, 4));
		memcpy(b, &said, 4);
		n += 4;
	}
	if (n > sizeof(b))
		n = sizeof(b);
	if (send(f->far, b, n, MSG_NOSIGNAL) < 0)
		return; /* full */
}

static void hear(struct net_rig *f)
{
	static uint8_t b[128 << 10];

	for (unsigned i = 0; i < 64 && recv(f->far, b, sizeof(b), 0) > 0; i++)
		;
}

static void look(struct net_rig *f, unsigned how)
{
	const struct loop_poll_ops *o = f->n->poll.ops;

	if (f->n->polled)
		return;
	o->begin(f->n);
	for (unsigned i = 0; i < how % 4 && o->ready(f->n); i++)
		o->run(f->n);
	o->end(f->n);
}

/* What a driver does beside its queues; @op: how. */
static void meddle(struct net_rig *f, struct input *in, uint32_t op)
{
	uint32_t q = (op >> 4) % OUR_QUEUES;

	switch (op % 12) {
	case 8:
		fake_put32(&f->m, FAKE_BASE + take(in, 3) % (RAM - 4), take(in, 4));
		break;
	case 9:
		virtio_config_write(f->v, take(in, 1), 1u << (op >> 4 & 3), take(in, 4));
		net_set_link(f->n, op & 128);
		break;
	case 10:
		virtio_queue_reset(f->v, q);
		fake_ring_zero(&f->r[q]);
		fake_enable(f->v, q, &f->r[q]);
		break;
	default:
		drive(f, take(in, 1) & 1 ? ~0ull : take(in, 8));
	}
}

static void step(struct net_rig *f, struct input *in)
{
	uint32_t op = take(in, 1);

	switch (op % 12) {
	case 0:
		give(f, in);
		break;
	case 1:
		transmit(f, in);
		break;
	case 2:
		command(f, in);
		break;
	case 3:
		arrive(f, in);
		break;
	case 4:
		virtio_kick(f->v, op >> 4);
		break;
	case 5:
		turn(f->loop);
		break;
	case 6:
		hear(f);
		break;
	case 7:
		look(f, op >> 4);
		break;
	default:
		meddle(f, in, op);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint32_t how = take(&in, 1);
	struct net_rig *f = rig(how % ENDS);

	revive(f);
	fake_bear(f->v, &f->bearer);
	drive(f, how & 64 ? ~0ull : ~BITF(VIRTIO_F_EVENT_IDX));
	for (unsigned i = 0; in.left && i < 100; i++)
		step(f, &in);
	for (unsigned q = 0; q < OUR_QUEUES; q++)
		virtio_kick(f->v, q);
	turn(f->loop);
	virtio_set_status(f->v, 0);
	hear(f);
	turn(f->loop);
	CHECK(f->n->enabled == 0);
	CHECK(f->n->pair[0].rx.first == f->n->pair[0].rx.end);
	return 0;
}
