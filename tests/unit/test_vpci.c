/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI function, its common and device configuration, and its lifetime. */
#include "tests/unit/vpci_fixture.h"

static int setup_33(void **state)
{
	return setup_queues(state, VIRTIO_QUEUES_MAX, 60);
}

static int setup_bare(void **state)
{
	return setup_queues(state, 1, 0);
}

/* ------------------------------------------------------------- PCI identity */

static void vpci_is_a_modern_virtio_function(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(vpci_func(x->t)->slot, 1);
	assert_int_equal(cfg_rd(x, 0, 4), 0x10421af4);
	assert_int_equal(cfg_rd(x, 8, 4), 0x01800001);
	assert_int_equal(cfg_rd(x, 0x2c, 4), 0x10421af4);
	assert_int_equal(cfg_rd(x, 0x3d, 1), 0);
	assert_int_equal(cfg_rd(x, 0x10, 4), BAR | 4);
	assert_int_equal(cfg_rd(x, 0x18, 4), PORTS | 1);
	assert_int_equal(cfg_rd(x, 4, 2) & 3, 0);
	cfg_wr(x, 0x10, 8, ~0ull);
	assert_int_equal(cfg_rd(x, 0x10, 8), ~(uint64_t)(BAR_SIZE - 1) | 4);
	cfg_wr(x, 0x18, 4, ~0u);
	assert_int_equal(cfg_rd(x, 0x18, 4), 0xfffffff1); /* 3 queues, a dword each */
}

static void check_cap(struct fixture *x, uint8_t type, unsigned len, uint64_t off, uint64_t length)
{
	unsigned at = find_cap(x, 0x09, type);

	if (type == 2 && cfg_rd(x, at + 4, 1) != 0) /* the one in memory is behind */
		at = find_cap_after(x, at, 0x09, type);
	assert_int_not_equal(at, 0);
	assert_int_equal(cfg_rd(x, at + 2, 1), len);
	assert_int_equal(cfg_rd(x, at + 4, 4), 0); /* bar, id, padding */
	assert_int_equal(cfg_rd(x, at + 8, 4), off);
	assert_int_equal(cfg_rd(x, at + 12, 4), length);
	assert_true(off + length <= BAR_SIZE);
	if (type == 2)
		assert_int_equal(cfg_rd(x, at + 16, 4), 4);
}

/* The first of its type, for that is the one a driver takes. */
static void check_ports_cap(struct fixture *x, uint64_t length)
{
	unsigned at = find_cap(x, 0x09, 2);

	assert_int_not_equal(at, 0);
	assert_int_equal(cfg_rd(x, at + 2, 1), 20);
	assert_int_equal(cfg_rd(x, at + 4, 4), 2); /* bar, id, padding */
	assert_int_equal(cfg_rd(x, at + 8, 4), 0);
	assert_int_equal(cfg_rd(x, at + 12, 4), length);
	assert_int_equal(cfg_rd(x, at + 16, 4), 4);
	at = find_cap_after(x, at, 0x09, 2);
	assert_int_equal(cfg_rd(x, at + 4, 1), 0);
	assert_int_equal(find_cap_after(x, at, 0x09, 2), 0);
}

static void vpci_capabilities_describe_the_bar(void **state)
{
	struct fixture *x = *state;

	check_cap(x, 1, 16, 0, 60);
	check_cap(x, 2, 20, NOTIFY, 12);
	check_cap(x, 3, 16, ISR, 4);
	check_cap(x, 4, 16, DEVICE, 12); /* 10 bytes of configuration, in dwords */
	check_cap(x, 5, 20, 0, 0);
	check_ports_cap(x, 12);
	unsigned msix = find_cap(x, 0x11, 0);

	assert_int_equal(cfg_rd(x, msix + 2, 2), 3); /* 3 queues and the configuration */
	assert_int_equal(cfg_rd(x, msix + 4, 4), TABLE);
	assert_int_equal(cfg_rd(x, msix + 8, 4), PBA);
}

