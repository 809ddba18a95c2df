/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several CPUs at the devices' registers at once, while devices are reset with
 * requests in flight; and all of them ending the machine together.
 */
#include "tests/native/payload/hostile.h"
#include "tests/native/payload/smp.h"

#define OTHERS 3
#define ROUNDS 100
#define READ 65536u

static volatile bool over;
static uint8_t data[READ] __attribute__((aligned(4096)));
static struct blk_req reqs[RING_MAX / 3];
static volatile uint32_t touched[OTHERS];

TEST(devices_are_found)
{
	CHECK(all_found());
	CHECK_SURVIVED();
}

TEST(the_other_cpus_start)
{
	CHECK(smp_start(OTHERS));
}

/* ---- registers */

/* What any driver may touch at any time. */
static void read_all(const struct dev *d)
{
	uint64_t base = d->pci ? d->common : d->regs;

	for (unsigned off = 0; off < 0x40; off += 4)
		r32(base + off);
	r64(d->config);
	if (d->pci) {
		r8(d->isr);
		r32(d->table);
		r32(d->pba);
		r32(pci_ecam(d->slot) + PCI_COMMAND);
	}
}

static void platform(uint32_t i)
{
	outb(LAYOUT_PORT_SERIAL + 7, (uint8_t)i);
	inb(LAYOUT_PORT_SERIAL + 5);
	outb(LAYOUT_PORT_CMOS, (uint8_t)(i % 16));
	inb(LAYOUT_PORT_CMOS + 1);
	inl(LAYOUT_PORT_PMTIMER);
}

/* What takes the device from its driver, which resets it next. */
static void disturb(const struct dev *d, uint32_t i)
{
	dev_kick(d, 0);
	if (d->pci)
		w16(d->notify, 0);
	dev_select(d, (uint16_t)(i & 1));
	w8(d->config + 32, (uint8_t)(i & 1)); /* a disk's cache */
	if (i % 16 == 0)
		dev_reset(d);
	if (!d->pci)
		return;
	msix_control(d, i & 1 ? MSIX_ENABLE : 0);
	msix_mask(d, 1, i & 1);
	if (i % 8 == 0) {
		w16(pci_ecam(d->slot) + PCI_COMMAND, 0);
		w16(pci_ecam(d->slot) + PCI_COMMAND, PCI_COMMAND_ON);
	}
}

static void hammer(unsigned cpu)
{
	for (uint32_t i = cpu; !over; i++) {
		disturb(&victim, i);
		read_all(cpu == 1 ? &disk : &rng);
		platform(i);
		touched[cpu] = i;
	}
}

/* The others' selects and resets may come in between: then it does not start, which is fine. */
static void fly_and_reset(unsigned round)
{
	dev_start(&victim, &vring, F_RING_RESET);
	for (unsigned k = 0; k < RING_MAX / 3; k++) {
		reqs[k] = (struct blk_req){.type = BLK_IN, .sector = round};
		blk_put(&vring, (uint16_t)(3 * k), &reqs[k], data, READ);
	}
	dev_kick(&victim, 0);
	if (round & 1) {
		dev_select(&victim, 0);
		dev_queue_reset(&victim);
	}
	dev_reset(&victim);
}

TEST(devices_survive_all_cpus_at_once)
{
	uint64_t home = victim.bar;
	bool work = true;

	smp_run(hammer);
	for (unsigned i = 0; i < ROUNDS && work; i++) {
		fly_and_reset(i);
		work = others_work();
	}
	over = true;
	CHECK(smp_wait());
	CHECK(work);
	for (unsigned i = 0; i < OTHERS; i++)
		CHECK(touched[i] > i);
	revive(home);
	CHECK_SURVIVED();
}

/* One CPU drives the rng alone and the others read its registers. */
static void read_rng(unsigned cpu)
{
	for (uint32_t i = 0; !over; i++) {
		read_all(&rng);
		touched[cpu] = i;
	}
}

TEST(a_driver_works_while_others_read_its_registers)
{
	uint32_t used;
	bool work = true;

	over = false;
	smp_run(read_rng);
	for (unsigned i = 0; i < ROUNDS && work; i++)
		work = rng_read(&rng, &rng_ring, buf, 8, &used) && used == 8;
	over = true;
	CHECK(smp_wait());
	CHECK(work);
	CHECK_SURVIVED();
}

/* ---- ends */

static uint32_t ready; /* atomic */

static void meet(void)
{
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) <= OTHERS)
		__asm__ volatile("pause");
}

static void triple_fault(unsigned cpu)
{
	static const uint64_t empty[512];
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idt = {sizeof(empty) - 1, addr_of(empty)};

	(void)cpu;
	meet();
	__asm__ volatile("lidt %0; ud2" : : "m"(idt));
}

static void reset(unsigned cpu)
{
	(void)cpu;
	meet();
	for (;;)
		outb(LAYOUT_PORT_ACPI, 1);
}

/* Where the others do not come it goes no further, and the time limit tells. */
static void end_together(void (*how)(unsigned))
{
	while (!smp_start(OTHERS))
		put("the other CPUs did not start\n");
	smp_run(how);
	how(OTHERS);
}

void guest_main(void)
{
	static const struct test tests[] = {
		T(devices_are_found),
		T(the_other_cpus_start),
		T(devices_survive_all_cpus_at_once),
		T(a_driver_works_while_others_read_its_registers),
	};

	if (cmdline_has("triple"))
		end_together(triple_fault);
	if (cmdline_has("reset"))
		end_together(reset);
	run_tests(tests, sizeof(tests) / sizeof(tests[0]));
}
