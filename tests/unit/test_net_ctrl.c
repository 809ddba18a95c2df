/* SPDX-License-Identifier: Apache-2.0 */
/* The network device's features, configuration space and control queue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sched.h>
#include <unistd.h>

#include "tests/unit/net_rig.h"
#include "virtio/features.h"

#define OK 0
#define ERR 1
#define CMD(class, cmd) ((class) << 8 | (cmd))
#define ALL_CTRL                                                                                   \
	(MRG | CVQ | BITF(NET_F_STATUS) | BITF(NET_F_CTRL_RX) | BITF(NET_F_CTRL_RX_EXTRA) |        \
	 BITF(NET_F_CTRL_MAC_ADDR) | BITF(NET_F_GUEST_ANNOUNCE))

static uint16_t cfg16(const struct net_rig *f, unsigned off)
{
	return (uint16_t)virtio_config_read(f->v, off, 2);
}

static struct net_rig *plugged(enum end end, unsigned pairs)
{
	struct net_rig *f = net_begin(end, pairs);

	net_plug(f);
	return f;
}

/* ------------------------------------------------------------- what is offered */

static void offloads_are_offered_where_the_host_has_them(void **state)
{
	const uint64_t guest = NET_GUEST_OFFLOADS | BITF(NET_F_CTRL_GUEST_OFFLOADS),
		       host = BITF(NET_F_CSUM) | BITF(NET_F_HOST_TSO4) | BITF(NET_F_HOST_TSO6) |
			      BITF(NET_F_HOST_ECN) | BITF(NET_F_HOST_UFO) | BITF(NET_F_HOST_USO);
	struct net_rig *f = plugged(END_TAP, 1);

	(void)state;
	assert_int_equal(f->v->offered & (guest | host), guest | host);
	net_unplug(f);
	f->c.no_offload = true;
	net_plug(f);
	assert_int_equal(f->v->offered & (guest | host), 0);
	net_unplug(f);
	/* An older kernel. */
	f->c.no_offload = false;
	f->host->tap.offloads = 0x1f;
	net_plug(f);
	assert_int_equal(f->v->offered & (BITF(NET_F_HOST_USO) | BITF(NET_F_GUEST_USO4) |
					  BITF(NET_F_GUEST_USO6)),
			 0);
	net_end(f);
	for (enum end e = END_BARE; e <= END_STREAM; e++) {
		f = plugged(e, 1);
		assert_int_equal(f->v->offered & (guest | host), 0);
		assert_true(f->v->offered & MRG);
		net_end(f);
	}
}

/* Rings that the largest packets do not fit into, made so or resized. */
static void large_packets_take_large_receive_queues(void **state)
{
	static const struct {
		uint16_t made, size[3];
		bool large;
	} cases[] = {
		{32, {0}, false},
		{64, {0}, true},
		{256, {32, 256, 256}, false},
		{256, {256, 256, 32}, false},
		{256, {256, 32, 256}, true},
		{32, {64, 64, 64}, true},
		{32, {32, 1024, 1024}, false},
	};
	const uint64_t large = NET_GUEST_OFFLOADS & ~BITF(NET_F_GUEST_CSUM),
		       other = BITF(NET_F_GUEST_CSUM) | BITF(NET_F_HOST_TSO4);

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct net_rig *f = net_begin(END_TAP, 2);

		f->c.queue_size = cases[i].made;
		net_plug(f);
		if (cases[i].size[0])
			assert_int_equal(virtio_resize(f->v, cases[i].size, 3), 0);
		assert_int_equal(f->v->offered & large, cases[i].large ? large : 0);
		assert_int_equal(f->v->offered & other, other);
		net_unplug(f);
		f->c.no_offload = true;
		net_plug(f);
		assert_int_equal(virtio_resize(f->v, (uint16_t[]){256}, 1), 0);
		assert_int_equal(f->v->offered & (large | other), 0);
		net_end(f);
	}
}

