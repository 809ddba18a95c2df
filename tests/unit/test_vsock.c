/* SPDX-License-Identifier: Apache-2.0 */
/* The socket device: connections both ways, their data, and how they end in good order. */
#include "tests/unit/vsock_rig.h"

#define GUEST 1234u
#define HOST 52

static void it_is_a_socket_device_with_the_guests_cid(void **s)
{
	(void)s;
	assert_int_equal(rig.v->ops->id, VIRTIO_ID_VSOCK);
	assert_int_equal(rig.v->nqueues, 3);
	assert_int_equal(virtio_config_read(rig.v, 0, 8), RIG_CID);
	assert_int_equal(rig.v->config_len, 8);
	assert_int_equal(virtio_get_features(rig.v, 0) & 0xffffff, 0); /* streams alone */
}

static void a_host_program_reaches_the_guest(void **s)
{
	int fd = rig_client();

	(void)s;
	rig_write(fd, "CONNECT 1234\n");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	assert_int_equal(rig.p.src_cid, 2);
	assert_int_equal(rig.p.dst_cid, RIG_CID);
	assert_int_equal(rig.p.dst_port, 1234);
	assert_true(rig.p.src_port >= 1u << 30);
	assert_int_equal(rig.p.type, VSOCK_TYPE_STREAM);
	assert_int_equal(rig.p.len, 0);
	assert_true(rig.p.buf_alloc > 0);
	turns(rig.loop, 4);
	assert_int_equal(read(fd, &(char){0}, 1), -1); /* nothing before the guest's answer */
	rig_op(VSOCK_OP_RESPONSE, GUEST, rig.p.src_port);
	char ok[32];
	snprintf(ok, sizeof(ok), "OK %u\n", rig.p.src_port);
	rig_read(fd, ok);
	rig_write(fd, "ping");
	RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(rig.p.len, 4);
	assert_memory_equal(rig.p.data, "ping", 4);
	rig_data(GUEST, rig.p.src_port, "pong", 4);
	rig_read(fd, "pong");
	close(fd);
}

static void the_line_may_come_in_pieces_and_in_small_letters(void **s)
{
	int fd = rig_client();

	(void)s;
	rig_write(fd, "conn");
	rig_expect_none();
	rig_write(fd, "Ect 12");
	rig_expect_none();
	rig_write(fd, "34");
	rig_expect_none();
	rig_write(fd, "\n");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	assert_int_equal(rig.p.dst_port, 1234);
	close(fd);
}

static void what_follows_the_line_is_sent_when_it_is_open(void **s)
{
	int fd = rig_client();

	(void)s;
	rig_write(fd, "CONNECT 1234\nhello\nCONNECT 5\n");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	rig_expect_none();
	rig_op(VSOCK_OP_RESPONSE, GUEST, rig.p.src_port);
	RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(rig.p.len, 16);
	assert_memory_equal(rig.p.data, "hello\nCONNECT 5\n", 16);
	close(fd);
}

static void nobody_listens_in_the_guest(void **s)
{
	int fd = rig_client();

	(void)s;
	rig_write(fd, "CONNECT 1234\nearly");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	rig_op(VSOCK_OP_RST, GUEST, rig.p.src_port);
	TURNS_UNTIL(rig.loop, rig_closed(fd));
	assert_int_equal(rig.s->nconns, 0);
	rig_expect_none(); /* a RST is not answered */
	close(fd);
}

static void the_guest_reaches_a_host_program(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	assert_int_equal(rig.p.src_port, HOST);
	assert_int_equal(rig.p.dst_port, GUEST);
	assert_true(rig.p.buf_alloc > 0);
	rig_data(GUEST, HOST, "ping", 4);
	rig_read(fd, "ping");
	rig_write(fd, "pong");
	RIG_EXPECT(VSOCK_OP_RW);
	assert_memory_equal(rig.p.data, "pong", 4);
	close(fd);
}

static void nobody_listens_on_the_host(void **s)
{
	(void)s;
	rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	assert_true(rig_next()); /* at once */
	assert_int_equal(rig.p.op, VSOCK_OP_RST);
	assert_int_equal(rig.p.src_port, HOST);
	assert_int_equal(rig.p.dst_port, GUEST);
	assert_int_equal(rig.s->nconns, 0);
}

