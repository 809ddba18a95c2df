/* SPDX-License-Identifier: Apache-2.0 */
/* The network device's data path: every frame arrives once and whole, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/net_rig.h"

static void kick_rx(struct net_rig *f)
{
	virtio_kick(f->v, 0);
	turns(f->loop, 2);
}

/* ------------------------------------------------------------- from the guest */

static void a_frame_leaves_whole_whatever_its_pieces(void **state)
{
	static const uint32_t pieces[] = {1 << 20, 12, 13, 40, 1000, 1500};

	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);
		uint32_t id, used;

		for (unsigned i = 0; i < 6; i++) {
			uint32_t len = pieces[i] < 100 ? 500 : 1514;

			net_send(f, len, pieces[i]);
			virtio_kick(f->v, 1);
			assert_int_equal(net_left(f), len);
			assert_true(fake_used(&f->r[1], &id, &used));
			assert_int_equal(used, 0);
		}
		net_send(f, FRAME_MAX, 4096);
		virtio_kick(f->v, 1);
		assert_int_equal(net_left(f), FRAME_MAX);
		net_end(f);
	}
}

static void what_is_no_packet_is_dropped_and_given_back(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);
		uint32_t id, used;

		fake_send(&f->r[1], &(struct fake_buf){f->out, 0, 0}, 1);
		fake_send(&f->r[1], &(struct fake_buf){f->out, 11, 0}, 1);
		fake_send(&f->r[1], &(struct fake_buf){f->out, 12, 0}, 1);
		fake_send(&f->r[1], &(struct fake_buf){f->out, NET_HDR + FRAME_MAX + 1, 0}, 1);
		fake_send(&f->r[1], &(struct fake_buf){f->out, 64, FAKE_W}, 1);
		virtio_kick(f->v, 1);
		for (unsigned i = 0; i < 5; i++) {
			assert_true(fake_used(&f->r[1], &id, &used));
			assert_int_equal(used, 0);
		}
		assert_int_equal(net_left(f), -1);
		net_send(f, 60, 4096);
		virtio_kick(f->v, 1);
		assert_int_equal(net_left(f), 60);
		assert_int_equal(f->v->status, 15);
		net_end(f);
	}
}

/* The network takes nothing for a while: frames wait, in order, and no wake-up is lost. */
static void a_full_host_keeps_the_frames_waiting(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);
		unsigned sent = 0, left = 0;
		uint32_t id, used;

		for (; sent < 40; sent++) {
			net_send(f, FRAME_MAX, 1 << 20);
			virtio_kick(f->v, 1);
		}
		while (fake_used(&f->r[1], &id, &used))
			;
		assert_true(f->r[1].used_idx < sent);
		turns(f->loop, 3);
		assert_true(f->r[1].used_idx < sent);
		for (unsigned i = 0; left < sent && i < 1000; i++) {
			ssize_t n = net_left(f);

			turn(f->loop);
			if (n < 0)
				continue;
			assert_int_equal(n, FRAME_MAX);
			left++;
		}
		assert_int_equal(left, sent);
		while (fake_used(&f->r[1], &id, &used))
			;
		assert_int_equal(f->r[1].used_idx, sent);
		assert_int_equal(f->n->pair[0].events & 4, 0); /* EPOLLOUT */
		net_end(f);
	}
}

/* ------------------------------------------------------------- to the guest */

static void a_frame_takes_as_many_buffers_as_it_needs(void **state)
{
	static const struct {
		uint32_t len;
		unsigned buffers;
	} cases[] = {{60, 1},   {1514, 1},  {BUF - NET_HDR, 1}, {BUF - NET_HDR + 1, 2},
		     {9000, 5}, {65000, 32}};

	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);

		for (unsigned i = 0; i < 6; i++) {
			net_give(f, f->r[0].avail_idx,
				 RING - (uint16_t)(f->r[0].avail_idx - f->r[0].used_idx), BUF);
			kick_rx(f);
			net_arrive(f, cases[i].len);
			turns(f->loop, 2);
			net_assert_got(f, cases[i].len, cases[i].buffers);
		}
		net_end(f);
	}
}

