/* SPDX-License-Identifier: Apache-2.0 */
/* The bus, its ports, and the header of a function. */
#include "tests/unit/pci_fixture.h"

/* ----------------------------------------------------------------- the bus */

static void pci_slot_0_is_the_host_bridge(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(rd(x, 0, 0, 4), 0x0d578086);
	assert_int_equal(rd(x, 0, 8, 4), 0x06000000);
	assert_int_equal(rd(x, 0, 0x0e, 1), 0); /* header type 0, one function */
	assert_int_equal(rd(x, 0, 0x34, 1), 0);
}

static void pci_absent_functions_read_all_ones(void **state)
{
	struct fixture *x = *state;

	for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
		assert_int_equal(rd(x, slot, 0, 4), ONES);
	assert_int_equal(rd(x, 0, 0x1000, 4), ONES); /* function 1 of the bridge */
	assert_int_equal(rd(x, 31, 0x7ffc, 4), ONES);
	wr(x, 5, 4, 4, 7);
	assert_int_equal(rd(x, 5, 4, 4), ONES);
}

static void pci_extended_space_reads_all_ones(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(rd(x, 0, 0x100, 4), ONES);
	assert_int_equal(rd(x, 0, 0xffc, 4), ONES);
	wr(x, 0, 0x100, 4, 0);
	assert_int_equal(rd(x, 0, 0x100, 4), ONES);
}

static void pci_cfg_access_of_any_size_reaches_its_bytes(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(rd(x, 0, 0, 1), 0x86);
	assert_int_equal(rd(x, 0, 1, 1), 0x80);
	assert_int_equal(rd(x, 0, 2, 2), 0x0d57);
	assert_int_equal(rd(x, 0, 1, 2), 0x5780); /* within a dword */
	assert_int_equal(rd(x, 0, 8, 8), 0x06000000);
	assert_int_equal(rd(x, 0, 3, 2), 0xffff); /* across two */
	assert_int_equal(rd(x, 0, 2, 4), ONES);
	wr(x, 0, 0x3b, 2, 0x5555);
	assert_int_equal(rd(x, 0, 0x3c, 1), 0);
	wr(x, 0, 0x38, 8, 0x4200000000);
	assert_int_equal(rd(x, 0, 0x3c, 1), 0x42);
}

static void pci_add_takes_the_lowest_free_slot(void **state)
{
	struct fixture *x = *state;
	struct toy a, b, c;

	toy_init(&a, x, 4096, false);
	toy_init(&b, x, 4096, false);
	toy_init(&c, x, 4096, false);
	assert_int_equal(pci_add(x->pci, &a.f, NULL), 0);
	assert_int_equal(pci_add(x->pci, &b.f, NULL), 0);
	assert_int_equal(a.f.slot, 1);
	assert_int_equal(b.f.slot, 2);
	pci_del(&a.f);
	assert_int_equal(rd(x, 1, 0, 4), ONES);
	assert_int_equal(pci_add(x->pci, &c.f, NULL), 0);
	assert_int_equal(c.f.slot, 1);
	assert_int_equal(rd(x, 1, 0, 4), 0x56781234);
	pci_del(&b.f);
	pci_del(&c.f);
}

static void pci_add_on_a_full_bus_is_enospc(void **state)
{
	static struct toy t[PCI_SLOTS];
	struct fixture *x = *state;
	struct err e;

	for (unsigned i = 0; i < PCI_SLOTS; i++)
		toy_init(&t[i], x, 4096, true);
	for (unsigned i = 1; i < PCI_SLOTS; i++)
		assert_int_equal(pci_add(x->pci, &t[i].f, &e), 0);
	assert_int_equal(pci_add(x->pci, &t[0].f, &e), -ENOSPC);
	for (unsigned i = 1; i < PCI_SLOTS; i++)
		pci_del(&t[i].f);
}

