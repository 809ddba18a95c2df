/* SPDX-License-Identifier: Apache-2.0 */
/* The socket device with a driver in plain memory on one side and real Unix sockets on the other.
 */
#ifndef TESTS_UNIT_VSOCK_RIG_H
#define TESTS_UNIT_VSOCK_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/vsock.h"
#include "vmm/log.h"

#define RIG_CID 7
#define RIG_RING 64
#define RIG_BUF 4096u
#define RIG_PAYLOAD (RIG_BUF - VSOCK_HDR)
#define RIG_CREDIT (256u << 10)

struct rig_packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len, flags, buf_alloc, fwd_cnt, used;
	uint16_t type, op;
	uint8_t data[RIG_BUF];
};

static struct rig {
	char dir[64], path[96];
	struct fake_ram m;
	struct fake_ring r[3];
	struct fake_bearer bearer;
	struct loop *loop;
	struct vsock_host *host;
	struct vsock *s;
	struct virtio *v;
	struct vsock_config config;
	uint64_t hdr, data, buffers;
	uint32_t credit, fwd; /* what the driver's packets say */
	bool refill;          /* buffers go back to the device as soon as they were looked at */
	struct rig_packet p;  /* the last one */
} rig;

/* ------------------------------------------------------------- the driver */

static inline void rig_fill(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		fake_send(&rig.r[0], &(struct fake_buf){rig.buffers + i * RIG_BUF, RIG_BUF, FAKE_W},
			  1);
	virtio_kick(rig.v, 0);
}

/* From reset to DRIVER_OK with @buffers to receive. */
static inline void rig_drive(uint64_t features, unsigned buffers)
{
	assert_true(fake_negotiate(rig.v, features));
	for (unsigned q = 0; q < 3; q++) {
		fake_ring_zero(&rig.r[q]);
		fake_enable(rig.v, q, &rig.r[q]);
	}
	fake_driver_ok(rig.v);
	assert_int_equal(rig.v->status, 15);
	rig_fill(buffers);
}

static inline int rig_setup_idle(void **state)
{
	struct vsock_env env;

	(void)state;
	memset(&rig, 0, sizeof(rig));
	log_set_level(LOG_ERROR);
	strcpy(rig.dir, "/tmp/mvm-vsock-XXXXXX");
	assert_non_null(mkdtemp(rig.dir));
	snprintf(rig.path, sizeof(rig.path), "%s/v", rig.dir);
	fake_ram_init(&rig.m, FAKE_RAM);
	for (unsigned q = 0; q < 3; q++)
		fake_ring_init(&rig.r[q], &rig.m, RIG_RING);
	rig.hdr = fake_alloc(&rig.m, 4096, 16);
	rig.data = fake_alloc(&rig.m, VSOCK_DATA_MAX, 4096);
	rig.buffers = fake_alloc(&rig.m, RIG_RING * RIG_BUF, 4096);
	rig.credit = RIG_CREDIT;
	rig.refill = true;
	assert_int_equal(loop_new(&rig.loop, "test", NULL), 0);
	rig.config = (struct vsock_config){
		.present = true, .cid = RIG_CID, .socket = rig.path, .queue_size = RIG_RING};
	assert_int_equal(vsock_host_open(&rig.host, &rig.config, NULL), 0);
	env = (struct vsock_env){rig.m.gm, rig.loop, rig.host};
	assert_int_equal(vsock_new(&rig.v, &rig.config, &env, NULL), 0);
	loop_poll_most(rig.loop, 0);
	rig.s = (struct vsock *)rig.v;
	fake_bear(rig.v, &rig.bearer);
	return 0;
}

static inline int rig_setup(void **state)
{
	rig_setup_idle(state);
	rig_drive(0, RIG_RING);
	return 0;
}

static inline int rig_teardown(void **state)
{
	char command[160];

	(void)state;
	if (rig.v)
		rig.v->ops->free(rig.v);
	vsock_host_close(rig.host);
	loop_free(rig.loop);
	fake_ram_fini(&rig.m);
	snprintf(command, sizeof(command), "rm -rf %s", rig.dir);
	return system(command);
}

static inline struct vsock_hdr rig_header(uint16_t op, uint32_t guest_port, uint32_t host_port,
					  uint32_t len)
{
	return (struct vsock_hdr){
		.src_cid = htole64(RIG_CID),
		.dst_cid = htole64(VSOCK_HOST_CID),
		.src_port = htole32(guest_port),
		.dst_port = htole32(host_port),
		.len = htole32(len),
		.type = htole16(VSOCK_TYPE_STREAM),
		.op = htole16(op),
		.buf_alloc = htole32(rig.credit),
		.fwd_cnt = htole32(rig.fwd),
	};
}

/* A packet with @len bytes behind the header, whatever the header says. */
static inline void rig_put(const struct vsock_hdr *h, const void *data, uint32_t len)
{
	struct fake_ring *r = &rig.r[1];
	uint64_t at = rig.hdr + 44u * (r->next_desc % 64u);

	memcpy(fake_at(&rig.m, at), h, sizeof(*h));
	if (len && data)
		memcpy(fake_at(&rig.m, rig.data), data, len);
	fake_send(r, (struct fake_buf[]){{at, VSOCK_HDR, 0}, {rig.data, len, 0}}, len ? 2 : 1);
}

