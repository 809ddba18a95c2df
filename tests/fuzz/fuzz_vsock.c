/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver against the socket device: the input is a program of packets whose
 * headers it chooses, receive buffers, resets and pokes into memory, and of host programs
 * that come, write, read, half-close and go. The device lives through all inputs; what it
 * promises about its memory is checked after each step.
 */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/vsock.h"

#define RAM (256u << 10)
#define RING 32
#define FDS 8
#define SERVERS 2 /* host ports 0 and 1 */
#define CID 3

struct target {
	struct loop *loop;
	struct fake_ram m;
	struct fake_ring r[3];
	struct fake_bearer bearer;
	struct virtio *v;
	struct vsock *s;
	uint64_t hdr, data;
	char path[32];
	int server[SERVERS], fd[FDS];
};

static struct sockaddr_un address(const struct target *t, int port)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	snprintf(un.sun_path, sizeof(un.sun_path), port < 0 ? "%s" : "%s_%d", t->path, port);
	return un;
}

static int server(struct target *t, int port)
{
	struct sockaddr_un un = address(t, port);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	unlink(un.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) || listen(fd, port ? 1 : 64))
		abort();
	return fd;
}

static struct target *target(void)
{
	static struct target t;
	struct vsock_config c = {.present = true, .cid = CID, .queue_size = RING};
	struct vsock_env env;

	if (t.loop)
		return &t;
	log_set_level(LOG_ERROR);
	snprintf(t.path, sizeof(t.path), "/tmp/mvm-fuzz-vsock-%d", getpid());
	fake_ram_init(&t.m, RAM);
	for (unsigned q = 0; q < 3; q++)
		fake_ring_init(&t.r[q], &t.m, RING);
	t.hdr = fake_alloc(&t.m, 4096, 16);
	t.data = fake_alloc(&t.m, 160 << 10, 4096);
	c.socket = t.path;
	if (loop_new(&t.loop, "fuzz", NULL))
		abort();
	env = (struct vsock_env){.gm = t.m.gm, .loop = t.loop};
	if (vsock_host_open(&env.host, &c, NULL) || vsock_new(&t.v, &c, &env, NULL))
		abort();
	loop_poll_most(t.loop, 0);
	t.s = (struct vsock *)t.v;
	for (int i = 0; i < SERVERS; i++)
		t.server[i] = server(&t, i);
	memset(t.fd, -1, sizeof(t.fd));
	return &t;
}

static void drive(struct target *t, uint8_t how)
{
	for (unsigned q = 0; q < 3; q++)
		fake_ring_zero(&t->r[q]);
	fake_negotiate(t->v, how & 1 ? t->v->offered : 0);
	for (unsigned q = 0; q < 3; q++)
		fake_enable(t->v, q, &t->r[q]);
	fake_driver_ok(t->v);
}

/* ------------------------------------------------------------- the guest */

/* A pair of ports that there is, mostly: of the host's asking or the guest's. */
static void put_ports(struct target *t, struct input *in, struct vsock_hdr *h)
{
	uint32_t k = (uint32_t)take(in, 1);
	struct vsock_link *l = t->s->conns.next;

	for (unsigned i = 0; i < (k & 7) && l->next != &t->s->conns; i++)
		l = l->next;
	if ((k & 8) && l != &t->s->conns) {
		h->src_port = htole32(VSOCK_OF(l, all)->guest_port);
		h->dst_port = htole32(VSOCK_OF(l, all)->host_port);
		return;
	}
	h->src_port = htole32(k >> 6);
	h->dst_port = htole32(k >> 4 & 3);
}

static void send_packet(struct target *t, struct input *in)
{
	uint32_t k = (uint32_t)take(in, 1);
	struct vsock_hdr h = {
		.src_cid = htole64(k & 64 ? CID : take(in, 1)),
		.dst_cid = htole64(k & 64 ? VSOCK_HOST_CID : take(in, 1)),
		.type = htole16((uint16_t)(k & 128 ? take(in, 1) : VSOCK_TYPE_STREAM)),
		.op = htole16(k & 7),
		.flags = htole32(k >> 3 & 3),
		.buf_alloc = htole32(k & 32 ? 1u << 18 : (uint32_t)take(in, 4)),
		.fwd_cnt = htole32(k & 32 ? 0 : (uint32_t)take(in, 4)),
	};
	struct fake_buf b[RING];
	unsigned n = 0, at = t->r[1].next_desc % 64u * VSOCK_HDR;
	uint32_t len = 0;

	put_ports(t, in, &h);
	b[n++] = (struct fake_buf){t->hdr + at, k == 5 ? (uint32_t)take(in, 1) : VSOCK_HDR, 0};
	for (unsigned i = 0; h.op == htole16(VSOCK_OP_RW) && i < (k >> 3 & 3) + 1u; i++) {
		b[n] = (struct fake_buf){t->data + take(in, 1) * 16, (uint32_t)take(in, 2), 0};
		len += b[n++].len;
	}
	h.len = htole32(k & 16 ? len : (uint32_t)take(in, 3));
	memcpy(fake_at(&t->m, t->hdr + at), &h, sizeof(h));
	fake_send(&t->r[1], b, n);
	if (k & 1)
		virtio_kick(t->v, 1);
}