static void a_socket_whose_owner_died_refuses(void **s)
{
	(void)s;
	close(rig_server(HOST, 1));
	rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	rig_expect_rst(GUEST, HOST);
}

/* ------------------------------------------------------------- much data */

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 31 + i / 251);
}

static void much_data_arrives_in_order_at_the_guest(void **s)
{
	static uint8_t out[300000];
	size_t sent = 0, got = 0;
	uint32_t port;
	int fd = rig_open_host(GUEST, &port);

	(void)s;
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = byte_at(i);
	while (got < sizeof(out)) {
		ssize_t n = write(fd, out + sent, sizeof(out) - sent);

		sent += n > 0 ? (size_t)n : 0;
		turn(rig.loop);
		while (rig_next()) {
			if (rig.p.op == VSOCK_OP_CREDIT_REQUEST) {
				rig_op(VSOCK_OP_CREDIT_UPDATE, GUEST, port);
				continue;
			}
			assert_int_equal(rig.p.op, VSOCK_OP_RW);
			assert_memory_equal(rig.p.data, out + got, rig.p.len);
			got += rig.p.len;
			rig.fwd += rig.p.len;
		}
	}
	assert_int_equal(rig.v->status, 15);
	close(fd);
}

static void one_read_fills_several_buffers(void **s)
{
	static char out[10 * RIG_PAYLOAD + 5];
	uint32_t port;
	int fd = rig_open_host(GUEST, &port);

	(void)s;
	memset(out, 'x', sizeof(out));
	rig_write(fd, "first"); /* reads grow with what they find */
	RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(write(fd, out, sizeof(out)), sizeof(out));
	for (size_t got = 0; got < sizeof(out); got += rig.p.len)
		RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(rig.p.len, 5);
	/* Buffers that a read was offered and did not need are used for what comes next. */
	rig_write(fd, "y");
	RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(rig.p.len, 1);
	assert_int_equal(rig.p.data[0], 'y');
	close(fd);
}

static void much_data_arrives_in_order_at_the_host(void **s)
{
	static uint8_t out[300000], in[300000];
	int fd = rig_open(GUEST, HOST);
	size_t sent = 0, got = 0;
	uint32_t alloc = rig.p.buf_alloc, fwd = 0;

	(void)s;
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = byte_at(i);
	while (got < sizeof(in)) {
		uint32_t room = alloc - ((uint32_t)sent - fwd), n = 50000;

		n = n > room ? room : n;
		n = n > sizeof(out) - sent ? (uint32_t)(sizeof(out) - sent) : n;
		if (n)
			rig_data(GUEST, HOST, out + sent, n);
		sent += n;
		turn(rig.loop);
		for (ssize_t r; (r = read(fd, in + got, 7000)) > 0;)
			got += (size_t)r;
		while (rig_next())
			fwd = rig.p.fwd_cnt;
	}
	assert_memory_equal(in, out, sizeof(out));
	close(fd);
}

/* It makes room in its socket while older bytes are still kept here. */
static void a_slow_host_program_gets_its_data_in_order(void **s)
{
	static uint8_t out[50000], in[1 << 20];
	int fd = rig_open(GUEST, HOST);
	struct vsock_conn *c = vsock_conn_find(rig.s, HOST, GUEST);
	size_t sent = 0, got = 0;

	(void)s;
	for (unsigned i = 0; i < 8; i++) {
		for (size_t k = 0; k < sizeof(out); k++)
			out[k] = byte_at(sent + k);
		if (c->out.len && !got)
			got = (size_t)read(fd, in, 190000);
		if (c->buf_alloc - (c->rx_cnt - c->fwd_cnt) < sizeof(out))
			break;
		rig_data(GUEST, HOST, out, sizeof(out));
		sent += sizeof(out);
	}
	assert_true(got > 0 && c->out.len > 0);
	for (ssize_t n; got<sent; got += n> 0 ? (size_t)n : 0) {
		n = read(fd, in + got, sizeof(in) - got);
		turn(rig.loop);
	}
	for (size_t i = 0; i < sent; i++)
		assert_int_equal(in[i], byte_at(i));
	close(fd);
}