static inline void rig_send(const struct vsock_hdr *h, const void *data, uint32_t len)
{
	rig_put(h, data, len);
	virtio_kick(rig.v, 1);
}

static inline void rig_op(uint16_t op, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_hdr h = rig_header(op, guest_port, host_port, 0);

	rig_send(&h, NULL, 0);
}

static inline void rig_shutdown(uint32_t guest_port, uint32_t host_port, uint32_t flags)
{
	struct vsock_hdr h = rig_header(VSOCK_OP_SHUTDOWN, guest_port, host_port, 0);

	h.flags = htole32(flags);
	rig_send(&h, NULL, 0);
}

static inline void rig_data(uint32_t guest_port, uint32_t host_port, const void *data, uint32_t len)
{
	struct vsock_hdr h = rig_header(VSOCK_OP_RW, guest_port, host_port, len);

	rig_send(&h, data, len);
}

/* The next packet to the guest, into rig.p. */
static inline bool rig_next(void)
{
	struct fake_ring *r = &rig.r[0];
	const struct vsock_hdr *h;
	uint32_t id, len;
	uint64_t at;

	if (!fake_used(r, &id, &len))
		return false;
	memcpy(&at, fake_at(&rig.m, r->desc + 16ull * id), 8);
	h = fake_at(&rig.m, le64toh(at));
	rig.p = (struct rig_packet){
		.src_cid = le64toh(h->src_cid),
		.dst_cid = le64toh(h->dst_cid),
		.src_port = le32toh(h->src_port),
		.dst_port = le32toh(h->dst_port),
		.len = le32toh(h->len),
		.flags = le32toh(h->flags),
		.buf_alloc = le32toh(h->buf_alloc),
		.fwd_cnt = le32toh(h->fwd_cnt),
		.type = le16toh(h->type),
		.op = le16toh(h->op),
		.used = len,
	};
	assert_int_equal(len, VSOCK_HDR + rig.p.len);
	memcpy(rig.p.data, h + 1, rig.p.len);
	if (rig.refill) {
		fake_avail(r, (uint16_t)id);
		virtio_kick(rig.v, 0);
	}
	return true;
}

/* Waits for a packet, which must be this one. */
#define RIG_EXPECT(want)                                                                           \
	do {                                                                                       \
		TURNS_UNTIL(rig.loop, rig_next());                                                 \
		assert_int_equal(rig.p.op, want);                                                  \
	} while (0)

static inline void rig_expect_none(void)
{
	turns(rig.loop, 4);
	assert_false(rig_next());
}

/* RST of this pair. */
static inline void rig_expect_rst(uint32_t guest_port, uint32_t host_port)
{
	RIG_EXPECT(VSOCK_OP_RST);
	assert_int_equal(rig.p.dst_port, guest_port);
	assert_int_equal(rig.p.src_port, host_port);
}

/* ------------------------------------------------------------- host programs */

static inline struct sockaddr_un rig_address(int port)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	if (port < 0)
		snprintf(un.sun_path, sizeof(un.sun_path), "%s", rig.path);
	else
		snprintf(un.sun_path, sizeof(un.sun_path), "%s_%d", rig.path, port);
	return un;
}

/* A host program that comes to PATH; -1 with errno. */
static inline int rig_client(void)
{
	struct sockaddr_un un = rig_address(-1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&un, sizeof(un))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* One that listens at PATH_port. */
static inline int rig_server(int port, int backlog)
{
	struct sockaddr_un un = rig_address(port);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, backlog), 0);
	return fd;
}

static inline void rig_write(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* Reads exactly @text. */
static inline void rig_read(int fd, const char *text)
{
	char buf[256];
	size_t n = 0, want = strlen(text);
	ssize_t r;

	TURNS_UNTIL(rig.loop,
		    ((r = read(fd, buf + n, sizeof(buf) - n)) > 0 ? (n += (size_t)r) : n) >= want);
	assert_int_equal(n, want);
	assert_memory_equal(buf, text, want);
}

static inline bool rig_at_end(int fd)
{
	char c;

	return read(fd, &c, 1) == 0;
}

/* Closed by the device, with or without something unread. */
static inline bool rig_closed(int fd)
{
	char c;
	ssize_t n = read(fd, &c, 1);

	return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* A connection that the guest made: the host program's end of it. */
static inline int rig_open(uint32_t guest_port, int port)
{
	int l = rig_server(port, 16), fd;
	struct sockaddr_un un = rig_address(port);

	rig_op(VSOCK_OP_REQUEST, guest_port, (uint32_t)port);
	RIG_EXPECT(VSOCK_OP_RESPONSE);
	fd = accept4(l, NULL, NULL, SOCK_NONBLOCK);
	assert_true(fd >= 0);
	close(l);
	unlink(un.sun_path);
	return fd;
}

/* One that a host program made. */
static inline int rig_open_host(uint32_t guest_port, uint32_t *ret_port)
{
	char line[64];
	int fd = rig_client();

	snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
	rig_write(fd, line);
	RIG_EXPECT(VSOCK_OP_REQUEST);
	assert_int_equal(rig.p.dst_port, guest_port);
	*ret_port = rig.p.src_port;
	rig_op(VSOCK_OP_RESPONSE, guest_port, *ret_port);
	snprintf(line, sizeof(line), "OK %u\n", *ret_port);
	rig_read(fd, line);
	return fd;
}

#endif
