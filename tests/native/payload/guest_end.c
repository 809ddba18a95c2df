/* SPDX-License-Identifier: Apache-2.0 */
/* The ways a machine ends; the command line says which. */
#include "tests/native/payload/virtio.h"

static struct dev rng;
static struct ring ring;

static void halt(void)
{
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* Never leaves for the host by itself, not even by a halt. */
static void spin(void)
{
	for (;;)
		__asm__ volatile("pause");
}

/* An exception without a gate: a double fault without a gate: a triple fault. */
static void triple_fault(uint16_t limit)
{
	static uint64_t empty[512];
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idt = {limit, addr_of(empty)};

	__asm__ volatile("lidt %0; ud2" : : "m"(idt));
}

void guest_main(void)
{
	if (cmdline_has("triple"))
		triple_fault(0xfff);
	/* Linux empties the table when it wants a reset; where KVM hides that, devices tell. */
	if (cmdline_has("triple-reset") && dev_find(&rng, ID_RNG, 0) && dev_start(&rng, &ring, 0))
		triple_fault(0);
	if (cmdline_has("i8042"))
		outb(LAYOUT_PORT_I8042 + 4, 0xfe);
	if (cmdline_has("reset"))
		outb(LAYOUT_PORT_ACPI, 1);
	if (cmdline_has("panic"))
		outb(LAYOUT_PORT_PVPANIC, 1);
	if (cmdline_has("panic-reset")) {
		outb(LAYOUT_PORT_PVPANIC, 1);
		outb(LAYOUT_PORT_ACPI, 1);
	}
	if (cmdline_has("crash-kernel")) /* it takes over, and powers off in the end */
		outb(LAYOUT_PORT_PVPANIC, 2);
	if (cmdline_has("crash-kernels")) {
		for (int i = 0; i < 200; i++)
			outb(LAYOUT_PORT_PVPANIC, 2);
		put("crashed\n");
	}
	if (cmdline_has("spin"))
		spin();
	if (cmdline_has("marks")) {
		put("console\n");
		outb(LAYOUT_PORT_MARK, MARK_INIT_STARTED);
		outb(LAYOUT_PORT_MARK, MARK_ROOT_MOUNTED);
		outb(LAYOUT_PORT_MARK, MARK_ROOT_INIT);
	}
	if (!cmdline_has("off") && !cmdline_has("marks") && !cmdline_has("crash-kernel") &&
	    !cmdline_has("crash-kernels"))
		halt();
}
