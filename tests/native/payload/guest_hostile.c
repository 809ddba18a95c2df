/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver. Each test attacks one device; it passes when the device
 * answers as the standard lets it, two other devices, started before and never
 * touched, go on working, and the attacked one works again after a reset.
 */
#include "tests/native/payload/hostile.h"

TEST(devices_are_found)
{
	CHECK(all_found());
	CHECK_SURVIVED();
}

/* --------------------------------------------------------------- chains */

TEST(looped_chain_needs_reset)
{
	CHECK(start());
	blk_put(&vring, 0, &req, buf, 512);
	vring.desc[1].next = 1;
	CHECK_BREAKS();
}

TEST(chain_that_loops_to_its_head_needs_reset)
{
	CHECK(start());
	vring.desc[0] = (struct desc){addr_of(buf), 0, D_NEXT, 0};
	ring_publish(&vring, 0);
	CHECK_BREAKS();
}

TEST(head_out_of_range_needs_reset)
{
	CHECK(start());
	ring_publish(&vring, 0xffff);
	CHECK_BREAKS();
}

TEST(next_out_of_range_needs_reset)
{
	CHECK(start());
	blk_put(&vring, 0, &req, buf, 512);
	vring.desc[1].next = RING_MAX;
	CHECK_BREAKS();
}

TEST(readable_after_writable_needs_reset)
{
	CHECK(start());
	blk_put(&vring, 0, &req, buf, 512);
	vring.desc[2].flags = 0;
	CHECK_BREAKS();
}

/*
 * The first may be done before the second is looked at; then it is a good
 * driver's doing. Whatever happens, no answer comes twice for one.
 */
TEST(head_twice_in_flight)
{
	for (unsigned i = 0; i < 20; i++) {
		CHECK(start());
		blk_put(&vring, 0, &req, buf, 4096);
		ring_publish(&vring, 0);
		dev_kick(&victim, 0);
		CHECK(WAIT(r16(addr_of(&vring.used.idx)) == 2 ||
			   dev_status(&victim) & S_NEEDS_RESET));
		CHECK(vring.used.idx <= 2);
	}
	CHECK_SURVIVED();
}

TEST(avail_index_jump_needs_reset)
{
	CHECK(start());
	blk_put(&vring, 0, &req, buf, 512);
	vring.avail.idx = RING_MAX + 1;
	CHECK_BREAKS();
}

TEST(avail_index_backwards_needs_reset)
{
	CHECK(start());
	CHECK(works());
	vring.avail.idx--;
	vring.avail.idx--;
	dev_kick(&victim, 0);
	CHECK(WAIT(dev_status(&victim) & S_NEEDS_RESET));
	CHECK_SURVIVED();
}

/* -------------------------------------------------------------- buffers */

static void bad_buffer(uint64_t at, uint32_t len)
{
	CHECK(start());
	blk_put(&vring, 0, &req, buf, 512);
	vring.desc[1].addr = at;
	vring.desc[1].len = len;
	CHECK_BREAKS();
}

TEST(buffer_outside_memory_needs_reset)
{
	bad_buffer(NO_RAM, 512);
	bad_buffer(UINT64_MAX - 511, 512);
	bad_buffer(UINT64_MAX - 255, 512);
	bad_buffer(UINT64_MAX, UINT32_MAX);
}

TEST(buffer_across_the_end_of_memory_needs_reset)
{
	bad_buffer((128u << 20) - 256, 512);
	bad_buffer(addr_of(buf), 128u << 20);
	bad_buffer(addr_of(buf), UINT32_MAX);
}

/* Re-entrancy: the device would read or write registers, its own among them. */
TEST(dma_into_device_registers_needs_reset)
{
	bad_buffer(victim.pci ? victim.bar : victim.regs, 512);
	bad_buffer(victim.pci ? victim.notify : victim.regs + M_QUEUE_NOTIFY, 512);
	bad_buffer(victim.pci ? disk.bar : disk.regs, 512);
	bad_buffer(LAYOUT_ECAM_BASE, 512);
	bad_buffer(LAYOUT_LAPIC, 512);
	bad_buffer(LAYOUT_IOAPIC, 512);
}

TEST(header_in_device_registers_needs_reset)
{
	CHECK(start());
	blk_put(&vring, 0, &req, buf, 512);
	vring.desc[0].addr = victim.pci ? victim.common : victim.regs;
	CHECK_BREAKS();
}