static void the_configuration_says_what_the_user_said(void **state)
{
	struct net_rig *f = net_begin(END_TAP, 2);

	(void)state;
	f->c.mtu = 9000;
	net_plug(f);
	assert_memory_equal(f->v->config, f->c.mac, 6);
	assert_int_equal(cfg16(f, NET_CFG_STATUS), NET_S_LINK_UP);
	assert_int_equal(cfg16(f, NET_CFG_PAIRS), 2);
	assert_int_equal(cfg16(f, NET_CFG_MTU), 9000);
	assert_true(f->v->offered & BITF(NET_F_MTU));
	assert_true(f->v->offered & BITF(NET_F_MQ));
	assert_int_equal(f->v->nqueues, 5);
	net_unplug(f);
	f->c.mtu = 0;
	f->c.pairs = 1;
	net_plug(f);
	assert_int_equal(cfg16(f, NET_CFG_PAIRS), 1);
	assert_false(f->v->offered & (BITF(NET_F_MTU) | BITF(NET_F_MQ)));
	/* The driver cannot write it. */
	virtio_config_write(f->v, 0, 1, 0xff);
	assert_memory_equal(f->v->config, f->c.mac, 6);
	net_end(f);
}

static void what_needs_a_feature_goes_with_it(void **state)
{
	static const struct {
		const char *text;
		uint64_t gone;
	} cases[] = {
		{"net3=-CSUM", BITF(0) | BITF(11) | BITF(12) | BITF(13) | BITF(14) | BITF(56)},
		{"net3=-GUEST_CSUM",
		 BITF(1) | BITF(7) | BITF(8) | BITF(9) | BITF(10) | BITF(54) | BITF(55)},
		{"net3=-HOST_TSO4", BITF(11)},
		{"net3=-HOST_TSO4,-HOST_TSO6", BITF(11) | BITF(12) | BITF(13)},
		{"net3=-CTRL_VQ",
		 CVQ | BITF(2) | BITF(18) | BITF(20) | BITF(21) | BITF(22) | BITF(23)},
		{"net3=-MQ", BITF(22)},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct net_rig *f = plugged(END_TAP, 2);
		struct config c = {0};
		uint64_t before = f->v->offered;

		assert_int_equal(features_config(&c, cases[i].text, NULL), 0);
		assert_int_equal(features_apply(&c, f->v, NULL), 0);
		assert_int_equal(before & ~f->v->offered, cases[i].gone);
		net_drive(f, f->v->offered & ~BITF(VIRTIO_F_EVENT_IDX));
		net_send(f, 60, 4096);
		virtio_kick(f->v, 1);
		assert_int_equal(net_left(f), 60);
		net_end(f);
	}
}

/* Section 5.1.2: which queue it is depends on MQ, as negotiated. */
static void the_control_queue_is_where_the_driver_looks(void **state)
{
	uint8_t on = 1;

	(void)state;
	for (unsigned mq = 0; mq < 2; mq++) {
		struct net_rig *f = plugged(END_TAP, 2);

		net_drive(f, ALL_CTRL | (mq ? BITF(NET_F_MQ) : 0));
		assert_int_equal(f->n->ctrl, mq ? 4 : 2);
		assert_int_equal(net_command(f, CMD(0, 0), &on, 1), OK);
		net_end(f);
	}
	struct net_rig *f = plugged(END_TAP, 2);

	net_drive(f, MRG);
	fake_send(&f->r[2], &(struct fake_buf){f->buf, 64, FAKE_W}, 1);
	virtio_kick(f->v, 2);
	virtio_kick(f->v, 4);
	assert_int_equal(fake_get16(&f->m, f->r[2].used + 2), 0);
	net_end(f);
}

/* ------------------------------------------------------------- commands */

