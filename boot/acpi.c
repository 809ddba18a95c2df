/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/aml.h"
#include "boot/dsdt.h"
#include "vmm/layout.h"

/* Below 1 MiB, so 32 bits hold every address of a table. */
_Static_assert(LAYOUT_ACPI >= 0xe0000 && LAYOUT_ACPI % 16 == 0, "the RSDP's place, 5.2.5.1");
_Static_assert(LAYOUT_ACPI + LAYOUT_ACPI_SIZE <= LAYOUT_RESET_VECTOR, "the tables end before it");

#define RSDP_SIZE 36u
#define HEADER_SIZE 36u
#define TABLES_MAX 3
#define VMMIO_MAX 256 /* of names VR00 to VRFF */

#define OEM_ID "MVM   "
#define OEM_TABLE "MVMTABLE"

/* FADT (5.2.9): offsets and bits */
#define FADT_SIZE 276u
#define FADT_DSDT 40
#define FADT_PM_TMR 76
#define FADT_PM_TMR_LEN 91
#define FADT_CENTURY 108
#define FADT_BOOT_ARCH 109
#define FADT_FLAGS 112
#define FADT_RESET 116
#define FADT_RESET_VALUE 128
#define FADT_MINOR 131
#define FADT_X_DSDT 140
#define FADT_X_PM_TMR 208
#define FADT_SLEEP_CONTROL 244
#define FADT_SLEEP_STATUS 256

#define BOOT_NO_VGA (1 << 2)
#define BOOT_NO_ASPM (1 << 4)

#define FLAG_WBINVD (1u << 0)
#define FLAG_PROC_C1 (1u << 2)
#define FLAG_PWR_BUTTON (1u << 4) /* a control method's, not a fixed one */
#define FLAG_SLP_BUTTON (1u << 5) /* no fixed one */
#define FLAG_FIX_RTC (1u << 6)    /* no wake status in fixed registers */
#define FLAG_TMR_VAL_EXT (1u << 8)
#define FLAG_RESET_REG (1u << 10)
#define FLAG_HW_REDUCED (1u << 20)

#define CMOS_CENTURY 0x32
#define RESET_VALUE 1

/* The tables under construction; an address is LAYOUT_ACPI plus the offset. */
struct tables {
	struct aml a;
	uint32_t at[TABLES_MAX]; /* what the XSDT lists */
	unsigned n;
};

static uint8_t acpi_checksum(const uint8_t *p, uint32_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum += *p++;
	return (uint8_t)-sum;
}

/* 5.2.6. Length and checksum are filled in by acpi_end. Tables start on 16 bytes. */
static uint32_t acpi_begin(struct tables *t, const char *signature, uint8_t revision)
{
	aml_zero(&t->a, -t->a.len & 15);
	uint32_t at = t->a.len;
	aml_raw(&t->a, signature, 4);
	aml_u32(&t->a, 0);
	aml_u8(&t->a, revision);
	aml_u8(&t->a, 0);
	aml_raw(&t->a, OEM_ID, 6);
	aml_raw(&t->a, OEM_TABLE, 8);
	aml_u32(&t->a, 1);
	aml_raw(&t->a, "MVM ", 4);
	aml_u32(&t->a, 1);
	return at;
}

/* Little-endian at a place that was written already; nothing after an overflow. */
static void acpi_put(struct tables *t, uint32_t at, uint64_t v, unsigned bytes)
{
	if (t->a.over)
		return;
	for (unsigned i = 0; i < bytes; i++)
		t->a.buf[at + i] = (uint8_t)(v >> (8 * i));
}

static void acpi_end(struct tables *t, uint32_t at)
{
	if (t->a.over)
		return;
	acpi_put(t, at + 4, t->a.len - at, 4);
	acpi_put(t, at + 9, acpi_checksum(t->a.buf + at, t->a.len - at), 1);
}

static void acpi_list(struct tables *t, uint32_t at)
{
	t->at[t->n++] = at;
}

