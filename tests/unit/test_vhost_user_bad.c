/* SPDX-License-Identifier: Apache-2.0 */
/* A vhost-user peer that does one thing wrong: the connection ends, with a reason, and nothing
 * leaks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/turns.h"
#include "tests/unit/vu_peer.h"
#include "virtio/vhost_user_conn.h"
#include "vmm/evfd.h"
#include "vmm/log.h"

struct fixture {
	struct vu_peer p;
	struct vhost_user *u;
	struct loop *loop;
	unsigned died, files;
};

static void died(void *arg)
{
	((struct fixture *)arg)->died++;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_set_level(-1);
	vu_wait_ms = 5000;
	assert_int_equal(evfd_prepare(NULL), 0); /* has a file, for good */
	f->files = open_files();
	vu_peer_init(&f->p);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vhost_user_free(f->u);
	if (f->p.fd >= 0)
		vu_peer_join(&f->p);
	loop_free(f->loop);
	assert_int_equal(open_files(), f->files);
	free(f);
	return 0;
}

static int adopt(struct fixture *f, struct err *e)
{
	struct vhost_user_owner o = {died, NULL, f, "fs0"};
	int r = vhost_user_adopt(&f->u, vu_peer_start(&f->p), VHOST_USER_NEEDS_CONFIG, e);

	return r < 0 ? r : vhost_user_bind(f->u, f->loop, &o);
}

/* Only what never comes is waited for to the end. */
static void waits_for(enum vu_bad bad)
{
	vu_wait_ms = bad == BAD_STALL || bad == BAD_DRIP ? 200 : 5000;
}

/* However many do not answer, a machine's end waits for one of them; but for them alone. */
static void what_is_done_together_has_one_deadline(void **state)
{
	const uint64_t ms = 1000000;
	struct fixture *f = *state;
	struct vhost_ops const *ops;
	uint64_t since;
	uint16_t base;

	f->p.at = VU_GET_VRING_BASE;
	f->p.bad = BAD_STALL;
	assert_int_equal(adopt(f, NULL), 0);
	waits_for(BAD_STALL);
	ops = f->u->h.ops;
	vhost_user_together(true);
	usleep(250000); /* of somebody else's */
	since = loop_now();
	ops->begin(&f->u->h);
	assert_true(f->u->deadline >= since + 200 * ms);
	assert_true(f->u->deadline <= loop_now() + 200 * ms);
	assert_int_equal(ops->ring_stop(&f->u->h, 0, &base), -ENOTCONN);
	f->u->patience = 200 * ms; /* as another connection's */
	since = loop_now();
	ops->begin(&f->u->h);
	assert_true(f->u->deadline >= since + 20 * ms);
	assert_true(f->u->deadline <= loop_now() + 40 * ms);
	vhost_user_together(false);
	f->u->patience = 200 * ms;
	since = loop_now();
	ops->begin(&f->u->h);
	assert_true(f->u->deadline >= since + 200 * ms);
}

/* While it is set up: the reason is in the error. */
static void refused(struct fixture *f, uint32_t at, enum vu_bad bad, const char *reason)
{
	struct err e = {0};

	f->p.at = at;
	f->p.bad = bad;
	waits_for(bad);
	assert_int_equal(adopt(f, &e), -EPROTO);
	if (!strstr(e.text, reason) || !strstr(e.text, vu_request_name(at)))
		fail_msg("\"%s\" instead of \"%s\"", e.text, reason);
	assert_null(f->u);
}

/* While a device uses it: the call says so at once or in time, the owner is told on the loop, once.
 */
static void dies(struct fixture *f, uint32_t at, enum vu_bad bad, const char *reason)
{
	uint8_t buf[60];
	uint16_t base;

	assert_int_equal(adopt(f, NULL), 0);
	f->p.at = at;
	__atomic_store_n(&f->p.bad, bad, __ATOMIC_RELEASE);
	waits_for(bad);
	f->u->h.ops->begin(&f->u->h);
	if (at == VU_GET_CONFIG)
		assert_int_equal(vhost_user_get_config(f->u, buf, sizeof(buf), NULL), -ENOTCONN);
	else if (at == VU_GET_VRING_BASE)
		assert_int_equal(f->u->h.ops->ring_stop(&f->u->h, 1, &base), -ENOTCONN);
	else
		assert_int_equal(f->u->h.ops->set_features(&f->u->h, 1ull << 32), -ENOTCONN);
	assert_true(vhost_user_dead(f->u));
	if (!strstr(f->u->reason, reason))
		fail_msg("\"%s\" instead of \"%s\"", f->u->reason, reason);
	assert_int_equal(f->died, 0);
	turns(f->loop, 3);
	assert_int_equal(f->died, 1);
	/* And then nothing takes time any more. */
	assert_int_equal(vhost_user_queues(f->u), -ENOTCONN);
	turns(f->loop, 3);
	assert_int_equal(f->died, 1);
}

