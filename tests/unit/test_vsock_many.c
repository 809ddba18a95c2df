/* SPDX-License-Identifier: Apache-2.0 */
/* The socket device's bounds: many connections, slow programs, no buffers, and resets amid all
 * that. */
#include <dirent.h>
#include <poll.h>

#include "tests/unit/vsock_rig.h"

#define GUEST 1234u
#define HOST 52

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* A guest can let all its connections wait for the same moment. */
static void what_is_due_at_once_is_done_in_turns(void **s)
{
	uint64_t began;

	(void)s;
	rig.s->wait_ns[VSOCK_WAIT_LINE] = 0;
	for (unsigned i = 0; i < 3 * VSOCK_TURN; i++) {
		struct vsock_conn *c = vsock_conn_new(rig.s, -1, VSOCK_LINE);

		assert_non_null(c);
		vsock_conn_wait(c, VSOCK_WAIT_LINE);
	}
	began = loop_now();
	for (unsigned left = 3 * VSOCK_TURN; left; left -= VSOCK_TURN) {
		assert_int_equal(rig.s->nconns, left);
		vsock_due(rig.s);
		/* What is left is due already: the loop comes again as soon as others had theirs.
		 */
		assert_true(left == VSOCK_TURN || (rig.s->timer.due && rig.s->timer.due <= began));
	}
	assert_int_equal(rig.s->nconns, 0);
}

/* Whether the device has itself come back to queue @q. */
static bool rekicked(unsigned q)
{
	struct pollfd p = {.fd = rig.v->queue[q].kick_fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* ------------------------------------------------------------- many */

#define MANY 1023

static void a_thousand_connections_each_carry_their_own(void **s)
{
	static int fd[MANY];
	int l = rig_server(HOST, 16);
	char text[16];

	(void)s;
	for (uint32_t i = 0; i < MANY; i++) {
		rig_op(VSOCK_OP_REQUEST, 5000 + i, HOST);
		RIG_EXPECT(VSOCK_OP_RESPONSE);
		fd[i] = accept4(l, NULL, NULL, SOCK_NONBLOCK);
		assert_true(fd[i] >= 0);
	}
	assert_int_equal(rig.s->nconns, MANY);
	for (uint32_t i = 0; i < MANY; i++) {
		int n = snprintf(text, sizeof(text), "to %u", i);

		rig_data(5000 + i, HOST, text, (uint32_t)n);
		n = snprintf(text, sizeof(text), "from %u", i);
		assert_int_equal(write(fd[i], text, (size_t)n), n);
	}
	for (uint32_t i = 0; i < MANY; i++) {
		RIG_EXPECT(VSOCK_OP_RW);
		snprintf(text, sizeof(text), "from %u", rig.p.dst_port - 5000);
		assert_int_equal(rig.p.len, strlen(text));
		assert_memory_equal(rig.p.data, text, rig.p.len);
	}
	for (uint32_t i = 0; i < MANY; i++) {
		snprintf(text, sizeof(text), "to %u", i);
		rig_read(fd[i], text);
		rig_shutdown(5000 + i, HOST, VSOCK_SHUT_BOTH);
		rig_expect_rst(5000 + i, HOST);
		assert_true(rig_at_end(fd[i]));
		close(fd[i]);
	}
	assert_int_equal(rig.s->nconns, 0);
	assert_int_equal(rig.s->room, VSOCK_ROOM);
	close(l);
}

static void beyond_the_limit_both_sides_are_refused(void **s)
{
	unsigned before = descriptors();
	int l, fd[4], more;

	(void)s;
	l = rig_server(HOST, 16);
	rig.s->conns_max = 4;
	for (uint32_t i = 0; i < 4; i++) {
		rig_op(VSOCK_OP_REQUEST, GUEST + i, HOST);
		RIG_EXPECT(VSOCK_OP_RESPONSE);
		fd[i] = accept4(l, NULL, NULL, SOCK_NONBLOCK);
	}
	rig_op(VSOCK_OP_REQUEST, GUEST + 4, HOST);
	rig_expect_rst(GUEST + 4, HOST);
	more = rig_client();
	TURNS_UNTIL(rig.loop, rig_closed(more));
	close(more);
	rig_op(VSOCK_OP_RST, GUEST, HOST);
	rig_op(VSOCK_OP_REQUEST, GUEST + 4, HOST);
	RIG_EXPECT(VSOCK_OP_RESPONSE);
	for (unsigned i = 0; i < 4; i++) {
		rig_op(VSOCK_OP_RST, GUEST + 1 + i, HOST);
		close(fd[i]);
	}
	close(l);
	turns(rig.loop, 3);
	assert_int_equal(descriptors(), before);
}

/* A program that connects and says nothing keeps a place as long as nobody else wants it. */
static void at_the_limit_the_mute_make_room(void **s)
{
	int l, mute[4], more;

	(void)s;
	l = rig_server(HOST, 16);
	rig.s->conns_max = 4;
	for (unsigned i = 0; i < 4; i++) {
		mute[i] = rig_client();
		turns(rig.loop, 2);
	}
	assert_int_equal(rig.s->nconns, 4);
	rig_op(VSOCK_OP_REQUEST, GUEST, HOST);
	RIG_EXPECT(VSOCK_OP_RESPONSE);
	TURNS_UNTIL(rig.loop, rig_closed(mute[0]));
	more = rig_client();
	TURNS_UNTIL(rig.loop, rig_closed(mute[1]));
	assert_false(rig_closed(mute[2]));
	assert_false(rig_closed(more));
	assert_int_equal(rig.s->nconns, 4);
	for (unsigned i = 0; i < 4; i++)
		close(mute[i]);
	close(more);
	rig_op(VSOCK_OP_RST, GUEST, HOST);
	turns(rig.loop, 4);
	assert_int_equal(rig.s->nconns, 0);
	close(l);
}

static void what_connections_may_keep_is_bounded_together(void **s)
{
	uint64_t sum = 0;

	(void)s;
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++) {
		struct vsock_conn *c = vsock_conn_new(rig.s, -1, VSOCK_LINE);

		if (!c)
			break;
		assert_true(c->buf_alloc >= VSOCK_BUF_MIN && c->buf_alloc <= VSOCK_BUF_MAX);
		assert_true(i > 100 || c->buf_alloc == VSOCK_BUF_MAX);
		assert_int_equal(c->out.cap, c->buf_alloc);
		sum += c->buf_alloc;
	}
	assert_true(sum <= VSOCK_ROOM + (uint64_t)VSOCK_CONNS_MAX * VSOCK_BUF_MIN);
	while (vsock_linked(&rig.s->conns))
		vsock_conn_free(VSOCK_OF(rig.s->conns.next, all));
	assert_int_equal(rig.s->room, VSOCK_ROOM);
}

static void a_guest_that_opens_and_abandons_is_bounded(void **s)
{
	unsigned before = descriptors();
	int l = rig_server(HOST, 4096), fd;

	(void)s;
	rig.s->conns_max = 200;
	rig.refill = false;
	for (uint32_t i = 0; i < 3000; i++) {
		rig_op(VSOCK_OP_REQUEST, i, HOST);
		assert_true(rig.s->nconns <= 200);
		assert_true(rig.s->nrst <= VSOCK_RSTS);
		if (i % 50 == 0)
			turn(rig.loop);
		while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK)) >= 0)
			close(fd);
	}
	virtio_set_status(rig.v, 0);
	close(l);
	assert_int_equal(rig.s->nconns, 0);
	assert_int_equal(descriptors(), before);
}

