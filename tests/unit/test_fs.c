/* SPDX-License-Identifier: Apache-2.0 */
/* The file system device: what it shows, what its back end is told, and what it does without one.
 */
#include <linux/fuse.h>
#include <sys/eventfd.h>

#include "tests/unit/vuser_rig.h"

struct fixture {
	struct rig r;
	struct fs_config c;
	struct fs_host *host;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	rig_init(&f->r);
	strcpy(f->c.tag, "share");
	f->c.socket = f->r.sa.sun_path;
	f->c.queue_size = RING;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->r.v)
		f->r.v->ops->free(f->r.v);
	fs_host_close(f->host);
	rig_fini(&f->r);
	free(f);
	return 0;
}

static void build(struct fixture *f)
{
	struct fs_env env = {f->r.m.gm, f->r.loop, f->host, 0, {rig_power, &f->r}};

	assert_int_equal(fs_new(&f->r.v, &f->c, &env, NULL), 0);
}

static void make(struct fixture *f)
{
	struct err e = {0};

	rig_open(&f->r);
	if (fs_host_open(&f->host, &f->c, 0, &e))
		fail_msg("%s", e.text);
	build(f);
}

/* A request of @op with the number @unique and room for an answer; its place. */
static uint64_t request(struct fixture *f, unsigned q, uint32_t op, uint64_t unique)
{
	uint64_t at = f->r.buf + 4096 * (unique % 16);
	struct fuse_in_header in = {.len = sizeof(in), .opcode = op, .unique = unique};
	struct fake_buf b[] = {{at, sizeof(in), 0}, {at + 1024, 160, FAKE_W}};

	memcpy(fake_at(&f->r.m, at), &in, sizeof(in));
	memset(fake_at(&f->r.m, at + 1024), 0xee, 160);
	fake_send(&f->r.r[q], b, op == FUSE_FORGET ? 1 : 2);
	return at + 1024;
}

static void assert_answer(struct fixture *f, uint64_t at, uint64_t unique)
{
	struct fuse_out_header out;

	memcpy(&out, fake_at(&f->r.m, at), sizeof(out));
	assert_int_equal(out.len, sizeof(out));
	assert_int_equal(out.error, -ENOTCONN);
	assert_int_equal(out.unique, unique);
	assert_int_equal(*(uint8_t *)fake_at(&f->r.m, at + sizeof(out)), 0xee);
}

/* ------------------------------------------------------------- with a back end */

static void it_shows_its_tag_and_its_queues(void **state)
{
	struct fixture *f = *state;

	make(f);
	assert_int_equal(f->r.v->ops->id, VIRTIO_ID_FS);
	assert_int_equal(f->r.v->nqueues, 2);
	assert_int_equal(f->r.v->config_len, 40);
	assert_string_equal((char *)f->r.v->config, "share");
	assert_int_equal(virtio_config_read(f->r.v, 36, 4), 1);
	assert_string_equal(f->r.v->name, "fs0");
}

/* For logs. */
static void it_is_called_what_the_user_calls_it(void **state)
{
	struct fixture *f = *state;
	struct vuser *d;

	make(f);
	d = (struct vuser *)f->r.v;
	assert_string_equal(d->u->name, "fs0 (tag share): vhost-user");
	f->r.v->ops->free(f->r.v);
	strcpy(f->c.tag, CONFIG_ROOT_TAG);
	build(f);
	d = (struct vuser *)f->r.v;
	assert_string_equal(d->u->name, "fs0 (the root): vhost-user");
}

static void a_tag_of_36_bytes_has_no_nul(void **state)
{
	struct fixture *f = *state;

	strcpy(f->c.tag, "0123456789abcdef0123456789abcdef0123");
	make(f);
	assert_memory_equal(f->r.v->config, f->c.tag, 36);
	assert_int_equal(virtio_config_read(f->r.v, 36, 4), 1);
}