static const struct {
	enum vu_bad bad;
	const char *reason;
} ways[] = {
	{BAD_STALL, "no answer in time"},
	{BAD_DRIP, "no answer in time"},
	{BAD_CLOSE, "it closed the connection"},
	{BAD_HALF, "in the middle of a message"},
	{BAD_REQUEST, "it answered another request"},
	{BAD_FLAG, "is not marked as one"},
	{BAD_VERSION, "another version"},
	{BAD_SIZE, "wrong size"},
	{BAD_LONG, "wrong size"},
	{BAD_HUGE, "longer than any"},
	{BAD_FDS, "file descriptors"},
	{BAD_MANY, "file descriptors"},
};

static void each_way(void **state, uint32_t at)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		refused(f, at, ways[i].bad, ways[i].reason);
		vu_peer_join(&f->p);
		vu_peer_init(&f->p);
		assert_int_equal(open_files(), f->files + 2); /* the loop's */
	}
}

static void a_bad_answer_to_get_features_is_refused(void **state)
{
	each_way(state, VU_GET_FEATURES);
}

static void a_bad_answer_to_get_protocol_features_is_refused(void **state)
{
	each_way(state, VU_GET_PROTOCOL_FEATURES);
}

static void a_bad_acknowledgement_is_refused(void **state)
{
	each_way(state, VU_SET_BACKEND_REQ_FD);
}

static void each_way_to_die(void **state, uint32_t at)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		/* Four bytes more still fit in a peer's configuration. */
		if (at == VU_GET_VRING_BASE && ways[i].bad == BAD_LONG)
			continue;
		dies(f, at, ways[i].bad, ways[i].reason);
		vhost_user_free(f->u);
		f->u = NULL;
		vu_peer_join(&f->p);
		vu_peer_init(&f->p);
		f->died = 0;
	}
}

static void a_bad_configuration_is_the_end(void **state)
{
	each_way_to_die(state, VU_GET_CONFIG);
}

static void a_ring_that_does_not_stop_is_the_end(void **state)
{
	each_way_to_die(state, VU_GET_VRING_BASE);
}

static void a_bad_acknowledgement_is_the_end(void **state)
{
	each_way_to_die(state, VU_SET_FEATURES);
}

static void a_refusal_of_what_must_be_is_the_end(void **state)
{
	dies(*state, VU_SET_FEATURES, BAD_REFUSE, "SET_FEATURES: it refused");
}

/* A ring that the peer says it has not started: nobody writes to memory for it. */
static void a_refused_kick_starts_no_ring(void **state)
{
	struct fixture *f = *state;
	struct vhost_ring r = {.size = 64, .kick = 0, .call = 0, .err = -1};

	assert_int_equal(adopt(f, NULL), 0);
	f->p.at = VU_SET_VRING_KICK;
	__atomic_store_n(&f->p.bad, BAD_REFUSE, __ATOMIC_RELEASE);
	f->u->h.ops->begin(&f->u->h);
	assert_int_equal(f->u->h.ops->ring_start(&f->u->h, 0, &r), -ENOTCONN);
	assert_string_equal(f->u->reason, "SET_VRING_KICK: it refused");
	assert_false(vhost_user_may_write(f->u));
}

static void an_answer_too_many_is_the_end(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(adopt(f, NULL), 0);
	f->p.at = VU_GET_QUEUE_NUM;
	f->p.bad = BAD_EXTRA;
	assert_int_equal(vhost_user_queues(f->u), 2);
	TURNS_UNTIL(f->loop, f->died);
	assert_non_null(strstr(f->u->reason, "nobody asked for"));
}