/* Half the memory for one request, the program's own included: a page is all it gives. */
TEST(huge_request_is_answered_in_part)
{
	const struct buf b = {64u << 20, 32u << 20, true};
	struct dev r = rng;
	uint32_t id, len;

	ring_chain(rng_ring.desc, 0, &b, 1);
	ring_publish(&rng_ring, 0);
	dev_kick(&r, 0);
	CHECK(ring_wait(&rng_ring, &id, &len));
	CHECK_EQ(len, 4096);
	CHECK_SURVIVED();
}

/* ------------------------------------------------------ indirect tables */

static struct desc table[64] __attribute__((aligned(16)));

static bool start_indirect(void)
{
	const struct buf b[3] = {
		READ_BY_DEVICE(&req, 16),
		WRITTEN_BY_DEVICE(buf, 512),
		WRITTEN_BY_DEVICE(&req.status, 1),
	};

	if (!dev_start(&victim, &vring, F_INDIRECT))
		return false;
	req = (struct blk_req){.type = BLK_IN, .sector = 1};
	ring_chain(table, 0, b, 3);
	vring.desc[0] = (struct desc){addr_of(table), 48, D_INDIRECT, 0};
	return true;
}

#define CHECK_TABLE_BREAKS(change)                                                                 \
	do {                                                                                       \
		CHECK(start_indirect());                                                           \
		change;                                                                            \
		ring_publish(&vring, 0);                                                           \
		CHECK_BREAKS();                                                                    \
	} while (0)

TEST(indirect_table_outside_memory_needs_reset)
{
	CHECK_TABLE_BREAKS(vring.desc[0].addr = NO_RAM);
	CHECK_TABLE_BREAKS(vring.desc[0].addr = UINT64_MAX - 16);
	CHECK_TABLE_BREAKS(vring.desc[0].addr = LAYOUT_ECAM_BASE);
}

TEST(indirect_table_of_bad_length_needs_reset)
{
	CHECK_TABLE_BREAKS(vring.desc[0].len = 0);
	CHECK_TABLE_BREAKS(vring.desc[0].len = 47);
	CHECK_TABLE_BREAKS(vring.desc[0].len = 16 * (RING_MAX + 1));
	CHECK_TABLE_BREAKS(vring.desc[0].len = 0xfffffff0);
}

TEST(indirect_table_that_nests_or_loops_needs_reset)
{
	CHECK_TABLE_BREAKS(table[0] = vring.desc[0]);
	CHECK_TABLE_BREAKS(table[1].next = 1);
	CHECK_TABLE_BREAKS(table[1].next = 3);
	CHECK_TABLE_BREAKS(vring.desc[0].flags |= D_NEXT);
}

TEST(indirect_table_not_negotiated_needs_reset)
{
	CHECK(start());
	vring.desc[0] = (struct desc){addr_of(table), 48, D_INDIRECT, 0};
	ring_publish(&vring, 0);
	CHECK_BREAKS();
}

/* ------------------------------------------------------- disk's requests */

TEST(request_without_status_byte_needs_reset)
{
	CHECK(start());
	const struct buf b = READ_BY_DEVICE(&req, 16);
	ring_chain(vring.desc, 0, &b, 1);
	ring_publish(&vring, 0);
	CHECK_BREAKS();
}

TEST(short_header_is_an_error)
{
	CHECK(start());
	blk_put(&vring, 0, &req, buf, 512);
	vring.desc[0].len = 15;
	dev_kick(&victim, 0);

	uint32_t id, len;
	CHECK(ring_wait(&vring, &id, &len));
	CHECK_EQ(req.status, BLK_IOERR);
	CHECK_SURVIVED();
}

TEST(empty_and_odd_buffers_are_answered)
{
	static const uint32_t lens[] = {1, 511, 513, 0};

	CHECK(start());
	for (unsigned i = 0; i < 4; i++) {
		uint32_t id, len;

		blk_put(&vring, 0, &req, buf, 512);
		vring.desc[1].len = lens[i];
		dev_kick(&victim, 0);
		CHECK(ring_wait(&vring, &id, &len));
		CHECK_EQ(req.status, lens[i] ? BLK_IOERR : BLK_OK);
		CHECK(len <= lens[i] + 1);
	}
	CHECK_SURVIVED();
}