static void pci_add_without_room_in_the_window_is_enospc(void **state)
{
	struct fixture *x = *state;
	struct toy a, b;
	struct err e;

	toy_init(&a, x, 512u << 20, false); /* at 0xc0000000, leaves 128 MiB */
	toy_init(&b, x, 256u << 20, false);
	assert_int_equal(pci_add(x->pci, &a.f, &e), 0);
	assert_int_equal(pci_add(x->pci, &b.f, &e), -ENOSPC);
	pci_del(&a.f);
	assert_int_equal(pci_add(x->pci, &b.f, &e), 0);
	pci_del(&b.f);
}

static void pci_bus_frees_what_it_put_on_the_buses(void **state)
{
	struct fixture *x = *state;
	const struct bus_region all = {
		LAYOUT_ECAM_BASE, LAYOUT_ECAM_SIZE, &toy_bar, NULL, NULL, "t"};
	const struct bus_region io = {LAYOUT_PORT_PCI, 8, &toy_bar, NULL, NULL, "t"};

	pci_bus_free(x->pci);
	x->pci = NULL;
	assert_int_equal(bus_add(x->mmio, &all, NULL), 0);
	assert_int_equal(bus_add(x->pio, &io, NULL), 0);
}

/* -------------------------------------------------------------- 0xcf8 */

static void cf8_reads_back_as_linux_probes_it(void **state)
{
	struct fixture *x = *state;

	out(x, 0xcfb, 1, 1);
	out(x, 0xcf8, 4, 0x80000000);
	assert_int_equal(in(x, 0xcf8, 4), 0x80000000);
	out(x, 0xcf8, 4, ONES);
	assert_int_equal(in(x, 0xcf8, 4), 0x80fffffc);
	out(x, 0xcf8, 2, 0); /* only dwords reach the latch */
	out(x, 0xcf9, 1, 6);
	assert_int_equal(in(x, 0xcf8, 4), 0x80fffffc);
	assert_int_equal(in(x, 0xcf8, 2), 0xffff);
	assert_int_equal(in(x, 0xcf9, 1), 0xff);
}

static void cfc_reaches_the_bytes_of_the_latched_dword(void **state)
{
	struct fixture *x = *state;
	struct toy t;

	toy_init(&t, x, 4096, false);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	out(x, 0xcf8, 4, 0x80000000 | 1 << 11);
	assert_int_equal(in(x, 0xcfc, 4), 0x56781234);
	assert_int_equal(in(x, 0xcfc, 1), 0x34);
	assert_int_equal(in(x, 0xcff, 1), 0x56);
	assert_int_equal(in(x, 0xcfe, 2), 0x5678);
	assert_int_equal(in(x, 0xcfd, 2), 0x7812);
	out(x, 0xcf8, 4, 0x8000003c | 1 << 11);
	out(x, 0xcfc, 1, 11);
	assert_int_equal(rd(x, 1, 0x3c, 1), 11);
	out(x, 0xcf8, 4, 0x800000fc | 31 << 11 | 7 << 8);
	assert_int_equal(in(x, 0xcfc, 4), ONES);
	pci_del(&t.f);
}

static void cfc_of_another_bus_or_disabled_is_nobody(void **state)
{
	struct fixture *x = *state;

	out(x, 0xcf8, 4, 0x80010000);
	assert_int_equal(in(x, 0xcfc, 4), ONES);
	out(x, 0xcf8, 4, 0x80800000);
	assert_int_equal(in(x, 0xcfc, 4), ONES);
	out(x, 0xcf8, 4, 0);
	assert_int_equal(in(x, 0xcfc, 4), ONES);
	out(x, 0xcfc, 4, 0x12345678);
	out(x, 0xcf8, 4, 0x80000000);
	assert_int_equal(in(x, 0xcfc, 4), 0x0d578086);
	/* an access that straddles address and data */
	assert_int_equal(in(x, 0xcfa, 4), ONES);
}

static void pci_bus_without_ports_answers_ecam_alone(void **state)
{
	struct fixture *x = *state;

	pci_bus_free(x->pci);
	assert_int_equal(bus_with(x, NULL), 0);
	out(x, 0xcf8, 4, 0x80000000);
	assert_int_equal(in(x, 0xcf8, 4), ONES);
	assert_int_equal(rd(x, 0, 0, 4), 0x0d578086);
}

