/* SPDX-License-Identifier: Apache-2.0 */
/* The link between a device's queues and a back end's rings. */
#include <fcntl.h>

#include "tests/unit/vhost_rig.h"
#include "vmm/evfd.h"

/* ------------------------------------------------------------- start and stop */

static void start_hands_over_features_memory_and_rings_and_then_lets_it_run(void **state)
{
	struct fixture *f = *state;

	run(f);
	assert_string_equal(diary(f), "features memory start0 start1 run ");
	assert_int_equal(f->b.features, f->v.acked);
	assert_ptr_equal(f->b.gm, f->m.gm);
	for (unsigned i = 0; i < RINGS; i++) {
		const struct fake_ring *r = &f->r[FIRST + i];
		const struct vhost_ring *got = &f->b.ring[i];

		assert_int_equal(got->size, r->size);
		assert_int_equal(got->base, 0);
		assert_ptr_equal(got->desc, fake_at(&f->m, r->desc));
		assert_ptr_equal(got->avail, fake_at(&f->m, r->avail));
		assert_ptr_equal(got->used, fake_at(&f->m, r->used));
		assert_int_equal(got->used_gpa, r->used);
		assert_int_equal(got->kick, f->v.queue[FIRST + i].kick_fd);
		assert_int_equal(got->call, f->fd[FIRST + i]);
	}
}

static void kicks_of_linked_queues_are_the_back_ends(void **state)
{
	struct fixture *f = *state;

	run(f);
	for (unsigned q = 0; q < QUEUES; q++)
		assert_int_equal(lent(f, q), q == 1 || q == 2);
	for (unsigned q = 0; q < QUEUES; q++)
		eventfd_write(f->v.queue[q].kick_fd, 1);
	turn(f->loop);
	assert_int_equal(f->kicks, 2);
}

/* Of a transport that has no eventfd for it in KVM. */
static void a_kick_that_came_as_a_write_reaches_the_back_end(void **state)
{
	struct fixture *f = *state;

	run(f);
	for (unsigned i = 0; i < RINGS; i++)
		count(f->b.ring[i].kick);
	virtio_kick(&f->v, FIRST + 1);
	assert_int_equal(count(f->b.ring[0].kick), 0);
	assert_int_equal(count(f->b.ring[1].kick), 1);
	/* A queue of our own, and one that the back end has not got: nobody is to be woken again.
	 */
	virtio_kick(&f->v, 0);
	assert_int_equal(count(f->v.queue[0].kick_fd), 0);
	vhost_link_queue_stop(&f->link, FIRST);
	count(f->v.queue[FIRST].kick_fd);
	virtio_kick(&f->v, FIRST);
	assert_int_equal(count(f->v.queue[FIRST].kick_fd), 0);
}

static void a_ring_that_has_started_is_kicked_once(void **state)
{
	struct fixture *f = *state;

	run(f);
	assert_int_equal(count(f->b.ring[0].kick), 1);
	assert_int_equal(count(f->b.ring[1].kick), 1);
	virtio_queue_reset(&f->v, 1);
	fake_enable(&f->v, 1, &f->r[1]);
	assert_int_equal(count(f->b.ring[0].kick), 1);
	assert_int_equal(count(f->b.ring[1].kick), 0);
}

static void queues_that_are_not_enabled_are_left_out(void **state)
{
	struct fixture *f = *state;

	assert_true(fake_negotiate(&f->v, 0));
	fake_enable(&f->v, 2, &f->r[2]);
	fake_driver_ok(&f->v);
	assert_string_equal(diary(f), "features memory start1 run ");
	assert_false(lent(f, 1));
	assert_true(lent(f, 2));
}

static void a_reset_stops_all_and_gets_the_kicks_back(void **state)
{
	struct fixture *f = *state;

	run(f);
	diary(f);
	virtio_set_status(&f->v, 0);
	assert_string_equal(diary(f), "halt stop0 stop1 ");
	for (unsigned q = 0; q < QUEUES; q++)
		assert_false(lent(f, q));
	turn(f->loop);
	assert_int_equal(f->kicks, 0);
	run(f);
	assert_string_equal(diary(f), "features memory start0 start1 run ");
}