static void vpci_with_33_queues_has_room_for_all(void **state)
{
	struct fixture *x = *state;

	check_cap(x, 2, 20, NOTIFY, 33 * 4);
	check_ports_cap(x, 33 * 4);
	cfg_wr(x, 0x18, 4, ~0u);
	assert_int_equal(cfg_rd(x, 0x18, 4), 0xffffff01); /* all that an I/O BAR may have */
	cfg_wr(x, 0x18, 4, PORTS);
	assert_int_equal(cfg_rd(x, find_cap(x, 0x11, 0) + 2, 2), 33);
	assert_true(negotiate(x, 0));
	use_memory(x);
	assert_int_equal(rd(x, 0x12, 2), 33);
	wr(x, 0x16, 2, 32);
	assert_int_equal(rd(x, 0x18, 2), 64);
	assert_int_equal(rd(x, 0x1e, 2), 32);
	ring_registers(x, 32, &x->ring[0]);
	wr(x, 0x1a, 2, 33);
	assert_int_equal(rd(x, 0x1a, 2), 33);
	wr(x, 0x1c, 2, 1);
	assert_int_equal(kvm.on[0].addr, BAR + NOTIFY + 32 * 4);
	wr(x, 0x14, 1, 15);
	wr(x, NOTIFY + 32 * 4, 2, 32);
	assert_int_equal(x->kicks[32], 1);
	for (unsigned i = 33 * 4; i < 0x1000; i += 4)
		wr(x, NOTIFY + i, 2, 0);
	assert_int_equal(x->kicks[32], 1);
	assert_int_equal(x->kicks[0], 0);
	enable_all(x);
	out(x, PORTS + 32 * 4, 2, 32);
	assert_int_equal(x->kicks[32], 2);
	for (unsigned i = 33 * 4; i < 0x100; i += 4)
		out(x, PORTS + i, 2, 0);
	assert_int_equal(x->kicks[32], 2);
}

static void vpci_with_one_queue_has_four_ports(void **state)
{
	struct fixture *x = *state;

	check_ports_cap(x, 4);
	cfg_wr(x, 0x18, 4, ~0u);
	assert_int_equal(cfg_rd(x, 0x18, 4), 0xfffffffd);
}

static void vpci_without_ports_kicks_by_memory_alone(void **state)
{
	struct fixture *x = *state;

	vpci_free(x->t);
	pci_bus_free(x->pci);
	assert_int_equal(pci_bus(x, NULL), 0);
	assert_int_equal(plug(x), 0);
	check_cap(x, 2, 20, NOTIFY, 12);
	assert_int_equal(find_cap_after(x, find_cap(x, 0x09, 2), 0x09, 2), 0);
	assert_int_equal(cfg_rd(x, 0x18, 4), 0);
	go_live(x);
	enable_all(x);
	assert_int_equal(cfg_rd(x, 4, 2), 6);
	assert_int_equal(kvm_count(true), 0);
	assert_int_equal(kvm_count(false), 2);
}

static void vpci_without_configuration_has_no_such_capability(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(find_cap(x, 0x09, 4), 0);
	enable_memory(x);
	assert_int_equal(rd(x, DEVICE, 4), 0);
}

/* ------------------------------------------------------------ common config */

static void features_come_in_halves_and_nothing_else(void **state)
{
	struct fixture *x = *state;

	enable_memory(x);
	wr(x, 0x00, 4, 0);
	assert_int_equal(rd(x, 0x04, 4), 5 | 1 << 28 | 1 << 29);
	wr(x, 0x00, 4, 1);
	assert_int_equal(rd(x, 0x04, 4), 1 | 1 << 8);
	wr(x, 0x00, 4, 2);
	assert_int_equal(rd(x, 0x04, 4), 0);
	wr(x, 0x00, 4, 0xffffffff);
	assert_int_equal(rd(x, 0x04, 4), 0);
	assert_int_equal(rd(x, 0x00, 4), 0xffffffff);
	wr(x, 0x08, 4, 32);
	wr(x, 0x0c, 4, 0xffffffff);
	assert_int_equal(rd(x, 0x0c, 4), 0);
	assert_int_equal(x->v.acked, 0);
	wr(x, 0x08, 4, 1);
	wr(x, 0x0c, 4, 0x101);
	assert_int_equal(rd(x, 0x0c, 4), 0x101);
	assert_int_equal(x->v.acked, 0x10100000000);
	wr(x, 0x04, 4, 0); /* read-only */
	assert_int_equal(x->v.offered >> 32, 0x101);
}

