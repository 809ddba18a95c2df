/* SPDX-License-Identifier: Apache-2.0 */
/* Kicks and ioeventfds, interrupts and ISR bits, and PCI_CFG, the other way to all registers. */
#include <sys/eventfd.h>

#include "tests/unit/vpci_fixture.h"

/* -------------------------------------------------------------------- kicks */

static void notify_page_kicks_the_queue_of_its_address(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	wr(x, NOTIFY + 4, 2, 0);
	assert_int_equal(x->kicks[1], 1);
	wr(x, NOTIFY, 4, 77);
	assert_int_equal(x->kicks[0], 1);
	wr(x, NOTIFY + 8, 2, 2); /* not enabled */
	wr(x, NOTIFY + 2, 2, 0); /* no queue's */
	wr(x, NOTIFY + 12, 2, 3);
	wr(x, NOTIFY + 0xffc, 4, 0);
	assert_int_equal(x->kicks[0] + x->kicks[1] + x->kicks[2], 2);
	assert_int_equal(rd(x, NOTIFY, 4), 0);
}

static void ports_kick_the_queue_of_their_address(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	out(x, PORTS, 2, 0); /* not before the I/O bit */
	assert_int_equal(x->kicks[0], 0);
	enable_all(x);
	out(x, PORTS + 4, 2, 0);
	assert_int_equal(x->kicks[1], 1);
	out(x, PORTS, 4, 77);
	out(x, PORTS, 1, 0);
	assert_int_equal(x->kicks[0], 2);
	out(x, PORTS + 8, 2, 2); /* not enabled */
	out(x, PORTS + 2, 2, 0); /* no queue's */
	out(x, PORTS + 3, 1, 0);
	out(x, PORTS + 12, 2, 3);
	out(x, PORTS + 14, 4, 0); /* across the end */
	assert_int_equal(x->kicks[0] + x->kicks[1] + x->kicks[2], 3);
	assert_int_equal(bus_read(x->pio, PORTS, 4), 0);
	assert_int_equal(bus_read(x->pio, PORTS + 16, 4), ~0ull);
}

static void kicks_before_driver_ok_are_nothing(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x1c, 2, 1);
	wr(x, NOTIFY, 2, 0);
	enable_all(x);
	out(x, PORTS, 2, 0);
	assert_int_equal(x->kicks[0], 0);
}

static void ioeventfds_are_those_of_enabled_queues(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	use_memory(x);
	assert_int_equal(kvm.n, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x1c, 2, 1);
	wr(x, 0x1c, 2, 1); /* again: once */
	assert_int_equal(kvm.added, 1);
	assert_int_equal(kvm.on[0].addr, BAR + NOTIFY);
	assert_int_equal(kvm.on[0].len, 0);
	assert_int_equal(kvm.on[0].flags, 0);
	assert_int_equal(kvm.on[0].fd, x->v.queue[0].kick_fd);
}

static void ioeventfds_in_memory_begin_with_its_first_kick(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	enable_all(x);
	assert_int_equal(kvm_count(true), 2);
	assert_int_equal(kvm_count(false), 0);
	wr(x, NOTIFY + 4, 2, 1);
	assert_int_equal(x->kicks[1], 1);
	assert_int_equal(kvm_count(true), 2);
	assert_int_equal(kvm_count(false), 2);
}

static void ioeventfds_are_in_both_bars(void **state)
{
	struct fixture *x = *state;

	enable_memory(x);
	use_memory(x);
	ring_registers(x, 1, &x->ring[1]);
	wr(x, 0x1c, 2, 1);
	assert_int_equal(kvm_count(true), 0);
	enable_all(x);
	assert_int_equal(kvm.n, 2);
	assert_int_equal(kvm_count(false), 1);
	assert_int_equal(kvm.on[1].addr, PORTS + 4);
	assert_int_equal(kvm.on[1].len, 0);
	assert_int_equal(kvm.on[1].flags, KVM_IOEVENTFD_FLAG_PIO);
	assert_int_equal(kvm.on[1].fd, x->v.queue[1].kick_fd);
	cfg_wr(x, 4, 2, 1);
	assert_int_equal(kvm_count(false), 0);
	assert_int_equal(kvm_count(true), 1);
	enable_memory(x);
	assert_int_equal(kvm_count(false), 1);
	assert_int_equal(kvm_count(true), 0);
	assert_int_equal(kvm.n, 1);
}

