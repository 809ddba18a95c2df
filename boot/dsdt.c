/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/dsdt.h"

#include <stdio.h>

#include "vmm/layout.h"

/* As in devices/devices.h, which boot/ does not include: bits of the GED's register. */
#define EVENT_POWER 8

#define S5_SLP_TYP 5 /* what sleep control takes for power-off */

#define UUID_PCI_OSC "33DB4D5B-1FF7-401C-9657-7441C03DD766" /* PCI Firmware 3.3, 4.5.1 */
#define UUID_PCI_DSM "E5C937D0-3553-4D7A-9117-EA4D19C3434D" /* PCI Firmware 3.3, 4.6 */
#define DSM_KEEP_BOOT_CONFIG 5
#define OSC_PCIE_CAPABILITY 0x10 /* the one control that is granted */
#define OSC_BAD_UUID 0x04
#define OSC_BAD_REVISION 0x08
#define OSC_MASKED 0x10

/* If(op(Arg@n, ...)): the operand follows. */
static uint32_t dsdt_open_if_arg(struct aml *a, unsigned n)
{
	uint32_t mark = aml_open_if(a);

	aml_u8(a, AML_LEQUAL);
	aml_u8(a, AML_ARG(n));
	return mark;
}

static void dsdt_return_arg(struct aml *a, unsigned n)
{
	aml_u8(a, AML_RETURN);
	aml_u8(a, AML_ARG(n));
}

/* Or(CDW1, bits, CDW1) */
static void dsdt_osc_error(struct aml *a, unsigned bits)
{
	aml_u8(a, AML_OR);
	aml_path(a, "CDW1");
	aml_int(a, bits);
	aml_path(a, "CDW1");
}

static void dsdt_osc_field(struct aml *a, unsigned off, const char *name)
{
	aml_u8(a, AML_CREATE_DWORD_FIELD);
	aml_u8(a, AML_ARG(3));
	aml_int(a, off);
	aml_path(a, name);
}

/*
 * ACPI 6.4, 6.2.11. Control of the PCI Express capability is granted, so the
 * system keeps ECAM; hot plug, PME and error reporting are not, since nothing
 * here has them and their services would only be probed.
 */
static void dsdt_osc(struct aml *a)
{
	uint32_t method = aml_open_method(a, "_OSC", 4);

	dsdt_osc_field(a, 0, "CDW1");
	uint32_t known = dsdt_open_if_arg(a, 0);
	aml_uuid(a, UUID_PCI_OSC);
	dsdt_osc_field(a, 8, "CDW3");

	uint32_t mark = aml_open_if(a);
	aml_u8(a, AML_LNOT);
	aml_u8(a, AML_LEQUAL);
	aml_u8(a, AML_ARG(1));
	aml_int(a, 1);
	dsdt_osc_error(a, OSC_BAD_REVISION);
	aml_close(a, mark);

	aml_u8(a, AML_AND);
	aml_path(a, "CDW3");
	aml_int(a, OSC_PCIE_CAPABILITY);
	aml_u8(a, AML_LOCAL(0));
	mark = aml_open_if(a);
	aml_u8(a, AML_LNOT);
	aml_u8(a, AML_LEQUAL);
	aml_u8(a, AML_LOCAL(0));
	aml_path(a, "CDW3");
	dsdt_osc_error(a, OSC_MASKED);
	aml_close(a, mark);
	aml_u8(a, AML_STORE);
	aml_u8(a, AML_LOCAL(0));
	aml_path(a, "CDW3");
	dsdt_return_arg(a, 3);
	aml_close(a, known);

	dsdt_osc_error(a, OSC_BAD_UUID);
	dsdt_return_arg(a, 3);
	aml_close(a, method);
}

static void dsdt_return_byte(struct aml *a, uint8_t v)
{
	const uint8_t buffer[] = {AML_RETURN, 0x11, 3, AML_ONE, v}; /* Return(Buffer(1) {v}) */

	aml_raw(a, buffer, sizeof(buffer));
}

/* ACPI 6.4, 9.1.1: function 5 returns 0, "keep what the firmware has set up". */
static void dsdt_dsm(struct aml *a)
{
	uint32_t method = aml_open_method(a, "_DSM", 4);
	uint32_t known = dsdt_open_if_arg(a, 0);

	aml_uuid(a, UUID_PCI_DSM);
	uint32_t mark = dsdt_open_if_arg(a, 2);
	aml_int(a, 0);
	dsdt_return_byte(a, 1 | 1 << DSM_KEEP_BOOT_CONFIG); /* the functions there are */
	aml_close(a, mark);
	mark = dsdt_open_if_arg(a, 2);
	aml_int(a, DSM_KEEP_BOOT_CONFIG);
	aml_u8(a, AML_RETURN);
	aml_int(a, 0);
	aml_close(a, mark);
	aml_close(a, known);
	dsdt_return_byte(a, 0);
	aml_close(a, method);
}

