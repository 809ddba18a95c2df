/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that breaks the rules of its sockets, and what each breach comes to. */
#include "tests/unit/vsock_rig.h"

#define GUEST 1234u
#define HOST 52

static struct vsock_conn *conn(void)
{
	return vsock_conn_find(rig.s, HOST, GUEST);
}

/* ------------------------------------------------------------- packets out of place */

static void data_on_an_unknown_connection_is_refused(void **s)
{
	(void)s;
	rig_data(GUEST, HOST, "x", 1);
	rig_expect_rst(GUEST, HOST);
	rig_op(VSOCK_OP_CREDIT_UPDATE, GUEST, HOST);
	rig_expect_rst(GUEST, HOST);
	rig_shutdown(GUEST, HOST, VSOCK_SHUT_BOTH);
	rig_expect_rst(GUEST, HOST);
	rig_op(VSOCK_OP_RST, GUEST, HOST); /* but this */
	rig_expect_none();
}

static void an_answer_to_no_question_is_refused(void **s)
{
	(void)s;
	rig_op(VSOCK_OP_RESPONSE, GUEST, VSOCK_PORT_FIRST);
	rig_expect_rst(GUEST, VSOCK_PORT_FIRST);
}

static void an_answer_on_an_open_connection_ends_it(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig_op(VSOCK_OP_RESPONSE, GUEST, HOST);
	rig_expect_rst(GUEST, HOST);
	assert_true(rig_closed(fd));
	close(fd);
}

/* It cannot know the question yet: the driver has given no buffer. */
static void an_answer_before_the_question_ends_it(void **s)
{
	int fd;

	(void)s;
	rig_drive(0, 0);
	fd = rig_client();
	rig_write(fd, "CONNECT 1234\n");
	TURNS_UNTIL(rig.loop, vsock_conn_find(rig.s, VSOCK_PORT_FIRST, GUEST));
	rig_op(VSOCK_OP_RESPONSE, GUEST, VSOCK_PORT_FIRST);
	TURNS_UNTIL(rig.loop, rig_closed(fd));
	rig_fill(4);
	rig_expect_none();
	assert_int_equal(rig.s->nconns, 0);
	close(fd);
}

static void a_second_request_ends_the_connection(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	rig_expect_rst(GUEST, HOST);
	assert_true(rig_closed(fd));
	assert_int_equal(rig.s->nconns, 0);
	close(fd);
}

static void a_shutdown_before_the_answer_ends_it(void **s)
{
	int fd = rig_client();

	(void)s;
	rig_write(fd, "CONNECT 1234\n");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	rig_shutdown(GUEST, rig.p.src_port, VSOCK_SHUT_SEND);
	RIG_EXPECT(VSOCK_OP_RST);
	TURNS_UNTIL(rig.loop, rig_closed(fd));
	close(fd);
}

static void data_before_the_answer_ends_it(void **s)
{
	int fd = rig_client();

	(void)s;
	rig_write(fd, "CONNECT 1234\n");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	rig_data(GUEST, rig.p.src_port, "x", 1);
	RIG_EXPECT(VSOCK_OP_RST);
	TURNS_UNTIL(rig.loop, rig_closed(fd));
	close(fd);
}

static void data_after_the_guests_shutdown_ends_it(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig_shutdown(GUEST, HOST, VSOCK_SHUT_SEND);
	rig_data(GUEST, HOST, "x", 1);
	rig_expect_rst(GUEST, HOST);
	close(fd);
}

static void a_shutdown_of_nothing_changes_nothing(void **s)
{
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig_shutdown(GUEST, HOST, 0);
	rig_shutdown(GUEST, HOST, 0xfffffffc);
	rig_data(GUEST, HOST, "on", 2);
	rig_read(fd, "on");
	close(fd);
}