/* ------------------------------------------------------------- slow programs */

static void a_host_program_that_never_reads_holds_up_nobody_else(void **s)
{
	static char out[VSOCK_DATA_MAX];
	int fd = rig_open(GUEST, HOST), other = rig_open(GUEST + 1, HOST + 1);
	struct vsock_conn *c = vsock_conn_find(rig.s, HOST, GUEST);

	(void)s;
	for (unsigned i = 0; i < 100; i++)
		if (c->buf_alloc - (c->rx_cnt - c->fwd_told) >= sizeof(out))
			rig_data(GUEST, HOST, out, sizeof(out));
		else
			while (rig_next())
				continue;
	assert_true(c->out.len > 0);
	assert_true(c->out.len <= c->buf_alloc);
	assert_true(c->buf_alloc - (c->rx_cnt - c->fwd_told) < sizeof(out)); /* no more credit */
	rig_data(GUEST + 1, HOST + 1, "on", 2);
	rig_read(other, "on");
	close(fd);
	close(other);
}

static void a_guest_that_never_reads_leaves_the_rest_where_it_is(void **s)
{
	static char out[4096];
	size_t sent = 0, got = 0;
	ssize_t n;
	int fd, other;

	(void)s;
	rig.credit = 10000;
	fd = rig_open(GUEST, HOST);
	other = rig_open(GUEST + 1, HOST + 1);
	for (unsigned i = 0; i < 500; i++) {
		n = write(fd, out, sizeof(out));
		sent += n > 0 ? (size_t)n : 0;
		turn(rig.loop);
		while (rig_next())
			got += rig.p.op == VSOCK_OP_RW ? rig.p.len : 0;
	}
	assert_int_equal(n, -1); /* the socket is full, and nothing else */
	assert_int_equal(got, 10000);
	/* What it waits for is credit: that there is data is no endless news. */
	assert_int_equal(vsock_conn_find(rig.s, HOST, GUEST)->watched, 0);
	rig_write(other, "on");
	RIG_EXPECT(VSOCK_OP_RW);
	close(fd); /* nor that it is gone */
	for (unsigned i = 0; i < 20; i++)
		turn(rig.loop);
	assert_false(vsock_conn_find(rig.s, HOST, GUEST)->src.loop);
	close(other);
}