static void ioeventfds_of_ports_come_and_go_with_queues(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	enable_all(x);
	use_memory(x);
	assert_int_equal(kvm_count(true), 2);
	wr(x, 0x16, 2, 1);
	wr(x, 0x3a, 2, 1); /* queue 1 is reset */
	assert_int_equal(kvm_count(true), 1);
	assert_int_equal(kvm_count(false), 1);
	wr(x, 0x14, 1, 0);
	assert_int_equal(kvm.n, 0);
	go_live(x);
	enable_all(x);
	assert_int_equal(kvm_count(true), 2);
	vpci_free(x->t);
	assert_int_equal(kvm.n, 0);
	assert_int_equal(bus_read(x->pio, PORTS, 4), ~0ull);
	assert_int_equal(plug(x), 0);
}

static void ioeventfds_of_ports_move_with_their_bar(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	enable_all(x);
	use_memory(x);
	cfg_wr(x, 0x18, 4, 0xe000);
	assert_int_equal(kvm_count(true), 2);
	for (unsigned i = 0; i < kvm.n; i++)
		assert_int_equal(kvm.on[i].addr & ~4ull, kvm.on[i].flags ? 0xe000 : BAR + NOTIFY);
	out(x, 0xe004, 2, 1);
	assert_int_equal(x->kicks[1], 1);
	cfg_wr(x, 0x18, 4, LAYOUT_PORT_PCI & ~15u); /* decodes nowhere */
	assert_int_equal(kvm_count(true), 0);
	assert_int_equal(kvm_count(false), 2);
}

static void ioeventfds_move_with_the_bar(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	use_memory(x);
	cfg_wr(x, 4, 2, 0);
	assert_int_equal(kvm.n, 0);
	cfg_wr(x, 4, 2, 2);
	assert_int_equal(kvm.n, 2);
	cfg_wr(x, 0x10, 8, WIN64 + BAR_SIZE);
	assert_int_equal(kvm.n, 2);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(kvm.on[i].addr & ~4ull, WIN64 + BAR_SIZE + NOTIFY);
	cfg_wr(x, 0x10, 4, ~0u);
	assert_int_equal(kvm.n, kvm.added - kvm.removed);
	cfg_wr(x, 0x10, 8, 0x1000); /* over RAM: decodes nowhere */
	assert_int_equal(kvm.n, 0);
}

static void ioeventfd_that_kvm_refuses_leaves_the_bus(void **state)
{
	struct fixture *x = *state;

	kvm.fail = true;
	go_live(x);
	wr(x, NOTIFY, 2, 0);
	assert_int_equal(x->kicks[0], 1);
	enable_all(x);
	out(x, PORTS, 2, 0);
	assert_int_equal(x->kicks[0], 2);
	wr(x, 0x14, 1, 0);
	kvm.fail = false;
	assert_int_equal(kvm.removed, 0);
}

/* --------------------------------------------------------------- interrupts */

static void queue_interrupt_goes_to_its_vector(void **state)
{
	struct fixture *x = *state;

	go_live(x); /* the table's vectors are masked: what is raised waits */
	x->v.bearer.queue_interrupt(x->v.bearer.t, 0);
	assert_int_equal(rd(x, PBA, 8), 2);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 1);
	assert_int_equal(rd(x, PBA, 8), 6);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 2); /* has no vector */
	assert_int_equal(rd(x, PBA, 8), 6);
	assert_int_equal(rd(x, ISR, 1), 0);
	wr(x, PBA, 8, 0); /* read-only */
	assert_int_equal(rd(x, PBA, 8), 6);
	wr(x, 0x14, 1, 0);
	assert_int_equal(rd(x, PBA, 8), 0);
}

