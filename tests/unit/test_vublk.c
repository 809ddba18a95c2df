/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that another process serves: its configuration, and what becomes of it without that one.
 */
#include <linux/virtio_blk.h>

#include "tests/unit/vuser_rig.h"

#define BIT(n) (1ull << (n))
#define WCE 32

struct fixture {
	struct rig r;
	struct disk_config c;
	struct vublk_host *host;
	struct virtio_blk_config *space; /* the peer's */
	unsigned cpus;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	rig_init(&f->r);
	f->c = (struct disk_config){
		.path = f->r.sa.sun_path,
		.vhost_user = true,
		.queue_size = RING,
	};
	f->cpus = 1;
	f->r.p.queues = 4;
	f->r.p.features |= BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
			   BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE) |
			   BIT(VIRTIO_BLK_F_MQ) | BIT(34);
	f->space = (struct virtio_blk_config *)f->r.p.config;
	f->space->capacity = 2048;
	f->space->blk_size = 512;
	f->space->seg_max = 126;
	f->space->num_queues = 3;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->r.v)
		f->r.v->ops->free(f->r.v);
	vublk_host_close(f->host);
	rig_fini(&f->r);
	free(f);
	return 0;
}

static void build(struct fixture *f)
{
	struct vublk_env env = {
		f->r.m.gm, f->r.loop, f->host, 1, f->cpus, {rig_power, &f->r},
	};

	assert_int_equal(vublk_new(&f->r.v, &f->c, &env, NULL), 0);
}

static void make(struct fixture *f)
{
	struct err e = {0};

	rig_open(&f->r);
	if (vublk_host_open(&f->host, &f->c, &e))
		fail_msg("%s", e.text);
	build(f);
}

static void refused(struct fixture *f, const char *why)
{
	struct err e = {0};

	rig_open(&f->r);
	assert_true(vublk_host_open(&f->host, &f->c, &e) < 0);
	if (!strstr(e.text, why) || !strstr(e.text, f->c.path))
		fail_msg("\"%s\" instead of \"%s\"", e.text, why);
}

static void its_configuration_is_the_peers(void **state)
{
	struct fixture *f = *state;

	make(f);
	assert_int_equal(f->r.v->ops->id, VIRTIO_ID_BLOCK);
	assert_int_equal(virtio_config_read(f->r.v, 0, 8), 2048);
	assert_int_equal(virtio_config_read(f->r.v, 20, 4), 512);
	assert_int_equal(f->r.v->offered & 0xffffff,
			 BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
				 BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE));
	assert_false(f->r.v->offered & BIT(34));
}

/* For logs. */
static void it_is_called_what_the_user_calls_it(void **state)
{
	struct fixture *f = *state;
	char name[160];

	make(f);
	snprintf(name, sizeof(name), "disk1 (%s): vhost-user", f->c.path);
	assert_string_equal(((struct vuser *)f->r.v)->u->name, name);
}

static void what_is_wrong_with_it_names_the_option(void **state)
{
	struct disk_config c = {.path = (char *)"/nope.sock", .vhost_user = true};
	struct vublk_host *h;
	struct err e = {0};

	(void)state;
	assert_int_equal(vublk_host_open(&h, &c, &e), -ENOENT);
	assert_int_equal(strncmp(e.text, "--disk socket=/nope.sock: ", 26), 0);
	c.root = true;
	assert_int_equal(vublk_host_open(&h, &c, &e), -ENOENT);
	assert_int_equal(strncmp(e.text, "--rootfs socket=/nope.sock: ", 28), 0);
}

static void requests_fit_into_the_queue(void **state)
{
	struct fixture *f = *state;

	make(f);
	assert_int_equal(virtio_config_read(f->r.v, 12, 4), RING - 2);
}

static void requests_fit_into_every_queue(void **state)
{
	struct fixture *f = *state;

	f->cpus = 3;
	make(f);
	assert_int_equal(f->r.v->nqueues, 3);
	assert_int_equal(virtio_resize(f->r.v, (const uint16_t[]){64, 8, 256}, 3), 0);
	assert_int_equal(virtio_config_read(f->r.v, 12, 4), 6);
	assert_int_equal(virtio_resize(f->r.v, (const uint16_t[]){256}, 1), 0);
	assert_int_equal(virtio_config_read(f->r.v, 12, 4), 126); /* the peer's own */
}

