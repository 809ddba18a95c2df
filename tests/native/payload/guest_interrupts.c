/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kicks and interrupts: irqfd through MSI-X with its masks and pending bits, and
 * the ways of a kick over PCI; the shared line and its status register over MMIO.
 */
#include "tests/native/payload/pci.h"
#include "tests/native/payload/virtio.h"

static struct dev rng;
static struct ring ring;
static uint8_t buf[64];

/* A request without waiting for its interrupt; ends when the device is done with the kick. */
static bool request(void)
{
	uint32_t used;

	if (!rng_read(&rng, &ring, buf, 8, &used) || used != 8)
		return false;
	/* This register needs the device's lock, which the kick's handler holds to its end. */
	return dev_status(&rng) & S_DRIVER_OK;
}

static bool start(uint64_t want)
{
	return dev_find(&rng, ID_RNG, 0) && dev_start(&rng, &ring, want);
}

/* MSI-X entry 1 for queue 0, entry 0 for the configuration. */
static bool start_msix(uint64_t want, uint8_t vector, bool masked)
{
	if (!start(want))
		return false;
	msix_control(&rng, MSIX_ENABLE);
	msix_entry(&rng, 1, vector, masked);
	queue_vector(&rng, 0, 1);
	return r16(rng.common + C_QUEUE_VECTOR) == 1;
}

/* ----------------------------------------------------------------- PCI */

TEST(pci_capabilities_lie_in_the_bar)
{
	CHECK(start(0));
	CHECK_EQ(rng.common & 0xfff, 0);
	CHECK(rng.multiplier >= 2);
	CHECK(rng.ports_multiplier >= 2);
	CHECK(rng.ports >= LAYOUT_PCI_IO_BASE);
	CHECK(rng.ports < LAYOUT_PCI_IO_BASE + LAYOUT_PCI_IO_SIZE);
	CHECK_EQ(r16(rng.common + C_NUM_QUEUES), 1);
	dev_select(&rng, 0);
	CHECK_EQ(r16(rng.common + C_QUEUE_NOTIFY), 0);
	/* One vector a queue, one for the configuration; the field holds one less. */
	CHECK_EQ(r16(pci_ecam(rng.slot) + rng.msix + 2) & 0x7ff, 1);
}

TEST(pci_interrupt_arrives)
{
	uint8_t v = apic_vector();

	CHECK(start_msix(0, v, false));
	CHECK(!apic_seen(v));
	CHECK(request());
	CHECK(WAIT(apic_seen(v)));
	CHECK(!msix_pending(&rng, 1));
}

TEST(pci_masked_vector_waits_in_the_pending_bit)
{
	uint8_t v = apic_vector();

	CHECK(start_msix(0, v, true));
	CHECK(!msix_pending(&rng, 1));
	CHECK(request());
	CHECK(msix_pending(&rng, 1));
	CHECK(!msix_pending(&rng, 0));
	CHECK(!apic_seen(v));
	msix_mask(&rng, 1, false);
	CHECK(WAIT(apic_seen(v)));
	CHECK(!msix_pending(&rng, 1));
}

TEST(pci_function_mask_holds_all_back)
{
	uint8_t v = apic_vector();

	CHECK(start_msix(0, v, false));
	msix_control(&rng, MSIX_ENABLE | MSIX_MASK_ALL);
	CHECK(request());
	CHECK(msix_pending(&rng, 1));
	CHECK(!apic_seen(v));
	msix_control(&rng, MSIX_ENABLE);
	CHECK(WAIT(apic_seen(v)));
	CHECK(!msix_pending(&rng, 1));
}

/* What a driver changes while masked counts when it unmasks. */
TEST(pci_pending_interrupt_takes_the_new_vector)
{
	uint8_t old = apic_vector(), new = apic_vector();

	CHECK(start_msix(0, old, true));
	CHECK(request());
	msix_entry(&rng, 1, new, false);
	CHECK(WAIT(apic_seen(new)));
	CHECK(!apic_seen(old));
}

TEST(pci_reset_forgets_what_is_pending)
{
	uint8_t v = apic_vector();

	CHECK(start_msix(0, v, true));
	CHECK(request());
	CHECK(msix_pending(&rng, 1));
	dev_reset(&rng);
	CHECK(!msix_pending(&rng, 1));
	msix_mask(&rng, 1, false);
	CHECK_EQ(dev_status(&rng), 0);
	CHECK(!apic_seen(v));
}