static void vector_out_of_range_reads_back_no_vector(void **state)
{
	static const uint32_t bad[] = {4, 5, 0x7ff, 0x800, 0xfffe, 0xffff};
	struct fixture *x = *state;

	enable_memory(x);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		wr(x, 0x10, 2, 3);
		assert_int_equal(rd(x, 0x10, 2), 3);
		wr(x, 0x10, 2, bad[i]);
		assert_int_equal(rd(x, 0x10, 2), NO_VECTOR);
		wr(x, 0x1a, 2, 3);
		assert_int_equal(rd(x, 0x1a, 2), 3);
		wr(x, 0x1a, 2, bad[i]);
		assert_int_equal(rd(x, 0x1a, 2), NO_VECTOR);
	}
	msix_control(x, 0x8000);
	x->v.bearer.config_interrupt(x->v.bearer.t);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 0);
	assert_int_equal(rd(x, PBA, 8), 0);
	wr(x, TABLE + 4 * 16, 4, ~0u);
	assert_int_equal(rd(x, TABLE + 4 * 16, 4), 0);
}

static void without_msix_interrupts_are_isr_bits(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	msix_control(x, 0);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 0);
	x->v.bearer.config_interrupt(x->v.bearer.t);
	assert_int_equal(rd(x, PBA, 8), 0);
	assert_int_equal(rd(x, ISR + 1, 1), 0); /* clears nothing */
	assert_int_equal(rd(x, ISR, 1), 3);
	assert_int_equal(rd(x, ISR, 1), 0);
	x->v.bearer.queue_interrupt(x->v.bearer.t, 0);
	wr(x, 0x14, 1, 0);
	assert_int_equal(rd(x, ISR, 4), 0);
}

static void needs_reset_shows_in_the_status(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	vq_break(virtio_vq(&x->v, 0), "2.7.4", "a test");
	assert_int_equal(rd(x, 0x14, 1), 15 | 64);
	assert_int_equal(rd(x, ISR, 1), 2);
	assert_int_equal(rd(x, PBA, 8), 1);
	wr(x, 0x14, 1, 0);
	assert_int_equal(rd(x, 0x14, 1), 0);
}

static void generation_and_interrupt_tell_of_a_change(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	assert_int_equal(rd(x, 0x15, 1), 0);
	virtio_config_changed(&x->v);
	assert_int_equal(rd(x, 0x15, 1), 1);
	assert_int_equal(rd(x, PBA, 8), 1);
	assert_int_equal(rd(x, ISR, 1), 2);
	assert_int_equal(rd(x, ISR, 1), 0);
}

/* ------------------------------------------------------------------ PCI_CFG */

static unsigned pci_cfg_window(struct fixture *x, uint32_t bar, uint32_t off, uint32_t len)
{
	unsigned at = find_cap(x, 0x09, 5);

	cfg_wr(x, at + 4, 1, bar);
	cfg_wr(x, at + 8, 4, off);
	cfg_wr(x, at + 12, 4, len);
	return at + 16;
}

static void pci_cfg_reaches_the_bar_without_decoding(void **state)
{
	struct fixture *x = *state;
	unsigned data = pci_cfg_window(x, 0, 0x16, 2);

	assert_false(vpci_func(x->t)->bar[0].mapped);
	cfg_wr(x, data, 2, 2);
	data = pci_cfg_window(x, 0, 0x1e, 2);
	assert_int_equal(cfg_rd(x, data, 2), 2);
	pci_cfg_window(x, 0, DEVICE + 4, 4);
	assert_int_equal(cfg_rd(x, data, 4), 0x17161514);
	pci_cfg_window(x, 0, DEVICE + 9, 1);
	assert_int_equal(cfg_rd(x, data, 1), 0x19);
	pci_cfg_window(x, 0, TABLE + 8, 4);
	cfg_wr(x, data, 4, 0x1234);
	enable_memory(x);
	assert_int_equal(rd(x, TABLE + 8, 4), 0x1234);
}