static void wrong_commands_are_errors(void **state)
{
	static const uint8_t data[4096] = {1};
	static const struct {
		unsigned what, len;
	} bad[] = {
		{CMD(0, 0), 0},     {CMD(0, 0), 2},
		{CMD(0, 6), 1},     {CMD(0, 255), 1},
		{CMD(1, 0), 0},     {CMD(1, 0), 3},
		{CMD(1, 0), 4},     {CMD(1, 0), 7},
		{CMD(1, 0), 4000},  {CMD(1, 1), 0},
		{CMD(1, 1), 5},     {CMD(1, 1), 7},
		{CMD(1, 1), 6},     /* a multicast address */ {CMD(1, 2), 6},
		{CMD(2, 0), 2},     {CMD(3, 1), 0},
		{CMD(3, 0), 1},     {CMD(4, 0), 2},
		{CMD(4, 1), 2},     {CMD(5, 0), 7},
		{CMD(5, 1), 8},     {CMD(6, 0), 0},
		{CMD(255, 255), 9}, {CMD(5, 0), 8},
	};
	struct net_rig *f = plugged(END_TAP, 1);
	uint8_t mac[6];

	(void)state;
	net_drive(f, ALL_CTRL);
	memcpy(mac, f->v->config, 6);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (net_command(f, bad[i].what, data, bad[i].len) != ERR)
			fail_msg("%#x with %u bytes", bad[i].what, bad[i].len);
	uint8_t two = 2;

	assert_int_equal(net_command(f, CMD(0, 0), &two, 1), ERR);
	assert_int_equal(net_command(f, CMD(1, 1), "\2\0\0\0\0\1", 7), ERR);
	assert_false(f->n->filter.set);
	assert_memory_equal(f->v->config, mac, 6);
	assert_int_equal(f->v->status, 15);
	net_end(f);
}

static void commands_that_were_not_negotiated_are_errors(void **state)
{
	static const uint8_t zero[16];
	static const struct {
		unsigned what, len;
	} bad[] = {{CMD(0, 0), 1}, {CMD(0, 2), 1}, {CMD(1, 0), 8}, {CMD(1, 1), 6},
		   {CMD(3, 0), 0}, {CMD(4, 0), 2}, {CMD(5, 0), 8}};
	struct net_rig *f = plugged(END_TAP, 1);

	(void)state;
	net_drive(f, CVQ);
	for (unsigned i = 0; i < 7; i++)
		if (net_command(f, bad[i].what, zero, bad[i].len) != ERR)
			fail_msg("%#x", bad[i].what);
	net_end(f);
}

static void a_command_without_room_for_an_answer_does_nothing(void **state)
{
	struct net_rig *f = plugged(END_TAP, 1);
	struct fake_ring *r = &f->r[2];
	uint32_t id, used;

	(void)state;
	net_drive(f, ALL_CTRL);
	memcpy(fake_at(&f->m, f->cmd), "\0\0\1", 3);
	fake_send(r, &(struct fake_buf){f->cmd, 3, 0}, 1);
	fake_send(r, &(struct fake_buf){f->cmd, 0, 0}, 1);
	fake_send(r, (struct fake_buf[]){{f->cmd, 1, 0}, {f->cmd + 64, 1, FAKE_W}}, 2);
	fake_send(r, &(struct fake_buf){f->cmd + 65, 1, FAKE_W}, 1);
	virtio_kick(f->v, 2);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(fake_used(r, &id, &used));
		assert_int_equal(used, i < 2 ? 0 : 1);
	}
	assert_int_equal(*(uint8_t *)fake_at(&f->m, f->cmd + 64), ERR);
	assert_int_equal(*(uint8_t *)fake_at(&f->m, f->cmd + 65), ERR);
	assert_false(f->n->filter.set);
	assert_int_equal(f->v->status, 15);
	net_end(f);
}

static void the_address_is_the_drivers_until_the_reset(void **state)
{
	static const uint8_t mac[6] = {2, 1, 2, 3, 4, 5};
	struct net_rig *f = plugged(END_TAP, 1);

	(void)state;
	net_drive(f, ALL_CTRL);
	assert_int_equal(net_command(f, CMD(1, 1), mac, 6), OK);
	assert_memory_equal(f->v->config, mac, 6);
	virtio_set_status(f->v, 0);
	assert_memory_equal(f->v->config, f->c.mac, 6);
	net_end(f);
}