static void connections_take_turns(void **s)
{
	static char out[100000];
	unsigned n[3] = {0};
	int fd[3];

	(void)s;
	for (unsigned i = 0; i < 3; i++)
		fd[i] = rig_open(GUEST + i, HOST + (int)i);
	rig_drive(0, 0); /* only to be without buffers */
	for (unsigned i = 0; i < 3; i++)
		close(fd[i]);
	for (unsigned i = 0; i < 3; i++) {
		int l = rig_server(HOST + (int)i, 1);
		struct sockaddr_un un = rig_address(HOST + (int)i);

		rig_op(VSOCK_OP_REQUEST, GUEST + i, HOST + i);
		fd[i] = accept4(l, NULL, NULL, SOCK_NONBLOCK);
		assert_int_equal(write(fd[i], out, sizeof(out)), sizeof(out));
		close(l);
		unlink(un.sun_path);
	}
	turns(rig.loop, 3);
	rig.refill = false;
	rig_fill(RIG_RING);
	turns(rig.loop, 3);
	while (rig_next())
		n[rig.p.dst_port - GUEST] += rig.p.op == VSOCK_OP_RW;
	for (unsigned i = 0; i < 3; i++) {
		assert_true(n[i] >= 12); /* of 61 */
		close(fd[i]);
	}
}

/* ------------------------------------------------------------- no buffers */

static void refusals_without_buffers_are_bounded_and_not_lost(void **s)
{
	unsigned sent = 0, got = 0;

	(void)s;
	rig_drive(0, 0);
	for (; sent < VSOCK_RSTS + RIG_RING / 2; sent++)
		rig_op(VSOCK_OP_CREDIT_UPDATE, sent, HOST);
	assert_int_equal(rig.s->nrst, VSOCK_RSTS);
	assert_true(rig.s->held);
	/* The rest stays in the queue, and nobody looks at it in the meantime. */
	assert_int_equal(fake_get16(&rig.m, rig.r[1].used + 2), VSOCK_RSTS);
	turns(rig.loop, 3);
	assert_false(rekicked(0) || rekicked(1));
	rig_fill(RIG_RING);
	while (got < sent) {
		RIG_EXPECT(VSOCK_OP_RST);
		assert_int_equal(rig.p.dst_port, got);
		got++;
	}
	assert_false(rig.s->held);
	rig_expect_none();
}

static void what_is_to_be_said_waits_for_buffers(void **s)
{
	int fd[3];
	int l;

	(void)s;
	rig_drive(0, 0);
	l = rig_server(HOST, 16);
	for (uint32_t i = 0; i < 3; i++) {
		rig_op(VSOCK_OP_REQUEST, GUEST + i, HOST);
		fd[i] = accept4(l, NULL, NULL, SOCK_NONBLOCK);
		rig_op(VSOCK_OP_CREDIT_REQUEST, GUEST + i, HOST);
		rig_op(VSOCK_OP_CREDIT_REQUEST, GUEST + i, HOST);
	}
	rig_write(fd[1], "data");
	shutdown(fd[1], SHUT_WR);
	turns(rig.loop, 3);
	assert_false(rekicked(0) || rekicked(1));
	rig_fill(16);
	for (uint32_t i = 0; i < 3; i++) {
		RIG_EXPECT(VSOCK_OP_RESPONSE); /* says of credit what there is to say */
		assert_int_equal(rig.p.dst_port, GUEST + i);
	}
	RIG_EXPECT(VSOCK_OP_RW);
	RIG_EXPECT(VSOCK_OP_SHUTDOWN);
	rig_expect_none();
	for (unsigned i = 0; i < 3; i++)
		close(fd[i]);
	close(l);
}

