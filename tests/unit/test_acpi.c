/* SPDX-License-Identifier: Apache-2.0 */
/* The tables as a guest finds them: from the RSDP down, and as ACPICA's own compiler reads them. */
#include "boot/acpi.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "boot/aml.h"
#include "vmm/layout.h"

#define DEVICES 30

static uint8_t area[LAYOUT_ACPI_SIZE];
static struct acpi_vmmio vmmio[DEVICES];

static struct acpi_args args_pci(void)
{
	return (struct acpi_args){
		.cpus = 2,
		.pci = true,
		.serial = true,
		.pci64_base = 0x140000000ull,
		.pci64_size = 0x3ebfff0000ull,
		.ged = 0x3fffff0000ull,
	};
}

static struct acpi_args args_mmio(unsigned cpus, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		vmmio[i] =
			(struct acpi_vmmio){LAYOUT_VMMIO_BASE + i * LAYOUT_VMMIO_STRIDE, 5 + i % 4};
	return (struct acpi_args){
		.cpus = cpus, .ged = 0xfffffffff0000ull, .vmmio = vmmio, .nvmmio = n};
}

static int build(const struct acpi_args *a, struct err *e)
{
	struct gmem *gm;
	gpa_t rsdp = gpa(0);

	assert_int_equal(gmem_new(&gm, e), 0);
	assert_int_equal(gmem_add(gm, gpa(0), 1 << 20, e), 0);
	int rc = acpi_build(gm, a, &rsdp, e);
	assert_int_equal(gmem_read(gm, gpa(LAYOUT_ACPI), area, sizeof(area)), 0);
	if (rc == 0)
		assert_int_equal(rsdp.v, LAYOUT_ACPI);
	gmem_free(gm);
	return rc;
}

static uint64_t le(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s += *p++;
	return s;
}

/* The table at a guest address, checked as a guest would. */
static const uint8_t *table_at(uint64_t addr, const char *signature, uint32_t *ret_len)
{
	assert_in_range(addr, LAYOUT_ACPI, LAYOUT_ACPI + LAYOUT_ACPI_SIZE - 36);
	const uint8_t *t = area + (addr - LAYOUT_ACPI);
	uint32_t len = (uint32_t)le(t + 4, 4);
	assert_in_range(len, 36, LAYOUT_ACPI_SIZE - (addr - LAYOUT_ACPI));
	assert_int_equal(sum(t, len), 0);
	if (signature)
		assert_memory_equal(t, signature, 4);
	if (ret_len)
		*ret_len = len;
	return t;
}

static const uint8_t *xsdt(uint32_t *ret_len)
{
	return table_at(le(area + 24, 8), "XSDT", ret_len);
}

/* NULL when the XSDT does not list it. */
static const uint8_t *table(const char *signature, uint32_t *ret_len)
{
	uint32_t len;
	const uint8_t *x = xsdt(&len);

	for (uint32_t i = 36; i < len; i += 8) {
		const uint8_t *t = table_at(le(x + i, 8), NULL, ret_len);
		if (!memcmp(t, signature, 4))
			return t;
	}
	return NULL;
}

static const uint8_t *dsdt(uint32_t *ret_len)
{
	return table_at(le(table("FACP", NULL) + 140, 8), "DSDT", ret_len);
}

static bool dsdt_has(const void *bytes, size_t n)
{
	uint32_t len;
	const uint8_t *d = dsdt(&len);

	return memmem(d, len, bytes, n) != NULL;
}

/* ------------------------------------------------------------- tests */

static void rsdp_has_both_checksums_and_leads_to_xsdt(void **state)
{
	struct acpi_args a = args_pci();
	uint32_t len;

	(void)state;
	assert_int_equal(build(&a, NULL), 0);
	assert_memory_equal(area, "RSD PTR ", 8);
	assert_int_equal(area[15], 2);
	assert_int_equal(le(area + 16, 4), 0); /* no RSDT */
	assert_int_equal(le(area + 20, 4), 36);
	assert_int_equal(sum(area, 20), 0);
	assert_int_equal(sum(area, 36), 0);
	xsdt(&len);
	assert_int_equal(len, 36 + 3 * 8);
}