static void tables_are_taken_and_too_long_ones_let_all_through(void **state)
{
	static uint8_t t[8 + 6 * 100 + 6];
	struct net_rig *f = plugged(END_TAP, 1);

	(void)state;
	net_drive(f, ALL_CTRL);
	memset(t, 0, sizeof(t));
	t[0] = 1;
	t[4] = 2;
	t[10] = 1;
	t[14] = 1;
	assert_int_equal(net_command(f, CMD(1, 0), t, 20), OK);
	assert_int_equal(f->n->filter.uni.n, 1);
	assert_int_equal(f->n->filter.uni.addr[0][0], 2);
	assert_int_equal(f->n->filter.multi.n, 1);
	assert_int_equal(f->n->filter.multi.addr[0][0], 1);
	/* One byte more, and a count that is not there: nothing changes. */
	assert_int_equal(net_command(f, CMD(1, 0), t, 21), ERR);
	t[10] = 2;
	assert_int_equal(net_command(f, CMD(1, 0), t, 20), ERR);
	memset(t, 0xff, 8);
	assert_int_equal(net_command(f, CMD(1, 0), t, 20), ERR);
	assert_int_equal(f->n->filter.uni.n, 1);
	assert_false(f->n->filter.uni.overflow);
	memset(t, 0, sizeof(t));
	t[0] = 100;
	assert_int_equal(net_command(f, CMD(1, 0), t, 8 + 600), OK);
	assert_true(f->n->filter.uni.overflow);
	assert_int_equal(f->n->filter.uni.n, 0);
	virtio_set_status(f->v, 0);
	net_drive(f, ALL_CTRL);
	assert_false(f->n->filter.set);
	net_end(f);
}

static void offloads_are_chosen_among_those_negotiated(void **state)
{
	uint64_t took = BITF(NET_F_GUEST_CSUM) | BITF(NET_F_GUEST_TSO4), set;
	struct net_rig *f = plugged(END_TAP, 1);

	(void)state;
	net_drive(f, CVQ | BITF(NET_F_CTRL_GUEST_OFFLOADS) | took);
	set = htole64(took);
	assert_int_equal(net_command(f, CMD(5, 0), &set, 8), OK);
	set = 0;
	assert_int_equal(net_command(f, CMD(5, 0), &set, 8), OK);
	set = htole64(BITF(NET_F_GUEST_TSO6));
	assert_int_equal(net_command(f, CMD(5, 0), &set, 8), ERR);
	set = htole64(took | BITF(NET_F_CSUM));
	assert_int_equal(net_command(f, CMD(5, 0), &set, 8), ERR);
	assert_int_equal(net_command(f, CMD(5, 0), &set, 7), ERR);
	net_end(f);
}

static void pairs_out_of_range_are_errors(void **state)
{
	static const uint16_t bad[] = {0, 3, 0x100, 0xffff, 0x8000};
	struct net_rig *f = plugged(END_TAP, 2);

	(void)state;
	net_drive(f, ALL_CTRL | BITF(NET_F_MQ));
	for (unsigned i = 0; i < 5; i++) {
		uint16_t n = htole16(bad[i]);

		assert_int_equal(net_command(f, CMD(4, 0), &n, 2), ERR);
		assert_int_equal(f->n->enabled, 1);
	}
	/* Of a pair that is not enabled nothing is taken. */
	net_give(f, 0, 1, BUF);
	fake_send(&f->r[3], &(struct fake_buf){f->out, 72, 0}, 1);
	virtio_kick(f->v, 3);
	turn(f->loop);
	assert_int_equal(fake_get16(&f->m, f->r[3].used + 2), 0);
	net_end(f);
}

static void a_flood_of_commands_is_served_in_turns(void **state)
{
	struct net_rig *f = plugged(END_TAP, 1);
	struct fake_ring *r = &f->r[2];

	(void)state;
	net_drive(f, ALL_CTRL);
	for (unsigned i = 0; i < RING; i++)
		fake_send(r, &(struct fake_buf){f->cmd, 1, FAKE_W}, 1);
	virtio_kick(f->v, 2);
	assert_int_equal(fake_get16(&f->m, r->used + 2), RING);
	fake_send(r, &(struct fake_buf){f->cmd, 1, FAKE_W}, 1);
	turn(f->loop);
	assert_int_equal(fake_get16(&f->m, r->used + 2), RING + 1);
	assert_int_equal(fake_used_flags(r), 0);
	net_end(f);
}