/* ------------------------------------------------------------ registers */

TEST(queue_out_of_range_is_nothing)
{
	static const uint16_t q[] = {1, 33, 64, 0x7fff, 0xffff};

	CHECK(start());
	for (unsigned i = 0; i < 5; i++) {
		dev_select(&victim, q[i]);
		CHECK_EQ(dev_queue_max(&victim), 0);
		dev_queue_size(&victim, 8);
		dev_queue_addr(&victim, 0, 0, 0);
		dev_queue_enable(&victim);
		CHECK(!dev_queue_enabled(&victim));
		dev_queue_reset(&victim);
		CHECK_EQ(dev_queue_max(&victim), 0);
	}
	CHECK(works());
	CHECK_SURVIVED();
}

TEST(queue_registers_are_frozen_once_enabled)
{
	CHECK(start());
	dev_select(&victim, 0);
	dev_queue_size(&victim, 0x8000);
	dev_queue_addr(&victim, NO_RAM, UINT64_MAX, LAYOUT_LAPIC);
	dev_queue_enable(&victim);
	if (victim.pci) /* MMIO's cannot be read */
		CHECK_EQ(r16(victim.common + C_QUEUE_SIZE), RING_MAX);
	for (unsigned i = 0; i < 2 * RING_MAX; i++)
		CHECK(works());
	CHECK_SURVIVED();
}