static void pci_cfg_kicks(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	cfg_wr(x, pci_cfg_window(x, 0, NOTIFY + 4, 2), 2, 1);
	assert_int_equal(x->kicks[1], 1);
}

static void pci_cfg_reaches_the_ports_without_decoding(void **state)
{
	struct fixture *x = *state;
	unsigned data;

	go_live(x);
	assert_false(vpci_func(x->t)->bar[2].mapped);
	data = pci_cfg_window(x, 2, 4, 2);
	cfg_wr(x, data, 2, 1);
	assert_int_equal(x->kicks[1], 1);
	assert_int_equal(cfg_rd(x, data, 2), 0);
	pci_cfg_window(x, 2, 6, 2); /* between two queues' */
	cfg_wr(x, data, 2, 1);
	assert_int_equal(x->kicks[0] + x->kicks[1] + x->kicks[2], 1);
}

static void pci_cfg_reads_once_for_an_access_to_its_first_byte(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	virtio_config_changed(&x->v);
	unsigned data = pci_cfg_window(x, 0, ISR, 1);

	assert_int_equal(cfg_rd(x, data + 1, 1), 0);
	assert_int_equal(cfg_rd(x, data, 1), 2);
	assert_int_equal(cfg_rd(x, data, 1), 0);
}

static void pci_cfg_bad_windows_are_nothing(void **state)
{
	static const struct {
		uint32_t bar, off, len;
	} bad[] = {
		{1, 0x14, 1},     {2, 0x10, 1},      {2, 0x10, 4},
		{2, 2, 4},        {2, 0, 8},         {2, ~0u - 3, 4},
		{3, 0, 4},        {6, 0, 4},         {255, 0x14, 1},
		{0, 0x14, 0},     {0, 0x14, 3},      {0, 0x14, 5},
		{0, 0x14, 8},     {0, 0x14, 257},    {0, 0x14, 0x80000001},
		{0, BAR_SIZE, 4}, {0, ~0u, 1},       {0, ~0u - 1, 2},
		{0, ~0u - 3, 4},  {0, 0x8000014, 1}, {0, BAR_SIZE + 0x14, 1},
		{0, 1, 4},        {0, 2, 4},         {0, BAR_SIZE - 2, 4},
		{0, 1, 2},
	};
	struct fixture *x = *state;

	negotiate(x, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		unsigned data = pci_cfg_window(x, bad[i].bar, bad[i].off, bad[i].len);

		cfg_wr(x, data, 4, 0); /* a write of 0 to the status would be a reset */
		cfg_wr(x, data, 4, 0x5a5a5a5a);
		assert_int_equal(cfg_rd(x, data, 4), 0x5a5a5a5a);
		assert_int_equal(rd(x, 0x14, 1), 11);
	}
}

/* ------------------------------------------------- queues that others serve */

static unsigned news[VIRTIO_QUEUES_MAX];
static int fds[VIRTIO_QUEUES_MAX];

static void toy_rewired(struct virtio *v, unsigned q)
{
	news[q]++;
	fds[q] = virtio_queue_fd(v, q);
}

/* Live, with the operation; forgets what it was told on the way. */
static struct virtio_ops listen_live(struct fixture *x)
{
	struct virtio_ops o = toy_ops;

	o.rewired = toy_rewired;
	go_live(x);
	memset(news, 0, sizeof(news));
	return o;
}

static void the_queues_fd_is_that_of_its_vector(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	assert_true(virtio_queue_fd(&x->v, 0) >= 0);
	assert_int_not_equal(virtio_queue_fd(&x->v, 0), virtio_queue_fd(&x->v, 1));
	assert_int_equal(virtio_queue_fd(&x->v, 2), -1); /* it has no vector */
	/* The vectors' masks are still set: what is written there waits in the pending bits. */
	eventfd_write(virtio_queue_fd(&x->v, 1), 1);
	assert_int_equal(rd(x, PBA, 8), 4);
	msix_control(x, 0);
	assert_int_equal(virtio_queue_fd(&x->v, 0), -1);
}

