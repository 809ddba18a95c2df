/* SPDX-License-Identifier: Apache-2.0 */
/* A network device whose loop looks at its rings instead of being told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/net_rig.h"
#include "vmm/log.h"
#include "vmm/loop_state.h"

static void rings_are_served_without_a_kick(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);
		const struct loop_poll_ops *o = f->n->poll.ops;

		o->begin(f->n);
		assert_false(o->ready(f->n));
		assert_int_equal(fake_used_flags(&f->r[0]) & fake_used_flags(&f->r[1]), 1);
		net_send(f, 70, 4096);
		assert_true(o->ready(f->n));
		o->run(f->n);
		assert_int_equal(net_left(f), 70);
		net_arrive(f, 71);
		net_give(f, 0, 4, BUF);
		assert_true(o->ready(f->n));
		o->run(f->n);
		net_assert_got(f, 71, 1);
		assert_false(o->ready(f->n));
		net_send(f, 72, 4096);
		assert_true(o->end(f->n));
		turn(f->loop);
		assert_int_equal(net_left(f), 72);
		assert_int_equal(fake_used_flags(&f->r[1]), 0);
		net_end(f);
	}
}

/* A loop that waits for company lets others work; where an answer is due it must not. */
static void only_large_frames_are_a_stream(void **state)
{
	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);
		const struct loop_poll_ops *o = f->n->poll.ops;

		o->begin(f->n);
		f->n->poll.most = 100000;
		net_send(f, NET_LARGE - NET_HDR, 4096);
		assert_int_equal(o->run(f->n), 300000);
		net_send(f, NET_LARGE - NET_HDR - 1, 4096);
		assert_int_equal(o->run(f->n), 0);
		net_send(f, NET_LARGE, 4096);
		f->n->poll.most = 600000;
		assert_int_equal(o->run(f->n), 1500000);
		net_give(f, 0, 4, BUF);
		assert_int_equal(o->run(f->n), 0);
		o->end(f->n);
		net_end(f);
	}
}

/* What may be a question gets its answer without a nap; acknowledgements and streams ask nothing.
 */
static void a_question_ends_naps(void **state)
{
	static const struct {
		uint32_t len;
		bool ends;
	} cases[] = {{66, false}, {200, true}, {1514, true}, {NET_LARGE, false}};

	(void)state;
	EACH_END(e)
	{
		struct net_rig *f = net_live(e, MRG);

		net_give(f, 0, RING, BUF);
		virtio_kick(f->v, 0);
		for (unsigned i = 0; i < 4; i++) {
			f->loop->nap = 1;
			net_arrive(f, cases[i].len);
			turns(f->loop, 2);
			assert_int_equal(f->loop->nap, !cases[i].ends);
		}
		net_end(f);
	}
}

/* The driver gets what it needs of the queue with the next answer, or in time. */
static void a_sent_frames_interrupt_waits_no_longer_than_it_may(void **state)
{
	struct net_rig *f = net_live(END_TAP, MRG);
	const struct loop_poll_ops *o = f->n->poll.ops;

	(void)state;
	f->n->poll.most = UINT64_MAX;
	o->begin(f->n);
	net_give(f, 0, 8, BUF);
	o->run(f->n);
	net_send(f, 70, 4096);
	o->run(f->n);
	for (unsigned i = 0; i < 100; i++) {
		net_arrive(f, 71);
		f->n->pair[0].src.fn(f->n->pair[0].src.arg, EPOLLIN);
		net_assert_got(f, 71, 1);
		net_give(f, i, 1, BUF);
		if (o->ready(f->n))
			o->run(f->n);
	}
	assert_int_equal(f->bearer.queue[1], 0);
	f->n->poll.most = 1000;
	usleep(2);
	o->ready(f->n);
	assert_int_equal(f->bearer.queue[1], 1);
	o->end(f->n);
	assert_int_equal(f->bearer.queue[1], 1);
	net_end(f);
}

/* Nobody looks at its queue any more. */
static void a_pair_that_is_given_up_tells_of_what_it_sent(void **state)
{
	struct net_rig *f = net_begin(END_TAP, 2);
	struct fake_buf cmd[3] = {
		{f->cmd, 2, 0}, {f->cmd + 2, 2, 0}, {f->cmd + (127 << 10), 1, FAKE_W}};

	(void)state;
	net_plug(f);
	net_drive(f, MRG | CVQ | BITF(NET_F_MQ));
	f->n->enabled = 2; /* the rig's TAP is a socket: TUNSETQUEUE would fail */
	f->n->pair[1].enabled = true;
	f->n->poll.ops->begin(f->n);
	f->n->poll.most = 1000000000;
	fake_send(&f->r[3], (struct fake_buf[]){{f->out, 100, 0}}, 1);
	f->n->poll.ops->run(f->n);
	assert_int_equal(fake_get16(&f->m, f->r[3].used + 2), 1);
	assert_int_equal(f->bearer.queue[3], 0);
	memcpy(fake_at(&f->m, f->cmd), "\4\0\1\0", 4);
	fake_send(&f->r[4], cmd, 3);
	f->n->poll.ops->run(f->n);
	assert_int_equal(f->n->enabled, 1);
	assert_int_equal(f->bearer.queue[3], 1);
	f->n->poll.ops->end(f->n);
	net_end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rings_are_served_without_a_kick),
		cmocka_unit_test(only_large_frames_are_a_stream),
		cmocka_unit_test(a_question_ends_naps),
		cmocka_unit_test(a_pair_that_is_given_up_tells_of_what_it_sent),
		cmocka_unit_test(a_sent_frames_interrupt_waits_no_longer_than_it_may),
	};

	log_set_level(-1);
	return cmocka_run_group_tests_name("net_poll", tests, NULL, NULL);
}
