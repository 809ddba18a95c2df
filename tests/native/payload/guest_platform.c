/* SPDX-License-Identifier: Apache-2.0 */
/* The machine around the virtio devices: exits, ports, clocks, configuration space. */
#include "tests/native/payload/guest.h"
#include "tests/native/payload/pci.h"

#define NOWHERE 0xfd000000ull /* no RAM, no device */
#define NO_PORT 0x1234

static bool cmos_binary;

static uint8_t cmos(uint8_t reg)
{
	outb(LAYOUT_PORT_CMOS, reg);
	return inb(LAYOUT_PORT_CMOS + 1);
}

static uint8_t cmos_number(uint8_t reg)
{
	uint8_t v = cmos(reg);

	return cmos_binary ? v : (uint8_t)((v >> 4) * 10 + (v & 15));
}

/* Each byte of the batch reaches the port: the host finds the text as it is here. */
TEST(string_output_arrives_whole)
{
	put("# 0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ\n");
}

TEST(ports_of_nobody_read_as_ones)
{
	CHECK_EQ(inb(NO_PORT), 0xff);
	CHECK_EQ(inw(NO_PORT), 0xffff);
	CHECK_EQ(inl(NO_PORT), 0xffffffff);
	outb(NO_PORT, 1);
	outw(NO_PORT, 1);
	outl(NO_PORT, 1);
}

TEST(string_input_fills_memory)
{
	uint8_t buf[9] = {0};
	uint8_t *p = buf;
	size_t n = 8;

	__asm__ volatile("rep insb" : "+D"(p), "+c"(n) : "d"(NO_PORT) : "memory");
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(buf[i], 0xff);
	CHECK_EQ(buf[8], 0);
}

TEST(memory_of_nobody_reads_as_ones)
{
	CHECK_EQ(r8(NOWHERE), 0xff);
	CHECK_EQ(r16(NOWHERE + 2), 0xffff);
	CHECK_EQ(r32(NOWHERE + 4), 0xffffffff);
	CHECK_EQ(r64(NOWHERE + 8), UINT64_MAX);
	for (unsigned size = 1; size <= 8; size *= 2)
		mmio_write(NOWHERE + 1, size, 0);
	CHECK_EQ(r64(NOWHERE + 1), UINT64_MAX);
}

/* An access that begins in a device and ends behind it is nobody's. */
TEST(access_across_the_end_of_a_device_reads_as_ones)
{
	CHECK_EQ(inl(LAYOUT_PORT_PVPANIC), 0xffffffff);
	CHECK_EQ(inw(LAYOUT_PORT_PMTIMER + 3), 0xffff);
}

/* Two bytes at rising ports are two registers. */
TEST(wide_port_access_reaches_neighbours)
{
	outb(LAYOUT_PORT_SERIAL + 7, 0x5a); /* the scratch register */
	CHECK_EQ(inb(LAYOUT_PORT_SERIAL + 7), 0x5a);
	CHECK_EQ(inw(LAYOUT_PORT_SERIAL + 6) >> 8, 0x5a);
}

TEST(cmos_tells_the_time)
{
	uint8_t b = cmos(0x0b), before, t[6];
	static const uint8_t reg[6] = {9, 8, 7, 4, 2, 0};

	cmos_binary = b & 4;
	CHECK(b & 2); /* 24 hours */
	CHECK(cmos(0x0d) & 0x80);
	do {
		before = cmos(0);
		for (unsigned i = 0; i < 6; i++)
			t[i] = cmos_number(reg[i]);
	} while (cmos(0) != before);
	/* The host compares. */
	put("# time ");
	for (unsigned i = 0; i < 6; i++) {
		put_dec(t[i]);
		put(" ");
	}
	put("\n");
}

TEST(i8042_passes_its_self_test)
{
	outb(LAYOUT_PORT_I8042 + 4, 0xaa);
	CHECK(inb(LAYOUT_PORT_I8042 + 4) & 1);
	CHECK_EQ(inb(LAYOUT_PORT_I8042), 0x55);
	CHECK_EQ(inb(LAYOUT_PORT_I8042 + 4) & 1, 0);
}

TEST(pm_timer_moves_forward)
{
	for (unsigned i = 0; i < 5; i++) {
		uint32_t a = inl(LAYOUT_PORT_PMTIMER);

		/* Every read is an exit that takes longer than a tick of 279 ns. */
		CHECK(WAIT(inl(LAYOUT_PORT_PMTIMER) != a));
		CHECK(inl(LAYOUT_PORT_PMTIMER) - a < 0x80000000u);
	}
}

TEST(port_61_toggles)
{
	uint8_t first = inb(LAYOUT_PORT_SYSB) & 0x10;

	CHECK(WAIT((inb(LAYOUT_PORT_SYSB) & 0x10) != first));
}

TEST(pvpanic_says_what_it_takes)
{
	CHECK_EQ(inb(LAYOUT_PORT_PVPANIC), 3);
}

TEST(both_ways_into_configuration_space_agree)
{
	unsigned found = 0;

	for (unsigned slot = 0; slot < 32; slot++) {
		uint64_t ecam = pci_ecam(slot);
		unsigned n = r32(ecam) == UINT32_MAX ? 4 : 256;

		found += n == 256;
		for (unsigned off = 0; off < n; off += 4)
			CHECK_EQ(cf8_read(slot, off), r32(ecam + off));
	}
	CHECK_EQ(found, 3); /* the host bridge, a disk, the entropy source */
}

TEST(configuration_ports_take_bytes_and_words)
{
	outl(LAYOUT_PORT_PCI, 0x80000000u | 1 << 11);
	CHECK_EQ(inw(LAYOUT_PORT_PCI + 4), 0x1af4);
	CHECK_EQ(inb(LAYOUT_PORT_PCI + 5), 0x1a);
	CHECK_EQ(inw(LAYOUT_PORT_PCI + 6), r16(pci_ecam(1) + 2));
	/* Not enabled, or another bus: nothing there. */
	outl(LAYOUT_PORT_PCI, 1 << 11);
	CHECK_EQ(inl(LAYOUT_PORT_PCI + 4), UINT32_MAX);
	outl(LAYOUT_PORT_PCI, 0x80000000u | 1 << 16);
	CHECK_EQ(inl(LAYOUT_PORT_PCI + 4), UINT32_MAX);
}

TEST(other_functions_and_extended_space_read_as_ones)
{
	CHECK_EQ(r32(pci_ecam(1) + 0x1000), UINT32_MAX);
	CHECK_EQ(r32(pci_ecam(1) + 0x100), UINT32_MAX);
	CHECK_EQ(r32(pci_ecam(9)), UINT32_MAX);
	CHECK_EQ(r32(LAYOUT_ECAM_BASE + LAYOUT_ECAM_SIZE), UINT32_MAX);
}

void guest_main(void)
{
	static const struct test tests[] = {
		T(string_output_arrives_whole),
		T(ports_of_nobody_read_as_ones),
		T(string_input_fills_memory),
		T(memory_of_nobody_reads_as_ones),
		T(access_across_the_end_of_a_device_reads_as_ones),
		T(wide_port_access_reaches_neighbours),
		T(cmos_tells_the_time),
		T(i8042_passes_its_self_test),
		T(pm_timer_moves_forward),
		T(port_61_toggles),
		T(pvpanic_says_what_it_takes),
		T(both_ways_into_configuration_space_agree),
		T(configuration_ports_take_bytes_and_words),
		T(other_functions_and_extended_space_read_as_ones),
	};

	run_tests(tests, sizeof(tests) / sizeof(tests[0]));
}