static void features_not_offered_refuse_features_ok(void **state)
{
	struct fixture *x = *state;

	assert_false(negotiate(x, 1 << 7));
	assert_true(negotiate(x, 1));
}

static void queue_registers_belong_to_the_selected_queue(void **state)
{
	struct fixture *x = *state;

	enable_memory(x);
	ring_registers(x, 2, &x->ring[0]);
	wr(x, 0x24, 4, 0xabcd);
	assert_int_equal(rd(x, 0x16, 2), 2);
	assert_int_equal(rd(x, 0x18, 2), 8);
	assert_int_equal(rd(x, 0x1e, 2), 2);
	assert_int_equal(rd(x, 0x20, 8), x->ring[0].desc | 0xabcd00000000);
	assert_int_equal(rd(x, 0x20, 4), x->ring[0].desc);
	assert_int_equal(rd(x, 0x24, 4), 0xabcd);
	assert_int_equal(rd(x, 0x28, 8), x->ring[0].avail);
	assert_int_equal(rd(x, 0x30, 8), x->ring[0].used);
	wr(x, 0x16, 2, 1);
	assert_int_equal(rd(x, 0x18, 2), 64);
	assert_int_equal(rd(x, 0x20, 8), 0);
	wr(x, 0x12, 2, 7); /* read-only registers */
	wr(x, 0x15, 1, 7);
	wr(x, 0x1e, 2, 7);
	assert_int_equal(rd(x, 0x12, 2), 3);
	assert_int_equal(rd(x, 0x15, 1), 0);
	assert_int_equal(rd(x, 0x1e, 2), 1);
}

static void queue_select_out_of_range_is_no_queue(void **state)
{
	static const uint16_t bad[] = {3, 33, 34, 255, 0x8000, 0xffff};
	struct fixture *x = *state;

	negotiate(x, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		wr(x, 0x16, 2, bad[i]);
		for (unsigned off = 0x18; off < 0x3c; off += 2) {
			wr(x, off, 2, 1);
			assert_int_equal(rd(x, off, 2), off == 0x1a ? NO_VECTOR : 0);
		}
		wr(x, 0x20, 8, ~0ull);
		assert_int_equal(rd(x, 0x20, 8), 0);
	}
	assert_int_equal(kvm.added, 0);
}

static void queue_registers_are_frozen_after_enable(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	wr(x, 0x16, 2, 0);
	wr(x, 0x18, 2, 2);
	for (unsigned off = 0x20; off < 0x38; off += 4)
		wr(x, off, 4, 0xffffffff);
	wr(x, 0x1c, 2, 0);
	assert_int_equal(rd(x, 0x18, 2), 8);
	assert_int_equal(rd(x, 0x1c, 2), 1);
	assert_int_equal(rd(x, 0x20, 8), x->ring[0].desc);
	assert_int_equal(rd(x, 0x28, 8), x->ring[0].avail);
	assert_int_equal(rd(x, 0x30, 8), x->ring[0].used);
}

static void queue_size_beyond_the_maximum_needs_reset(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x18, 2, 128);
	assert_int_equal(rd(x, 0x18, 2), 0);
	wr(x, 0x1c, 2, 1);
	wr(x, 0x14, 1, 15);
	assert_int_equal(rd(x, 0x14, 1), 15 | 64);
	assert_int_equal(x->starts, 0);
	wr(x, 0x14, 1, 0);
	wr(x, 0x16, 2, 0);
	assert_int_equal(rd(x, 0x18, 2), 64);
}

static void queue_outside_memory_needs_reset(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x24, 4, 0xffffffff);
	wr(x, 0x1c, 2, 1);
	wr(x, 0x14, 1, 15);
	assert_int_equal(rd(x, 0x14, 1), 15 | 64);
	assert_int_equal(x->starts, 0);
}

static void device_that_cannot_start_needs_reset(void **state)
{
	struct fixture *x = *state;

	x->start_ret = -EIO;
	negotiate(x, 0);
	wr(x, 0x14, 1, 15);
	assert_int_equal(rd(x, 0x14, 1), 15 | 64);
	assert_int_equal(rd(x, ISR, 1), 2); /* and the driver is told */
}