static void packets_of_one_connection_go_in_one_write(void **s)
{
	int fd = rig_open(GUEST, HOST);
	struct vsock_hdr h = rig_header(VSOCK_OP_RW, GUEST, HOST, 3);
	char buf[64];

	(void)s;
	for (unsigned i = 0; i < 10; i++)
		rig_put(&h, "abc", 3);
	virtio_kick(rig.v, 1);
	assert_int_equal(read(fd, buf, sizeof(buf)), 30);
	assert_int_equal(fake_get16(&rig.m, rig.r[1].used + 2), 11);
	assert_int_equal(rig.bearer.queue[1], 2); /* the request's, and one for all ten */
	close(fd);
}

/* ------------------------------------------------------------- ends */

static void a_host_programs_half_close_is_the_guests(void **s)
{
	uint32_t port;
	int fd = rig_open_host(GUEST, &port);

	(void)s;
	rig_write(fd, "last");
	shutdown(fd, SHUT_WR);
	RIG_EXPECT(VSOCK_OP_RW);
	RIG_EXPECT(VSOCK_OP_SHUTDOWN);
	assert_int_equal(rig.p.flags, VSOCK_SHUT_SEND);
	rig_expect_none();
	rig_data(GUEST, port, "still", 5);
	rig_read(fd, "still");
	/* The guest is done as well: then so is the connection. */
	rig_shutdown(GUEST, port, VSOCK_SHUT_BOTH);
	rig_expect_rst(GUEST, port);
	assert_true(rig_at_end(fd));
	assert_int_equal(rig.s->nconns, 0);
	close(fd);
}

static void the_guests_half_close_is_the_host_programs(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig_data(GUEST, HOST, "last", 4);
	rig_shutdown(GUEST, HOST, VSOCK_SHUT_SEND);
	rig_read(fd, "last");
	assert_true(rig_at_end(fd));
	rig_write(fd, "still");
	RIG_EXPECT(VSOCK_OP_RW);
	assert_memory_equal(rig.p.data, "still", 5);
	rig_write(fd, "more");
	close(fd);
	RIG_EXPECT(VSOCK_OP_RW);
	/* Linux' driver answers SHUTDOWN of both with RST. */
	RIG_EXPECT(VSOCK_OP_SHUTDOWN);
	assert_int_equal(rig.p.flags, VSOCK_SHUT_BOTH);
	rig_op(VSOCK_OP_RST, GUEST, HOST);
	assert_int_equal(rig.s->nconns, 0);
	rig_expect_none();
}

static void a_half_close_waits_for_the_data_before_it(void **s)
{
	static char out[60000], in[1 << 20];
	int fd = rig_open(GUEST, HOST);
	size_t sent = 0, got = 0;
	ssize_t n;

	(void)s;
	memset(out, 'd', sizeof(out));
	for (struct vsock_conn *c = vsock_conn_find(rig.s, HOST, GUEST);
	     c->out.len + sizeof(out) <= c->buf_alloc; sent += sizeof(out))
		rig_data(GUEST, HOST, out, sizeof(out));
	assert_true(vsock_conn_find(rig.s, HOST, GUEST)->out.len > 0);
	rig_shutdown(GUEST, HOST, VSOCK_SHUT_SEND);
	TURNS_UNTIL(rig.loop, (n = read(fd, in + got, sizeof(in) - got)) > 0
				      ? (got += (size_t)n, false)
				      : n == 0);
	assert_int_equal(got, sent);
	close(fd);
}

static void the_guests_close_is_answered_after_the_data(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig_data(GUEST, HOST, "bye", 3);
	rig_shutdown(GUEST, HOST, VSOCK_SHUT_BOTH);
	rig_expect_rst(GUEST, HOST);
	rig_read(fd, "bye");
	assert_true(rig_at_end(fd));
	assert_int_equal(rig.s->nconns, 0);
	close(fd);
}

/* The guest has lost patience with a host program that reads slowly: its data is not lost. */
static void data_outlives_the_guests_end(void **s)
{
	static char out[60000], in[1 << 20];
	int fd = rig_open(GUEST, HOST);
	size_t sent = 0, got = 0;
	ssize_t n;

	(void)s;
	for (struct vsock_conn *c = vsock_conn_find(rig.s, HOST, GUEST);
	     c->out.len + sizeof(out) <= c->buf_alloc; sent += sizeof(out))
		rig_data(GUEST, HOST, out, sizeof(out));
	rig_shutdown(GUEST, HOST, VSOCK_SHUT_BOTH);
	while (rig_next())
		assert_int_not_equal(rig.p.op, VSOCK_OP_RST);
	rig_op(VSOCK_OP_RST, GUEST, HOST);
	assert_int_equal(rig.s->nconns, 1);
	/* The guest may use its port again. */
	rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	rig_expect_rst(GUEST, HOST);
	TURNS_UNTIL(rig.loop, (n = read(fd, in + got, sizeof(in) - got)) > 0
				      ? (got += (size_t)n, false)
				      : n == 0);
	assert_int_equal(got, sent);
	assert_int_equal(rig.s->nconns, 0);
	close(fd);
}