TEST(pci_vector_out_of_range_reads_back_none)
{
	CHECK(start(0));
	queue_vector(&rng, 0, 2);
	CHECK_EQ(r16(rng.common + C_QUEUE_VECTOR), NO_VECTOR);
	w16(rng.common + C_CONFIG_VECTOR, 1000);
	CHECK_EQ(r16(rng.common + C_CONFIG_VECTOR), NO_VECTOR);
	msix_control(&rng, MSIX_ENABLE);
	CHECK(request());
}

TEST(pci_interrupt_moves_with_its_entry)
{
	uint8_t a = apic_vector(), b = apic_vector();

	CHECK(start_msix(0, a, false));
	CHECK(request());
	CHECK(WAIT(apic_seen(a)));
	msix_entry(&rng, 0, b, false);
	queue_vector(&rng, 0, 0);
	CHECK(request());
	CHECK(WAIT(apic_seen(b)));
}

TEST(pci_driver_without_interest_gets_no_interrupt)
{
	uint8_t v = apic_vector();

	CHECK(start_msix(0, v, false));
	ring.avail.flags = 1;
	CHECK(request());
	CHECK(!apic_seen(v));
	ring.avail.flags = 0;
	CHECK(request());
	CHECK(WAIT(apic_seen(v)));
}

TEST(pci_event_idx_says_when_to_interrupt)
{
	uint8_t v = apic_vector();

	CHECK(start_msix(F_EVENT_IDX, v, false));
	ring.avail.used_event = 3; /* the fourth */
	for (unsigned i = 0; i < 3; i++) {
		CHECK(request());
		CHECK(!apic_seen(v));
	}
	CHECK(request());
	CHECK(WAIT(apic_seen(v)));
}

/* Without MSI-X the status register is there for a driver that polls it; reading clears. */
TEST(pci_isr_tells_without_msix)
{
	CHECK(start(0));
	msix_control(&rng, 0);
	r8(rng.isr);
	CHECK(request());
	CHECK_EQ(r8(rng.isr) & 1, 1);
	CHECK_EQ(r8(rng.isr), 0);
}

TEST(pci_needs_reset_interrupts)
{
	uint8_t v = apic_vector();

	CHECK(start(0));
	msix_control(&rng, MSIX_ENABLE);
	msix_entry(&rng, 0, v, false);
	w16(rng.common + C_CONFIG_VECTOR, 0);
	CHECK_EQ(r16(rng.common + C_CONFIG_VECTOR), 0);
	ring_publish(&ring, RING_MAX); /* no such head */
	dev_kick(&rng, 0);
	CHECK(WAIT(dev_status(&rng) & S_NEEDS_RESET));
	CHECK(WAIT(apic_seen(v)));
	CHECK_EQ(r8(rng.isr) & 2, 2);
}

static void offer(void)
{
	const struct buf b = WRITTEN_BY_DEVICE(buf, 8);

	ring_chain(ring.desc, 0, &b, 1);
	ring_publish(&ring, 0);
}

static bool served(void)
{
	uint32_t id, len;

	return ring_wait(&ring, &id, &len) && len == 8;
}

static bool kicked_by(unsigned size)
{
	offer();
	mmio_write(rng.notify, size, 0);
	return served();
}

static bool kicked_by_port(unsigned size)
{
	offer();
	pio_write(rng.ports, size, 0);
	return served();
}

TEST(pci_kick_of_any_width)
{
	CHECK(start(0));
	CHECK(kicked_by(2));
	CHECK(kicked_by(4));
	CHECK(kicked_by(1));
}

TEST(pci_kick_by_port_of_any_width)
{
	CHECK(start(0));
	CHECK(kicked_by_port(2));
	CHECK(kicked_by_port(4));
	CHECK(kicked_by_port(1));
	CHECK(kicked_by(2)); /* and the other way still */
	CHECK_EQ(inl(rng.ports), 0);
}

static void cfg_window(uint32_t off, uint32_t len)
{
	uint64_t cap = pci_ecam(rng.slot) + rng.pci_cfg;

	w8(cap + 4, 0);
	w32(cap + 8, off);
	w32(cap + 12, len);
}

TEST(pci_cfg_window_reads_registers)
{
	uint64_t data = pci_ecam(rng.slot) + rng.pci_cfg + 16;

	CHECK(start(0));
	cfg_window((uint32_t)(rng.common - rng.bar) + C_STATUS, 1);
	CHECK_EQ(r8(data), dev_status(&rng));
	cfg_window((uint32_t)(rng.common - rng.bar) + C_NUM_QUEUES, 2);
	CHECK_EQ(r16(data), 1);
	CHECK_EQ(cf8_read(rng.slot, rng.pci_cfg + 16) & 0xffff, 1);
}

