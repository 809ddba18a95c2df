/* SPDX-License-Identifier: Apache-2.0 */
/* The MMIO transport as a driver sees it: through the bus, register by register. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "virtio/transport.h"
#include "vmm/log.h"

#define MMIO 0xf0000000ull

struct fixture {
	struct virtio v;
	struct fake_ram m;
	struct fake_ring r;
	struct loop *loop;
	struct bus *bus;
	struct irq *irq; /* the transport's */
	struct vmmio *t;
	unsigned starts, stops, queue_stops, kicks, last_kick;
};

static struct fixture *of(struct virtio *v)
{
	return (struct fixture *)((char *)v - offsetof(struct fixture, v));
}

static int dev_start(struct virtio *v)
{
	of(v)->starts++;
	return 0;
}

static void dev_stop(struct virtio *v)
{
	of(v)->stops++;
}

static int dev_queue_start(struct virtio *v, unsigned q)
{
	(void)v;
	(void)q;
	return 0;
}

static void dev_queue_stop(struct virtio *v, unsigned q)
{
	(void)q;
	of(v)->queue_stops++;
}

static void dev_kick(struct virtio *v, unsigned q)
{
	of(v)->kicks++;
	of(v)->last_kick = q;
}

static void dev_config_write(struct virtio *v, unsigned off, unsigned size, uint64_t val)
{
	for (unsigned i = 0; i < size; i++)
		v->config[off + i] = (uint8_t)(val >> (8 * i));
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_CONSOLE,
	.start = dev_start,
	.stop = dev_stop,
	.queue_start = dev_queue_start,
	.queue_stop = dev_queue_stop,
	.kick = dev_kick,
	.config_write = dev_config_write,
};

static struct vmmio_env env_at(const struct fixture *f, uint64_t base, struct irq *irq)
{
	return (struct vmmio_env){.bus = f->bus, .base = base, .irq = irq};
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct vmmio_env env;

