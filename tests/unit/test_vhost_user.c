/* SPDX-License-Identifier: Apache-2.0 */
/* The vhost-user front end with a peer that behaves: what it asks, and in which order. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/un.h>

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
	unsigned died, changed, files;
	bool again; /* the peer says it once more while it is asked, and takes its time */
};

static void died(void *arg)
{
	((struct fixture *)arg)->died++;
}

static void back_says(struct fixture *f, uint32_t request, uint32_t flags, uint32_t size)
{
	struct vu_msg m = {.request = request, .flags = VU_VERSION | flags, .size = size};

	assert_int_equal(send(f->p.back, &m, VU_HEADER + size, 0), VU_HEADER + size);
}

static void changed(void *arg)
{
	struct fixture *f = arg;
	char c[16];

	if (!f->changed++ && f->again) {
		back_says(f, VU_BACKEND_CONFIG_CHANGE_MSG, 0, 0);
		usleep(5000);
		vhost_user_get_config(f->u, c, sizeof(c), NULL);
	}
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

static void adopt(struct fixture *f, uint64_t want)
{
	struct vhost_user_owner o = {died, changed, f, "fs0"};
	struct err e = {0};

	if (vhost_user_adopt(&f->u, vu_peer_start(&f->p), want, &e))
		fail_msg("%s", e.text);
	assert_int_equal(vhost_user_bind(f->u, f->loop, &o), 0);
	/* Not all is acknowledged: with an answer to this one it has seen the rest. */
	if (f->u->protocol & 1ull << VU_PROTOCOL_F_MQ && f->p.queues)
		assert_true(vhost_user_queues(f->u) > 0);
}

/* Everything that was opened is closed. */
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

/* ------------------------------------------------------------- negotiation */

static void features_are_the_peers_without_the_protocols_own(void **state)
{
	struct fixture *f = *state;

	adopt(f, 0);
	assert_int_equal(vhost_user_vhost(f->u)->features, 3ull << 28 | 1ull << 32);
	assert_int_equal(vu_peer_asked(&f->p, VU_SET_OWNER, NULL), 1);
}

static void a_device_without_configuration_takes_no_channel(void **state)
{
	struct fixture *f = *state;
	struct vu_note n;

	adopt(f, 0);
	assert_int_equal(vu_peer_asked(&f->p, VU_SET_PROTOCOL_FEATURES, &n), 1);
	assert_int_equal(n.u64, 1 << VU_PROTOCOL_F_MQ | 1 << VU_PROTOCOL_F_REPLY_ACK);
	assert_int_equal(vu_peer_asked(&f->p, VU_SET_BACKEND_REQ_FD, NULL), 0);
}

static void a_device_with_configuration_gives_a_channel(void **state)
{
	struct fixture *f = *state;
	struct vu_note n;

	adopt(f, VHOST_USER_NEEDS_CONFIG);
	assert_int_equal(vu_peer_asked(&f->p, VU_SET_BACKEND_REQ_FD, &n), 1);
	assert_int_equal(n.nfds, 1);
}

static void a_peer_without_protocol_features_serves_a_device_that_needs_none(void **state)
{
	struct fixture *f = *state;
	struct vhost_ring r = {.size = 8, .kick = 0, .call = 0, .err = -1};

	f->p.features &= ~(1ull << VU_F_PROTOCOL_FEATURES);
	adopt(f, 0);
	assert_int_equal(vu_peer_asked(&f->p, VU_GET_PROTOCOL_FEATURES, NULL), 0);
	assert_int_equal(vhost_user_queues(f->u), -ENOTSUP);
	assert_int_equal(f->u->h.ops->ring_start(&f->u->h, 0, &r), 0);
	assert_int_equal(f->u->h.ops->ring_stop(&f->u->h, 0, &r.base), 0);
	/* Rings are enabled from the start then. */
	assert_int_equal(vu_peer_asked(&f->p, VU_SET_VRING_ENABLE, NULL), 0);
}

static void negotiated_features_are_masked_and_keep_the_protocol(void **state)
{
	struct fixture *f = *state;
	struct vu_note n;

	adopt(f, 0);
	assert_int_equal(f->u->h.ops->set_features(&f->u->h, 1ull << 32 | 1ull << 40), 0);
	assert_int_equal(vu_peer_asked(&f->p, VU_SET_FEATURES, &n), 1);
	assert_int_equal(n.u64, 1ull << 32 | 1ull << VU_F_PROTOCOL_FEATURES);
	assert_int_equal(n.flags, VU_VERSION | VU_NEED_REPLY);
}

/* ------------------------------------------------------------- memory and rings */

static void memory_goes_over_with_a_descriptor_for_each_region(void **state)
{
	struct fixture *f = *state;
	struct gmem *gm;
	struct vu_note n;

	adopt(f, 0);
	assert_int_equal(gmem_new(&gm, NULL), 0);
	gmem_share(gm);
	assert_int_equal(gmem_add(gm, gpa(0), 1 << 20, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(4ull << 30), 2 << 20, NULL), 0);
	assert_int_equal(f->u->h.ops->set_memory(&f->u->h, gm), 0);
	assert_int_equal(vu_peer_asked(&f->p, VU_SET_MEM_TABLE, &n), 1);
	assert_int_equal(n.nfds, 2);
	assert_int_equal(n.size, 8 + 2 * 32);
	assert_int_equal(f->p.mem.mem.n, 2);
	assert_int_equal(f->p.mem.mem.region[1].gpa, 4ull << 30);
	assert_int_equal(f->p.mem.mem.region[1].size, 2 << 20);
	assert_int_equal(f->p.mem.mem.region[1].offset, 0);
	gmem_free(gm);
}

/* A peer that gets the next machine's memory looks its old rings up in it. */
static void user_addresses_are_the_same_in_each_machine(void **state)
{
	struct fixture *f = *state;
	struct vhost_ring r = {.size = 8, .kick = 0, .call = 0, .err = -1};
	struct vu_region before = {0};
	struct gmem *gm[2];

	adopt(f, 0);
	for (unsigned i = 0; i < 2; i++) {
		size_t n;

		assert_int_equal(gmem_new(&gm[i], NULL), 0);
		gmem_share(gm[i]);
		assert_int_equal(gmem_add(gm[i], gpa(1 << 20), 1 << 20, NULL), 0);
		assert_int_equal(f->u->h.ops->set_memory(&f->u->h, gm[i]), 0);
		if (i)
			assert_int_equal(f->p.mem.mem.region[0].user, before.user);
		before = f->p.mem.mem.region[0];
		r.desc = (char *)gmem_regions(gm[i], &n)->host + 0x1230;
		r.avail = (char *)r.desc + 0x100;
		r.used = (char *)r.desc + 0x200;
		assert_int_equal(f->u->h.ops->ring_start(&f->u->h, 0, &r), 0);
		assert_int_equal(f->p.addr.addr.desc, before.user + 0x1230);
		assert_int_equal(f->p.addr.addr.avail, before.user + 0x1330);
		assert_int_equal(f->p.addr.addr.used, before.user + 0x1430);
	}
	gmem_free(gm[0]);
	gmem_free(gm[1]);
}

static void memory_that_is_not_shared_is_refused_here(void **state)
{
	static uint8_t ram[4096] __attribute__((aligned(4096)));
	struct fixture *f = *state;
	struct gmem *gm;

	adopt(f, 0);
	assert_int_equal(gmem_new(&gm, NULL), 0);
	assert_int_equal(gmem_add_fixed(gm, gpa(0), sizeof(ram), ram, NULL), 0);
	assert_int_equal(f->u->h.ops->set_memory(&f->u->h, gm), -EINVAL);
	assert_int_equal(vu_peer_asked(&f->p, VU_SET_MEM_TABLE, NULL), 0);
	assert_false(vhost_user_dead(f->u));
	gmem_free(gm);
}

static void a_ring_starts_with_its_kick_and_is_enabled(void **state)
{
	static const uint32_t order[] = {VU_SET_VRING_NUM,   VU_SET_VRING_BASE, VU_SET_VRING_ADDR,
					 VU_SET_VRING_ERR,   VU_SET_VRING_CALL, VU_SET_VRING_KICK,
					 VU_SET_VRING_ENABLE};
	struct fixture *f = *state;
	int fd = eventfd(0, EFD_CLOEXEC);
	struct vhost_ring r = {.size = 64, .base = 3, .kick = fd, .call = fd, .err = -1};
	unsigned from;
	uint16_t base;

	adopt(f, 0);
	from = f->p.notes;
	assert_int_equal(f->u->h.ops->ring_start(&f->u->h, 1, &r), 0);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(f->p.note[from + i].request, order[i]);
	assert_int_equal(f->p.note[from].u64, 64ull << 32 | 1);
	assert_int_equal(f->p.note[from + 1].u64, 3ull << 32 | 1);
	assert_int_equal(f->p.note[from + 3].u64, VU_VRING_NOFD | 1);
	assert_int_equal(f->p.note[from + 3].nfds, 0);
	assert_int_equal(f->p.note[from + 5].nfds, 1);
	assert_int_equal(f->u->h.ops->ring_stop(&f->u->h, 1, &base), 0);
	assert_int_equal(base, 7);
	close(fd);
}

static void queues_are_the_peers_word_but_no_more_than_there_can_be(void **state)
{
	struct fixture *f = *state;

	f->p.queues = 1ull << 40;
	adopt(f, 0);
	assert_int_equal(vhost_user_queues(f->u), VIRTIO_QUEUES_MAX);
	f->p.queues = 3;
	assert_int_equal(vhost_user_queues(f->u), 3);
	f->p.queues = 0;
	assert_int_equal(vhost_user_queues(f->u), -ENOTCONN);
}

/* ------------------------------------------------------------- configuration */

static void configuration_is_read_and_written(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[60], nine = 9;

	memset(f->p.config, 0x5a, sizeof(f->p.config));
	adopt(f, VHOST_USER_NEEDS_CONFIG);
	assert_int_equal(vhost_user_get_config(f->u, buf, sizeof(buf), NULL), 0);
	assert_int_equal(buf[0] & buf[59], 0x5a);
	assert_int_equal(vhost_user_set_config(f->u, 32, &nine, 1), 0);
	assert_int_equal(vhost_user_get_config(f->u, buf, sizeof(buf), NULL), 0);
	assert_int_equal(buf[32], 9);
	assert_int_equal(buf[33], 0x5a);
}

static void a_refused_configuration_is_no_end(void **state)
{
	struct fixture *f = *state;
	struct err e = {0};
	uint8_t buf[60];

	f->p.bad = BAD_REFUSE;
	f->p.at = VU_GET_CONFIG;
	adopt(f, VHOST_USER_NEEDS_CONFIG);
	assert_int_equal(vhost_user_get_config(f->u, buf, sizeof(buf), &e), -EREMOTEIO);
	assert_string_equal(e.text, "vhost-user: GET_CONFIG: it refused");
	f->p.at = VU_SET_CONFIG;
	assert_int_equal(vhost_user_set_config(f->u, 0, buf, 1), -EREMOTEIO);
	assert_false(vhost_user_dead(f->u));
}

/* ------------------------------------------------------------- the back end's channel */

static void a_change_is_told_of_on_the_loop_and_acknowledged(void **state)
{
	struct fixture *f = *state;
	struct vu_msg m;

	adopt(f, VHOST_USER_NEEDS_CONFIG);
	back_says(f, VU_BACKEND_CONFIG_CHANGE_MSG, VU_NEED_REPLY, 0);
	TURNS_UNTIL(f->loop, f->changed);
	assert_int_equal(f->changed, 1);
	assert_int_equal(recv(f->p.back, &m, sizeof(m), 0), VU_HEADER + 8);
	assert_int_equal(m.request, VU_BACKEND_CONFIG_CHANGE_MSG);
	assert_int_equal(m.flags, VU_VERSION | VU_REPLY);
	assert_int_equal(m.u64, 0);
}

static void a_flood_of_changes_is_taken_in_turns(void **state)
{
	struct fixture *f = *state;

	adopt(f, VHOST_USER_NEEDS_CONFIG);
	for (unsigned i = 0; i < 100; i++)
		back_says(f, VU_BACKEND_CONFIG_CHANGE_MSG, 0, 0);
	turn(f->loop);
	assert_true(f->changed <= 1);
	TURNS_UNTIL(f->loop, f->changed >= 100 / 8);
	assert_true(f->changed <= 100);
	assert_false(vhost_user_dead(f->u));
}

static void a_change_during_the_last_ones_questions_waits_as_long(void **state)
{
	struct fixture *f = *state;

	adopt(f, VHOST_USER_NEEDS_CONFIG);
	f->again = true;
	back_says(f, VU_BACKEND_CONFIG_CHANGE_MSG, 0, 0);
	TURNS_UNTIL(f->loop, f->changed);
	while (!f->u->changed.loop && f->changed == 1) /* its answer may have been read first */
		turn(f->loop);
	assert_int_equal(f->changed, 1);
	assert_true(f->u->changed.due >= f->u->calm);
	TURNS_UNTIL(f->loop, f->changed > 1);
}

static void a_request_that_was_not_negotiated_is_the_end(void **state)
{
	struct fixture *f = *state;

	adopt(f, VHOST_USER_NEEDS_CONFIG);
	back_says(f, 3, 0, 0);
	TURNS_UNTIL(f->loop, f->died);
	assert_true(vhost_user_dead(f->u));
}

static void a_channel_that_nobody_reads_is_the_end(void **state)
{
	struct fixture *f = *state;

	adopt(f, VHOST_USER_NEEDS_CONFIG);
	for (unsigned i = 0; i < 100000 && !vhost_user_dead(f->u); i++) {
		back_says(f, VU_BACKEND_CONFIG_CHANGE_MSG, VU_NEED_REPLY, 0);
		turn(f->loop);
	}
	assert_true(vhost_user_dead(f->u));
}

/* What it says last does not make its end ours. */
static void a_peer_that_dies_after_it_spoke_has_gone(void **state)
{
	struct fixture *f = *state;
	struct vhost_ring r = {.size = 64, .kick = STDOUT_FILENO, .call = STDOUT_FILENO, .err = -1};

	adopt(f, VHOST_USER_NEEDS_CONFIG);
	assert_int_equal(f->u->h.ops->ring_start(&f->u->h, 1, &r), 0);
	turns(f->loop, 2);
	back_says(f, VU_BACKEND_CONFIG_CHANGE_MSG, VU_NEED_REPLY, 0);
	close(f->p.back);
	f->p.back = -1;
	shutdown(f->p.fd, SHUT_RDWR);
	TURNS_UNTIL(f->loop, f->died);
	assert_string_equal(f->u->reason, "it closed the connection");
	assert_false(vhost_user_may_write(f->u));
}

static void a_closed_channel_is_no_end(void **state)
{
	struct fixture *f = *state;

	adopt(f, VHOST_USER_NEEDS_CONFIG);
	close(f->p.back);
	f->p.back = -1;
	turns(f->loop, 3);
	assert_false(vhost_user_dead(f->u));
	assert_int_equal(vhost_user_queues(f->u), 2);
}

/* ------------------------------------------------------------- connecting */

struct once {
	struct vu_peer *p;
	int s;
};

static void *accept_one(void *arg)
{
	struct once *o = arg;

	vu_peer_on(o->p, accept4(o->s, NULL, NULL, SOCK_CLOEXEC));
	return NULL;
}

static void it_connects_exactly_once(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/mvm-test-XXXXXX";
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct err e = {0};
	pthread_t t;

	assert_non_null(mkdtemp(dir));
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/s", dir);
	assert_int_equal(vhost_user_connect(&f->u, sa.sun_path, 0, &e), -ENOENT);
	assert_non_null(strstr(e.text, sa.sun_path));
	close(creat(sa.sun_path, 0600));
	assert_int_equal(vhost_user_connect(&f->u, sa.sun_path, 0, &e), -ECONNREFUSED);
	assert_non_null(strstr(e.text, "/s: is no socket"));
	unlink(sa.sun_path);
	assert_int_equal(bind(s, (void *)&sa, sizeof(sa)), 0);
	assert_int_equal(vhost_user_connect(&f->u, sa.sun_path, 0, &e), -ECONNREFUSED);
	assert_non_null(strstr(e.text, "/s: nobody listens there"));
	assert_int_equal(listen(s, 4), 0);
	/* The back end's first peer alone is served: that must be the one that negotiates. */
	struct once once = {&f->p, s};

	assert_int_equal(pthread_create(&t, NULL, accept_one, &once), 0);
	assert_int_equal(vhost_user_connect(&f->u, sa.sun_path, 0, &e), 0);
	pthread_join(t, NULL);
	assert_int_equal(poll(&(struct pollfd){.fd = s, .events = POLLIN}, 1, 0), 0);
	close(s);
	unlink(sa.sun_path);
	rmdir(dir);
}

static void an_end_between_two_machines_is_told_the_second(void **state)
{
	struct fixture *f = *state;
	struct vhost_user_owner o = {died, changed, f, "fs0"};
	int out[2], err = dup(2);
	char said[300] = "";

	adopt(f, 0);
	vhost_user_bind(f->u, NULL, NULL);
	shutdown(f->p.fd, SHUT_RDWR);
	assert_int_equal(vhost_user_queues(f->u), -ENOTCONN);
	assert_int_equal(f->died, 0);
	/* Its owner and the log: this guest's disk or share gives errors alone. */
	assert_int_equal(pipe(out), 0);
	dup2(out[1], 2);
	log_set_level(LOG_ERROR);
	assert_int_equal(vhost_user_bind(f->u, f->loop, &o), 0);
	log_set_level(-1);
	dup2(err, 2);
	close(err);
	close(out[1]);
	said[read(out[0], said, sizeof(said) - 1)] = '\0';
	close(out[0]);
	assert_non_null(strstr(said, "mvm: fs0: vhost-user: "));
	assert_non_null(strstr(said, "; the device is dead\n"));
	turns(f->loop, 2);
	assert_int_equal(f->died, 1);
	f->files++; /* the log's own, from its first line on */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(features_are_the_peers_without_the_protocols_own),
		T(a_device_without_configuration_takes_no_channel),
		T(a_device_with_configuration_gives_a_channel),
		T(a_peer_without_protocol_features_serves_a_device_that_needs_none),
		T(negotiated_features_are_masked_and_keep_the_protocol),
		T(memory_goes_over_with_a_descriptor_for_each_region),
		T(user_addresses_are_the_same_in_each_machine),
		T(memory_that_is_not_shared_is_refused_here),
		T(a_ring_starts_with_its_kick_and_is_enabled),
		T(queues_are_the_peers_word_but_no_more_than_there_can_be),
		T(configuration_is_read_and_written),
		T(a_refused_configuration_is_no_end),
		T(a_change_is_told_of_on_the_loop_and_acknowledged),
		T(a_flood_of_changes_is_taken_in_turns),
		T(a_change_during_the_last_ones_questions_waits_as_long),
		T(a_request_that_was_not_negotiated_is_the_end),
		T(a_channel_that_nobody_reads_is_the_end),
		T(a_peer_that_dies_after_it_spoke_has_gone),
		T(a_closed_channel_is_no_end),
		T(it_connects_exactly_once),
		T(an_end_between_two_machines_is_told_the_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