static void fadt_describes_hardware_reduced_machine(void **state)
{
	struct acpi_args a = args_pci();
	uint32_t len;

	(void)state;
	assert_int_equal(build(&a, NULL), 0);
	const uint8_t *f = table("FACP", &len);
	assert_non_null(f);
	assert_int_equal(len, 276);
	assert_int_equal(f[8], 6);
	assert_int_equal(f[131] & 0xf, 4);
	uint32_t flags = (uint32_t)le(f + 112, 4);
	assert_true(flags & 1u << 20); /* HW_REDUCED_ACPI */
	assert_true(flags & 1u << 10); /* RESET_REG_SUP */
	assert_true(flags & 1u << 8);  /* TMR_VAL_EXT */
	assert_true(flags & 1u << 4);  /* power button is a device */
	uint16_t arch = (uint16_t)le(f + 109, 2);
	assert_false(arch & 1 << 1); /* no 8042 to probe */
	assert_true(arch & 1 << 2);  /* no VGA */
	assert_false(arch & 1 << 3); /* MSI work */
	assert_false(arch & 1 << 5); /* a CMOS clock */
	assert_int_equal(f[108], 0x32);
}

static void check_port(const uint8_t *gas, unsigned port, unsigned bits)
{
	assert_int_equal(gas[0], 1);
	assert_int_equal(gas[1], bits);
	assert_int_equal(gas[2], 0);
	assert_int_equal(gas[3], bits == 8 ? 1 : 3);
	assert_int_equal(le(gas + 4, 8), port);
}

static void fadt_registers_are_where_the_devices_are(void **state)
{
	struct acpi_args a = args_pci();

	(void)state;
	assert_int_equal(build(&a, NULL), 0);
	const uint8_t *f = table("FACP", NULL);
	check_port(f + 116, 0x600, 8);
	assert_int_equal(f[128], 1);
	check_port(f + 244, 0x600, 8);
	check_port(f + 256, 0x600, 8);
	check_port(f + 208, 0x608, 32);
	assert_int_equal(le(f + 76, 4), 0x608);
	assert_int_equal(f[91], 4);
	assert_int_equal(le(f + 40, 4), le(f + 140, 8));
}

static void madt_has_an_x2apic_entry_a_cpu_and_one_ioapic(void **state)
{
	struct acpi_args a = args_pci();
	uint32_t len, cpus = 0, ioapics = 0;

	(void)state;
	a.cpus = 32;
	assert_int_equal(build(&a, NULL), 0);
	const uint8_t *m = table("APIC", &len);
	assert_non_null(m);
	assert_int_equal(le(m + 36, 4), LAYOUT_LAPIC);
	assert_int_equal(le(m + 40, 4), 0); /* no PCAT_COMPAT */
	for (uint32_t i = 44; i < len; i += m[i + 1]) {
		assert_in_range(m[i + 1], 2, len - i);
		if (m[i] == 9) {
			assert_int_equal(m[i + 1], 16);
			assert_int_equal(le(m + i + 4, 4), cpus);
			assert_int_equal(le(m + i + 8, 4), 1);
			assert_int_equal(le(m + i + 12, 4), cpus);
			cpus++;
		} else {
			assert_int_equal(m[i], 1);
			assert_int_equal(m[i + 1], 12);
			assert_int_equal(le(m + i + 4, 4), LAYOUT_IOAPIC);
			assert_int_equal(le(m + i + 8, 4), 0);
			ioapics++;
		}
	}
	assert_int_equal(cpus, 32);
	assert_int_equal(ioapics, 1);
}

static void mcfg_is_there_with_pci_alone(void **state)
{
	struct acpi_args a = args_pci(), b = args_mmio(1, 2);
	uint32_t len;

	(void)state;
	assert_int_equal(build(&a, NULL), 0);
	const uint8_t *m = table("MCFG", &len);
	assert_non_null(m);
	assert_int_equal(len, 60);
	assert_int_equal(le(m + 44, 8), LAYOUT_ECAM_BASE);
	assert_int_equal(m[54], 0);
	assert_int_equal(m[55], 0);
	assert_true(dsdt_has("PC00", 4));
	assert_false(dsdt_has("VR00", 4));

	assert_int_equal(build(&b, NULL), 0);
	assert_null(table("MCFG", NULL));
	assert_false(dsdt_has("PC00", 4));
	assert_true(dsdt_has("VR01", 4));
	assert_false(dsdt_has("VR02", 4));
}