static void a_peer_that_goes_away_is_noticed_without_being_asked(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(adopt(f, NULL), 0);
	turns(f->loop, 2);
	assert_int_equal(f->died, 0);
	shutdown(f->p.fd, SHUT_RDWR);
	TURNS_UNTIL(f->loop, f->died);
	assert_string_equal(f->u->reason, "it closed the connection");
}

static void a_peer_without_version_1_is_refused(void **state)
{
	struct fixture *f = *state;
	struct err e = {0};

	f->p.features &= ~(1ull << 32);
	assert_int_equal(adopt(f, &e), -EPROTO);
	assert_non_null(strstr(e.text, "VERSION_1"));
}

static void a_peer_without_configuration_is_refused_where_it_is_needed(void **state)
{
	struct fixture *f = *state;
	struct err e = {0};

	f->p.protocol &= ~(1ull << VU_PROTOCOL_F_CONFIG);
	assert_int_equal(adopt(f, &e), -EPROTO);
	assert_non_null(strstr(e.text, "CONFIG"));
}

/* A back end that waits on its channel before it answers, and one that only talks there. */
static void what_comes_on_the_channel_is_served_while_an_answer_is_due(void **state)
{
	struct fixture *f = *state;
	struct vu_msg m = {.request = VU_BACKEND_CONFIG_CHANGE_MSG,
			   .flags = VU_VERSION | VU_NEED_REPLY};

	assert_int_equal(adopt(f, NULL), 0);
	f->p.at = VU_GET_QUEUE_NUM;
	f->p.bad = BAD_STALL;
	waits_for(BAD_STALL);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(send(f->p.back, &m, VU_HEADER, MSG_DONTWAIT), VU_HEADER);
	assert_int_equal(vhost_user_queues(f->u), -ENOTCONN);
	assert_non_null(strstr(f->u->reason, "no answer in time"));
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(recv(f->p.back, &m, VU_HEADER + 8, MSG_DONTWAIT), VU_HEADER + 8);
	/* And no more of them than that, whoever floods. */
	assert_true(recv(f->p.back, &m, VU_HEADER + 8, MSG_DONTWAIT) <= 0);
}

static void a_long_message_on_the_channel_is_the_end(void **state)
{
	struct fixture *f = *state;
	struct vu_msg m = {
		.request = VU_BACKEND_CONFIG_CHANGE_MSG, .flags = VU_VERSION, .size = 0x80000000};

	assert_int_equal(adopt(f, NULL), 0);
	assert_int_equal(send(f->p.back, &m, VU_HEADER, 0), VU_HEADER);
	TURNS_UNTIL(f->loop, f->died);
	assert_non_null(strstr(f->u->reason, "longer than any"));
}

static void half_a_message_on_the_channel_holds_nobody_up(void **state)
{
	struct fixture *f = *state;
	struct vu_msg m = {.request = VU_BACKEND_CONFIG_CHANGE_MSG, .flags = VU_VERSION};

	assert_int_equal(adopt(f, NULL), 0);
	assert_int_equal(send(f->p.back, &m, 7, 0), 7);
	turns(f->loop, 3);
	assert_false(vhost_user_dead(f->u));
	assert_int_equal(send(f->p.back, (char *)&m + 7, VU_HEADER - 7, 0), VU_HEADER - 7);
	turns(f->loop, 3);
	assert_false(vhost_user_dead(f->u));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_done_together_has_one_deadline),
		T(a_bad_answer_to_get_features_is_refused),
		T(a_bad_answer_to_get_protocol_features_is_refused),
		T(a_bad_acknowledgement_is_refused),
		T(a_bad_configuration_is_the_end),
		T(a_ring_that_does_not_stop_is_the_end),
		T(a_bad_acknowledgement_is_the_end),
		T(a_refusal_of_what_must_be_is_the_end),
		T(a_refused_kick_starts_no_ring),
		T(an_answer_too_many_is_the_end),
		T(a_peer_that_goes_away_is_noticed_without_being_asked),
		T(a_peer_without_version_1_is_refused),
		T(a_peer_without_configuration_is_refused_where_it_is_needed),
		T(what_comes_on_the_channel_is_served_while_an_answer_is_due),
		T(a_long_message_on_the_channel_is_the_end),
		T(half_a_message_on_the_channel_holds_nobody_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