/* What the host's kernel sets takes its time: each such command is a turn, others are not. */
static void commands_that_cost_the_host_are_served_one_a_turn(void **state)
{
	static const struct {
		uint8_t words[10];
		uint32_t len;
	} costly[] = {
		{{0, 0, 1}, 3}, {{1, 1, 2, 1, 2, 3, 4, 5}, 8}, {{1, 0}, 10}, {{4, 0, 1}, 4},
		{{5, 0}, 10},
	};
	struct net_rig *f = plugged(END_TAP, 2);
	struct fake_ring *r = &f->r[4];
	uint64_t ack = f->cmd + 4096;
	uint16_t served = 0;

	(void)state;
	net_drive(f, ALL_CTRL | BITF(NET_F_MQ) | BITF(NET_F_CTRL_GUEST_OFFLOADS));
	for (unsigned i = 0; i < 5; i++) {
		memcpy(fake_at(&f->m, f->cmd), costly[i].words, sizeof(costly[i].words));
		for (unsigned k = 0; k < 4; k++) /* the second of them is a wrong one */
			fake_send(r,
				  (struct fake_buf[]){{f->cmd, k == 1 ? 1 : costly[i].len, 0},
						      {ack + k, 1, FAKE_W}},
				  2);
		virtio_kick(f->v, 4);
		assert_int_equal(fake_get16(&f->m, r->used + 2), served + 1);
		turn(f->loop);
		assert_int_equal(fake_get16(&f->m, r->used + 2), served + 3);
		turn(f->loop);
		assert_int_equal(fake_get16(&f->m, r->used + 2), served += 4);
		assert_memory_equal(fake_at(&f->m, ack), "\0\1\0\0", 4);
		turn(f->loop);
	}
	assert_int_equal(fake_used_flags(r), 0);
	net_end(f);
}

/* The lock they hold is all networks'. */
static void commands_that_took_their_part_of_the_time_wait(void **state)
{
	struct net_rig *f = plugged(END_TAP, 2);
	struct fake_ring *r = &f->r[4];
	uint64_t ack = f->cmd + 4096;

	(void)state;
	for (unsigned reset = 0; reset < 2; reset++) {
		net_drive(f, ALL_CTRL | BITF(NET_F_MQ));
		memcpy(fake_at(&f->m, f->cmd), "\0\0\1", 3);
		for (unsigned k = 0; k < 3; k++)
			fake_send(r, (struct fake_buf[]){{f->cmd, 3, 0}, {ack + k, 1, FAKE_W}}, 2);
		f->n->rest.purse = INT64_MIN / 100; /* as if each took long */
		f->n->rest.at = loop_now();
		virtio_kick(f->v, 4);
		assert_int_equal(fake_get16(&f->m, r->used + 2), 1);
		assert_true(net_ctrl_rests(f->n));
		virtio_kick(f->v, 4);
		f->n->poll.ops->begin(f->n);
		assert_false(f->n->poll.ops->ready(f->n));
		assert_false(f->n->poll.ops->end(f->n));
		assert_int_equal(fake_get16(&f->m, r->used + 2), 1);
		if (!reset) {
			/* Its end does not end the rest. */
			virtio_set_status(f->v, 0);
			net_drive(f, ALL_CTRL | BITF(NET_F_MQ));
			virtio_kick(f->v, 4);
			assert_true(net_ctrl_rests(f->n));
			loop_timer_cancel(&f->n->rest.timer);
			f->n->rest.purse = 0;
			virtio_set_status(f->v, 0);
			continue;
		}
		f->n->rest.purse = 0;
		TURNS_UNTIL(f->loop, fake_get16(&f->m, r->used + 2) == 3);
		assert_memory_equal(fake_at(&f->m, ack), "\0\0\0", 3);
	}
	net_end(f);
}