static void it_offers_what_both_can(void **state)
{
	struct fixture *f = *state;

	f->r.p.features &= ~(1ull << VIRTIO_F_EVENT_IDX);
	make(f);
	assert_int_equal(f->r.v->offered, 1ull << VIRTIO_F_INDIRECT_DESC |
						  1ull << VIRTIO_F_VERSION_1 |
						  1ull << VIRTIO_F_RING_RESET);
}

static void the_back_end_gets_features_memory_and_both_rings(void **state)
{
	struct fixture *f = *state;
	struct vu_note n;

	make(f);
	rig_run(&f->r, 1ull << VIRTIO_F_RING_RESET);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_SET_FEATURES, &n), 1);
	assert_int_equal(n.u64, 1ull << VIRTIO_F_VERSION_1 | 1ull << VU_F_PROTOCOL_FEATURES);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_SET_MEM_TABLE, NULL), 1);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_SET_VRING_ENABLE, &n), 2);
	assert_int_equal(n.u64, 1ull << 32 | 1);
	virtio_set_status(f->r.v, 0);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_GET_VRING_BASE, NULL), 2);
	assert_false(vhost_user_dead(((struct vuser *)f->r.v)->u));
}

static void a_queue_reset_stops_that_ring_alone(void **state)
{
	struct fixture *f = *state;
	struct vu_note n;

	make(f);
	rig_run(&f->r, 1ull << VIRTIO_F_RING_RESET);
	virtio_queue_reset(f->r.v, 1);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_GET_VRING_BASE, &n), 1);
	assert_int_equal(n.index, 1);
	fake_ring_zero(&f->r.r[1]);
	fake_enable(f->r.v, 1, &f->r.r[1]);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_SET_VRING_KICK, NULL), 3);
	assert_int_equal(f->r.v->status, 15);
}

static void the_next_machine_goes_on_with_the_connection(void **state)
{
	struct fixture *f = *state;

	make(f);
	rig_run(&f->r, 0);
	f->r.v->ops->free(f->r.v);
	build(f);
	rig_run(&f->r, 0);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_SET_MEM_TABLE, NULL), 2);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_GET_FEATURES, NULL), 1);
}

static void more_queues_than_the_back_end_has_are_refused(void **state)
{
	struct fixture *f = *state;
	struct err e = {0};

	f->c.queues = 2;
	rig_open(&f->r);
	assert_int_equal(fs_host_open(&f->host, &f->c, 0, &e), -EINVAL);
	assert_string_equal(e.text, "--fs tag=share: queues=2: this virtiofsd serves 1 at most");
}

static void what_has_no_queue_for_requests_is_no_virtiofsd(void **state)
{
	struct fixture *f = *state;
	struct err e = {0};
	char want[200];

	f->r.p.queues = 1;
	rig_open(&f->r);
	assert_int_equal(fs_host_open(&f->host, &f->c, 0, &e), -EINVAL);
	snprintf(want, sizeof(want),
		 "--fs tag=share: %s: no virtiofsd: it has no queue for requests", f->c.socket);
	assert_string_equal(e.text, want);
}

/* ------------------------------------------------------------- one that takes its time */

/* Each of its answers alone would be in time. */
static void a_start_has_one_deadline_for_all_its_messages(void **state)
{
	struct fixture *f = *state;

	make(f);
	vu_wait_ms = 1000;
	f->r.p.slow_us = 100000;
	rig_run(&f->r, 0);
	assert_true(vhost_user_dead(((struct vuser *)f->r.v)->u));
	assert_true(vu_peer_asked(&f->r.p, VU_SET_VRING_ENABLE, NULL) < 2);
}

static void a_stop_has_one_deadline_for_all_its_messages(void **state)
{
	struct fixture *f = *state;

	make(f);
	rig_run(&f->r, 0);
	vu_wait_ms = 1000;
	f->r.p.slow_us = 700000;
	virtio_set_status(f->r.v, 0);
	assert_true(vhost_user_dead(((struct vuser *)f->r.v)->u));
	assert_int_equal(f->r.failed, 1);
}

static int next_fd;

static int changing_fd(void *t, unsigned q)
{
	(void)t;
	(void)q;
	return next_fd;
}