static void frames_in_a_row_make_one_interrupt(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);

		for (unsigned i = 0; i < 10; i++)
			net_arrive(f, 100 + i);
		net_give(f, 0, 20, BUF);
		f->bearer.queue[0] = 0;
		kick_rx(f);
		for (unsigned i = 0; i < 10; i++)
			net_assert_got(f, 100 + i, 1);
		assert_int_equal(f->bearer.queue[0], 1);
		net_end(f);
	}
}

/* It works on the first while the rest is read; all of them may lie in one place here. */
static void of_much_the_driver_hears_before_the_end(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, 0);
		struct fake_buf b = {f->buf, FRAME_MAX + NET_HDR, FAKE_W};

		for (unsigned i = 0; i < 5; i++) {
			net_arrive(f, FRAME_MAX);
			fake_send(&f->r[0], &b, 1);
		}
		f->bearer.queue[0] = 0;
		kick_rx(f);
		assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), 5);
		assert_int_equal(f->bearer.queue[0], 3); /* 2 and 2 of 64 KiB, and the last */
		net_end(f);
	}
}

/* Buffers of several pieces, the header's split too. */
static void buffers_may_be_in_pieces(void **state)
{
	(void)state;
	for (unsigned mrg = 0; mrg < 2; mrg++)
		EACH_END(e)
		{
			struct net_rig *f = net_live(e, mrg ? MRG : 0);
			struct fake_buf b[] = {{f->buf, 5, FAKE_W},
					       {f->buf + 5, 7, FAKE_W},
					       {f->buf + 12, 1, FAKE_W},
					       {f->buf + 13, 2000, FAKE_W}};

			fake_send(&f->r[0], b, 4);
			kick_rx(f);
			net_arrive(f, 1514);
			turns(f->loop, 2);
			assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), 1);
			assert_int_equal(fake_get32(&f->m, f->r[0].used + 8), NET_HDR + 1514);
			assert_int_equal(fake_get16(&f->m, f->buf + 10), 1);
			for (unsigned i = 0; i < 1514; i++)
				assert_int_equal(*(uint8_t *)fake_at(&f->m, f->buf + 12 + i),
						 net_byte(i));
			net_end(f);
		}
}

static void without_mergeable_buffers_a_frame_that_does_not_fit_is_dropped(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, 0);

		net_give(f, 0, 4, 1000);
		kick_rx(f);
		net_arrive(f, 1000);
		net_arrive(f, 989);
		net_arrive(f, 988);
		net_arrive(f, 60);
		turns(f->loop, 3);
		net_assert_got(f, 988, 1);
		net_assert_got(f, 60, 1);
		net_end(f);
	}
}

static void a_buffer_without_room_for_a_header_comes_back_empty(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);
		uint32_t id, used;

		net_give(f, 0, 1, 11);
		net_give(f, 1, 1, 0);
		fake_send(&f->r[0], &(struct fake_buf){f->buf, 64, 0}, 1);
		net_give(f, 3, 1, 72);
		net_arrive(f, 60);
		kick_rx(f);
		for (unsigned i = 0; i < 3; i++) {
			assert_true(fake_used(&f->r[0], &id, &used));
			assert_int_equal(used, 0);
		}
		net_assert_got(f, 60, 1);
		assert_int_equal(f->v->status, 15);
		net_end(f);
	}
}