/* 5.2.3.2: a Generic Address Structure for a port of @bytes. */
static void acpi_put_port(struct tables *t, uint32_t at, uint16_t port, unsigned bytes)
{
	acpi_put(t, at, 1, 1); /* system I/O */
	acpi_put(t, at + 1, 8 * bytes, 1);
	acpi_put(t, at + 3, bytes == 1 ? 1 : 3, 1); /* access size: byte, double word */
	acpi_put(t, at + 4, port, 8);
}

/* 5.2.11.1 */
static uint32_t acpi_dsdt(struct tables *t, const struct acpi_args *args)
{
	uint32_t at = acpi_begin(t, "DSDT", 2); /* from revision 2 on integers have 64 bits */

	dsdt_body(&t->a, args);
	acpi_end(t, at);
	return at;
}

/*
 * 5.2.9. Legacy bits (IAPC_BOOT_ARCH): no VGA, no 8042 to look for, a CMOS clock,
 * message-signalled interrupts, no link whose power OS could manage.
 */
static void acpi_fadt(struct tables *t, uint32_t dsdt)
{
	uint32_t at = acpi_begin(t, "FACP", 6);

	aml_zero(&t->a, FADT_SIZE - HEADER_SIZE);
	acpi_put(t, at + FADT_DSDT, LAYOUT_ACPI + dsdt, 4);
	acpi_put(t, at + FADT_X_DSDT, LAYOUT_ACPI + dsdt, 8);
	acpi_put(t, at + FADT_PM_TMR, LAYOUT_PORT_PMTIMER, 4);
	acpi_put(t, at + FADT_PM_TMR_LEN, 4, 1);
	acpi_put_port(t, at + FADT_X_PM_TMR, LAYOUT_PORT_PMTIMER, 4);
	acpi_put(t, at + FADT_CENTURY, CMOS_CENTURY, 1);
	acpi_put(t, at + FADT_BOOT_ARCH, BOOT_NO_VGA | BOOT_NO_ASPM, 2);
	acpi_put(t, at + FADT_FLAGS,
		 FLAG_WBINVD | FLAG_PROC_C1 | FLAG_PWR_BUTTON | FLAG_SLP_BUTTON | FLAG_FIX_RTC |
			 FLAG_TMR_VAL_EXT | FLAG_RESET_REG | FLAG_HW_REDUCED,
		 4);
	acpi_put_port(t, at + FADT_RESET, LAYOUT_PORT_ACPI, 1);
	acpi_put(t, at + FADT_RESET_VALUE, RESET_VALUE, 1);
	acpi_put(t, at + FADT_MINOR, 4, 1);
	acpi_put_port(t, at + FADT_SLEEP_CONTROL, LAYOUT_PORT_ACPI, 1);
	acpi_put_port(t, at + FADT_SLEEP_STATUS, LAYOUT_PORT_ACPI, 1);
	acpi_end(t, at);
	acpi_list(t, at);
}

/*
 * 5.2.12. Processors are x2APIC structures alone. Linux takes them whatever the
 * mode its local APICs run in (acpi_parse_x2apic); a system that got a plain
 * local APIC structure besides would count each processor twice.
 */
static void acpi_madt(struct tables *t, unsigned cpus)
{
	uint32_t at = acpi_begin(t, "APIC", 5);

	aml_u32(&t->a, LAYOUT_LAPIC);
	aml_u32(&t->a, 0); /* no PC/AT interrupt controllers to look after */
	for (unsigned i = 0; i < cpus; i++) {
		aml_u8(&t->a, 9); /* 5.2.12.12 */
		aml_u8(&t->a, 16);
		aml_u16(&t->a, 0);
		aml_u32(&t->a, i); /* x2APIC id, as the CPUID leaves count them */
		aml_u32(&t->a, 1); /* enabled */
		aml_u32(&t->a, i); /* _UID */
	}
	aml_u8(&t->a, 1); /* 5.2.12.3: I/O APIC */
	aml_u8(&t->a, 12);
	aml_u8(&t->a, 0);
	aml_u8(&t->a, 0);
	aml_u32(&t->a, LAYOUT_IOAPIC);
	aml_u32(&t->a, 0); /* its first GSI */
	acpi_end(t, at);
	acpi_list(t, at);
}