static void each_operation_has_a_deadline_of_its_own(void **state)
{
	struct fixture *f = *state;
	const useconds_t longer = 550000;

	vu_wait_ms = 500;
	make(f);
	usleep(longer);
	rig_run(&f->r, 1ull << VIRTIO_F_RING_RESET);
	usleep(longer);
	virtio_queue_reset(f->r.v, 1);
	usleep(longer);
	fake_ring_zero(&f->r.r[1]);
	fake_enable(f->r.v, 1, &f->r.r[1]);
	usleep(longer);
	next_fd = STDERR_FILENO;
	f->r.v->bearer.queue_fd = changing_fd;
	virtio_rewired(f->r.v, 0);
	usleep(longer);
	virtio_set_status(f->r.v, 0);
	assert_false(vhost_user_dead(((struct vuser *)f->r.v)->u));
	assert_int_equal(vu_peer_asked(&f->r.p, VU_SET_VRING_ENABLE, NULL), 3);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_SET_VRING_CALL, NULL), 4);
}

/* Each in time by itself: what a guest can bring about again and again. */
static void slow_operations_wear_the_patience_out(void **state)
{
	struct fixture *f = *state;

	make(f);
	rig_run(&f->r, 0);
	vu_wait_ms = 2000;
	f->r.p.slow_us = 600000;
	f->r.v->bearer.queue_fd = changing_fd;
	for (unsigned i = 0; i < 3; i++) {
		assert_false(vhost_user_dead(((struct vuser *)f->r.v)->u));
		next_fd = i & 1 ? STDERR_FILENO : STDOUT_FILENO;
		virtio_rewired(f->r.v, 0);
	}
	next_fd = STDERR_FILENO;
	virtio_rewired(f->r.v, 0);
	assert_true(vhost_user_dead(((struct vuser *)f->r.v)->u));
}

/* A guest may bring that about as often as it likes. */
static void prompt_operations_cost_no_patience(void **state)
{
	struct fixture *f = *state;

	make(f);
	rig_run(&f->r, 0);
	vu_wait_ms = 1000;
	f->r.p.slow_us = 10000;
	f->r.v->bearer.queue_fd = changing_fd;
	for (unsigned i = 0; i < 200; i++) {
		next_fd = i & 1 ? STDERR_FILENO : STDOUT_FILENO;
		virtio_rewired(f->r.v, 0);
	}
	assert_false(vhost_user_dead(((struct vuser *)f->r.v)->u));
}

/* As slow as it was before: an answer at once is always in time. */
static void a_peer_without_patience_left_may_still_answer_promptly(void **state)
{
	struct fixture *f = *state;
	struct vhost_user *u;

	make(f);
	rig_run(&f->r, 0);
	u = ((struct vuser *)f->r.v)->u;
	f->r.p.slow_us = 5000;
	f->r.v->bearer.queue_fd = changing_fd;
	next_fd = STDERR_FILENO;
	u->patience = 0;
	u->begun = loop_now();
	virtio_rewired(f->r.v, 0);
	assert_false(vhost_user_dead(u));
}

/* ------------------------------------------------------------- without */

static void what_was_under_way_is_answered_when_it_goes(void **state)
{
	struct fixture *f = *state;
	uint64_t a, b;
	uint32_t id, len;

	make(f);
	rig_run(&f->r, 1ull << VIRTIO_F_EVENT_IDX);
	a = request(f, 1, FUSE_READ, 1);
	b = request(f, 1, FUSE_LOOKUP, 2);
	rig_kill(&f->r);
	assert_answer(f, a, 1);
	assert_answer(f, b, 2);
	assert_true(fake_used(&f->r.r[1], &id, &len));
	assert_int_equal(len, sizeof(struct fuse_out_header));
	assert_true(f->r.bearer.queue[1] >= 1);
	assert_int_equal(f->r.v->status, 15);
}