/* A packet that was begun goes on in the buffers that come later. */
/* One piece more than fits into a readv, in a table that all chains share. */
static void buffers_in_too_many_pieces_come_back_in_turns(void **state)
{
	struct net_rig *f = net_begin(END_TAP, 1);
	struct fake_buf b[NET_IOV];
	uint64_t table;

	(void)state;
	f->c.queue_size = NET_IOV;
	net_plug(f);
	fake_ring_init(&f->r[0], &f->m, NET_IOV);
	table = fake_alloc(&f->m, sizeof(struct fake_buf) * NET_IOV, 16);
	net_drive(f, MRG | BITF(VIRTIO_F_INDIRECT_DESC));
	for (unsigned i = 0; i < NET_IOV; i++)
		b[i] = (struct fake_buf){f->buf + 64 * i, 32, FAKE_W};
	for (unsigned i = 0; i < 300; i++)
		fake_avail(&f->r[0], fake_indirect(&f->r[0], table, b, NET_IOV));
	virtio_kick(f->v, 0);
	assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), NET_TURN);
	net_give(f, 0, 2, BUF); /* behind them, one that is of use */
	for (unsigned i = 0; i < 300 && f->n->pair[0].rx.hungry; i++)
		turn(f->loop);
	assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), 300);
	assert_int_equal(f->v->status, 15);
	net_end(f);
}

static void queues_for_receiving_are_the_larger_ones(void **state)
{
	struct net_rig *f = net_begin(END_TAP, 2);

	(void)state;
	f->c.queue_size = 0;
	net_plug(f);
	for (unsigned q = 0; q < f->v->nqueues; q++)
		assert_int_equal(vq_max_size(virtio_vq(f->v, q)), q == 0 || q == 2 ? 1024 : 256);
	net_end(f);
}

static void a_frame_waits_for_more_buffers(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);

		net_give(f, 0, 2, BUF);
		kick_rx(f);
		net_arrive(f, 9000);
		net_arrive(f, 61);
		turns(f->loop, 3);
		assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), 0);
		assert_int_equal(fake_used_flags(&f->r[0]), 0); /* a kick is wanted */
		net_give(f, 2, 1, BUF);
		kick_rx(f);
		assert_int_equal(fake_get16(&f->m, f->r[0].used + 2), 0);
		net_give(f, 3, 10, BUF);
		kick_rx(f);
		net_assert_got(f, 9000, 5);
		net_assert_got(f, 61, 1);
		net_end(f);
	}
}

/* The driver has no more: a packet that fits nowhere must not stop those behind it. */
static void a_frame_larger_than_the_whole_ring_is_dropped(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);
		uint32_t id, used;

		net_give(f, 0, RING, 500);
		kick_rx(f);
		net_arrive(f, 40000);
		net_arrive(f, 60);
		turns(f->loop, 3);
		for (unsigned i = 0; i < RING; i++) {
			assert_true(fake_used(&f->r[0], &id, &used));
			assert_int_equal(used, 0);
		}
		net_give(f, 0, 4, BUF);
		kick_rx(f);
		net_assert_got(f, 60, 1);
		net_end(f);
	}
}

static void a_driver_with_few_buffers_loses_the_frame_after_a_while(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);
		uint32_t id, used;

		net_give(f, 0, 2, BUF);
		kick_rx(f);
		net_arrive(f, 9000);
		net_arrive(f, 60);
		TURNS_UNTIL(f->loop, fake_get16(&f->m, f->r[0].used + 2) == 2);
		assert_true(fake_used(&f->r[0], &id, &used));
		assert_int_equal(used, 0);
		assert_true(fake_used(&f->r[0], &id, &used));
		net_give(f, 2, 1, BUF);
		kick_rx(f);
		net_assert_got(f, 60, 1);
		net_end(f);
	}
}

static void without_buffers_the_network_is_left_alone_until_a_kick(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);

		net_arrive(f, 60);
		turns(f->loop, 3);
		assert_int_equal(f->n->pair[0].events & 1,
				 0); /* EPOLLIN: it would wake up for ever */
		assert_int_equal(fake_used_flags(&f->r[0]), 0);
		net_give(f, 0, 3, BUF);
		kick_rx(f);
		net_assert_got(f, 60, 1);
		assert_int_equal(f->n->pair[0].events & 1, 1);
		assert_int_equal(fake_used_flags(&f->r[0]), 1);
		net_end(f);
	}
}