/* PCI Firmware 3.3, 4.1.2 */
static void acpi_mcfg(struct tables *t)
{
	uint32_t at = acpi_begin(t, "MCFG", 1);

	aml_zero(&t->a, 8);
	aml_u64(&t->a, LAYOUT_ECAM_BASE);
	aml_u16(&t->a, 0); /* segment */
	aml_u8(&t->a, 0);
	aml_u8(&t->a, LAYOUT_ECAM_SIZE / (1 << 20) - 1); /* the last bus: 1 MiB each */
	aml_u32(&t->a, 0);
	acpi_end(t, at);
	acpi_list(t, at);
}

/* 5.2.8 */
static uint32_t acpi_xsdt(struct tables *t)
{
	uint32_t at = acpi_begin(t, "XSDT", 1);

	for (unsigned i = 0; i < t->n; i++)
		aml_u64(&t->a, LAYOUT_ACPI + t->at[i]);
	acpi_end(t, at);
	return at;
}

/* 5.2.5.3, over the zeros that the buffer begins with */
static void acpi_rsdp(struct tables *t, uint32_t xsdt)
{
	if (t->a.over)
		return;
	memcpy(t->a.buf, "RSD PTR ", 8);
	memcpy(t->a.buf + 9, OEM_ID, 6);
	acpi_put(t, 15, 2, 1); /* revision */
	acpi_put(t, 20, RSDP_SIZE, 4);
	acpi_put(t, 24, LAYOUT_ACPI + xsdt, 8);
	acpi_put(t, 8, acpi_checksum(t->a.buf, 20), 1);
	acpi_put(t, 32, acpi_checksum(t->a.buf, RSDP_SIZE), 1);
}

static int acpi_check(const struct acpi_args *a, struct err *e)
{
	if (a->nvmmio > VMMIO_MAX)
		return err_msg(e, -EINVAL, "ACPI tables: more than %d MMIO devices", VMMIO_MAX);
	for (unsigned i = 0; i < a->nvmmio; i++)
		if (a->vmmio[i].base > UINT32_MAX - LAYOUT_VMMIO_STRIDE)
			return err_msg(e, -EINVAL, "ACPI tables: MMIO device %u above 4 GiB", i);
	return 0;
}

int acpi_build(struct gmem *gm, const struct acpi_args *args, gpa_t *ret_rsdp, struct err *e)
{
	uint8_t *buf;
	struct tables t = {0};
	int rc = acpi_check(args, e);

	if (rc < 0)
		return rc;
	buf = malloc(LAYOUT_ACPI_SIZE);
	if (!buf)
		return err_msg(e, -ENOMEM, "ACPI tables: out of memory");
	aml_init(&t.a, buf, LAYOUT_ACPI_SIZE);
	aml_zero(&t.a, RSDP_SIZE);
	acpi_fadt(&t, acpi_dsdt(&t, args));
	acpi_madt(&t, args->cpus);
	if (args->pci)
		acpi_mcfg(&t);
	acpi_rsdp(&t, acpi_xsdt(&t));
	if (t.a.over)
		rc = err_msg(e, -ENOSPC, "ACPI tables: more than %llu bytes", LAYOUT_ACPI_SIZE);
	else if (gmem_write(gm, gpa(LAYOUT_ACPI), buf, t.a.len) < 0)
		rc = err_msg(e, -EFAULT, "ACPI tables: no memory at %#llx", LAYOUT_ACPI);
	free(buf);
	if (rc == 0)
		*ret_rsdp = gpa(LAYOUT_ACPI);
	return rc;
}