static void unknown_operations_end_it(void **s)
{
	static const uint16_t ops[] = {0, 8, 9, 0xffff};

	(void)s;
	for (unsigned i = 0; i < 4; i++) {
		int fd = rig_open(GUEST, HOST);

		rig_op(ops[i], GUEST, HOST);
		rig_expect_rst(GUEST, HOST);
		assert_true(rig_closed(fd));
		close(fd);
		rig_op(ops[i], GUEST, HOST); /* and without a connection */
		rig_expect_rst(GUEST, HOST);
	}
	assert_int_equal(rig.s->nconns, 0);
}

/* ------------------------------------------------------------- addresses and types */

static void other_types_are_refused_and_touch_nothing(void **s)
{
	int fd = rig_open(GUEST, HOST);
	struct vsock_hdr h = rig_header(VSOCK_OP_REQUEST, GUEST, HOST, 0);

	(void)s;
	h.type = htole16(2); /* SEQPACKET */
	rig_send(&h, NULL, 0);
	rig_expect_rst(GUEST, HOST);
	assert_int_equal(rig.p.type, 2);
	h.op = htole16(VSOCK_OP_RST);
	rig_send(&h, NULL, 0);
	rig_expect_none();
	rig_data(GUEST, HOST, "on", 2);
	rig_read(fd, "on");
	close(fd);
}

static void other_machines_are_out_of_reach(void **s)
{
	struct vsock_hdr h = rig_header(VSOCK_OP_REQUEST, GUEST, HOST, 0);
	int l = rig_server(HOST, 4);

	(void)s;
	h.dst_cid = htole64(9);
	rig_send(&h, NULL, 0);
	rig_expect_rst(GUEST, HOST);
	assert_int_equal(rig.p.src_cid, 9); /* else the guest would not know which */
	h.dst_cid = htole64(2 + (1ull << 32));
	rig_send(&h, NULL, 0);
	rig_expect_rst(GUEST, HOST);
	assert_int_equal(accept(l, NULL, NULL), -1);
	close(l);
}

static void a_guest_speaks_as_itself_alone(void **s)
{
	struct vsock_hdr h = rig_header(VSOCK_OP_REQUEST, GUEST, HOST, 0);

	(void)s;
	for (uint64_t cid = 0; cid < 5; cid++) {
		h.src_cid = htole64(cid);
		rig_send(&h, NULL, 0);
	}
	h.src_cid = htole64(RIG_CID + (1ull << 32));
	rig_send(&h, NULL, 0);
	rig_expect_none();
	assert_int_equal(fake_get16(&rig.m, rig.r[1].used + 2), 6);
	assert_int_equal(rig.v->status, 15);
}

/* ------------------------------------------------------------- lengths */

static void a_length_beyond_the_packet_ends_it(void **s)
{
	static const uint32_t lens[] = {5, 4097, 65537, 0x7fffffff, 0xffffffff, 0xffffffd4};

	(void)s;
	for (unsigned i = 0; i < 6; i++) {
		int fd = rig_open(GUEST, HOST);
		struct vsock_hdr h = rig_header(VSOCK_OP_RW, GUEST, HOST, lens[i]);

		rig_send(&h, "abcd", 4);
		rig_expect_rst(GUEST, HOST);
		assert_true(rig_at_end(fd)); /* not a byte of it */
		close(fd);
	}
	assert_int_equal(rig.v->status, 15);
}

static void a_packet_above_64_kib_ends_it(void **s)
{
	int fd = rig_open(GUEST, HOST);
	struct vsock_hdr h = rig_header(VSOCK_OP_RW, GUEST, HOST, VSOCK_DATA_MAX + 1);

	(void)s;
	memcpy(fake_at(&rig.m, rig.hdr), &h, sizeof(h));
	fake_send(&rig.r[1],
		  (struct fake_buf[]){{rig.hdr, VSOCK_HDR, 0}, {rig.data, VSOCK_DATA_MAX + 1, 0}},
		  2);
	virtio_kick(rig.v, 1);
	rig_expect_rst(GUEST, HOST);
	close(fd);
}