static void dsdt_pci(struct aml *a, const struct acpi_args *args)
{
	uint32_t dev = aml_open_device(a, "PC00");

	aml_name_eisaid(a, "_HID", "PNP0A08");
	aml_name_eisaid(a, "_CID", "PNP0A03");
	aml_name_int(a, "_SEG", 0);
	aml_name_int(a, "_UID", 0);
	aml_name_int(a, "_BBN", 0);
	uint32_t crs = aml_open_crs(a);
	aml_res_bus(a, 0, LAYOUT_ECAM_SIZE / (1 << 20) - 1);
	aml_res_io(a, LAYOUT_PORT_PCI, 8);
	aml_res_io_window(a, 0, LAYOUT_PORT_PCI - 1);
	aml_res_io_window(a, LAYOUT_PORT_PCI + 8, UINT16_MAX);
	aml_res_mem32_window(a, LAYOUT_PCI32_BASE, LAYOUT_PCI32_SIZE);
	if (args->pci64_size)
		aml_res_mem64_window(a, args->pci64_base, args->pci64_size);
	aml_close_crs(a, crs);
	dsdt_osc(a);
	dsdt_dsm(a);
	aml_close(a, dev);

	/* Linux takes ECAM into use only when a motherboard resource holds all of it. */
	dev = aml_open_device(a, "MBRD");
	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_int(a, "_UID", 0);
	crs = aml_open_crs(a);
	aml_res_mem32(a, LAYOUT_ECAM_BASE, LAYOUT_ECAM_SIZE);
	aml_close_crs(a, crs);
	aml_close(a, dev);
}

/* A device that is one range of ports, @gsi 0: without an interrupt. */
static void dsdt_ports(struct aml *a, uint16_t base, uint8_t size, unsigned gsi)
{
	uint32_t crs = aml_open_crs(a);

	aml_res_io(a, base, size);
	if (gsi)
		aml_res_irq(a, gsi);
	aml_close_crs(a, crs);
}

static void dsdt_legacy(struct aml *a, const struct acpi_args *args)
{
	uint32_t dev;

	if (args->serial) {
		dev = aml_open_device(a, "COM1");
		aml_name_eisaid(a, "_HID", "PNP0501");
		aml_name_int(a, "_UID", 0);
		aml_name_string(a, "_DDN", "COM1");
		dsdt_ports(a, LAYOUT_PORT_SERIAL, 8, LAYOUT_GSI_SERIAL);
		aml_close(a, dev);
	}
	dev = aml_open_device(a, "RTC");
	aml_name_eisaid(a, "_HID", "PNP0B00");
	dsdt_ports(a, LAYOUT_PORT_CMOS, 2, 0);
	aml_close(a, dev);

	dev = aml_open_device(a, "PEVT");
	aml_name_string(a, "_HID", "QEMU0001");
	dsdt_ports(a, LAYOUT_PORT_PVPANIC, 1, 0);
	aml_close(a, dev);
}

/* ACPI 6.4, 5.6.9: the interrupt is answered by _EVT, which takes the events from the register. */
static void dsdt_events(struct aml *a, const struct acpi_args *args)
{
	uint32_t dev = aml_open_device(a, "PWRB");

	aml_name_eisaid(a, "_HID", "PNP0C0C");
	aml_name_int(a, "_UID", 0);
	aml_close(a, dev);

	dev = aml_open_device(a, "GED");
	aml_name_string(a, "_HID", "ACPI0013");
	aml_name_int(a, "_UID", 0);
	uint32_t crs = aml_open_crs(a);
	aml_res_irq(a, LAYOUT_GSI_GED);
	aml_close_crs(a, crs);
	aml_byte_region(a, "GDST", "GDAT", args->ged);

	uint32_t method = aml_open_method(a, "_EVT", 1);
	aml_u8(a, AML_STORE); /* one read takes all events */
	aml_path(a, "GDAT");
	aml_u8(a, AML_LOCAL(0));
	uint32_t mark = aml_open_if(a);
	aml_u8(a, AML_AND);
	aml_u8(a, AML_LOCAL(0));
	aml_int(a, EVENT_POWER);
	aml_u8(a, AML_ZERO); /* no target */
	aml_u8(a, AML_NOTIFY);
	aml_path(a, "PWRB");
	aml_int(a, 0x80); /* pressed */
	aml_close(a, mark);
	aml_close(a, method);
	aml_close(a, dev);
}

static void dsdt_vmmio(struct aml *a, unsigned n, const struct acpi_vmmio *v)
{
	char name[8];

	snprintf(name, sizeof(name), "VR%02X", n & 0xff);
	uint32_t dev = aml_open_device(a, name);
	aml_name_string(a, "_HID", "LNRO0005");
	aml_name_int(a, "_UID", n);
	aml_name_int(a, "_CCA", 1); /* DMA is coherent */
	uint32_t crs = aml_open_crs(a);
	aml_res_mem32(a, (uint32_t)v->base, LAYOUT_VMMIO_STRIDE);
	aml_res_irq(a, v->gsi);
	aml_close_crs(a, crs);
	aml_close(a, dev);
}

void dsdt_body(struct aml *a, const struct acpi_args *args)
{
	uint32_t scope = aml_open_scope(a, "_SB");

	if (args->pci)
		dsdt_pci(a, args);
	dsdt_legacy(a, args);
	dsdt_events(a, args);
	for (unsigned i = 0; i < args->nvmmio; i++)
		dsdt_vmmio(a, i, &args->vmmio[i]);
	aml_close(a, scope);

	aml_name(a, "_S5");
	uint32_t package = aml_open_package(a, 2);
	aml_int(a, S5_SLP_TYP);
	aml_int(a, 0);
	aml_close(a, package);
}