/* Many more buffers than one readv takes, over and over: the arrays' ends are met. */
static void buffers_go_round_and_round(void **state)
{
	struct net_rig *f = net_live(END_TAP, MRG);

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		while ((uint16_t)(f->r[0].avail_idx - f->r[0].used_idx) < RING)
			net_give(f, f->r[0].avail_idx, 1, 300);
		virtio_kick(f->v, 0);
		net_arrive(f, 60 + i % 2000);
		turn(f->loop);
		net_assert_got(f, 60 + i % 2000, (NET_HDR + 60 + i % 2000 + 299) / 300);
	}
	net_end(f);
}

static void a_broken_ring_stops_only_itself(void **state)
{
	struct net_rig *f = net_live(END_TAP, MRG);

	(void)state;
	fake_avail(&f->r[0], 1000);
	net_arrive(f, 60);
	kick_rx(f);
	turns(f->loop, 3);
	assert_true(f->v->status & VIRTIO_S_NEEDS_RESET);
	assert_int_equal(f->n->pair[0].events & 1, 0);
	net_send(f, 60, 4096);
	virtio_kick(f->v, 1);
	assert_int_equal(net_left(f), 60);
	net_end(f);
}

/* ------------------------------------------------------------- resets */

static void a_reset_with_buffers_in_hand_begins_anew(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);

		net_give(f, 0, 3, BUF);
		kick_rx(f);
		net_arrive(f, 9000);
		for (unsigned i = 0; i < 20; i++)
			net_send(f, FRAME_MAX, 1 << 20);
		virtio_kick(f->v, 1);
		turns(f->loop, 2);
		virtio_set_status(f->v, 0);
		turns(f->loop, 2);
		while (net_left(f) >= 0)
			turn(f->loop);
		net_drive(f, MRG);
		while (net_left(f) >= 0)
			turn(f->loop);
		net_give(f, 0, 8, BUF);
		kick_rx(f);
		net_arrive(f, 61);
		turns(f->loop, 2);
		net_assert_got(f, 61, 1);
		net_send(f, 77, 4096);
		virtio_kick(f->v, 1);
		turn(f->loop);
		assert_int_equal(net_left(f), 77);
		net_end(f);
	}
}

static void one_queue_is_reset_alone(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG | BITF(VIRTIO_F_RING_RESET));

		net_give(f, 0, 2, BUF);
		kick_rx(f);
		net_arrive(f, 9000);
		turn(f->loop);
		virtio_queue_reset(f->v, 0);
		fake_ring_zero(&f->r[0]);
		turns(f->loop, 2);
		net_send(f, 77, 4096);
		virtio_kick(f->v, 1);
		assert_int_equal(net_left(f), 77);
		fake_enable(f->v, 0, &f->r[0]);
		net_give(f, 0, 8, BUF);
		net_arrive(f, 62);
		turns(f->loop, 3);
		net_assert_got(f, 62, 1);
		virtio_queue_reset(f->v, 1);
		fake_ring_zero(&f->r[1]);
		fake_enable(f->v, 1, &f->r[1]);
		net_send(f, 78, 4096);
		turns(f->loop, 2);
		virtio_kick(f->v, 1);
		assert_int_equal(net_left(f), 78);
		net_end(f);
	}
}

/* ------------------------------------------------------------- the host's side ends */