	log_set_level(LOG_ERROR);
	fake_ram_init(&f->m, FAKE_RAM);
	fake_ring_init(&f->r, &f->m, 16);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	assert_int_equal(bus_new(&f->bus, NULL), 0);
	assert_int_equal(irq_fake_new(&f->irq, NULL), 0);
	f->v.config_len = 12;
	for (uint8_t i = 0; i < 12; i++)
		f->v.config[i] = i + 1;
	assert_int_equal(virtio_init(&f->v, &ops, "test", f->m.gm, f->loop), 0);
	assert_int_equal(virtio_add_queue(&f->v, 16), 0);
	assert_int_equal(virtio_add_queue(&f->v, 64), 0);
	env = env_at(f, MMIO, f->irq);
	assert_int_equal(vmmio_new(&f->t, &f->v, &env, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vmmio_free(f->t);
	virtio_fini(&f->v);
	bus_free(f->bus);
	loop_free(f->loop);
	fake_ram_fini(&f->m);
	free(f);
	return 0;
}

static uint32_t rd(struct fixture *f, unsigned reg)
{
	return (uint32_t)bus_read(f->bus, MMIO + reg, 4);
}

static void wr(struct fixture *f, unsigned reg, uint32_t val)
{
	bus_write(f->bus, MMIO + reg, 4, val);
}

static bool raised(struct fixture *f)
{
	bool yes = irq_pending(f->irq);

	irq_clear(f->irq);
	return yes;
}

static void write_queue(struct fixture *f, unsigned q, const struct fake_ring *r)
{
	wr(f, 0x030, q);
	wr(f, 0x038, r->size);
	wr(f, 0x080, (uint32_t)r->desc);
	wr(f, 0x084, (uint32_t)(r->desc >> 32));
	wr(f, 0x090, (uint32_t)r->avail);
	wr(f, 0x094, (uint32_t)(r->avail >> 32));
	wr(f, 0x0a0, (uint32_t)r->used);
	wr(f, 0x0a4, (uint32_t)(r->used >> 32));
	wr(f, 0x044, 1);
}

/* Section 3.1.1 up to FEATURES_OK, with every feature that is offered. */
static void negotiate(struct fixture *f)
{
	wr(f, 0x070, 0);
	wr(f, 0x070, 1);
	wr(f, 0x070, 3);
	for (uint32_t half = 0; half < 2; half++) {
		wr(f, 0x014, half);
		wr(f, 0x024, half);
		wr(f, 0x020, rd(f, 0x010));
	}
	wr(f, 0x070, 11);
	assert_int_equal(rd(f, 0x070), 11);
}

static void run(struct fixture *f)
{
	negotiate(f);
	write_queue(f, 0, &f->r);
	wr(f, 0x070, 15);
	assert_int_equal(rd(f, 0x070), 15);
}

/* ------------------------------------------------------------- registers */

static void the_header_says_what_it_is(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(rd(f, 0x000), 0x74726976);
	assert_int_equal(rd(f, 0x004), 2);
	assert_int_equal(rd(f, 0x008), VIRTIO_ID_CONSOLE);
	assert_int_not_equal(rd(f, 0x00c), 0);
}

static void features_are_read_in_halves(void **state)
{
	struct fixture *f = *state;

	wr(f, 0x014, 1);
	assert_int_equal(rd(f, 0x010), 1u << 0 | 1u << 8);
	wr(f, 0x014, 0);
	assert_int_equal(rd(f, 0x010), 1u << 28 | 1u << 29);
	wr(f, 0x014, 2);
	assert_int_equal(rd(f, 0x010), 0);
	wr(f, 0x014, 0xffffffff);
	assert_int_equal(rd(f, 0x010), 0);
}

static void a_driver_gets_to_driver_ok(void **state)
{
	struct fixture *f = *state;

	run(f);
	assert_int_equal(f->starts, 1);
	assert_int_equal(rd(f, 0x044), 1);
	assert_true(virtio_has(&f->v, VIRTIO_F_EVENT_IDX));
	assert_true(vq_live(virtio_vq(&f->v, 0)));
	assert_false(vq_live(virtio_vq(&f->v, 1)));
}

static void queue_registers_follow_the_selector(void **state)
{
	struct fixture *f = *state;

	wr(f, 0x030, 0);
	assert_int_equal(rd(f, 0x034), 16);
	wr(f, 0x030, 1);
	assert_int_equal(rd(f, 0x034), 64);
	assert_int_equal(rd(f, 0x044), 0);
}

static void a_selector_out_of_range_reads_zero_and_writes_nothing(void **state)
{
	static const uint32_t bad[] = {2, 33, 0x80000000, 0xffffffff};
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		wr(f, 0x030, bad[i]);
		assert_int_equal(rd(f, 0x034), 0);
		assert_int_equal(rd(f, 0x044), 0);
		write_queue(f, bad[i], &f->r);
		assert_int_equal(rd(f, 0x044), 0);
		wr(f, 0x0c0, 1);
	}
	assert_false(f->v.queue[0].enabled || f->v.queue[1].enabled);
}

static void queue_registers_are_frozen_once_enabled(void **state)
{
	struct fixture *f = *state;

	run(f);
	wr(f, 0x030, 0);
	wr(f, 0x038, 4);
	for (unsigned reg = 0x080; reg <= 0x0a4; reg += 4)
		wr(f, reg, 0x41414141);
	assert_int_equal(f->v.queue[0].size, 16);
	assert_int_equal(f->v.queue[0].desc, f->r.desc);
	assert_int_equal(f->v.queue[0].avail, f->r.avail);
	assert_int_equal(f->v.queue[0].used, f->r.used);
}

static void a_queue_size_above_the_maximum_needs_reset(void **state)
{
	struct fixture *f = *state;
	struct fake_ring r = f->r;

	r.size = 32;
	negotiate(f);
	write_queue(f, 0, &r);
	wr(f, 0x070, 15);
	assert_int_equal(rd(f, 0x070), 15 | VIRTIO_S_NEEDS_RESET);
	assert_int_equal(f->starts, 0);
}

static void queue_ready_zero_stops_the_queue(void **state)
{
	struct fixture *f = *state;

	run(f);
	wr(f, 0x044, 0);
	assert_int_equal(rd(f, 0x044), 0);
	assert_int_equal(f->queue_stops, 1);
	assert_false(vq_live(virtio_vq(&f->v, 0)));
}

static void queue_reset_is_done_at_once(void **state)
{
	struct fixture *f = *state;

	run(f);
	wr(f, 0x0c0, 1);
	assert_int_equal(rd(f, 0x0c0), 0);
	assert_int_equal(rd(f, 0x044), 0);
	assert_int_equal(f->queue_stops, 1);
	fake_ring_zero(&f->r);
	write_queue(f, 0, &f->r);
	assert_int_equal(rd(f, 0x044), 1);
	assert_true(vq_live(virtio_vq(&f->v, 0)));
}

static void shared_memory_registers_say_there_is_none(void **state)
{
	struct fixture *f = *state;

	wr(f, 0x0ac, 3);
	for (unsigned reg = 0x0b0; reg <= 0x0bc; reg += 4)
		assert_int_equal(rd(f, reg), 0xffffffff);
}

static void registers_take_only_aligned_32_bit_accesses(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(bus_read(f->bus, MMIO, 1), 0);
	assert_int_equal(bus_read(f->bus, MMIO, 2), 0);
	assert_int_equal(bus_read(f->bus, MMIO, 8), 0);
	assert_int_equal(bus_read(f->bus, MMIO + 1, 4), 0);
	bus_write(f->bus, MMIO + 0x070, 1, 1);
	bus_write(f->bus, MMIO + 0x070, 2, 1);
	bus_write(f->bus, MMIO + 0x070, 8, 1);
	bus_write(f->bus, MMIO + 0x06e, 4, 0x10000);
	assert_int_equal(rd(f, 0x070), 0);
}

static void unknown_registers_read_zero_and_write_nothing(void **state)
{
	struct fixture *f = *state;

	run(f);
	/* Legacy ones (GuestPageSize, QueueAlign, QueuePFN) and holes. */
	for (unsigned reg = 0x0c4; reg < 0x0fc; reg += 4) {
		wr(f, reg, 0xffffffff);
		assert_int_equal(rd(f, reg), 0);
	}
	wr(f, 0x028, 4096);
	wr(f, 0x03c, 4096);
	wr(f, 0x040, 1);
	wr(f, 0x000, 1);
	assert_int_equal(rd(f, 0x040), 0);
	assert_int_equal(rd(f, 0x000), 0x74726976);
	assert_int_equal(rd(f, 0x070), 15);
	assert_true(vq_live(virtio_vq(&f->v, 0)));
}

static void every_register_takes_every_access(void **state)
{
	static const uint64_t vals[] = {0, 1, 0xffffffffffffffffull, 0x8000000080000000ull};
	struct fixture *f = *state;

	for (unsigned i = 0; i < 4; i++)
		for (unsigned size = 1; size <= 8; size *= 2)
			for (unsigned reg = 0; reg + size <= 0x1000; reg++) {
				bus_write(f->bus, MMIO + reg, size, vals[i]);
				bus_read(f->bus, MMIO + reg, size);
			}
}

/* ------------------------------------------------------------- configuration space */

static void config_space_takes_any_width(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(bus_read(f->bus, MMIO + 0x100, 1), 1);
	assert_int_equal(bus_read(f->bus, MMIO + 0x101, 2), 0x0302);
	assert_int_equal(bus_read(f->bus, MMIO + 0x100, 8), 0x0807060504030201ull);
	assert_int_equal(bus_read(f->bus, MMIO + 0x10a, 4), 0x0c0b);
	assert_int_equal(bus_read(f->bus, MMIO + 0xff8, 8), 0);
	bus_write(f->bus, MMIO + 0x102, 2, 0xaabb);
	assert_int_equal(bus_read(f->bus, MMIO + 0x100, 4), 0xaabb0201);
	bus_write(f->bus, MMIO + 0x10b, 2, 0xffff);
	assert_int_equal(bus_read(f->bus, MMIO + 0x10b, 1), 12);
}

static void a_config_change_moves_the_generation_and_interrupts(void **state)
{
	struct fixture *f = *state;
	uint32_t before;

	run(f);
	before = rd(f, 0x0fc);
	virtio_config_changed(&f->v);
	assert_int_not_equal(rd(f, 0x0fc), before);
	assert_int_equal(rd(f, 0x060), 2);
	assert_true(raised(f));
}

/* ------------------------------------------------------------- interrupts and kicks */

static void give_one(struct fixture *f)
{
	struct fake_buf b = {f->r.desc, 1, 0};
	struct vq_chain *c;

	fake_used_event(&f->r, f->r.avail_idx);
	fake_send(&f->r, &b, 1);
	assert_int_equal(vq_next(virtio_vq(&f->v, 0), &c), VQ_CHAIN);
	vq_return(c);
	vq_notify(virtio_vq(&f->v, 0));
}

static void used_buffers_set_the_status_and_raise_the_line(void **state)
{
	struct fixture *f = *state;

	run(f);
	assert_false(raised(f));
	give_one(f);
	assert_int_equal(rd(f, 0x060), 1);
	assert_true(raised(f));
	wr(f, 0x064, 1);
	assert_int_equal(rd(f, 0x060), 0);
	assert_false(raised(f));
}

static void an_event_before_the_acknowledgement_raises_again(void **state)
{
	struct fixture *f = *state;

	run(f);
	give_one(f);
	assert_true(raised(f));
	give_one(f);
	assert_true(raised(f));
}

static void an_acknowledgement_clears_only_its_bits(void **state)
{
	struct fixture *f = *state;

	run(f);
	give_one(f);
	virtio_config_changed(&f->v);
	assert_int_equal(rd(f, 0x060), 3);
	wr(f, 0x064, 1);
	assert_int_equal(rd(f, 0x060), 2);
	wr(f, 0x064, 0xfffffffd);
	assert_int_equal(rd(f, 0x060), 2);
	wr(f, 0x060, 0);
	assert_int_equal(rd(f, 0x060), 2);
}

/* A back end that has the line's eventfd cannot set the status bit. */
static void a_line_that_others_raise_reads_as_pending_at_all_times(void **state)
{
	struct fixture *f = *state;
	int fd;

	run(f);
	assert_int_equal(rd(f, 0x060), 0);
	fd = virtio_queue_fd(&f->v, 0);
	assert_int_equal(fd, irq_fd(f->irq));
	assert_int_equal(virtio_queue_fd(&f->v, 1), fd);
	assert_int_equal(rd(f, 0x060), 1);
	wr(f, 0x064, 1);
	assert_int_equal(rd(f, 0x060), 1);
	virtio_config_changed(&f->v);
	assert_int_equal(rd(f, 0x060), 3);
	wr(f, 0x064, 3);
	assert_int_equal(rd(f, 0x060), 1);
	wr(f, 0x070, 0);
	assert_int_equal(rd(f, 0x060), 0);
	run(f);
	assert_int_equal(rd(f, 0x060), 0);
}

static void a_broken_ring_shows_needs_reset_and_interrupts(void **state)
{
	struct fixture *f = *state;
	struct vq_chain *c;

	run(f);
	fake_avail(&f->r, 999);
	assert_int_equal(vq_next(virtio_vq(&f->v, 0), &c), VQ_BROKEN);
	assert_int_equal(rd(f, 0x070), 15 | VIRTIO_S_NEEDS_RESET);
	assert_int_equal(rd(f, 0x060), 2);
	assert_true(raised(f));
}

static void queue_notify_kicks_live_queues_only(void **state)
{
	struct fixture *f = *state;

	wr(f, 0x050, 0);
	run(f);
	wr(f, 0x050, 1);
	wr(f, 0x050, 2);
	wr(f, 0x050, 0xffffffff);
	assert_int_equal(f->kicks, 0);
	wr(f, 0x050, 0);
	assert_int_equal(f->kicks, 1);
	assert_int_equal(f->last_kick, 0);
}

static void reset_clears_everything(void **state)
{
	struct fixture *f = *state;

	run(f);
	give_one(f);
	wr(f, 0x070, 0);
	assert_int_equal(rd(f, 0x070), 0);
	assert_int_equal(rd(f, 0x060), 0);
	wr(f, 0x030, 0);
	assert_int_equal(rd(f, 0x044), 0);
	assert_int_equal(f->stops, 1);
	fake_ring_zero(&f->r);
	run(f);
	assert_int_equal(f->starts, 2);
}

/* ------------------------------------------------------------- life */

static void vmmio_free_takes_the_device_away(void **state)
{
	struct fixture *f = *state;

	run(f);
	vmmio_free(f->t);
	f->t = NULL;
	assert_int_equal(f->stops, 1);
	assert_int_equal(rd(f, 0x000), 0xffffffff);
	assert_null(f->v.bearer.t);
	vmmio_free(NULL);
}

static void vmmio_new_over_another_region_fails_and_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct irq *irq;
	struct vmmio *t = NULL;
	struct err e = {0};