static void a_flood_is_served_in_turns(void **s)
{
	int fd = rig_open(GUEST, HOST);
	struct vsock_hdr h = rig_header(VSOCK_OP_RW, GUEST, HOST, 1);
	uint16_t before = fake_get16(&rig.m, rig.r[1].used + 2);

	(void)s;
	turns(rig.loop, 2);
	assert_false(rekicked(1));
	for (unsigned i = 0; i < RIG_RING; i++)
		fake_send(&rig.r[1], &(struct fake_buf){rig.hdr + 44 * (i % 64u), VSOCK_HDR, 0}, 1);
	h.len = 0;
	for (unsigned i = 0; i < 64; i++)
		memcpy(fake_at(&rig.m, rig.hdr + 44 * i), &h, sizeof(h));
	virtio_kick(rig.v, 1);
	assert_int_equal((uint16_t)(fake_get16(&rig.m, rig.r[1].used + 2) - before), VSOCK_TURN);
	assert_true(rekicked(1));
	close(fd);
}

/* ------------------------------------------------------------- polling */

static void a_loop_that_looks_by_itself_wants_no_kicks(void **s)
{
	const struct loop_poll_ops *ops = rig.s->poll.ops;
	struct vsock_hdr h = rig_header(VSOCK_OP_REQUEST, GUEST, HOST, 0);

	(void)s;
	rig_drive(0, 0);
	assert_false(ops->ready(rig.s));
	ops->begin(rig.s);
	assert_int_equal(fake_used_flags(&rig.r[0]) & fake_used_flags(&rig.r[1]), 1);
	rig_put(&h, NULL, 0);
	assert_true(ops->ready(rig.s));
	ops->run(rig.s);
	assert_int_equal(fake_get16(&rig.m, rig.r[1].used + 2), 1);
	assert_false(ops->ready(rig.s)); /* a RST is due, and there is no buffer for it */
	assert_int_equal(fake_used_flags(&rig.r[0]) & fake_used_flags(&rig.r[1]), 1);
	fake_send(&rig.r[0], &(struct fake_buf){rig.buffers, RIG_BUF, FAKE_W}, 1);
	assert_true(ops->ready(rig.s));
	ops->run(rig.s);
	assert_true(rig_next());
	/* What came after the last look is found before the loop sleeps. */
	rig_put(&h, NULL, 0);
	assert_true(ops->end(rig.s));
	assert_true(rekicked(1));
	turns(rig.loop, 2);
	assert_int_equal(fake_used_flags(&rig.r[1]), 0);
	/* Buffers are of interest while something waits for them. */
	ops->begin(rig.s);
	assert_false(ops->end(rig.s));
	assert_int_equal(fake_used_flags(&rig.r[0]), rig.s->nrst ? 0 : 1);
	virtio_set_status(rig.v, 0);
	assert_false(ops->ready(rig.s));
}

/* ------------------------------------------------------------- resets */

static void a_reset_ends_all_connections_and_none_of_the_listening(void **s)
{
	unsigned before = descriptors();
	uint32_t port;
	int a = rig_open(GUEST, HOST), b = rig_open_host(GUEST + 1, &port), c = rig_client();
	int d = rig_client(), e = rig_client();

	(void)s;
	rig_write(c, "CONNECT 77\n");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	rig_write(d, "CONN");
	turns(rig.loop, 3);
	virtio_set_status(rig.v, 0);
	assert_true(rig_closed(a) && rig_closed(b) && rig_closed(c));
	assert_int_equal(rig.s->nconns, 2); /* who had not said where he wanted to go */
	rig_drive(0, RIG_RING);
	rig_expect_none();
	rig_write(d, "ECT 1234\n");
	RIG_EXPECT(VSOCK_OP_REQUEST);
	rig_op(VSOCK_OP_RESPONSE, GUEST, rig.p.src_port);
	rig_data(GUEST, rig.p.src_port, "on", 2);
	TURNS_UNTIL(rig.loop, recv(d, &(char[64]){0}, 64, MSG_PEEK) > 2);
	for (int *fd = (int[]){a, b, c, d, e, -1}; *fd >= 0; fd++)
		close(*fd);
	virtio_set_status(rig.v, 0);
	turns(rig.loop, 3);
	assert_int_equal(rig.s->nconns, 0);
	assert_int_equal(descriptors(), before);
}