static void another_vector_is_news_for_that_queue(void **state)
{
	struct fixture *x = *state;
	const struct virtio_ops o = listen_live(x);
	int fd = virtio_queue_fd(&x->v, 1);

	x->v.ops = &o;
	wr(x, 0x16, 2, 0);
	wr(x, 0x1a, 2, 2); /* shared with queue 1 */
	assert_int_equal(news[0], 1);
	assert_int_equal(fds[0], fd);
	wr(x, 0x1a, 2, NO_VECTOR);
	assert_int_equal(news[0], 2);
	assert_int_equal(fds[0], -1);
	assert_int_equal(news[1], 0);
	/* Queue 2 is not enabled, queue 77 is not there. */
	wr(x, 0x16, 2, 2);
	wr(x, 0x1a, 2, 1);
	wr(x, 0x16, 2, 77);
	wr(x, 0x1a, 2, 1);
	assert_int_equal(news[2], 0);
	x->v.ops = &toy_ops;
}

static void msix_on_and_off_is_news_for_all_live_queues(void **state)
{
	struct fixture *x = *state;
	const struct virtio_ops o = listen_live(x);

	x->v.ops = &o;
	msix_control(x, 0);
	assert_int_equal(news[0] + news[1] + news[2], 2);
	assert_int_equal(fds[0], -1);
	assert_int_equal(fds[1], -1);
	msix_control(x, 0x8000);
	assert_int_equal(news[0] + news[1] + news[2], 4);
	assert_int_equal(fds[1], virtio_queue_fd(&x->v, 1));
	assert_true(fds[1] >= 0);
	msix_control(x, 0xc000); /* masked as a whole: the eventfds stay */
	msix_control(x, 0x8000);
	assert_int_equal(news[0] + news[1] + news[2], 4);
	x->v.ops = &toy_ops;
}

static void a_device_that_does_not_run_hears_no_news(void **state)
{
	struct fixture *x = *state;
	const struct virtio_ops o = listen_live(x);

	x->v.ops = &o;
	wr(x, 0x14, 1, 0);
	msix_control(x, 0);
	msix_control(x, 0x8000);
	wr(x, 0x16, 2, 0);
	wr(x, 0x1a, 2, 1);
	assert_int_equal(news[0], 0);
	x->v.ops = &toy_ops;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(notify_page_kicks_the_queue_of_its_address),
		T(ports_kick_the_queue_of_their_address),
		T(kicks_before_driver_ok_are_nothing),
		T(ioeventfds_are_those_of_enabled_queues),
		T(ioeventfds_in_memory_begin_with_its_first_kick),
		T(ioeventfds_are_in_both_bars),
		T(ioeventfds_of_ports_come_and_go_with_queues),
		T(ioeventfds_of_ports_move_with_their_bar),
		T(ioeventfds_move_with_the_bar),
		T(ioeventfd_that_kvm_refuses_leaves_the_bus),
		T(queue_interrupt_goes_to_its_vector),
		T(vector_out_of_range_reads_back_no_vector),
		T(without_msix_interrupts_are_isr_bits),
		T(the_queues_fd_is_that_of_its_vector),
		T(another_vector_is_news_for_that_queue),
		T(msix_on_and_off_is_news_for_all_live_queues),
		T(a_device_that_does_not_run_hears_no_news),
		T(needs_reset_shows_in_the_status),
		T(generation_and_interrupt_tell_of_a_change),
		T(pci_cfg_reaches_the_bar_without_decoding),
		T(pci_cfg_kicks),
		T(pci_cfg_reaches_the_ports_without_decoding),
		T(pci_cfg_reads_once_for_an_access_to_its_first_byte),
		T(pci_cfg_bad_windows_are_nothing),
	};

	return cmocka_run_group_tests_name("vpci_events", tests, NULL, NULL);
}