static void common_accesses_of_other_widths_are_nothing(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	wr(x, 0x16, 2, 1);
	assert_int_equal(rd(x, 0x14, 2), 0);
	assert_int_equal(rd(x, 0x14, 4), 0);
	assert_int_equal(rd(x, 0x12, 1), 0);
	assert_int_equal(rd(x, 0x12, 4), 0);
	assert_int_equal(rd(x, 0x10, 4), 0);
	assert_int_equal(rd(x, 0x11, 2), 0);
	assert_int_equal(rd(x, 0x02, 4), 0);
	wr(x, 0x14, 4, 0); /* no reset */
	wr(x, 0x14, 8, 0);
	wr(x, 0x13, 2, 0);
	assert_int_equal(rd(x, 0x14, 1), 11);
	wr(x, 0x15, 2, 0x0202);
	wr(x, 0x16, 1, 2);
	wr(x, 0x16, 4, 2);
	assert_int_equal(rd(x, 0x16, 2), 1);
	for (unsigned off = 0x3c; off < 0x1000; off += 4) {
		wr(x, off, 4, ~0u);
		assert_int_equal(rd(x, off, 4), 0);
	}
	/* beyond the last register, across the end of the page and of the BAR */
	assert_int_equal(rd(x, 0xffe, 4), 0);
	wr(x, 0xffe, 4, ~0u);
	assert_int_equal(rd(x, ISR - 1, 2), 0);
	assert_int_equal(rd(x, BAR_SIZE - 2, 4), ~0ull);
}

static void common_qword_is_two_dwords(void **state)
{
	struct fixture *x = *state;

	enable_memory(x);
	wr(x, 0x08, 8, 0x100000001); /* select 1, feature bits 32 */
	assert_int_equal(x->v.acked, 1ull << 32);
	wr(x, 0x00, 4, 1);
	assert_int_equal(rd(x, 0x00, 8), 1 | 0x10100000000);
}

static void reset_forgets_selectors_vectors_and_queues(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	wr(x, TABLE, 4, 0xfee00000);
	wr(x, 0x14, 1, 0);
	assert_int_equal(x->stops, 1);
	assert_int_equal(rd(x, 0x14, 1), 0);
	assert_int_equal(rd(x, 0x10, 2), NO_VECTOR);
	assert_int_equal(rd(x, 0x16, 2), 0);
	assert_int_equal(rd(x, 0x1a, 2), NO_VECTOR);
	assert_int_equal(rd(x, 0x1c, 2), 0);
	assert_int_equal(rd(x, 0x18, 2), 64);
	assert_int_equal(rd(x, 0x20, 8), 0);
	assert_int_equal(rd(x, TABLE, 4), 0xfee00000); /* the function's, not the device's */
	assert_int_equal(kvm.n, 0);
	go_live(x); /* and again */
}

static void reset_of_a_queue_takes_its_kicks_and_vector(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	use_memory(x);
	assert_int_equal(kvm.n, 2);
	wr(x, 0x16, 2, 1);
	wr(x, 0x3a, 2, 0); /* only 1 resets */
	wr(x, 0x3a, 2, 2);
	assert_int_equal(x->queue_stops, 0);
	wr(x, 0x3a, 2, 1);
	assert_int_equal(rd(x, 0x3a, 2), 0);
	assert_int_equal(x->queue_stops, 1);
	assert_int_equal(rd(x, 0x1c, 2), 0);
	assert_int_equal(rd(x, 0x1a, 2), NO_VECTOR);
	assert_int_equal(rd(x, 0x18, 2), 64);
	assert_int_equal(kvm.n, 1);
	assert_int_equal(kvm.on[0].addr, BAR + NOTIFY);
	fake_ring_zero(&x->ring[1]);
	ring_registers(x, 1, &x->ring[1]);
	wr(x, 0x1c, 2, 1);
	assert_int_equal(x->queue_starts, 1);
	assert_int_equal(kvm.n, 2);
	assert_int_equal(rd(x, 0x14, 1), 15);
}