/* With a real TAP, in a namespace of its own: the last one. */
static void resets_go_not_around_the_rest(void **state)
{
	const uint64_t csum = BITF(NET_F_GUEST_CSUM), tso = csum | BITF(NET_F_GUEST_TSO4);
	struct net_rig *f = plugged(END_TAP, 1);
	struct tap *t = &f->host->tap, was = *t;
	struct err e = {0};

	(void)state;
	if (access("/dev/net/tun", W_OK) ||
	    (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))) {
		net_end(f);
		print_message("SKIPPED, NOT TESTED: no TAP can be made\n");
		skip();
	}
	assert_int_equal(tap_open(t, "t0", 1, 0, &e), 0);
	net_drive(f, CVQ | tso);
	assert_int_equal(t->set, TUN_F_CSUM | TUN_F_TSO4);
	f->n->rest.purse = INT64_MIN / 100;
	virtio_set_status(f->v, 0);
	net_drive(f, CVQ | csum);
	assert_int_equal(t->set, TUN_F_CSUM);
	assert_true(net_ctrl_rests(f->n));
	virtio_set_status(f->v, 0);
	net_drive(f, CVQ | tso);
	assert_int_equal(t->set, TUN_F_CSUM);
	f->n->rest.purse = 0;
	TURNS_UNTIL(f->loop, t->set == (TUN_F_CSUM | TUN_F_TSO4));
	tap_close(t);
	*t = was;
	net_end(f);
}

/* ------------------------------------------------------------- the link */

static void a_link_that_comes_back_is_announced(void **state)
{
	struct net_rig *f = plugged(END_TAP, 1);

	(void)state;
	net_drive(f, ALL_CTRL);
	net_set_link(f->n, true); /* which it is */
	assert_int_equal(f->bearer.config, 0);
	net_set_link(f->n, false);
	assert_int_equal(cfg16(f, NET_CFG_STATUS), 0);
	net_set_link(f->n, true);
	assert_int_equal(cfg16(f, NET_CFG_STATUS), NET_S_LINK_UP | NET_S_ANNOUNCE);
	assert_int_equal(f->bearer.config, 2);
	assert_int_equal(net_command(f, CMD(3, 0), NULL, 0), OK);
	assert_int_equal(cfg16(f, NET_CFG_STATUS), NET_S_LINK_UP);
	net_set_link(f->n, false);
	net_set_link(f->n, true);
	virtio_set_status(f->v, 0);
	assert_int_equal(cfg16(f, NET_CFG_STATUS), NET_S_LINK_UP);
	net_drive(f, MRG);
	net_set_link(f->n, false);
	net_set_link(f->n, true);
	assert_int_equal(cfg16(f, NET_CFG_STATUS), NET_S_LINK_UP);
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
		cmocka_unit_test(offloads_are_offered_where_the_host_has_them),
		cmocka_unit_test(large_packets_take_large_receive_queues),
		cmocka_unit_test(the_configuration_says_what_the_user_said),
		cmocka_unit_test(what_needs_a_feature_goes_with_it),
		cmocka_unit_test(the_control_queue_is_where_the_driver_looks),
		cmocka_unit_test(wrong_commands_are_errors),
		cmocka_unit_test(commands_that_were_not_negotiated_are_errors),
		cmocka_unit_test(a_command_without_room_for_an_answer_does_nothing),
		cmocka_unit_test(the_address_is_the_drivers_until_the_reset),
		cmocka_unit_test(tables_are_taken_and_too_long_ones_let_all_through),
		cmocka_unit_test(offloads_are_chosen_among_those_negotiated),
		cmocka_unit_test(pairs_out_of_range_are_errors),
		cmocka_unit_test(a_flood_of_commands_is_served_in_turns),
		cmocka_unit_test(commands_that_cost_the_host_are_served_one_a_turn),
		cmocka_unit_test(commands_that_took_their_part_of_the_time_wait),
		cmocka_unit_test(a_link_that_comes_back_is_announced),
		cmocka_unit_test(resets_go_not_around_the_rest),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests_name("net control", tests, quiet, NULL);
}