static void a_host_that_ends_takes_the_link_down_once(void **state)
{
	(void)state;
	EACH_END(e)
	{
		for (unsigned buffers = 0; buffers < 2; buffers++) {
			struct net_rig *f = net_live(e, MRG | BITF(NET_F_STATUS));
			uint32_t id, used;

			net_give(f, 0, buffers * 4, BUF);
			kick_rx(f);
			assert_int_equal(f->v->config[NET_CFG_STATUS], NET_S_LINK_UP);
			close(f->far);
			f->far = -1;
			turns(f->loop, 4);
			assert_int_equal(f->v->config[NET_CFG_STATUS], 0);
			assert_int_equal(f->bearer.config, 1);
			assert_null(f->n->pair[0].src.loop);
			net_send(f, 60, 4096);
			virtio_kick(f->v, 1);
			assert_true(fake_used(&f->r[1], &id, &used));
			f->n->poll.ops->begin(f->n);
			assert_false(f->n->poll.ops->ready(f->n));
			f->n->poll.ops->end(f->n);
			net_unplug(f);
			/* The guest reboots: the link is down from the beginning. */
			net_plug(f);
			net_drive(f, MRG);
			assert_int_equal(f->v->config[NET_CFG_STATUS], 0);
			net_end(f);
		}
	}
}

static void a_peer_that_sends_no_frames_is_left(void **state)
{
	static const uint32_t bad[] = {0, FRAME_MAX + 1, 0xffffffff, 0x80000000};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct net_rig *f = net_live(END_STREAM, MRG);
		uint32_t len = htonl(bad[i]);

		net_give(f, 0, 4, BUF);
		kick_rx(f);
		assert_int_equal(send(f->far, &len, 4, 0), 4);
		turns(f->loop, 2);
		assert_true(f->host->dead);
		net_end(f);
	}
}

static void a_frame_may_come_in_pieces(void **state)
{
	struct net_rig *f = net_live(END_STREAM, MRG);
	uint8_t b[4 + 100] = {0, 0, 0, 100};

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		b[4 + i] = net_byte(i);
	net_give(f, 0, 8, BUF);
	kick_rx(f);
	for (unsigned cut = 1; cut < sizeof(b); cut += 13) {
		assert_int_equal(send(f->far, b, cut, 0), cut);
		turns(f->loop, 2);
		assert_int_equal(send(f->far, b + cut, sizeof(b) - cut, 0), sizeof(b) - cut);
		turns(f->loop, 2);
		net_assert_got(f, 100, 1);
	}
	net_end(f);
}

static int quiet(void **state)
{
	(void)state;
	log_set_level(LOG_ERROR);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frame_leaves_whole_whatever_its_pieces),
		cmocka_unit_test(what_is_no_packet_is_dropped_and_given_back),
		cmocka_unit_test(a_full_host_keeps_the_frames_waiting),
		cmocka_unit_test(a_frame_takes_as_many_buffers_as_it_needs),
		cmocka_unit_test(frames_in_a_row_make_one_interrupt),
		cmocka_unit_test(of_much_the_driver_hears_before_the_end),
		cmocka_unit_test(buffers_may_be_in_pieces),
		cmocka_unit_test(without_mergeable_buffers_a_frame_that_does_not_fit_is_dropped),
		cmocka_unit_test(a_buffer_without_room_for_a_header_comes_back_empty),
		cmocka_unit_test(buffers_in_too_many_pieces_come_back_in_turns),
		cmocka_unit_test(queues_for_receiving_are_the_larger_ones),
		cmocka_unit_test(a_frame_waits_for_more_buffers),
		cmocka_unit_test(a_frame_larger_than_the_whole_ring_is_dropped),
		cmocka_unit_test(a_driver_with_few_buffers_loses_the_frame_after_a_while),
		cmocka_unit_test(without_buffers_the_network_is_left_alone_until_a_kick),
		cmocka_unit_test(buffers_go_round_and_round),
		cmocka_unit_test(a_broken_ring_stops_only_itself),
		cmocka_unit_test(a_reset_with_buffers_in_hand_begins_anew),
		cmocka_unit_test(one_queue_is_reset_alone),
		cmocka_unit_test(a_host_that_ends_takes_the_link_down_once),
		cmocka_unit_test(a_peer_that_sends_no_frames_is_left),
		cmocka_unit_test(a_frame_may_come_in_pieces),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests_name("net", tests, quiet, NULL);
}