static void reset_of_a_queue_not_negotiated_is_nothing(void **state)
{
	struct fixture *x = *state;

	negotiate(x, 0);
	ring_registers(x, 0, &x->ring[0]);
	wr(x, 0x1c, 2, 1);
	wr(x, 0x1a, 2, 1);
	wr(x, 0x14, 1, 15);
	wr(x, 0x3a, 2, 1);
	assert_int_equal(rd(x, 0x1c, 2), 1);
	assert_int_equal(rd(x, 0x1a, 2), 1);
	assert_int_equal(x->queue_stops, 0);
}

/* ----------------------------------------------------- device configuration */

static void device_configuration_reads_any_width_and_zeros_beyond(void **state)
{
	struct fixture *x = *state;

	enable_memory(x);
	assert_int_equal(rd(x, DEVICE, 1), 0x10);
	assert_int_equal(rd(x, DEVICE + 2, 2), 0x1312);
	assert_int_equal(rd(x, DEVICE, 8), 0x1716151413121110);
	assert_int_equal(rd(x, DEVICE + 8, 4), 0x1918);
	assert_int_equal(rd(x, DEVICE + 12, 4), 0);
	assert_int_equal(rd(x, DEVICE + 0xffc, 4), 0);
	wr(x, DEVICE + 4, 2, 0xbeef);
	assert_int_equal(x->cfg_off, 4);
	assert_int_equal(x->cfg_size, 2);
	assert_int_equal(x->cfg_val & 0xffff, 0xbeef);
	wr(x, DEVICE + 9, 2, 1); /* past the end */
	assert_int_equal(x->cfg_off, 4);
}

/* ---------------------------------------------------------------- lifetime */

static void vpci_free_stops_the_device_and_leaves_no_trace(void **state)
{
	struct fixture *x = *state;

	go_live(x);
	vpci_free(x->t);
	assert_int_equal(x->stops, 1);
	assert_int_equal(kvm.n, 0);
	assert_null(x->v.bearer.queue_interrupt);
	assert_int_equal(rd(x, 0x14, 1), ~0ull);
	assert_int_equal(cfg_rd(x, 0, 4), 0xffffffff);
	assert_int_equal(plug(x), 0);
	go_live(x);
}

static void vpci_on_a_full_bus_says_which_device(void **state)
{
	struct fixture *x = *state;
	struct vpci *more[PCI_SLOTS] = {NULL}, *one;
	const struct vpci_env env = {.pci = x->pci};
	struct err e;
	unsigned n = 0;
	int ret;

	/* Only set-up: the same device stands behind all. */
	while ((ret = vpci_new(&one, &x->v, &env, &e)) == 0)
		more[n++] = one;
	assert_int_equal(ret, -ENOSPC);
	assert_string_equal(e.text, "toy: the PCI bus is full (31 devices)");
	while (n)
		vpci_free(more[--n]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(vpci_is_a_modern_virtio_function),
		T(vpci_capabilities_describe_the_bar),
		cmocka_unit_test_setup_teardown(vpci_with_33_queues_has_room_for_all, setup_33,
						teardown),
		cmocka_unit_test_setup_teardown(vpci_with_one_queue_has_four_ports, setup_bare,
						teardown),
		T(vpci_without_ports_kicks_by_memory_alone),
		cmocka_unit_test_setup_teardown(vpci_without_configuration_has_no_such_capability,
						setup_bare, teardown),
		T(features_come_in_halves_and_nothing_else),
		T(features_not_offered_refuse_features_ok),
		T(queue_registers_belong_to_the_selected_queue),
		T(queue_select_out_of_range_is_no_queue),
		T(queue_registers_are_frozen_after_enable),
		T(queue_size_beyond_the_maximum_needs_reset),
		T(queue_outside_memory_needs_reset),
		T(device_that_cannot_start_needs_reset),
		T(common_accesses_of_other_widths_are_nothing),
		T(common_qword_is_two_dwords),
		T(reset_forgets_selectors_vectors_and_queues),
		T(reset_of_a_queue_takes_its_kicks_and_vector),
		T(reset_of_a_queue_not_negotiated_is_nothing),
		T(device_configuration_reads_any_width_and_zeros_beyond),
		T(vpci_free_stops_the_device_and_leaves_no_trace),
		T(vpci_on_a_full_bus_says_which_device),
	};

	return cmocka_run_group_tests_name("vpci", tests, NULL, NULL);
}