static void what_it_had_answered_is_left_alone(void **state)
{
	struct fixture *f = *state;
	uint64_t a, b;

	make(f);
	rig_run(&f->r, 0);
	a = request(f, 1, FUSE_READ, 1);
	b = request(f, 1, FUSE_READ, 2);
	/* The back end: the second one first, and then no more. */
	fake_put32(&f->r.m, f->r.r[1].used + 4, 2);
	fake_put16(&f->r.m, f->r.r[1].used + 2, 1);
	rig_kill(&f->r);
	assert_answer(f, a, 1);
	assert_int_equal(*(uint8_t *)fake_at(&f->r.m, b), 0xee);
	assert_int_equal(fake_get16(&f->r.m, f->r.r[1].used + 2), 2);
	assert_int_equal(fake_get32(&f->r.m, f->r.r[1].used + 4 + 8), 0);
}

/* The back end answers @n requests, one at a time, of a single buffer in descriptor 8. */
static void others_come_and_go(struct fixture *f, unsigned n)
{
	struct fake_ring *r = &f->r.r[1];

	fake_desc(r, 8, (struct fake_buf){f->r.buf + 60000, 64, FAKE_W}, 0);
	while (n--) {
		uint16_t idx = fake_get16(&f->r.m, r->used + 2);

		fake_avail(r, 8);
		fake_put32(&f->r.m, r->used + 4 + 8ull * (idx % RING), 8);
		fake_put16(&f->r.m, r->used + 2, (uint16_t)(idx + 1));
	}
}

static void what_took_longest_is_answered_too(void **state)
{
	struct fixture *f = *state;
	struct vuser *d;
	eventfd_t n;
	uint64_t a;

	make(f);
	d = (struct vuser *)f->r.v;
	rig_run(&f->r, 0);
	/* With nothing to do it waits for a kick. */
	TURNS_UNTIL(f->r.loop, d->kicks[1].loop && !d->follow.loop);
	turns(f->r.loop, 3);
	assert_null(d->follow.loop);
	a = request(f, 1, FUSE_READ, 1);
	virtio_rekick(f->r.v, 1);
	/* The back end was quicker than the loop. */
	assert_int_equal(eventfd_read(f->r.v->queue[1].kick_fd, &n), 0);
	TURNS_UNTIL(f->r.loop, d->follow.loop);
	assert_null(d->kicks[1].loop);
	/* Then it looks, by and by: three times round the ring. */
	for (unsigned i = 0; i < 6; i++) {
		uint64_t due = d->follow.due;

		others_come_and_go(f, RING / 2);
		TURNS_UNTIL(f->r.loop, d->follow.due > due);
	}
	rig_kill(&f->r);
	assert_answer(f, a, 1);
	assert_int_equal(fake_get16(&f->r.m, f->r.r[1].used + 2), 6 * RING / 2 + 1);
}

static void a_queue_reset_while_it_waits_for_kicks(void **state)
{
	struct fixture *f = *state;
	struct vuser *d;

	make(f);
	d = (struct vuser *)f->r.v;
	rig_run(&f->r, 1ull << VIRTIO_F_RING_RESET);
	TURNS_UNTIL(f->r.loop, d->kicks[1].loop);
	virtio_queue_reset(f->r.v, 1);
	assert_int_equal(f->r.v->status, 15);
	fake_ring_zero(&f->r.r[1]);
	fake_enable(f->r.v, 1, &f->r.r[1]);
	assert_int_equal(f->r.v->status, 15);
	TURNS_UNTIL(f->r.loop, d->kicks[1].loop);
}

static void what_comes_later_is_answered_at_once(void **state)
{
	struct fixture *f = *state;
	uint64_t at;

	make(f);
	rig_run(&f->r, 0);
	rig_kill(&f->r);
	at = request(f, 1, FUSE_INIT, 3);
	virtio_kick(f->r.v, 1);
	assert_answer(f, at, 3);
	at = request(f, 0, FUSE_INTERRUPT, 4);
	virtio_kick(f->r.v, 0);
	assert_answer(f, at, 4);
}

static void a_forget_is_only_returned(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	make(f);
	rig_run(&f->r, 0);
	rig_kill(&f->r);
	request(f, 0, FUSE_FORGET, 5);
	virtio_kick(f->r.v, 0);
	assert_true(fake_used(&f->r.r[0], &id, &len));
	assert_int_equal(len, 0);
}