static void a_back_end_that_is_gone_does_not_keep_the_queues(void **state)
{
	static const char *const all[] = {"halt", "stop0", "stop1"};
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++) {
		run(f);
		f->b.fails = all[i];
		f->b.diary[0] = '\0';
		virtio_set_status(&f->v, 0);
		f->b.runs = false;
		assert_string_equal(diary(f), "halt stop0 stop1 ");
		for (unsigned q = 0; q < QUEUES; q++)
			assert_false(lent(f, q));
		f->b.fails = NULL;
	}
}

static void a_failure_half_way_leaves_nothing_started(void **state)
{
	static const struct {
		const char *fails, *diary;
	} all[] = {
		{"features", "features "},
		{"memory", "features memory "},
		{"start0", "features memory start0 "},
		{"start1", "features memory start0 start1 stop0 "},
		{"run", "features memory start0 start1 run stop0 stop1 "},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		f->b.fails = all[i].fails;
		negotiate(f);
		fake_driver_ok(&f->v);
		assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
		assert_string_equal(diary(f), all[i].diary);
		for (unsigned q = 0; q < QUEUES; q++)
			assert_false(lent(f, q));
		virtio_set_status(&f->v, 0);
		assert_string_equal(diary(f), "");
	}
	f->b.fails = NULL;
	run(f);
}

static void more_rings_than_a_device_can_have_are_refused(void **state)
{
	struct fixture *f = *state;
	struct vhost_link *l = calloc(1, sizeof(*l));

	f->b.h.nrings = VIRTIO_QUEUES_MAX;
	assert_int_equal(vhost_link_init(l, &f->v, &f->b.h, 1), -E2BIG);
	vhost_link_fini(l);
	f->b.h.nrings = UINT32_MAX;
	assert_int_equal(vhost_link_init(l, &f->v, &f->b.h, 1), -E2BIG);
	vhost_link_fini(l);
	free(l);
	f->b.h.nrings = RINGS;
}

static void ring_features_the_back_end_lacks_are_not_offered(void **state)
{
	struct fixture *f = *state;

	f->b.h.features &= ~(1ull << VIRTIO_F_EVENT_IDX);
	vhost_limit(&f->v, &f->b.h);
	assert_int_equal(f->v.offered, 1ull << OWN_BIT | 1ull << VIRTIO_F_INDIRECT_DESC |
					       1ull << VIRTIO_F_VERSION_1 |
					       1ull << VIRTIO_F_RING_RESET);
}

/* ------------------------------------------------------------- one queue */

static void one_queue_stops_and_starts_alone(void **state)
{
	struct fixture *f = *state;

	run(f);
	diary(f);
	virtio_queue_reset(&f->v, 2);
	assert_string_equal(diary(f), "stop1 ");
	assert_true(lent(f, 1));
	assert_false(lent(f, 2));
	virtio_queue_reset(&f->v, 2);
	assert_string_equal(diary(f), "");
	fake_enable(&f->v, 2, &f->r[2]);
	assert_string_equal(diary(f), "start1 ");
	assert_true(lent(f, 2));
	assert_int_equal(vhost_link_queue_start(&f->link, 2), 0);
	assert_string_equal(diary(f), "");
	virtio_queue_reset(&f->v, 1);
	virtio_set_status(&f->v, 0);
	assert_string_equal(diary(f), "stop0 halt stop1 ");
}

static void queues_outside_of_the_link_are_left_alone(void **state)
{
	struct fixture *f = *state;

	run(f);
	diary(f);
	for (unsigned q = 0; q < QUEUES; q += QUEUES - 1) {
		virtio_queue_reset(&f->v, q);
		fake_enable(&f->v, q, &f->r[q]);
		f->fd[q] = f->other;
		virtio_rewired(&f->v, q);
		f->fd[q] = -1;
	}
	assert_string_equal(diary(f), "");
}

static void a_queue_that_does_not_come_back_needs_reset(void **state)
{
	struct fixture *f = *state;

	run(f);
	virtio_queue_reset(&f->v, 1);
	f->b.fails = "start0";
	fake_enable(&f->v, 1, &f->r[1]);
	assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
	assert_false(lent(f, 1));
	assert_true(lent(f, 2));
}

/* ------------------------------------------------------------- interrupts */