/* --------------------------------------------------------------- header */

static void cfg_writes_reach_writable_bits_alone(void **state)
{
	struct fixture *x = *state;
	struct toy t;
	uint8_t before[256];

	toy_init(&t, x, 4096, false);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	memcpy(before, t.f.cfg, 256);
	for (unsigned i = 0; i < 256; i += 4)
		wr(x, 1, i, 4, ONES);
	for (unsigned i = 0; i < 256; i++)
		assert_int_equal(t.f.cfg[i] & ~t.f.wmask[i], before[i] & ~t.f.wmask[i]);
	assert_int_equal(rd(x, 1, 0, 4), 0x56781234);
	assert_int_equal(rd(x, 1, CMD, 2), 0x0406);
	assert_int_equal(rd(x, 1, 8, 4), 0x02030403);
	assert_int_equal(rd(x, 1, 0x2c, 4), 0xccddaabb);
	assert_int_equal(rd(x, 1, 0x3d, 1), 0); /* no interrupt pin */
	pci_del(&t.f);
}

static void cfg_callbacks_react_and_supply(void **state)
{
	struct fixture *x = *state;
	struct toy t;

	toy_init(&t, x, 4096, false);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	assert_int_equal(rd(x, 1, 0xf0, 1), 0x77);
	assert_int_equal(t.reading, 1);
	wr(x, 1, 0xf0, 4, 1);
	assert_int_equal(t.written, 1);
	wr(x, 1, 0x102, 2, 1);
	rd(x, 1, 0x102, 2);
	assert_int_equal(t.written + t.reading, 2);
	pci_del(&t.f);
}

static void pci_cap_links_a_list_until_it_is_full(void **state)
{
	struct fixture *x = *state;
	struct toy t;
	uint8_t body[128] = {0};

	toy_init(&t, x, 4096, false);
	assert_int_equal(t.f.cfg[6] & 0x10, 0);
	memset(body, 0xee, sizeof(body));
	assert_int_equal(pci_cap(&t.f, 0x09, body, 18), 0x40);
	assert_int_equal(pci_cap(&t.f, 0x11, body, 12), 0x54); /* 4-aligned */
	assert_int_equal(pci_cap(&t.f, 0x09, body, 128), 0x60);
	assert_int_equal(pci_cap(&t.f, 0x09, body, 33), 0);
	assert_int_equal(pci_cap(&t.f, 0x09, body, 32), 0xe0);
	assert_int_equal(pci_cap(&t.f, 0x09, body, 2), 0);
	assert_int_equal(t.f.cfg[6] & 0x10, 0x10);
	assert_int_equal(t.f.cfg[0x34], 0x40);
	assert_int_equal(t.f.cfg[0x40], 0x09);
	assert_int_equal(t.f.cfg[0x41], 0x54);
	assert_int_equal(t.f.cfg[0x42], 0xee);
	assert_int_equal(t.f.cfg[0x54], 0x11);
	assert_int_equal(t.f.cfg[0x55], 0x60);
	assert_int_equal(t.f.cfg[0xe1], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(pci_slot_0_is_the_host_bridge),
		T(pci_absent_functions_read_all_ones),
		T(pci_extended_space_reads_all_ones),
		T(pci_cfg_access_of_any_size_reaches_its_bytes),
		T(pci_add_takes_the_lowest_free_slot),
		T(pci_add_on_a_full_bus_is_enospc),
		T(pci_add_without_room_in_the_window_is_enospc),
		T(pci_bus_frees_what_it_put_on_the_buses),
		T(cf8_reads_back_as_linux_probes_it),
		T(cfc_reaches_the_bytes_of_the_latched_dword),
		T(cfc_of_another_bus_or_disabled_is_nobody),
		T(pci_bus_without_ports_answers_ecam_alone),
		T(cfg_writes_reach_writable_bits_alone),
		T(cfg_callbacks_react_and_supply),
		T(pci_cap_links_a_list_until_it_is_full),
	};

	return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
