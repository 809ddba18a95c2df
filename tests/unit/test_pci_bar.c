/* SPDX-License-Identifier: Apache-2.0 */
/* BARs of memory and of I/O: sizes, places, decoding. */
#include "tests/unit/pci_fixture.h"

/* ------------------------------------------------------------------- memory */

static void bar_is_assigned_aligned_and_apart(void **state)
{
	struct fixture *x = *state;
	struct toy a, b, c;

	toy_init(&a, x, 4096, false);
	toy_init(&b, x, 0x10000, true);
	b.f.bar[2] = (struct pci_bar){.size = 0x2000, .ops = &toy_bar, .dev = &b};
	toy_init(&c, x, 4096, true);
	assert_int_equal(pci_add(x->pci, &a.f, NULL), 0);
	assert_int_equal(pci_add(x->pci, &b.f, NULL), 0);
	assert_int_equal(pci_add(x->pci, &c.f, NULL), 0);
	assert_int_equal(rd(x, 1, 0x10, 4), 0xc0000000);
	assert_int_equal(rd(x, 2, 0x10, 4), 0xc0010004); /* 64-bit type */
	assert_int_equal(rd(x, 2, 0x14, 4), 0);
	assert_int_equal(rd(x, 2, 0x18, 4), 0xc0002000);
	assert_int_equal(rd(x, 3, 0x10, 4), 0xc0001004); /* fills the gap */
	pci_del(&a.f);
	pci_del(&b.f);
	pci_del(&c.f);
}

static void bar_sizing_reads_the_mask(void **state)
{
	struct fixture *x = *state;
	struct toy a, b;

	toy_init(&a, x, 0x8000, true);
	toy_init(&b, x, 0x100000, false);
	assert_int_equal(pci_add(x->pci, &a.f, NULL), 0);
	assert_int_equal(pci_add(x->pci, &b.f, NULL), 0);
	for (unsigned i = 0x10; i < 0x28; i += 4) {
		wr(x, 1, i, 4, ONES);
		wr(x, 2, i, 4, ONES);
	}
	assert_int_equal(rd(x, 1, 0x10, 4), 0xffff8004);
	assert_int_equal(rd(x, 1, 0x14, 4), ONES);
	assert_int_equal(rd(x, 1, 0x18, 4), 0);
	assert_int_equal(rd(x, 2, 0x10, 4), 0xfff00000);
	assert_int_equal(rd(x, 2, 0x14, 4), 0);
	assert_int_equal(rd(x, 2, 0x30, 4), 0); /* no expansion ROM */
	assert_int_equal(a.maps + b.maps, 0);
	pci_del(&a.f);
	pci_del(&b.f);
}

static void bar_decodes_only_with_the_memory_bit(void **state)
{
	struct fixture *x = *state;
	struct toy t;

	toy_init(&t, x, 4096, true);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	assert_int_equal(bus_read(x->mmio, 0xc0000010, 4), ~0ull);
	wr(x, 1, CMD, 2, MEM);
	assert_int_equal(t.maps, 1);
	assert_int_equal(t.mapped_at[0], 0xc0000000);
	assert_int_equal(bus_read(x->mmio, 0xc0000010, 4), 0x5a5a5a5a);
	assert_int_equal(t.last_off, 0x10);
	wr(x, 1, CMD, 2, MEM | 4); /* already on: nothing moves */
	assert_int_equal(t.maps, 1);
	wr(x, 1, CMD, 1, 0);
	assert_int_equal(t.unmaps, 1);
	assert_int_equal(bus_read(x->mmio, 0xc0000010, 4), ~0ull);
	pci_del(&t.f);
	assert_int_equal(t.unmaps, 1);
}