TEST(pci_cfg_window_kicks)
{
	uint64_t cap = pci_ecam(rng.slot) + rng.pci_cfg;

	CHECK(start(0));
	offer();
	cfg_window((uint32_t)(rng.notify - rng.bar), 2);
	w16(cap + 16, 0);
	CHECK(served());
	offer();
	cfg_window(0, 2);
	w8(cap + 4, 2); /* the ports */
	w16(cap + 16, 0);
	CHECK(served());
}

TEST(pci_cfg_window_outside_the_bar_is_nothing)
{
	static const uint32_t off[] = {0x8000, 0x7fff, 0xffffffff, 0xfffff000, 0x80000000};
	uint64_t data = pci_ecam(rng.slot) + rng.pci_cfg + 16;

	CHECK(start(0));
	for (unsigned i = 0; i < sizeof(off) / sizeof(off[0]); i++)
		for (uint32_t len = 0; len <= 8; len++) {
			cfg_window(off[i], len);
			w32(data, 0x12345678);
			r32(data);
		}
	w8(pci_ecam(rng.slot) + rng.pci_cfg + 4, 3); /* a BAR that is not there */
	w32(data, 0);
	CHECK(request());
}

/* The notification page moves with the BAR, and its ioeventfd with it. */
TEST(pci_bar_moves_and_kicks_follow)
{
	uint64_t home, away = LAYOUT_PCI32_BASE + (256u << 20);

	CHECK(start(0));
	home = rng.bar;
	dev_bar(&rng, away);
	CHECK_EQ(r32(home), UINT32_MAX);
	CHECK(kicked_by(2));
	dev_bar(&rng, home);
	CHECK_EQ(r32(away), UINT32_MAX);
	CHECK(kicked_by(2));
}

TEST(pci_ports_move_and_kicks_follow)
{
	uint16_t home, away = LAYOUT_PCI_IO_BASE + 0xd000;

	CHECK(start(0));
	home = rng.ports;
	dev_ports(&rng, away);
	CHECK_EQ(rng.ports, away);
	CHECK_EQ(inl(home), UINT32_MAX);
	CHECK(kicked_by_port(2));
	dev_ports(&rng, home);
	CHECK_EQ(inl(away), UINT32_MAX);
	CHECK(kicked_by_port(2));
}

TEST(pci_memory_bit_turns_decoding_off)
{
	CHECK(start(0));
	w16(pci_ecam(rng.slot) + PCI_COMMAND, 0);
	CHECK_EQ(r32(rng.common), UINT32_MAX);
	w16(rng.notify, 0);
	w16(pci_ecam(rng.slot) + PCI_COMMAND, PCI_COMMAND_ON);
	CHECK(request());
}