static void bytes_behind_the_length_are_not_data(void **s)
{
	int fd = rig_open(GUEST, HOST);
	struct vsock_hdr h = rig_header(VSOCK_OP_RW, GUEST, HOST, 2);

	(void)s;
	rig_send(&h, "abcdef", 6);
	h.len = 0;
	rig_send(&h, "ghi", 3);
	rig_read(fd, "ab");
	rig_expect_none();
	assert_int_equal(read(fd, &h, 1), -1);
	close(fd);
}

static void a_header_in_single_bytes_is_a_header(void **s)
{
	struct vsock_hdr h = rig_header(VSOCK_OP_REQUEST, GUEST, HOST, 0);
	struct fake_buf b[VSOCK_HDR];

	(void)s;
	memcpy(fake_at(&rig.m, rig.hdr), &h, sizeof(h));
	for (unsigned i = 0; i < VSOCK_HDR; i++)
		b[i] = (struct fake_buf){rig.hdr + i, 1, 0};
	fake_send(&rig.r[1], b, VSOCK_HDR);
	virtio_kick(rig.v, 1);
	rig_expect_rst(GUEST, HOST);
}

static void a_packet_without_a_whole_header_breaks_the_queue(void **s)
{
	(void)s;
	fake_send(&rig.r[1], &(struct fake_buf){rig.hdr, VSOCK_HDR - 1, 0}, 1);
	virtio_kick(rig.v, 1);
	assert_true(rig.v->status & VIRTIO_S_NEEDS_RESET);
	/* A reset makes it well. */
	rig_drive(0, RIG_RING);
	close(rig_open(GUEST, HOST));
}

static void a_receive_buffer_without_room_breaks_the_queue(void **s)
{
	(void)s;
	rig_drive(0, 0);
	fake_send(&rig.r[0], &(struct fake_buf){rig.buffers, VSOCK_HDR, FAKE_W}, 1);
	rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	assert_true(rig.v->status & VIRTIO_S_NEEDS_RESET);
	for (unsigned i = 0; i < 10; i++)
		rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	turns(rig.loop, 3);
	rig_drive(0, RIG_RING);
	close(rig_open(GUEST, HOST));
}

static void receive_buffers_in_pieces_are_filled(void **s)
{
	uint8_t got[200];
	int fd;

	(void)s;
	rig_drive(0, 0);
	rig.refill = false;
	for (unsigned i = 0; i < 3; i++) { /* the first two for RESPONSE and the rest */
		struct fake_buf b[20];

		for (unsigned k = 0; k < 20; k++)
			b[k] = (struct fake_buf){rig.buffers + i * 4096 + 5 * k, 5, FAKE_W};
		fake_send(&rig.r[0], b, 20);
	}
	fd = rig_open(GUEST, HOST);
	for (unsigned i = 0; i < 100; i++)
		got[i] = (uint8_t)i;
	assert_int_equal(write(fd, got, 100), 100);
	RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(rig.p.len, 56);
	assert_memory_equal(rig.p.data, got, 56);
	RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(rig.p.len, 44);
	assert_memory_equal(rig.p.data, got + 56, 44);
	close(fd);
}

/* ------------------------------------------------------------- credit */

static void more_than_the_credit_ends_it(void **s)
{
	static char out[VSOCK_DATA_MAX];
	int fd = rig_open(GUEST, HOST);
	uint32_t before = conn()->buf_alloc;

	(void)s;
	rig.refill = false;
	for (unsigned i = 0; i < 40 && conn() && conn()->state == VSOCK_OPEN; i++) {
		assert_true(conn()->out.len <= before);
		rig_data(GUEST, HOST, out, sizeof(out));
	}
	do
		TURNS_UNTIL(rig.loop, rig_next());
	while (rig.p.op == VSOCK_OP_CREDIT_UPDATE);
	assert_int_equal(rig.p.op, VSOCK_OP_RST);
	assert_int_equal(rig.s->nconns, 0);
	close(fd);
}