static void bar_follows_the_guest(void **state)
{
	struct fixture *x = *state;
	struct toy t;

	toy_init(&t, x, 4096, true);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	wr(x, 1, CMD, 2, MEM);
	wr(x, 1, 0x10, 4, 0xd0000000);
	assert_int_equal(t.unmaps, 1);
	assert_int_equal(t.mapped_at[0], 0xd0000000);
	bus_write(x->mmio, 0xd0000ffc, 4, 0x42);
	assert_int_equal(t.last_off, 0xffc);
	assert_int_equal(t.last_val, 0x42);
	assert_int_equal(bus_read(x->mmio, 0xc0000010, 4), ~0ull);
	/* above 4 GiB, in both orders of the halves */
	wr(x, 1, 0x14, 4, (WIN64 >> 32));
	assert_false(t.f.bar[0].mapped); /* 0x2d0000000 is outside the window */
	wr(x, 1, 0x10, 4, 0x1000);
	assert_true(t.f.bar[0].mapped);
	assert_int_equal(bus_read(x->mmio, WIN64 + 0x1000, 4), 0x5a5a5a5a);
	wr(x, 1, 0x10, 8, 0xc0000000);
	assert_int_equal(t.f.bar[0].addr, 0xc0000000);
	pci_del(&t.f);
	assert_int_equal(bus_read(x->mmio, 0xc0000010, 4), ~0ull);
	assert_int_equal(t.maps, t.unmaps);
}

static void bar_outside_the_windows_does_not_decode(void **state)
{
	static const uint64_t bad[] = {
		0,
		0x1000,
		LAYOUT_PCI32_BASE - 0x8000,
		LAYOUT_PCI32_BASE + LAYOUT_PCI32_SIZE,
		LAYOUT_ECAM_BASE,
		LAYOUT_LAPIC & ~0x7fffull,
		0x100000000,
		WIN64 - 0x8000,
		WIN64 + WIN64_SIZE,
		0xffffffffffff8000,
	};
	struct fixture *x = *state;
	struct toy t;

	toy_init(&t, x, 0x8000, true);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	wr(x, 1, CMD, 2, MEM);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		wr(x, 1, 0x10, 8, bad[i]);
		assert_false(t.f.bar[0].mapped);
	}
	wr(x, 1, 0x10, 8, LAYOUT_PCI32_BASE + LAYOUT_PCI32_SIZE - 0x8000);
	assert_true(t.f.bar[0].mapped);
	wr(x, 1, 0x10, 8, WIN64 + WIN64_SIZE - 0x8000);
	assert_true(t.f.bar[0].mapped);
	pci_del(&t.f);
}

static void bar_over_another_region_does_not_decode(void **state)
{
	struct fixture *x = *state;
	struct toy a, b;

	toy_init(&a, x, 4096, false);
	toy_init(&b, x, 0x4000, false);
	assert_int_equal(pci_add(x->pci, &a.f, NULL), 0);
	assert_int_equal(pci_add(x->pci, &b.f, NULL), 0);
	wr(x, 1, CMD, 2, MEM);
	wr(x, 2, CMD, 2, MEM);
	wr(x, 2, 0x10, 4, 0xc0000000);
	assert_false(b.f.bar[0].mapped);
	bus_read(x->mmio, 0xc0000000, 4);
	assert_int_equal(a.last_size, 4); /* still the first one's */
	assert_int_equal(b.last_size, 0);
	wr(x, 2, 0x10, 4, 0xc0004000);
	assert_true(b.f.bar[0].mapped);
	pci_del(&a.f);
	pci_del(&b.f);
}

static void bar_of_a_removed_function_is_free_again(void **state)
{
	struct fixture *x = *state;
	struct toy a, b;

	toy_init(&a, x, 4096, false);
	toy_init(&b, x, 4096, false);
	assert_int_equal(pci_add(x->pci, &a.f, NULL), 0);
	wr(x, 1, CMD, 2, MEM);
	pci_del(&a.f);
	pci_del(&a.f); /* again: nothing */
	assert_int_equal(a.unmaps, 1);
	assert_int_equal(pci_add(x->pci, &b.f, NULL), 0);
	assert_int_equal(rd(x, 1, 0x10, 4), 0xc0000000);
	wr(x, 1, CMD, 2, MEM);
	bus_read(x->mmio, 0xc0000000, 4);
	assert_int_equal(b.last_size, 4);
	pci_del(&b.f);
}