	assert_int_equal(irq_fake_new(&irq, NULL), 0);
	struct vmmio_env env = env_at(f, MMIO + 0x800, irq);
	assert_int_equal(vmmio_new(&t, &f->v, &env, &e), -EEXIST);
	assert_null(t);
	assert_ptr_equal(f->v.bearer.t, f->t);
	run(f);
}

static void vmmio_new_without_ioeventfds_fails_and_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct vm vm = {.kvm_fd = -1, .fd = -1};
	struct vmmio *t = NULL;
	struct irq *irq;
	struct err e = {0};

	assert_int_equal(irq_fake_new(&irq, NULL), 0);
	struct vmmio_env env = env_at(f, MMIO + 0x1000, irq);
	env.vm = &vm;
	assert_true(vmmio_new(&t, &f->v, &env, &e) < 0);
	assert_null(t);
	assert_non_null(strstr(e.text, "test: ioeventfd of queue 0"));
	assert_int_equal(rd(f, 0x1000), 0xffffffff);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_header_says_what_it_is),
		T(features_are_read_in_halves),
		T(a_driver_gets_to_driver_ok),
		T(queue_registers_follow_the_selector),
		T(a_selector_out_of_range_reads_zero_and_writes_nothing),
		T(queue_registers_are_frozen_once_enabled),
		T(a_queue_size_above_the_maximum_needs_reset),
		T(queue_ready_zero_stops_the_queue),
		T(queue_reset_is_done_at_once),
		T(shared_memory_registers_say_there_is_none),
		T(registers_take_only_aligned_32_bit_accesses),
		T(unknown_registers_read_zero_and_write_nothing),
		T(every_register_takes_every_access),
		T(config_space_takes_any_width),
		T(a_config_change_moves_the_generation_and_interrupts),
		T(used_buffers_set_the_status_and_raise_the_line),
		T(an_event_before_the_acknowledgement_raises_again),
		T(an_acknowledgement_clears_only_its_bits),
		T(a_line_that_others_raise_reads_as_pending_at_all_times),
		T(a_broken_ring_shows_needs_reset_and_interrupts),
		T(queue_notify_kicks_live_queues_only),
		T(reset_clears_everything),
		T(vmmio_free_takes_the_device_away),
		T(vmmio_new_without_ioeventfds_fails_and_leaves_nothing),
		T(vmmio_new_over_another_region_fails_and_leaves_nothing),
	};

	return cmocka_run_group_tests_name("vmmio", tests, NULL, NULL);
}