static void give_buffers(struct target *t, struct input *in)
{
	uint32_t k = (uint32_t)take(in, 1);

	for (unsigned i = 0; i < (k & 15) + 1u; i++) {
		uint64_t at = t->data + (80u << 10) + i * 2048;
		struct fake_buf b[2] = {{at, k & 16 ? VSOCK_HDR : (uint32_t)take(in, 2), FAKE_W},
					{at + VSOCK_HDR, 1000, FAKE_W}};

		fake_send(&t->r[0], b, k & 32 ? 1 : 2);
	}
	virtio_kick(t->v, 0);
}

static void poke(struct target *t, struct input *in)
{
	fake_put32(&t->m, FAKE_BASE + take(in, 3) % (RAM - 4), (uint32_t)take(in, 4));
}

/* ------------------------------------------------------------- the host */

static void come(struct target *t, unsigned i, uint32_t how)
{
	struct sockaddr_un un = address(t, -1);
	char line[32];
	int n = snprintf(line, sizeof(line), "CONNECT %u\n%.*s", how & 7, (int)(how >> 4 & 3),
			 "abc");

	if (t->fd[i] >= 0)
		close(t->fd[i]);
	if (how & 8) {
		t->fd[i] = accept4(t->server[how & 1], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		return;
	}
	t->fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connect(t->fd[i], (struct sockaddr *)&un, sizeof(un)))
		return;
	CHECK(send(t->fd[i], line, (size_t)(how & 128 ? n - (int)(how >> 4 & 7) : n),
		   MSG_NOSIGNAL));
}

static void host_program(struct target *t, struct input *in)
{
	static char buf[300000];
	uint32_t k = (uint32_t)take(in, 1), how = (uint32_t)take(in, 1);
	unsigned i = k & 7;
	ssize_t n = 0;

	if (k >> 3 < 8 || t->fd[i] < 0) {
		come(t, i, how);
	} else if (k >> 3 < 16) {
		n = send(t->fd[i], buf, how * (k & 64 ? 1000 : 1), MSG_NOSIGNAL);
	} else if (k >> 3 < 24) {
		n = recv(t->fd[i], buf, how * 1000, 0);
	} else if (k >> 3 < 28) {
		shutdown(t->fd[i], how % 3);
	} else {
		close(t->fd[i]);
		t->fd[i] = -1;
	}
	(void)n;
}

/* ------------------------------------------------------------- promises */

static void check(const struct target *t)
{
	const struct vsock *s = t->s;
	unsigned n = 0;

	for (const struct vsock_link *l = s->conns.next; l != &s->conns; l = l->next, n++) {
		const struct vsock_conn *c = VSOCK_OF(l, all);

		CHECK(c->out.len <= c->buf_alloc);
		CHECK(c->rx_cnt - c->fwd_cnt <= c->buf_alloc);
		CHECK(c->state == VSOCK_DRAINING || c->rx_cnt - c->fwd_cnt == c->out.len ||
		      c->state == VSOCK_DYING || c->state == VSOCK_CLOSING);
		CHECK((c->fd >= 0) == (c->state != VSOCK_DYING && c->state != VSOCK_CLOSING &&
				       c->state != VSOCK_RETRYING));
		CHECK(c->state != VSOCK_DYING || vsock_linked(&c->ready));
	}
	CHECK(n == s->nconns && n <= s->conns_max);
	CHECK(s->nrst <= VSOCK_RSTS && s->nspare <= VSOCK_BATCH && !s->batch.n);
	CHECK(s->room <= VSOCK_ROOM);
}

static void step(struct target *t, struct input *in)
{
	uint32_t op = (uint32_t)take(in, 1);

	switch (op % 16) {
	case 0 ... 5:
		send_packet(t, in);
		break;
	case 6 ... 7:
		give_buffers(t, in);
		break;
	case 8 ... 10:
		host_program(t, in);
		break;
	case 11 ... 12:
		turn(t->loop);
		break;
	case 13:
		virtio_kick(t->v, op >> 4);
		break;
	case 14:
		poke(t, in);
		break;
	default:
		if (op & 16) { /* time passes */
			memset(t->s->wait_ns, 0, sizeof(t->s->wait_ns));
		} else if (op & 32) {
			unsigned q = op >> 6;

			virtio_queue_reset(t->v, q);
			if (q < 3) {
				fake_ring_zero(&t->r[q]);
				fake_enable(t->v, q, &t->r[q]);
			}
		} else {
			drive(t, (uint8_t)take(in, 1));
		}
	}
	check(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct target *t = target();
	struct input in = {data, size};

	for (unsigned w = 0; w < VSOCK_WAITS; w++)
		t->s->wait_ns[w] = 1000000000ull;
	fake_bear(t->v, &t->bearer);
	memset(fake_at(&t->m, t->hdr), 0, RAM - (t->hdr - FAKE_BASE));
	drive(t, (uint8_t)take(&in, 1));
	for (unsigned i = 0; in.left && i < 200; i++)
		step(t, &in);
	virtio_set_status(t->v, 0);
	for (unsigned i = 0; i < FDS; i++) {
		if (t->fd[i] >= 0)
			close(t->fd[i]);
		t->fd[i] = -1;
	}
	for (unsigned i = 0; i < SERVERS; i++)
		for (int fd; (fd = accept4(t->server[i], NULL, NULL, SOCK_CLOEXEC)) >= 0;)
			close(fd);
	turns(t->loop, 2);
	CHECK(t->s->nconns == 0);
	check(t);
	return 0;
}