static void dsdt_lists_serial_only_when_it_is_there(void **state)
{
	struct acpi_args a = args_pci();

	(void)state;
	assert_int_equal(build(&a, NULL), 0);
	assert_true(dsdt_has("COM1", 4));
	a.serial = false;
	assert_int_equal(build(&a, NULL), 0);
	assert_false(dsdt_has("COM1", 4));
}

static void dsdt_sleeps_with_the_type_of_port_600(void **state)
{
	struct acpi_args a = args_pci();

	(void)state;
	assert_int_equal(build(&a, NULL), 0);
	/* Name(_S5, Package() {5, 0}): 5 << 2 | SLP_EN is the 0x34 that acpi_pm takes. */
	assert_true(dsdt_has("\x08_S5_\x12\x05\x02\x0a\x05\x00", 11));
}

static void tables_fit_with_32_cpus_and_30_devices(void **state)
{
	struct acpi_args a = args_mmio(32, DEVICES);
	struct err e = {0};

	(void)state;
	assert_int_equal(build(&a, &e), 0);
	assert_true(dsdt_has("VR1D", 4));
	a.pci = a.serial = true;
	a.pci64_base = 1ull << 40;
	a.pci64_size = 1ull << 45;
	assert_int_equal(build(&a, &e), 0);
}

static void tables_too_large_are_an_error_and_write_nothing(void **state)
{
	struct acpi_args a = args_pci();
	struct err e = {0};

	(void)state;
	a.cpus = 100000;
	assert_int_equal(build(&a, &e), -ENOSPC);
	assert_string_equal(e.text, "ACPI tables: more than 131056 bytes");
	assert_int_equal(sum(area, sizeof(area)), 0);
	assert_int_not_equal(memcmp(area, "RSD PTR ", 8), 0);
}

static void device_above_4_gib_is_an_error(void **state)
{
	struct acpi_args a = args_mmio(1, 2);
	struct err e = {0};

	(void)state;
	vmmio[1].base = 0xfffff000;
	assert_int_equal(build(&a, &e), -EINVAL);
	assert_string_equal(e.text, "ACPI tables: MMIO device 1 above 4 GiB");
}

static void missing_memory_is_an_error(void **state)
{
	struct acpi_args a = args_pci();
	struct gmem *gm;
	struct err e = {0};
	gpa_t rsdp = gpa(77);

	(void)state;
	assert_int_equal(gmem_new(&gm, &e), 0);
	assert_int_equal(gmem_add(gm, gpa(0), 0x80000, &e), 0);
	assert_int_equal(acpi_build(gm, &a, &rsdp, &e), -EFAULT);
	assert_int_equal(rsdp.v, 77);
	gmem_free(gm);
}

static void aml_overflow_latches_at_every_size(void **state)
{
	static const char text[] = "a string";

	(void)state;
	for (uint32_t cap = 0; cap <= 64; cap++) {
		uint8_t *buf = malloc(cap ? cap : 1); /* exact, so that ASan sees a step beyond */
		struct aml a;
		aml_init(&a, buf, cap);
		uint32_t dev = aml_open_device(&a, "DEV0");
		uint32_t crs = aml_open_crs(&a);
		aml_res_io(&a, 0x3f8, 8);
		aml_close_crs(&a, crs);
		aml_name_string(&a, "_DDN", text);
		aml_close(&a, dev);
		assert_true(a.len <= cap);
		assert_int_equal(a.over, cap < 41);
		free(buf);
	}
}

/* 20.2.4: one byte up to 63, counting itself; then two, three. */
static void aml_lengths_take_the_shortest_form(void **state)
{
	static const struct {
		uint32_t content, len_bytes;
	} c[] = {{62, 1}, {63, 2}, {4093, 2}, {4094, 3}, {5000, 3}};
	static uint8_t buf[8192];

	(void)state;
	for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
		struct aml a;
		aml_init(&a, buf, sizeof(buf));
		uint32_t mark = aml_open_if(&a);
		aml_zero(&a, c[i].content);
		aml_close(&a, mark);
		assert_int_equal(a.len, 1 + c[i].len_bytes + c[i].content);
		uint32_t len = buf[1];
		if (c[i].len_bytes > 1) {
			assert_int_equal(buf[1] >> 6, c[i].len_bytes - 1);
			len = (buf[1] & 0xf) | (uint32_t)le(buf + 2, c[i].len_bytes - 1) << 4;
		}
		assert_int_equal(len, c[i].len_bytes + c[i].content);
	}
}