/* Though the host program would have taken all of it at once. */
static void more_than_the_credit_in_one_go_ends_it(void **s)
{
	static char out[VSOCK_DATA_MAX];
	int fd = rig_open(GUEST, HOST);
	struct vsock_hdr h = rig_header(VSOCK_OP_RW, GUEST, HOST, VSOCK_DATA_MAX);

	(void)s;
	conn()->buf_alloc = 2 * VSOCK_DATA_MAX;
	for (unsigned i = 0; i < 3; i++)
		rig_put(&h, out, sizeof(out));
	virtio_kick(rig.v, 1);
	rig_expect_rst(GUEST, HOST);
	close(fd);
}

/* Whichever turn the bad one comes in. */
static void what_came_before_a_bad_packet_arrives(void **s)
{
	(void)s;
	for (unsigned i = 0; i < 3; i++) {
		int fd = rig_open(GUEST, HOST);
		struct vsock_hdr good = rig_header(VSOCK_OP_RW, GUEST, HOST, 2), bad = good;

		conn()->buf_alloc = 100;
		bad.len = htole32(i == 0 ? 3 : i == 1 ? VSOCK_DATA_MAX + 1 : 200);
		rig_put(&good, "ab", 2);
		rig_put(&good, NULL, 2);
		rig_put(&bad, NULL, i == 2 ? 200 : 2);
		virtio_kick(rig.v, 1);
		rig_expect_rst(GUEST, HOST);
		rig_read(fd, "abab");
		assert_true(rig_closed(fd));
		close(fd);
	}
}

static void the_guests_credit_bounds_what_it_gets(void **s)
{
	static char out[3 * RIG_PAYLOAD];
	size_t got = 0;
	int fd;

	(void)s;
	rig.credit = RIG_PAYLOAD + 100;
	fd = rig_open(GUEST, HOST);
	assert_int_equal(write(fd, out, sizeof(out)), sizeof(out));
	while (got < rig.credit) {
		RIG_EXPECT(VSOCK_OP_RW);
		got += rig.p.len;
	}
	assert_int_equal(got, rig.credit);
	RIG_EXPECT(VSOCK_OP_CREDIT_REQUEST); /* asked for once */
	rig_expect_none();
	rig_op(VSOCK_OP_CREDIT_UPDATE, GUEST, HOST);
	rig_expect_none();
	rig.fwd = 10;
	rig_op(VSOCK_OP_CREDIT_UPDATE, GUEST, HOST);
	RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(rig.p.len, 10);
	rig.credit = 1u << 20;
	rig_op(VSOCK_OP_CREDIT_UPDATE, GUEST, HOST);
	for (got += 10; got < sizeof(out); got += rig.p.op == VSOCK_OP_RW ? rig.p.len : 0)
		TURNS_UNTIL(rig.loop, rig_next());
	close(fd);
}

static void credit_that_makes_no_sense_is_none(void **s)
{
	static const uint32_t fwd[] = {1, 0x80000000, 0xffffff00};
	int fd;

	(void)s;
	for (unsigned i = 0; i < 3; i++) {
		rig.credit = 100;
		rig.fwd = 0;
		fd = rig_open(GUEST, HOST);
		rig.fwd = fwd[i]; /* more than was sent to it, or a step back */
		rig_op(VSOCK_OP_CREDIT_UPDATE, GUEST, HOST);
		rig_write(fd, "data");
		turns(rig.loop, 4);
		while (rig_next())
			assert_int_not_equal(rig.p.op, VSOCK_OP_RW);
		rig_op(VSOCK_OP_RST, GUEST, HOST);
		close(fd);
	}
}