static void without_an_eventfd_of_the_transport_interrupts_are_passed_on(void **state)
{
	struct fixture *f = *state;

	no_fd(f, 2);
	run(f);
	assert_int_equal(f->b.ring[0].call, f->fd[1]);
	eventfd_write(f->b.ring[1].call, 1);
	eventfd_write(f->b.ring[1].call, 1);
	turn(f->loop);
	turn(f->loop);
	assert_int_equal(f->bearer.queue[2], 1);
	assert_int_equal(f->bearer.queue[1], 0);
}

static void what_a_ring_of_an_earlier_life_raised_is_forgotten(void **state)
{
	struct fixture *f = *state;

	no_fd(f, 1);
	run(f);
	eventfd_write(f->b.ring[0].call, 1);
	eventfd_write(f->b.ring[0].err, 1);
	virtio_set_status(&f->v, 0);
	run(f);
	turn(f->loop);
	assert_int_equal(f->bearer.queue[1], 0);
	assert_int_equal(f->v.status, 15);
}

static void a_new_eventfd_reaches_the_back_end_and_no_interrupt_is_lost(void **state)
{
	struct fixture *f = *state;
	int relay;

	no_fd(f, 1);
	run(f);
	relay = f->b.ring[0].call;
	diary(f);
	/* Raised, but the loop had no turn yet. */
	eventfd_write(relay, 1);
	f->fd[1] = event();
	virtio_rewired(&f->v, 1);
	assert_string_equal(diary(f), "call0 ");
	assert_int_equal(f->b.ring[0].call, f->fd[1]);
	assert_int_equal(f->bearer.queue[1], 1);
	turn(f->loop);
	assert_int_equal(f->bearer.queue[1], 1);
	/* And away again: MSI-X off. */
	no_fd(f, 1);
	virtio_rewired(&f->v, 1);
	assert_string_equal(diary(f), "call0 ");
	assert_int_equal(f->b.ring[0].call, relay);
	assert_int_equal(f->bearer.queue[1], 2);
	eventfd_write(relay, 1);
	turn(f->loop);
	assert_int_equal(f->bearer.queue[1], 3);
}

/* The back end holds all of them, and may have done so with each. */
static void eventfds_that_wait_or_are_full_hold_nobody_up(void **state)
{
	struct fixture *f = *state;
	const struct vhost_ring *r = &f->b.ring[0];

	assert_int_equal(evfd_prepare(NULL), 0);
	no_fd(f, 1);
	run(f);
	for (unsigned i = 0; i < 3; i++) {
		int fd = (const int[]){r->kick, r->call, r->err}[i];

		assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
		assert_int_equal(eventfd_write(fd, UINT64_MAX - 2), 0);
	}
	alarm(60);
	virtio_rekick(&f->v, 1);
	virtio_rekick(&f->v, 1);
	turns(f->loop, 3);
	assert_int_equal(f->bearer.queue[1], 1);
	assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
	virtio_set_status(&f->v, 0);
	virtio_rekick(&f->v, 1);
	turns(f->loop, 3);
	run(f);
	alarm(0);
}

static void the_same_eventfd_is_no_news(void **state)
{
	struct fixture *f = *state;

	run(f);
	diary(f);
	virtio_rewired(&f->v, 1);
	assert_string_equal(diary(f), "");
	assert_int_equal(f->bearer.queue[1], 0);
}

static void rewiring_a_queue_that_is_stopped_waits_for_its_start(void **state)
{
	struct fixture *f = *state;

	run(f);
	virtio_queue_reset(&f->v, 1);
	diary(f);
	close(f->fd[1]);
	f->fd[1] = event();
	virtio_rewired(&f->v, 1);
	vhost_link_rewired(&f->link, 1);
	assert_string_equal(diary(f), "");
	fake_enable(&f->v, 1, &f->r[1]);
	assert_string_equal(diary(f), "start0 ");
	assert_int_equal(f->b.ring[0].call, f->fd[1]);
}

static void rewiring_that_fails_needs_reset(void **state)
{
	struct fixture *f = *state;

	run(f);
	f->b.fails = "call1";
	no_fd(f, 2);
	virtio_rewired(&f->v, 2);
	assert_true(f->v.status & VIRTIO_S_NEEDS_RESET);
}

/* ------------------------------------------------------------- broken rings */