static void bad_queue(uint16_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
	CHECK(dev_begin(&victim, 0));
	dev_select(&victim, 0);
	dev_queue_size(&victim, size);
	dev_queue_addr(&victim, desc, avail, used);
	dev_queue_enable(&victim);
	dev_set_status(&victim, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
	CHECK(dev_status(&victim) & S_NEEDS_RESET);
	dev_kick(&victim, 0);
	CHECK_SURVIVED();
}

TEST(queue_of_bad_size_needs_reset)
{
	uint64_t a = addr_of(buf);

	bad_queue(0, a, a, a);
	bad_queue(3, a, a, a);
	bad_queue(1024, a, a, a);
	bad_queue(0xffff, a, a, a);
}

TEST(queue_outside_memory_needs_reset)
{
	uint64_t a = addr_of(buf);

	bad_queue(8, NO_RAM, a, a);
	bad_queue(8, a, UINT64_MAX - 1, a);
	bad_queue(8, a, a, LAYOUT_LAPIC);
	bad_queue(8, (128u << 20) - 16, a, a);
	bad_queue(8, a + 8, a, a);
	bad_queue(8, a, a + 1, a);
	bad_queue(8, a, a, a + 2);
}

TEST(status_out_of_order_is_refused)
{
	dev_reset(&victim);
	dev_set_status(&victim, S_DRIVER_OK);
	CHECK_EQ(dev_status(&victim) & S_DRIVER_OK, 0);
	dev_kick(&victim, 0);
	/* A feature that is not offered, and VERSION_1 missing. */
	dev_reset(&victim);
	dev_set_status(&victim, S_ACKNOWLEDGE | S_DRIVER);
	dev_accept(&victim, UINT64_MAX);
	dev_set_status(&victim, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
	CHECK_EQ(dev_status(&victim) & S_FEATURES_OK, 0);
	dev_accept(&victim, 0);
	dev_set_status(&victim, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
	CHECK_EQ(dev_status(&victim) & S_FEATURES_OK, 0);
	dev_set_status(&victim, 0xff);
	CHECK_EQ(dev_status(&victim) & S_NEEDS_RESET, 0);
	CHECK_SURVIVED();
}

TEST(features_are_frozen_once_accepted)
{
	CHECK(start());
	dev_accept(&victim, F_VERSION_1 | F_INDIRECT | F_EVENT_IDX);
	CHECK(works());
	vring.desc[0] = (struct desc){addr_of(table), 48, D_INDIRECT, 0};
	ring_publish(&vring, 0);
	dev_kick(&victim, 0);
	CHECK(WAIT(dev_status(&victim) & S_NEEDS_RESET));
	CHECK_SURVIVED();
}

TEST(kicks_of_absent_queues_and_floods_are_nothing)
{
	CHECK(start());
	for (uint32_t q = 1; q < 300; q += 7) {
		if (victim.pci)
			w32(victim.notify + q * victim.multiplier, q);
		else
			w32(victim.regs + M_QUEUE_NOTIFY, q);
	}
	if (!victim.pci)
		w32(victim.regs + M_QUEUE_NOTIFY, UINT32_MAX);
	for (unsigned i = 0; i < 1000; i++)
		dev_kick(&victim, 0);
	CHECK(works());
	dev_reset(&victim);
	dev_kick(&victim, 0);
	CHECK_SURVIVED();
}

TEST(writes_to_read_only_configuration_are_nothing)
{
	uint64_t sectors = r64(victim.config);

	CHECK(start());
	for (unsigned off = 0; off < 0x80; off += 8)
		w64(victim.config + off, UINT64_MAX);
	CHECK_EQ(r64(victim.config), sectors);
	CHECK(works());
	CHECK_SURVIVED();
}

/* ------------------------------------------------------------- PCI alone */

TEST(pci_msix_table_out_of_range_is_nothing)
{
	CHECK(start());
	msix_control(&victim, MSIX_ENABLE);
	for (unsigned off = 32; off < 0x1000; off += 68) {
		w32(victim.table + off, UINT32_MAX);
		w64((victim.table + off) & ~7ull, UINT64_MAX);
		CHECK_EQ(r32((victim.table + off) & ~3ull), 0);
		w32(victim.pba + off % 0x1000, UINT32_MAX);
	}
	CHECK(!msix_pending(&victim, 0) && !msix_pending(&victim, 1));
	queue_vector(&victim, 0, 2000);
	CHECK_EQ(r16(victim.common + C_QUEUE_VECTOR), NO_VECTOR);
	CHECK(works());
	msix_control(&victim, 0);
	CHECK_SURVIVED();
}

/* Nothing of the device may show at @addr, and memory there stays memory. */
static void bar_at(uint64_t addr, uint64_t home)
{
	uint32_t before = r32(addr);

	dev_bar(&victim, addr);
	CHECK_EQ(r32(addr), before);
	dev_bar(&victim, home);
	CHECK(others_work());
	CHECK(start());
	CHECK(works());
}

TEST(pci_bar_over_memory_or_devices_does_not_decode)
{
	uint64_t home = victim.bar;

	bar_at(0, home);
	bar_at(0x200000, home); /* this program */
	bar_at(addr_of(&vring) & ~0x7fffull, home);
	bar_at(disk.bar, home);
	bar_at(rng.bar, home);
	bar_at(LAYOUT_ECAM_BASE, home);
	bar_at(0xfec00000, home);
	bar_at(0xffff8000, home);
}

TEST(pci_bar_far_away_does_not_decode)
{
	uint64_t home = victim.bar;

	dev_bar(&victim, 0xffffffffffff8000ull);
	CHECK(others_work());
	dev_bar(&victim, 1ull << 62);
	CHECK(others_work());
	dev_bar(&victim, home);
	CHECK_SURVIVED();
}

/* Nothing of the device may show there, nor take another's ports from it. */
TEST(pci_ports_over_others_or_far_away_do_not_decode)
{
	const uint32_t bad[] = {LAYOUT_PORT_PCI,
				LAYOUT_PCI_IO_BASE - 16,
				0xfff0,
				0x11800,
				disk.ports,
				rng.ports,
				~0u};
	uint32_t home = victim.ports;

	CHECK(start());
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint32_t before = inl((uint16_t)bad[i]);

		dev_ports(&victim, bad[i]);
		CHECK_EQ(inl((uint16_t)bad[i]), before);
		CHECK(others_work());
		dev_ports(&victim, home);
		CHECK_SURVIVED();
	}
}

/* ---------------------------------------------------------------- walks */

#define WALK 3000 /* steps of each */

TEST(walk_over_the_registers)
{
	uint64_t base = victim.pci ? victim.bar : victim.regs;

	CHECK(start());
	for (unsigned i = 0; i < WALK; i++) {
		walk(base, victim.pci ? 0x8000 : 0x1000);
		if (i % 500 == 0) {
			CHECK(others_work());
			CHECK(start());
		}
	}
	CHECK_SURVIVED();
}

/* Most of it reaches the structures, whose pages are mostly empty. */
TEST(walk_over_the_structures)
{
	CHECK(start());
	for (unsigned i = 0; i < WALK; i++) {
		if (victim.pci)
			walk(victim.bar + (random32() & 7) * 0x1000, 0x48);
		else
			walk(victim.regs, 0x140);
		if (i % 500 == 0) {
			CHECK(others_work());
			CHECK(start());
		}
	}
	CHECK_SURVIVED();
}

TEST(pci_walk_over_configuration_space)
{
	uint64_t home = victim.bar;

	CHECK(start());
	for (unsigned i = 0; i < WALK; i++) {
		walk(pci_ecam(i % 8 ? victim.slot : 20), i % 3 ? 0x100 : 0x8000);
		if (i % 500 == 0)
			CHECK(others_work());
	}
	revive(home);
	CHECK_SURVIVED();
}

/* Those that end the machine are only read; what the address port selects is the victim. */
TEST(walk_over_ports)
{
	static const struct {
		uint16_t base, span;
		bool writable;
	} range[] = {
		{LAYOUT_PORT_CMOS, 4, true},       {LAYOUT_PORT_DEBUG, 2, true},
		{LAYOUT_PORT_PCI + 4, 6, true},    {0x1000, 0x1000, true},
		{LAYOUT_PORT_I8042, 6, false},     {LAYOUT_PORT_SERIAL - 4, 12, false},
		{LAYOUT_PORT_ACPI - 4, 20, false}, {LAYOUT_PORT_PVPANIC - 4, 8, false},
		{LAYOUT_PORT_MARK - 4, 8, false},  {0xfff8, 5, true},
	};
	uint64_t home = victim.bar;

	CHECK(start());
	for (unsigned i = 0; i < WALK; i++) {
		unsigned k = random32() % (sizeof(range) / sizeof(range[0])), size = 1u << i % 3;
		uint16_t port = (uint16_t)(range[k].base + random32() % range[k].span);

		outl(LAYOUT_PORT_PCI, 0x80000000u | victim.slot << 11 | (random32() & 0xff));
		if (i % 2 && range[k].writable)
			pio_write(port, size, random32());
		else
			pio_read(port, size);
	}
	revive(home);
	CHECK_SURVIVED();
}

void guest_main(void)
{
	static const struct test any[] = {
		T(devices_are_found),
		T(looped_chain_needs_reset),
		T(chain_that_loops_to_its_head_needs_reset),
		T(head_out_of_range_needs_reset),
		T(next_out_of_range_needs_reset),
		T(readable_after_writable_needs_reset),
		T(head_twice_in_flight),
		T(avail_index_jump_needs_reset),
		T(avail_index_backwards_needs_reset),
		T(buffer_outside_memory_needs_reset),
		T(buffer_across_the_end_of_memory_needs_reset),
		T(dma_into_device_registers_needs_reset),
		T(header_in_device_registers_needs_reset),
		T(huge_request_is_answered_in_part),
		T(indirect_table_outside_memory_needs_reset),
		T(indirect_table_of_bad_length_needs_reset),
		T(indirect_table_that_nests_or_loops_needs_reset),
		T(indirect_table_not_negotiated_needs_reset),
		T(request_without_status_byte_needs_reset),
		T(short_header_is_an_error),
		T(empty_and_odd_buffers_are_answered),
		T(queue_out_of_range_is_nothing),
		T(queue_registers_are_frozen_once_enabled),
		T(queue_of_bad_size_needs_reset),
		T(queue_outside_memory_needs_reset),
		T(status_out_of_order_is_refused),
		T(features_are_frozen_once_accepted),
		T(kicks_of_absent_queues_and_floods_are_nothing),
		T(writes_to_read_only_configuration_are_nothing),
		T(walk_over_the_registers),
		T(walk_over_the_structures),
		T(walk_over_ports),
	};
	static const struct test pci[] = {
		T(pci_msix_table_out_of_range_is_nothing),
		T(pci_bar_over_memory_or_devices_does_not_decode),
		T(pci_bar_far_away_does_not_decode),
		T(pci_ports_over_others_or_far_away_do_not_decode),
		T(pci_walk_over_configuration_space),
	};

	run_tests(any, sizeof(any) / sizeof(any[0]));
	if (on_pci())
		run_tests(pci, sizeof(pci) / sizeof(pci[0]));
}