/* ---------------------------------------------------------------------- I/O */

#define IO_BASE LAYOUT_PCI_IO_BASE
#define IO_END (LAYOUT_PCI_IO_BASE + LAYOUT_PCI_IO_SIZE)

/* BAR 0 of memory, BAR 1 of I/O at 0x14. */
static void io_init(struct toy *t, struct fixture *x, uint64_t size)
{
	toy_init(t, x, 4096, false);
	t->f.bar[1] = (struct pci_bar){.size = size, .io = true, .ops = &toy_bar, .dev = t};
}

static void io_bar_is_assigned_aligned_and_apart(void **state)
{
	struct fixture *x = *state;
	struct toy a, b, c;

	io_init(&a, x, 4);
	io_init(&b, x, 256);
	b.f.bar[2] = (struct pci_bar){.size = 16, .io = true, .ops = &toy_bar, .dev = &b};
	io_init(&c, x, 8);
	assert_int_equal(pci_add(x->pci, &a.f, NULL), 0);
	assert_int_equal(pci_add(x->pci, &b.f, NULL), 0);
	assert_int_equal(pci_add(x->pci, &c.f, NULL), 0);
	assert_int_equal(rd(x, 1, 0x14, 4), IO_BASE | 1);
	assert_int_equal(rd(x, 2, 0x14, 4), (IO_BASE + 0x100) | 1);
	assert_int_equal(rd(x, 2, 0x18, 4), (IO_BASE + 0x10) | 1);
	assert_int_equal(rd(x, 3, 0x14, 4), (IO_BASE + 8) | 1);
	wr(x, 3, CMD, 2, IO);
	assert_int_equal(c.mapped_at[1], IO_BASE + 8);
	pci_del(&a.f);
	pci_del(&b.f);
	pci_del(&c.f);
}

static void io_bar_sizing_reads_the_mask(void **state)
{
	static const unsigned size[] = {4, 16, 256};
	struct fixture *x = *state;

	for (size_t i = 0; i < 3; i++) {
		struct toy t;

		io_init(&t, x, size[i]);
		assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
		wr(x, 1, 0x14, 4, ONES);
		assert_int_equal(rd(x, 1, 0x14, 4), (uint32_t)-size[i] | 1);
		wr(x, 1, 0x14, 4, 0); /* the type is not the guest's */
		assert_int_equal(rd(x, 1, 0x14, 4), 1);
		assert_int_equal(t.maps, 0);
		pci_del(&t.f);
	}
}

static void io_bar_decodes_only_with_the_io_bit(void **state)
{
	struct fixture *x = *state;
	struct toy t;

	io_init(&t, x, 16);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	assert_int_equal(rd(x, 1, CMD, 2), 0);
	wr(x, 1, CMD, 2, MEM);
	assert_true(t.f.bar[0].mapped);
	assert_int_equal(in(x, IO_BASE, 4), ONES);
	wr(x, 1, CMD, 2, IO);
	assert_int_equal(rd(x, 1, CMD, 2), IO);
	assert_false(t.f.bar[0].mapped);
	assert_int_equal(t.mapped_at[1], IO_BASE);
	assert_int_equal(in(x, IO_BASE + 12, 4), 0x5a5a5a5a);
	assert_int_equal(t.last_off, 12);
	out(x, IO_BASE + 6, 2, 0x42);
	assert_int_equal(t.last_off, 6);
	assert_int_equal(t.last_size, 2);
	assert_int_equal(t.last_val, 0x42);
	assert_int_equal(in(x, IO_BASE + 16, 1), 0xff);
	assert_int_equal(in(x, IO_BASE + 14, 4), ONES); /* across its end */
	wr(x, 1, CMD, 2, MEM);
	assert_int_equal(in(x, IO_BASE, 4), ONES);
	pci_del(&t.f);
	assert_int_equal(t.maps, 3);
	assert_int_equal(t.unmaps, 3);
}