static void queues_are_the_fewest_of_all_who_have_a_say(void **state)
{
	static const struct {
		unsigned cpus, asked, field, peer, want;
	} t[] = {{2, 0, 3, 4, 2}, {8, 0, 3, 4, 3}, {8, 0, 9, 4, 4},
		 {1, 6, 3, 4, 3}, {8, 1, 3, 4, 1}, {8, 0, 0, 4, 1}};
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		f->cpus = t[i].cpus;
		f->c.queues = (uint16_t)t[i].asked;
		f->space->num_queues = (uint16_t)t[i].field;
		if (!f->host) {
			make(f);
		} else {
			f->r.v->ops->free(f->r.v);
			build(f);
		}
		assert_int_equal(f->r.v->nqueues, t[i].want);
		assert_int_equal(virtio_config_read(f->r.v, 34, 2), t[i].want);
		assert_int_equal(!!(f->r.v->offered & BIT(VIRTIO_BLK_F_MQ)), t[i].want > 1);
	}
}

static void a_block_size_that_is_none_is_refused(void **state)
{
	struct fixture *f = *state;

	f->space->blk_size = 513;
	refused(f, "a block size of 513");
}

static void a_capacity_that_is_none_is_refused(void **state)
{
	struct fixture *f = *state;

	f->space->capacity = UINT64_MAX;
	refused(f, "a capacity of");
}

static void read_only_is_for_the_back_end_to_say(void **state)
{
	struct fixture *f = *state;

	f->c.readonly = true;
	refused(f, "readonly=on");
}

static void a_read_only_back_end_shows(void **state)
{
	struct fixture *f = *state;

	f->c.readonly = true;
	f->r.p.features |= BIT(VIRTIO_BLK_F_RO);
	make(f);
	assert_true(f->r.v->offered & BIT(VIRTIO_BLK_F_RO));
}

static void the_drivers_choice_of_cache_reaches_the_peer(void **state)
{
	struct fixture *f = *state;
	struct vu_note n;

	make(f);
	rig_run(&f->r, BIT(VIRTIO_BLK_F_CONFIG_WCE));
	virtio_config_write(f->r.v, WCE, 1, 0xff);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_SET_CONFIG, &n), 1);
	assert_int_equal(n.u64, 1ull << 32 | WCE); /* offset and size */
	assert_int_equal(f->r.p.config[WCE], 1);
	assert_int_equal(virtio_config_read(f->r.v, WCE, 1), 1);
}

static void nothing_else_of_the_configuration_can_be_written(void **state)
{
	struct fixture *f = *state;

	make(f);
	rig_run(&f->r, BIT(VIRTIO_BLK_F_CONFIG_WCE));
	virtio_config_write(f->r.v, 0, 8, 0);
	virtio_config_write(f->r.v, WCE, 2, 0);
	virtio_config_write(f->r.v, WCE - 1, 1, 1);
	assert_int_equal(vu_peer_asked(&f->r.p, VU_SET_CONFIG, NULL), 0);
}

static void a_refused_choice_is_not_shown(void **state)
{
	struct fixture *f = *state;

	make(f);
	f->r.p.at = VU_SET_CONFIG;
	f->r.p.bad = BAD_REFUSE;
	rig_run(&f->r, BIT(VIRTIO_BLK_F_CONFIG_WCE));
	virtio_config_write(f->r.v, WCE, 1, 1);
	assert_int_equal(virtio_config_read(f->r.v, WCE, 1), 0);
}

static void resize(struct fixture *f)
{
	struct vu_msg m = {.request = VU_BACKEND_CONFIG_CHANGE_MSG, .flags = VU_VERSION};

	assert_int_equal(send(f->r.p.back, &m, VU_HEADER, 0), VU_HEADER);
}

static void a_new_size_reaches_the_guest(void **state)
{
	struct fixture *f = *state;

	make(f);
	rig_run(&f->r, 0);
	f->space->capacity = 4096;
	resize(f);
	TURNS_UNTIL(f->r.loop, f->r.bearer.config);
	assert_int_equal(virtio_config_read(f->r.v, 0, 8), 4096);
	assert_int_equal(f->r.v->generation, 1);
}