static void counters_wrap(void **s)
{
	static char out[40000], in[50000];
	struct vsock_conn *c;
	int fd = rig_open(GUEST, HOST);

	(void)s;
	c = conn();
	c->tx_cnt = c->peer_fwd_cnt = 0u - 5000;
	c->rx_cnt = c->fwd_cnt = c->fwd_told = 0u - 30000;
	rig.fwd = 0u - 5000;
	rig.credit = 9000;
	rig_data(GUEST, HOST, out, sizeof(out));
	assert_int_equal(c->rx_cnt, 10000);
	assert_int_equal(read(fd, in, sizeof(in)), 40000);
	rig_op(VSOCK_OP_CREDIT_REQUEST, GUEST, HOST);
	RIG_EXPECT(VSOCK_OP_CREDIT_UPDATE);
	assert_int_equal(rig.p.fwd_cnt, 10000);
	assert_int_equal(write(fd, out, 20000), 20000);
	for (uint32_t got = 0; got < 9000; got += rig.p.len)
		RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(c->tx_cnt, 4000);
	RIG_EXPECT(VSOCK_OP_CREDIT_REQUEST);
	rig_expect_none();
	rig.fwd = 1;
	rig_op(VSOCK_OP_CREDIT_UPDATE, GUEST, HOST);
	for (uint32_t got = 0; got < 5001; got += rig.p.len)
		RIG_EXPECT(VSOCK_OP_RW);
	assert_int_equal(c->tx_cnt, 9001);
	close(fd);
}

static void the_guest_is_told_of_room_before_it_runs_out(void **s)
{
	static char out[VSOCK_DATA_MAX], in[1 << 20];
	int fd = rig_open(GUEST, HOST);
	uint32_t alloc = rig.p.buf_alloc;
	unsigned updates = 0;

	(void)s;
	for (uint32_t sent = 0, fwd = 0; sent < 8 * alloc; sent += sizeof(out)) {
		assert_true(sent + sizeof(out) - fwd <= alloc);
		rig_data(GUEST, HOST, out, sizeof(out));
		while (read(fd, in, sizeof(in)) > 0)
			continue;
		turns(rig.loop, 2);
		while (rig_next()) {
			assert_int_equal(rig.p.op, VSOCK_OP_CREDIT_UPDATE);
			fwd = rig.p.fwd_cnt;
			updates++;
		}
	}
	assert_true(updates >= 8 && updates <= 16); /* not one for each packet */
	close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(data_on_an_unknown_connection_is_refused),
		TEST(an_answer_to_no_question_is_refused),
		TEST(an_answer_on_an_open_connection_ends_it),
		TEST(an_answer_before_the_question_ends_it),
		TEST(a_second_request_ends_the_connection),
		TEST(a_shutdown_before_the_answer_ends_it),
		TEST(data_before_the_answer_ends_it),
		TEST(data_after_the_guests_shutdown_ends_it),
		TEST(a_shutdown_of_nothing_changes_nothing),
		TEST(unknown_operations_end_it),
		TEST(other_types_are_refused_and_touch_nothing),
		TEST(other_machines_are_out_of_reach),
		TEST(a_guest_speaks_as_itself_alone),
		TEST(a_length_beyond_the_packet_ends_it),
		TEST(a_packet_above_64_kib_ends_it),
		TEST(bytes_behind_the_length_are_not_data),
		TEST(a_header_in_single_bytes_is_a_header),
		TEST(a_packet_without_a_whole_header_breaks_the_queue),
		TEST(a_receive_buffer_without_room_breaks_the_queue),
		TEST(receive_buffers_in_pieces_are_filled),
		TEST(more_than_the_credit_ends_it),
		TEST(more_than_the_credit_in_one_go_ends_it),
		TEST(what_came_before_a_bad_packet_arrives),
		TEST(the_guests_credit_bounds_what_it_gets),
		TEST(credit_that_makes_no_sense_is_none),
		TEST(counters_wrap),
		TEST(the_guest_is_told_of_room_before_it_runs_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