static void a_ring_the_back_end_gives_up_needs_reset_and_tells_the_driver_once(void **state)
{
	struct fixture *f = *state;

	run(f);
	eventfd_write(f->b.ring[1].err, 1);
	turn(f->loop);
	assert_int_equal(f->v.status, 15 | VIRTIO_S_NEEDS_RESET);
	assert_int_equal(f->bearer.config, 1);
	eventfd_write(f->b.ring[1].err, 1);
	eventfd_write(f->b.ring[0].err, 1);
	turn(f->loop);
	assert_int_equal(f->bearer.config, 1);
	virtio_set_status(&f->v, 0);
	eventfd_write(f->b.ring[0].err, 1);
	turn(f->loop);
	assert_int_equal(f->v.status, 0);
	run(f);
}

/* ------------------------------------------------------------- hostile */

/* The back end's functions assert that each ring is started and stopped in turn. */
static void look(struct fixture *f)
{
	for (unsigned i = 0; i < RINGS; i++) {
		bool live = f->v.running && vq_live(virtio_vq(&f->v, FIRST + i));

		assert_int_equal(f->b.started[i], live);
		assert_int_equal(lent(f, FIRST + i), live);
	}
	assert_int_equal(f->b.runs, f->v.running);
	assert_false(lent(f, 0));
}

static void step(struct fixture *f, unsigned dice)
{
	unsigned q = dice / 16 % (QUEUES + 1);

	switch (dice % 16) {
	case 0:
		virtio_set_status(&f->v, 0);
		break;
	case 1:
		fake_negotiate(&f->v, 1ull << VIRTIO_F_RING_RESET);
		break;
	case 2:
	case 3:
		fake_driver_ok(&f->v);
		break;
	case 4:
	case 5:
		virtio_queue_reset(&f->v, q);
		break;
	case 6:
		virtio_queue_disable(&f->v, q);
		break;
	case 7:
		f->b.fails = dice & 256 ? "start1" : NULL;
		break;
	case 8:
		if (q < QUEUES) {
			int fd = f->fd[q];

			f->fd[q] = f->other;
			f->other = fd;
			virtio_rewired(&f->v, q);
		}
		break;
	case 9:
		virtio_kick(&f->v, q);
		turn(f->loop);
		break;
	default:
		if (q < QUEUES && !f->v.queue[q].enabled)
			fake_enable(&f->v, q, &f->r[q]);
	}
}

static void any_order_of_resets_and_enables_keeps_rings_and_kicks_together(void **state)
{
	struct fixture *f = *state;
	uint32_t seed = 1;
	unsigned ran = 0;

	for (unsigned i = 0; i < 50000; i++) {
		seed = seed * 1664525 + 1013904223;
		step(f, seed >> 12);
		ran += f->v.running;
		f->b.diary[0] = '\0';
		look(f);
	}
	assert_true(ran > 5000);
	f->b.fails = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(start_hands_over_features_memory_and_rings_and_then_lets_it_run),
		T(kicks_of_linked_queues_are_the_back_ends),
		T(a_kick_that_came_as_a_write_reaches_the_back_end),
		T(a_ring_that_has_started_is_kicked_once),
		T(queues_that_are_not_enabled_are_left_out),
		T(a_reset_stops_all_and_gets_the_kicks_back),
		T(a_back_end_that_is_gone_does_not_keep_the_queues),
		T(a_failure_half_way_leaves_nothing_started),
		T(more_rings_than_a_device_can_have_are_refused),
		T(ring_features_the_back_end_lacks_are_not_offered),
		T(one_queue_stops_and_starts_alone),
		T(queues_outside_of_the_link_are_left_alone),
		T(a_queue_that_does_not_come_back_needs_reset),
		T(without_an_eventfd_of_the_transport_interrupts_are_passed_on),
		T(what_a_ring_of_an_earlier_life_raised_is_forgotten),
		T(a_new_eventfd_reaches_the_back_end_and_no_interrupt_is_lost),
		T(eventfds_that_wait_or_are_full_hold_nobody_up),
		T(the_same_eventfd_is_no_news),
		T(rewiring_a_queue_that_is_stopped_waits_for_its_start),
		T(rewiring_that_fails_needs_reset),
		T(a_ring_the_back_end_gives_up_needs_reset_and_tells_the_driver_once),
		T(any_order_of_resets_and_enables_keeps_rings_and_kicks_together),
	};

	return cmocka_run_group_tests_name("vhost", tests, NULL, NULL);
}