static void a_bad_new_configuration_is_not_taken(void **state)
{
	struct fixture *f = *state;
	unsigned before;

	make(f);
	rig_run(&f->r, 0);
	before = vu_peer_asked(&f->r.p, VU_GET_CONFIG, NULL);
	f->space->blk_size = 0;
	f->space->capacity = 4096;
	resize(f);
	TURNS_UNTIL(f->r.loop, vu_peer_asked(&f->r.p, VU_GET_CONFIG, NULL) > before);
	turns(f->r.loop, 3);
	assert_int_equal(virtio_config_read(f->r.v, 0, 8), 2048);
	assert_int_equal(f->r.bearer.config, 0);
}

/* ------------------------------------------------------------- without the back end */

static void what_was_under_way_ends_with_an_error(void **state)
{
	struct fixture *f = *state;
	uint8_t *status;
	uint32_t id, len;

	make(f);
	rig_run(&f->r, 0);
	status = fake_at(&f->r.m, f->r.buf + 1024 + 512);
	*status = 0xee;
	fake_send(&f->r.r[0],
		  (struct fake_buf[]){{f->r.buf, 16, 0}, {f->r.buf + 1024, 513, FAKE_W}}, 2);
	rig_kill(&f->r);
	assert_int_equal(*status, VIRTIO_BLK_S_IOERR);
	assert_true(fake_used(&f->r.r[0], &id, &len));
	assert_int_equal(len, 0); /* what lies before the status was not written */
	assert_int_equal(f->r.failed, 0);
	fake_send(&f->r.r[0], (struct fake_buf[]){{f->r.buf, 16, 0}}, 1);
	virtio_kick(f->r.v, 0);
	assert_true(fake_used(&f->r.r[0], &id, &len));
	assert_int_equal(f->r.v->status, 15);
}

static void the_next_machine_has_the_disk_and_its_errors(void **state, bool hangs_up)
{
	struct fixture *f = *state;
	uint8_t *status;

	make(f);
	rig_run(&f->r, 0);
	if (hangs_up) {
		rig_kill(&f->r);
	} else {
		vu_wait_ms = 100;
		f->r.p.at = VU_GET_VRING_BASE;
		f->r.p.bad = BAD_STALL;
		f->r.v->ending = true;
		virtio_set_status(f->r.v, 0); /* as the transport does first */
		assert_int_equal(f->r.failed, 0);
	}
	f->r.v->ops->free(f->r.v);
	build(f);
	assert_int_equal(virtio_config_read(f->r.v, 0, 8), 2048);
	rig_run(&f->r, 0);
	status = fake_at(&f->r.m, f->r.buf + 64);
	*status = 0xee;
	fake_send(&f->r.r[0], (struct fake_buf[]){{f->r.buf, 16, 0}, {f->r.buf + 64, 1, FAKE_W}},
		  2);
	virtio_kick(f->r.v, 0);
	assert_int_equal(*status, VIRTIO_BLK_S_IOERR);
	assert_int_equal(f->r.failed, 0);
}

static void a_reboot_after_it_hung_up_leaves_errors(void **state)
{
	the_next_machine_has_the_disk_and_its_errors(state, true);
}

/* It may write where the last machine was, and that is nobody's memory any more. */
static void a_reboot_that_it_does_not_answer_leaves_errors(void **state)
{
	the_next_machine_has_the_disk_and_its_errors(state, false);
}

/* ------------------------------------------------------------- and while that lives on */

/* A request that the back end has taken; its status' place. */
static uint8_t *under_way(struct fixture *f)
{
	uint8_t *status = fake_at(&f->r.m, f->r.buf + 64);

	*status = 0xee;
	fake_send(&f->r.r[0], (struct fake_buf[]){{f->r.buf, 16, 0}, {f->r.buf + 64, 1, FAKE_W}},
		  2);
	return status;
}

static void its_requests_are_left_to_it_and_the_machine_ends(void **state)
{
	struct fixture *f = *state;
	uint8_t *status;
	uint32_t id, len;

	make(f);
	rig_run(&f->r, 0);
	status = under_way(f);
	rig_break(&f->r);
	assert_int_equal(f->r.failed, 1);
	under_way(f);
	virtio_kick(f->r.v, 0);
	turns(f->r.loop, 3);
	assert_int_equal(*status, 0xee);
	assert_false(fake_used(&f->r.r[0], &id, &len));
	assert_int_equal(f->r.failed, 1);
}