static void io_bar_follows_the_guest(void **state)
{
	struct fixture *x = *state;
	struct toy t;

	io_init(&t, x, 16);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	wr(x, 1, CMD, 2, IO);
	wr(x, 1, 0x14, 4, 0xd000);
	assert_int_equal(t.mapped_at[1], 0xd000);
	assert_int_equal(in(x, IO_BASE, 4), ONES);
	assert_int_equal(in(x, 0xd000, 4), 0x5a5a5a5a);
	wr(x, 1, 0x15, 1, 0xd1); /* a byte moves it, too */
	assert_int_equal(t.f.bar[1].addr, 0xd100);
	wr(x, 1, 0x14, 4, 0xd11f); /* what is below its size is not there */
	assert_int_equal(t.f.bar[1].addr, 0xd110);
	assert_int_equal(t.maps, 4);
	pci_del(&t.f);
	assert_int_equal(in(x, 0xd110, 4), ONES);
	assert_int_equal(t.maps, t.unmaps);
}

static void io_bar_outside_its_window_does_not_decode(void **state)
{
	static const uint32_t bad[] = {
		0,      0x60,    LAYOUT_PORT_SERIAL, LAYOUT_PORT_PCI, IO_BASE - 16,      IO_END,
		0xfff0, 0x10000, 0x10000 + IO_BASE,  0x80001000,      LAYOUT_PCI32_BASE, ~0u,
	};
	struct fixture *x = *state;
	struct toy t;

	io_init(&t, x, 16);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	wr(x, 1, CMD, 2, IO);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		wr(x, 1, 0x14, 4, bad[i]);
		assert_false(t.f.bar[1].mapped);
	}
	assert_int_equal(t.maps, t.unmaps);
	wr(x, 1, 0x14, 4, IO_END - 16);
	assert_true(t.f.bar[1].mapped);
	wr(x, 1, 0x14, 4, IO_BASE);
	assert_true(t.f.bar[1].mapped);
	pci_del(&t.f);
}

static void io_bar_over_another_devices_ports_does_not_decode(void **state)
{
	const struct bus_region fixed = {0x2008, 1, &toy_bar, NULL, NULL, "t"};
	struct fixture *x = *state;
	struct toy a, b, owner = {.last_off = 0};
	struct bus_region r = fixed;

	r.dev = &owner;
	assert_int_equal(bus_add(x->pio, &r, NULL), 0);
	io_init(&a, x, 16);
	io_init(&b, x, 256);
	assert_int_equal(pci_add(x->pci, &a.f, NULL), 0);
	assert_int_equal(pci_add(x->pci, &b.f, NULL), 0);
	wr(x, 1, CMD, 2, IO);
	wr(x, 2, CMD, 2, IO);
	wr(x, 2, 0x14, 4, IO_BASE); /* over the first one's */
	assert_false(b.f.bar[1].mapped);
	out(x, IO_BASE, 4, 1);
	assert_int_equal(a.last_val, 1);
	wr(x, 2, 0x14, 4, 0x2000);
	assert_false(b.f.bar[1].mapped);
	out(x, 0x2008, 1, 7);
	assert_int_equal(owner.last_val, 7);
	assert_int_equal(b.last_size, 0);
	wr(x, 1, 0x14, 4, 0x2000);
	assert_false(a.f.bar[1].mapped);
	wr(x, 1, 0x14, 4, 0x2010);
	assert_true(a.f.bar[1].mapped);
	pci_del(&a.f);
	pci_del(&b.f);
}