/* ------------------------------------------- what ACPICA makes of it */

static char dir[] = "/tmp/test_acpi.XXXXXX";

static FILE *open_in_dir(const char *name, const char *extension, const char *mode)
{
	char path[64];
	int n = snprintf(path, sizeof(path), "%s/%.4s.%s", dir, name, extension);

	assert_in_range(n, 1, sizeof(path) - 1);
	FILE *f = fopen(path, mode);
	assert_non_null(f);
	return f;
}

static int shell(const char *command)
{
	char line[256];

	snprintf(line, sizeof(line), "cd %s && %s", dir, command);
	return system(line);
}

/* Disassembled and compiled again without a complaint, it must be the same but for the compiler's
 * name. */
static void check_with_iasl(const char *name, const uint8_t *t, uint32_t len)
{
	static uint8_t again[LAYOUT_ACPI_SIZE];
	char line[160];

	FILE *f = open_in_dir(name, "aml", "w");
	assert_int_equal(fwrite(t, 1, len, f), len);
	fclose(f);
	snprintf(line, sizeof(line), "iasl -d %s.aml >log 2>&1 && rm %s.aml", name, name);
	assert_int_equal(shell(line), 0);
	snprintf(line, sizeof(line), "iasl -we %s.dsl >log 2>&1 || { cat log; false; }", name);
	assert_int_equal(shell(line), 0);
	f = open_in_dir(name, "aml", "r");
	assert_int_equal(fread(again, 1, sizeof(again), f), len);
	fclose(f);
	assert_memory_equal(again + 36, t + 36, len - 36);
}

static void iasl_finds_nothing_wrong(void **state)
{
	struct acpi_args a[] = {args_pci(), args_pci(), args_mmio(32, DEVICES)};
	static const char *const names[] = {"FACP", "APIC", "MCFG"};
	uint32_t len;

	(void)state;
	if (system("command -v iasl >/dev/null 2>&1")) {
		print_message("skipped: iasl\n");
		skip();
	}
	assert_non_null(mkdtemp(dir));
	a[1].serial = false;
	a[1].pci64_size = 0;
	for (size_t i = 0; i < sizeof(a) / sizeof(a[0]); i++) {
		assert_int_equal(build(&a[i], NULL), 0);
		const uint8_t *t = dsdt(&len);
		check_with_iasl("DSDT", t, len);
		for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
			t = table(names[k], &len);
			if (t)
				check_with_iasl(names[k], t, len);
		}
	}
}

/* Also after a failure. */
static int remove_files(void **state)
{
	(void)state;
	if (!strstr(dir, "XXXXXX")) {
		shell("rm -f *.aml *.dsl log");
		rmdir(dir);
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rsdp_has_both_checksums_and_leads_to_xsdt),
		cmocka_unit_test(fadt_describes_hardware_reduced_machine),
		cmocka_unit_test(fadt_registers_are_where_the_devices_are),
		cmocka_unit_test(madt_has_an_x2apic_entry_a_cpu_and_one_ioapic),
		cmocka_unit_test(mcfg_is_there_with_pci_alone),
		cmocka_unit_test(dsdt_lists_serial_only_when_it_is_there),
		cmocka_unit_test(dsdt_sleeps_with_the_type_of_port_600),
		cmocka_unit_test(tables_fit_with_32_cpus_and_30_devices),
		cmocka_unit_test(tables_too_large_are_an_error_and_write_nothing),
		cmocka_unit_test(device_above_4_gib_is_an_error),
		cmocka_unit_test(missing_memory_is_an_error),
		cmocka_unit_test(aml_overflow_latches_at_every_size),
		cmocka_unit_test(aml_lengths_take_the_shortest_form),
		cmocka_unit_test_teardown(iasl_finds_nothing_wrong, remove_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