static void a_reset_amid_everything_leaks_nothing(void **s)
{
	static char out[50000];
	unsigned before = descriptors();

	(void)s;
	for (unsigned round = 0; round < 20; round++) {
		uint32_t port;
		int a = rig_open(GUEST, HOST), b = rig_open_host(GUEST, &port);

		for (unsigned i = 0; i < 4; i++)
			rig_data(GUEST, HOST, out, sizeof(out));
		assert_true(write(b, out, sizeof(out)) > 0);
		turns(rig.loop, round % 3);
		if (round % 2)
			rig_shutdown(GUEST, HOST, VSOCK_SHUT_BOTH);
		if (round % 4 > 1)
			rig_op(VSOCK_OP_RST, GUEST, HOST);
		rig_drive(round % 5 ? 1ull << VIRTIO_F_EVENT_IDX : 0, RIG_RING);
		assert_int_equal(rig.s->nconns, 0);
		close(a);
		close(b);
	}
	assert_int_equal(descriptors(), before);
	assert_int_equal(rig.s->room, VSOCK_ROOM);
}

static void one_queue_can_be_reset(void **s)
{
	static char out[3 * RIG_PAYLOAD];
	int fd;

	(void)s;
	rig_drive(1ull << VIRTIO_F_RING_RESET, RIG_RING);
	fd = rig_open(GUEST, HOST);
	assert_int_equal(write(fd, out, sizeof(out)), sizeof(out));
	turns(rig.loop, 3); /* some buffers are taken and not used */
	while (rig_next())
		continue;
	virtio_queue_reset(rig.v, 0);
	fake_ring_zero(&rig.r[0]);
	rig_write(fd, "later");
	turns(rig.loop, 3);
	fake_enable(rig.v, 0, &rig.r[0]);
	rig_fill(4);
	RIG_EXPECT(VSOCK_OP_RW);
	virtio_queue_reset(rig.v, 1);
	fake_ring_zero(&rig.r[1]);
	fake_enable(rig.v, 1, &rig.r[1]);
	rig_data(GUEST, HOST, "on", 2);
	rig_read(fd, "on");
	close(fd);
}

/* What the driver had put into the queue when the guest powered off. */
static void the_last_words_arrive(void **s)
{
	struct vsock_hdr h = rig_header(VSOCK_OP_RW, GUEST, HOST, 6);
	int fd = rig_open(GUEST, HOST);

	(void)s;
	rig_put(&h, "result", 6);
	virtio_set_status(rig.v, 0); /* and the kick was not heard */
	rig_read(fd, "result");
	assert_true(rig_at_end(fd));
	close(fd);
}

/* What was kept for a host program that made room meanwhile, which we had not heard yet. */
static void what_was_kept_goes_as_far_as_there_is_room(void **s)
{
	static char out[50000], in[1 << 20];

	(void)s;
	for (unsigned closed = 0; closed < 2; closed++) {
		int fd = rig_open(GUEST, HOST);
		struct vsock_conn *c = vsock_conn_find(rig.s, HOST, GUEST);
		size_t sent = 0, got = 0, kept;

		for (; c->out.len + sizeof(out) <= c->buf_alloc; sent += sizeof(out))
			rig_data(GUEST, HOST, out, sizeof(out));
		kept = c->out.len;
		assert_true(kept > 0);
		if (closed) {
			rig_shutdown(GUEST, HOST, VSOCK_SHUT_BOTH);
			rig_op(VSOCK_OP_RST, GUEST, HOST);
			assert_int_equal(c->state, VSOCK_DRAINING);
		}
		got = (size_t)read(fd, in, sizeof(in));
		assert_true(got < sent);
		virtio_set_status(rig.v, 0);
		for (ssize_t n; (n = read(fd, in, sizeof(in))) > 0; got += (size_t)n)
			continue;
		/* All of it, or as much again as the socket holds. */
		assert_true(got == sent || got >= 2 * (sent - kept));
		assert_int_equal(rig.s->nconns, 0);
		close(fd);
		rig_drive(0, RIG_RING);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_thousand_connections_each_carry_their_own),
		TEST(beyond_the_limit_both_sides_are_refused),
		TEST(at_the_limit_the_mute_make_room),
		TEST(what_connections_may_keep_is_bounded_together),
		TEST(a_guest_that_opens_and_abandons_is_bounded),
		TEST(a_host_program_that_never_reads_holds_up_nobody_else),
		TEST(a_guest_that_never_reads_leaves_the_rest_where_it_is),
		TEST(connections_take_turns),
		TEST(refusals_without_buffers_are_bounded_and_not_lost),
		TEST(what_is_to_be_said_waits_for_buffers),
		TEST(a_flood_is_served_in_turns),
		TEST(a_loop_that_looks_by_itself_wants_no_kicks),
		TEST(a_reset_ends_all_connections_and_none_of_the_listening),
		TEST(a_reset_amid_everything_leaks_nothing),
		TEST(one_queue_can_be_reset),
		TEST(the_last_words_arrive),
		TEST(what_is_due_at_once_is_done_in_turns),
		TEST(what_was_kept_goes_as_far_as_there_is_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