/* The guest's values for one kind of BAR never reach the other's bus. */
static void io_bar_and_memory_bar_stay_apart(void **state)
{
	struct fixture *x = *state;
	struct toy t;

	io_init(&t, x, 16);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	wr(x, 1, CMD, 2, IO | MEM);
	wr(x, 1, 0x10, 4, 0xd000);
	wr(x, 1, 0x14, 4, 0xd0000000);
	assert_false(t.f.bar[0].mapped);
	assert_false(t.f.bar[1].mapped);
	assert_int_equal(in(x, 0xd000, 4), ONES);
	assert_int_equal(bus_read(x->mmio, 0xd0000000, 4), ~0ull);
	pci_del(&t.f);
}

static int bus_with_window(struct fixture *x, struct pci_window w)
{
	const struct pci_bus_env env = {x->pio, x->mmio, x->loop, w};

	pci_bus_free(x->pci);
	return pci_bus_new(&x->pci, &env, NULL);
}

static void io_bar_and_memory_bar_may_have_one_number(void **state)
{
	const struct pci_window same = {0x1000, 0x1000, WIN64, WIN64_SIZE, 0x1000, 0x1000};
	struct fixture *x = *state;
	struct toy t;

	assert_int_equal(bus_with_window(x, same), 0);
	io_init(&t, x, 16);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	wr(x, 1, CMD, 2, IO | MEM);
	assert_int_equal(t.mapped_at[0], 0x1000);
	assert_int_equal(t.mapped_at[1], 0x1000);
	pci_del(&t.f);
}

static void io_bar_without_room_is_enospc(void **state)
{
	const struct pci_window small = {
		LAYOUT_PCI32_BASE, LAYOUT_PCI32_SIZE, WIN64, WIN64_SIZE, 0x1008, 0x108};
	struct fixture *x = *state;
	struct toy a, b;
	struct err e;

	assert_int_equal(bus_with_window(x, small), 0);
	io_init(&a, x, 256); /* nothing aligned fits */
	io_init(&b, x, 8);
	assert_int_equal(pci_add(x->pci, &a.f, &e), -ENOSPC);
	assert_string_equal(e.text, "no room for BAR 1 in the PCI I/O window");
	assert_int_equal(pci_add(x->pci, &b.f, &e), 0);
	assert_int_equal(rd(x, 1, 0x14, 4), 0x1009);
	pci_del(&b.f);
}

static void io_bar_is_not_there_without_ports(void **state)
{
	struct fixture *x = *state;
	struct toy t;

	assert_true(pci_has_io(x->pci));
	pci_bus_free(x->pci);
	assert_int_equal(bus_with(x, NULL), 0);
	assert_false(pci_has_io(x->pci));
	io_init(&t, x, 16);
	assert_int_equal(pci_add(x->pci, &t.f, NULL), 0);
	wr(x, 1, 0x14, 4, ONES);
	wr(x, 1, CMD, 2, IO | MEM);
	assert_int_equal(rd(x, 1, 0x14, 4), 0);
	assert_int_equal(rd(x, 1, CMD, 2), MEM);
	assert_false(t.f.bar[1].mapped);
	pci_del(&t.f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(bar_is_assigned_aligned_and_apart),
		T(bar_sizing_reads_the_mask),
		T(bar_decodes_only_with_the_memory_bit),
		T(bar_follows_the_guest),
		T(bar_outside_the_windows_does_not_decode),
		T(bar_over_another_region_does_not_decode),
		T(bar_of_a_removed_function_is_free_again),
		T(io_bar_is_assigned_aligned_and_apart),
		T(io_bar_sizing_reads_the_mask),
		T(io_bar_decodes_only_with_the_io_bit),
		T(io_bar_follows_the_guest),
		T(io_bar_outside_its_window_does_not_decode),
		T(io_bar_over_another_devices_ports_does_not_decode),
		T(io_bar_and_memory_bar_stay_apart),
		T(io_bar_and_memory_bar_may_have_one_number),
		T(io_bar_without_room_is_enospc),
		T(io_bar_is_not_there_without_ports),
	};

	return cmocka_run_group_tests_name("pci_bar", tests, NULL, NULL);
}