static void a_ring_that_does_not_stop_in_time_ends_the_machine(void **state)
{
	struct fixture *f = *state;

	make(f);
	rig_run(&f->r, BIT(VIRTIO_F_RING_RESET));
	vu_wait_ms = 100;
	f->r.p.at = VU_GET_VRING_BASE;
	f->r.p.bad = BAD_STALL;
	virtio_queue_reset(f->r.v, 0);
	assert_int_equal(f->r.failed, 1);
	turns(f->r.loop, 3);
	assert_int_equal(f->r.failed, 1);
}

static bool is_ended(struct vuser *d)
{
	(void)d;
	return true;
}

static bool is_not_ended(struct vuser *d)
{
	(void)d;
	return false;
}

static void one_that_was_ended_leaves_its_requests_to_us(void **state)
{
	struct fixture *f = *state;
	uint8_t *status;

	make(f);
	((struct vuser *)f->r.v)->end_backend = is_ended;
	rig_run(&f->r, 0);
	status = under_way(f);
	rig_break(&f->r);
	assert_int_equal(*status, VIRTIO_BLK_S_IOERR);
	assert_int_equal(f->r.failed, 0);
}

static void one_that_could_not_be_ended_does_not(void **state)
{
	struct fixture *f = *state;
	uint8_t *status;

	make(f);
	((struct vuser *)f->r.v)->end_backend = is_not_ended;
	rig_run(&f->r, 0);
	status = under_way(f);
	rig_break(&f->r);
	assert_int_equal(*status, 0xee);
	assert_int_equal(f->r.failed, 1);
}

/* Whether it has stopped its rings, or never had one. */
static void without_rings_it_ends_no_machine(void **state)
{
	struct fixture *f = *state;
	uint8_t *status;

	make(f);
	rig_run(&f->r, 0);
	virtio_set_status(f->r.v, 0);
	rig_break(&f->r);
	rig_run(&f->r, 0);
	status = under_way(f);
	virtio_kick(f->r.v, 0);
	assert_int_equal(*status, VIRTIO_BLK_S_IOERR);
	assert_int_equal(f->r.failed, 0);
}

static void a_start_that_it_refuses_ends_no_machine(void **state)
{
	struct fixture *f = *state;
	uint8_t *status;

	make(f);
	f->r.p.at = VU_SET_MEM_TABLE;
	f->r.p.bad = BAD_REFUSE;
	rig_run(&f->r, 0);
	turns(f->r.loop, 3);
	status = under_way(f);
	virtio_kick(f->r.v, 0);
	assert_int_equal(*status, VIRTIO_BLK_S_IOERR);
	assert_int_equal(f->r.failed, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(it_is_called_what_the_user_calls_it),
		cmocka_unit_test(what_is_wrong_with_it_names_the_option),
		T(its_configuration_is_the_peers),
		T(requests_fit_into_the_queue),
		T(requests_fit_into_every_queue),
		T(queues_are_the_fewest_of_all_who_have_a_say),
		T(a_block_size_that_is_none_is_refused),
		T(a_capacity_that_is_none_is_refused),
		T(read_only_is_for_the_back_end_to_say),
		T(a_read_only_back_end_shows),
		T(the_drivers_choice_of_cache_reaches_the_peer),
		T(nothing_else_of_the_configuration_can_be_written),
		T(a_refused_choice_is_not_shown),
		T(a_new_size_reaches_the_guest),
		T(a_bad_new_configuration_is_not_taken),
		T(what_was_under_way_ends_with_an_error),
		T(a_reboot_after_it_hung_up_leaves_errors),
		T(a_reboot_that_it_does_not_answer_leaves_errors),
		T(its_requests_are_left_to_it_and_the_machine_ends),
		T(a_ring_that_does_not_stop_in_time_ends_the_machine),
		T(one_that_was_ended_leaves_its_requests_to_us),
		T(one_that_could_not_be_ended_does_not),
		T(without_rings_it_ends_no_machine),
		T(a_start_that_it_refuses_ends_no_machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