static void a_guest_that_reads_no_more_is_told_to_the_host_program(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig_shutdown(GUEST, HOST, VSOCK_SHUT_RCV);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	rig_data(GUEST, HOST, "on", 2);
	rig_read(fd, "on");
	close(fd);
	RIG_EXPECT(VSOCK_OP_SHUTDOWN);
	if (rig.p.flags != VSOCK_SHUT_BOTH)
		RIG_EXPECT(VSOCK_OP_SHUTDOWN);
	assert_int_equal(rig.p.flags, VSOCK_SHUT_BOTH);
}

static void a_host_program_that_closes_is_told_to_the_guest_after_its_data(void **s)
{
	uint32_t port;
	int fd = rig_open_host(GUEST, &port);
	unsigned flags = 0;

	(void)s;
	rig_write(fd, "end");
	close(fd);
	for (bool data = false; flags != VSOCK_SHUT_BOTH;) {
		TURNS_UNTIL(rig.loop, rig_next());
		if (rig.p.op == VSOCK_OP_RW)
			data = true;
		else
			flags = rig.p.flags;
		assert_true(data || !(flags & VSOCK_SHUT_SEND));
	}
	/* What the guest says meanwhile is for nobody. */
	rig_data(GUEST, port, "late", 4);
	rig_expect_none();
	rig_op(VSOCK_OP_RST, GUEST, port);
	assert_int_equal(rig.s->nconns, 0);
}

static void both_hang_up_at_once(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	close(fd);
	TURNS_UNTIL(rig.loop, rig_next() && rig.p.flags == VSOCK_SHUT_BOTH);
	rig_shutdown(GUEST, HOST, VSOCK_SHUT_BOTH);
	rig_expect_rst(GUEST, HOST);
	assert_int_equal(rig.s->nconns, 0);
}

/* It closes with something unread: that is no orderly end. */
static void a_host_program_that_breaks_off_is_a_reset(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig_data(GUEST, HOST, "unread", 6);
	close(fd);
	do
		TURNS_UNTIL(rig.loop, rig_next());
	while (rig.p.op == VSOCK_OP_SHUTDOWN);
	assert_int_equal(rig.p.op, VSOCK_OP_RST);
	assert_int_equal(rig.s->nconns, 0);
	rig_data(GUEST, HOST, "more", 4);
	rig_expect_rst(GUEST, HOST);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_is_a_socket_device_with_the_guests_cid),
		TEST(a_host_program_reaches_the_guest),
		TEST(the_line_may_come_in_pieces_and_in_small_letters),
		TEST(what_follows_the_line_is_sent_when_it_is_open),
		TEST(nobody_listens_in_the_guest),
		TEST(the_guest_reaches_a_host_program),
		TEST(nobody_listens_on_the_host),
		TEST(a_socket_whose_owner_died_refuses),
		TEST(much_data_arrives_in_order_at_the_guest),
		TEST(one_read_fills_several_buffers),
		TEST(much_data_arrives_in_order_at_the_host),
		TEST(a_slow_host_program_gets_its_data_in_order),
		TEST(packets_of_one_connection_go_in_one_write),
		TEST(a_host_programs_half_close_is_the_guests),
		TEST(the_guests_half_close_is_the_host_programs),
		TEST(a_half_close_waits_for_the_data_before_it),
		TEST(the_guests_close_is_answered_after_the_data),
		TEST(data_outlives_the_guests_end),
		TEST(a_guest_that_reads_no_more_is_told_to_the_host_program),
		TEST(a_host_program_that_closes_is_told_to_the_guest_after_its_data),
		TEST(both_hang_up_at_once),
		TEST(a_host_program_that_breaks_off_is_a_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