TEST(pci_io_bit_turns_ports_off)
{
	CHECK(start(0));
	w16(pci_ecam(rng.slot) + PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	CHECK_EQ(inl(rng.ports), UINT32_MAX);
	offer();
	outw(rng.ports, 0); /* reaches nobody: the next kick alone is served */
	CHECK(dev_status(&rng) & S_DRIVER_OK);
	CHECK_EQ(ring.used.idx, ring.seen);
	w16(rng.notify, 0);
	CHECK(served());
	w16(pci_ecam(rng.slot) + PCI_COMMAND, PCI_COMMAND_ON);
	CHECK(kicked_by_port(2));
}

TEST(pci_bar_tells_its_size)
{
	uint64_t at = pci_ecam(1) + PCI_BAR0;
	uint32_t low = r32(at), high = r32(at + 4);

	CHECK_EQ(low & 0xf, 4); /* 64 bits, not prefetchable */
	w32(at, UINT32_MAX);
	w32(at + 4, UINT32_MAX);
	CHECK_EQ(r32(at), 0xffff8004);
	CHECK_EQ(r32(at + 4), UINT32_MAX);
	w32(at, low);
	w32(at + 4, high);
	CHECK_EQ(r32(at), low);
}

TEST(pci_ports_tell_their_size)
{
	uint64_t at = pci_ecam(rng.slot) + PCI_BAR2;
	uint32_t low = r32(at);

	CHECK_EQ(low & 3, 1); /* I/O */
	w32(at, UINT32_MAX);
	CHECK_EQ(r32(at), 0xfffffffd); /* one queue */
	w32(at, low);
	CHECK_EQ(r32(at), low);
	CHECK(start(0));
	CHECK(kicked_by_port(2));
}

/* ---------------------------------------------------------------- MMIO */

TEST(mmio_interrupt_arrives_on_the_line)
{
	uint8_t v = apic_vector();

	CHECK(start(0));
	ioapic_route(rng.gsi, v, false);
	CHECK(!apic_seen(v));
	CHECK(request());
	CHECK(WAIT(apic_seen(v)));
}

TEST(mmio_status_is_acknowledged)
{
	CHECK(start(0));
	CHECK_EQ(r32(rng.regs + M_ISR), 0);
	CHECK(request());
	CHECK_EQ(r32(rng.regs + M_ISR), 1);
	CHECK_EQ(r32(rng.regs + M_ISR), 1); /* reading does not clear here */
	w32(rng.regs + M_ACK, 2);
	CHECK_EQ(r32(rng.regs + M_ISR), 1);
	w32(rng.regs + M_ACK, 1);
	CHECK_EQ(r32(rng.regs + M_ISR), 0);
}

/* An edge each time, whether or not the last one was acknowledged. */
TEST(mmio_unacknowledged_line_rises_again)
{
	uint8_t a = apic_vector(), b = apic_vector();

	CHECK(start(0));
	ioapic_route(rng.gsi, a, false);
	CHECK(request());
	CHECK(WAIT(apic_seen(a)));
	ioapic_route(rng.gsi, b, false);
	CHECK(!apic_seen(b));
	CHECK(request());
	CHECK(WAIT(apic_seen(b)));
}

TEST(mmio_driver_without_interest_gets_no_interrupt)
{
	uint8_t v = apic_vector();

	CHECK(start(0));
	ioapic_route(rng.gsi, v, false);
	ring.avail.flags = 1;
	CHECK(request());
	CHECK_EQ(r32(rng.regs + M_ISR), 0);
	CHECK(!apic_seen(v));
	ring.avail.flags = 0;
	CHECK(request());
	CHECK(WAIT(apic_seen(v)));
}

TEST(mmio_needs_reset_interrupts)
{
	uint8_t v = apic_vector();

	CHECK(start(0));
	ioapic_route(rng.gsi, v, false);
	ring_publish(&ring, RING_MAX);
	dev_kick(&rng, 0);
	CHECK(WAIT(dev_status(&rng) & S_NEEDS_RESET));
	CHECK(WAIT(apic_seen(v)));
	CHECK_EQ(r32(rng.regs + M_ISR), 2);
}

TEST(mmio_narrow_accesses_are_nothing)
{
	CHECK(start(0));
	CHECK_EQ(r8(rng.regs + M_MAGIC), 0);
	CHECK_EQ(r16(rng.regs + M_STATUS), 0);
	w8(rng.regs + M_STATUS, 0);
	w16(rng.regs + M_STATUS, 0);
	CHECK(request());
}

TEST(mmio_absent_device_reads_as_ones)
{
	CHECK_EQ(r32(LAYOUT_VMMIO_BASE + 3 * LAYOUT_VMMIO_STRIDE), UINT32_MAX);
}

static const struct test pci[] = {
	T(pci_capabilities_lie_in_the_bar),
	T(pci_interrupt_arrives),
	T(pci_masked_vector_waits_in_the_pending_bit),
	T(pci_function_mask_holds_all_back),
	T(pci_pending_interrupt_takes_the_new_vector),
	T(pci_reset_forgets_what_is_pending),
	T(pci_vector_out_of_range_reads_back_none),
	T(pci_interrupt_moves_with_its_entry),
	T(pci_driver_without_interest_gets_no_interrupt),
	T(pci_event_idx_says_when_to_interrupt),
	T(pci_isr_tells_without_msix),
	T(pci_needs_reset_interrupts),
	T(pci_kick_of_any_width),
	T(pci_kick_by_port_of_any_width),
	T(pci_cfg_window_reads_registers),
	T(pci_cfg_window_kicks),
	T(pci_cfg_window_outside_the_bar_is_nothing),
	T(pci_bar_moves_and_kicks_follow),
	T(pci_ports_move_and_kicks_follow),
	T(pci_memory_bit_turns_decoding_off),
	T(pci_io_bit_turns_ports_off),
	T(pci_bar_tells_its_size),
	T(pci_ports_tell_their_size),
};

static const struct test mmio[] = {
	T(mmio_interrupt_arrives_on_the_line),   T(mmio_status_is_acknowledged),
	T(mmio_unacknowledged_line_rises_again), T(mmio_driver_without_interest_gets_no_interrupt),
	T(mmio_needs_reset_interrupts),          T(mmio_narrow_accesses_are_nothing),
	T(mmio_absent_device_reads_as_ones),
};

void guest_main(void)
{
	apic_enable();
	if (on_pci())
		run_tests(pci, sizeof(pci) / sizeof(pci[0]));
	else
		run_tests(mmio, sizeof(mmio) / sizeof(mmio[0]));
}