static void what_is_no_request_is_only_returned(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;

	make(f);
	rig_run(&f->r, 0);
	rig_kill(&f->r);
	fake_send(&f->r.r[1], (struct fake_buf[]){{f->r.buf, 39, 0}, {f->r.buf + 64, 64, FAKE_W}},
		  2);
	fake_send(&f->r.r[1], (struct fake_buf[]){{f->r.buf, 40, 0}, {f->r.buf + 64, 15, FAKE_W}},
		  2);
	fake_send(&f->r.r[1], (struct fake_buf[]){{f->r.buf, 0, 0}}, 1);
	virtio_kick(f->r.v, 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(fake_used(&f->r.r[1], &id, &len));
		assert_int_equal(len, 0);
	}
	assert_int_equal(f->r.v->status, 15);
}

static void a_driver_that_starts_afterwards_is_answered(void **state)
{
	struct fixture *f = *state;
	uint64_t at;

	make(f);
	rig_run(&f->r, 0);
	rig_kill(&f->r);
	rig_run(&f->r, 0);
	at = request(f, 1, FUSE_INIT, 6);
	virtio_kick(f->r.v, 1);
	assert_answer(f, at, 6);
}

static void a_back_end_that_fails_at_the_start_is_no_end_of_the_device(void **state)
{
	struct fixture *f = *state;
	uint64_t at;

	make(f);
	f->r.p.at = VU_SET_VRING_KICK;
	f->r.p.bad = BAD_CLOSE;
	rig_run(&f->r, 0);
	at = request(f, 1, FUSE_INIT, 7);
	turns(f->r.loop, 3);
	virtio_kick(f->r.v, 1);
	assert_answer(f, at, 7);
}

static void a_ring_full_of_garbage_latches_needs_reset(void **state)
{
	struct fixture *f = *state;

	make(f);
	rig_run(&f->r, 0);
	fake_put16(&f->r.m, f->r.r[1].avail + 2, 1000);
	rig_kill(&f->r);
	assert_true(f->r.v->status & VIRTIO_S_NEEDS_RESET);
}

/* A driver that refills as fast as it is served. */
static void a_flood_is_answered_in_turns(void **state)
{
	struct fixture *f = *state;

	make(f);
	rig_run(&f->r, 0);
	rig_kill(&f->r);
	for (unsigned i = 0; i < RING / 2; i++)
		request(f, 1, FUSE_READ, i);
	virtio_kick(f->r.v, 1);
	assert_int_equal(fake_get16(&f->r.m, f->r.r[1].used + 2), RING / 2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(it_is_called_what_the_user_calls_it),
		T(it_shows_its_tag_and_its_queues),
		T(a_tag_of_36_bytes_has_no_nul),
		T(it_offers_what_both_can),
		T(the_back_end_gets_features_memory_and_both_rings),
		T(a_queue_reset_stops_that_ring_alone),
		T(the_next_machine_goes_on_with_the_connection),
		T(more_queues_than_the_back_end_has_are_refused),
		T(what_has_no_queue_for_requests_is_no_virtiofsd),
		T(a_start_has_one_deadline_for_all_its_messages),
		T(a_stop_has_one_deadline_for_all_its_messages),
		T(each_operation_has_a_deadline_of_its_own),
		T(slow_operations_wear_the_patience_out),
		T(prompt_operations_cost_no_patience),
		T(a_peer_without_patience_left_may_still_answer_promptly),
		T(what_was_under_way_is_answered_when_it_goes),
		T(what_it_had_answered_is_left_alone),
		T(what_took_longest_is_answered_too),
		T(a_queue_reset_while_it_waits_for_kicks),
		T(what_comes_later_is_answered_at_once),
		T(a_forget_is_only_returned),
		T(what_is_no_request_is_only_returned),
		T(a_driver_that_starts_afterwards_is_answered),
		T(a_back_end_that_fails_at_the_start_is_no_end_of_the_device),
		T(a_ring_full_of_garbage_latches_needs_reset),
		T(a_flood_is_answered_in_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
