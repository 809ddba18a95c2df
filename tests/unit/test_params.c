/* SPDX-License-Identifier: Apache-2.0 */
/* Boot parameters: memory map, zero page, start info, GDT, page tables. Needs no KVM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "boot/kernel_priv.h"
#include "vmm/layout.h"

#define MIB (1ull << 20)

static struct err err;

static struct gmem *memory(uint64_t low, uint64_t high)
{
	struct gmem *gm;

	assert_int_equal(gmem_new(&gm, NULL), 0);
	/* The high part first: order does not matter. */
	if (high)
		assert_int_equal(gmem_add(gm, gpa(LAYOUT_HIGH_RAM), high, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(0), low, NULL), 0);
	return gm;
}

static uint64_t load64(struct gmem *gm, uint64_t at)
{
	uint64_t v;

	assert_int_equal(gmem_read(gm, gpa(at), &v, sizeof(v)), 0);
	return v;
}

static void is_entry(const struct memmap *m, unsigned i, uint64_t base, uint64_t end, uint32_t type)
{
	assert_true(i < m->n);
	assert_int_equal(m->e[i].addr, base);
	assert_int_equal(m->e[i].addr + m->e[i].size, end);
	assert_int_equal(m->e[i].type, type);
}

static void params_memmap_reserves_bios_area_and_ecam(void **state)
{
	struct gmem *gm = memory(128 * MIB, 0);
	struct memmap m;

	(void)state;
	assert_int_equal(params_memmap(gm, &m, &err), 0);
	assert_int_equal(m.n, 4);
	is_entry(&m, 0, 0, LAYOUT_EBDA, MEMMAP_RAM);
	is_entry(&m, 1, LAYOUT_EBDA, MIB, MEMMAP_RESERVED);
	is_entry(&m, 2, MIB, 128 * MIB, MEMMAP_RAM);
	is_entry(&m, 3, LAYOUT_ECAM_BASE, LAYOUT_ECAM_BASE + LAYOUT_ECAM_SIZE, MEMMAP_RESERVED);
	gmem_free(gm);
}

static void params_memmap_tells_memory_beyond_the_hole(void **state)
{
	struct gmem *gm = memory(LAYOUT_LOW_RAM_MAX, 2048 * MIB);
	struct memmap m;

	(void)state;
	assert_int_equal(params_memmap(gm, &m, &err), 0);
	assert_int_equal(m.n, 5);
	is_entry(&m, 2, MIB, LAYOUT_LOW_RAM_MAX, MEMMAP_RAM);
	is_entry(&m, 4, LAYOUT_HIGH_RAM, LAYOUT_HIGH_RAM + 2048 * MIB, MEMMAP_RAM);
	for (unsigned i = 1; i < m.n; i++)
		assert_true(m.e[i - 1].addr + m.e[i - 1].size <= m.e[i].addr);
	gmem_free(gm);
}

static void params_without_memory_at_zero_are_refused(void **state)
{
	struct gmem *gm;
	struct memmap m;
	uint64_t end;

	(void)state;
	assert_int_equal(gmem_new(&gm, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(LAYOUT_HIGH_RAM), 64 * MIB, NULL), 0);
	assert_int_equal(params_low_end(gm, &end, &err), -EINVAL);
	assert_int_equal(params_memmap(gm, &m, &err), -EINVAL);
	gmem_free(gm);
}

static void params_put_zero_page_stands_where_boot_rst_says(void **state)
{
	const struct kernel_args a = {.rsdp = {0xe0000}};
	const struct span initrd = {0x123456000, 0x123456000 + 0x1000000ff};
	struct setup_header h = {.header = 0x53726448, .heap_end_ptr = 0x55aa};
	struct gmem *gm = memory(64 * MIB, 0);
	uint8_t page[4096];
	uint32_t v;

	(void)state;
	assert_int_equal(params_put_zero_page(gm, &h, &a, &initrd, &err), 0);
	assert_int_equal(gmem_read(gm, gpa(LAYOUT_BOOT_PARAMS), page, sizeof(page)), 0);
	/* Offsets of zero-page.rst and boot.rst, not those of a structure. */
	assert_memory_equal(page + 0x202, "HdrS", 4);
	assert_int_equal(page[0x210], 0xff);
	assert_int_equal(page[0x1e8], 4);
	memcpy(&v, page + 0x218, 4);
	assert_int_equal(v, 0x23456000);
	memcpy(&v, page + 0x21c, 4);
	assert_int_equal(v, 0xff);
	memcpy(&v, page + 0x0c0, 4);
	assert_int_equal(v, 1);
	memcpy(&v, page + 0x0c4, 4);
	assert_int_equal(v, 1);
	memcpy(&v, page + 0x228, 4);
	assert_int_equal(v, LAYOUT_CMDLINE);
	memcpy(&v, page + 0x070, 4);
	assert_int_equal(v, 0xe0000);
	memcpy(&v, page + 0x2d0 + 8, 4); /* size of the first e820 entry */
	assert_int_equal(v, LAYOUT_EBDA);
	memcpy(&v, page + 0x2d0 + 16, 4);
	assert_int_equal(v, 1);
	memcpy(&v, page + 0x2d0 + 20 + 16, 4);
	assert_int_equal(v, 2);
	gmem_free(gm);
}

/* A walk as the CPU does it: 4 levels, ends at a large page or at an entry that is absent. */
static bool walk(struct gmem *gm, uint64_t va, uint64_t *pa)
{
	uint64_t at = LAYOUT_BOOT_PGTABLES;

	for (int shift = 39; shift >= 12; shift -= 9) {
		uint64_t e = load64(gm, at + ((va >> shift) & 511) * 8);
		if ((e & 3) != 3)
			return false;
		if (e & 0x80) {
			assert_int_equal(shift, 21); /* 1 GiB pages are not everywhere */
			assert_int_equal(e & 0x1fff00, 0);
			*pa = (e & ~0x1fffffull) | (va & 0x1fffff);
			return true;
		}
		at = e & ~0xfffull;
		assert_true(at >= LAYOUT_BOOT_PGTABLES && at < LAYOUT_BOOT_PGTABLES + 6 * 4096);
	}
	return false;
}

static void params_put_page_tables_map_4_gib_one_to_one(void **state)
{
	struct gmem *gm = memory(64 * MIB, 0);
	uint64_t pa;

	(void)state;
	assert_int_equal(params_put_page_tables(gm, &err), 0);
	for (uint64_t va = 0x12345; va < LAYOUT_HIGH_RAM; va += 2 * MIB) {
		assert_true(walk(gm, va, &pa));
		assert_int_equal(pa, va);
	}
	assert_false(walk(gm, LAYOUT_HIGH_RAM, &pa));
	assert_false(walk(gm, 1ull << 39, &pa));
	gmem_free(gm);
}

/* Fields of a segment descriptor: Intel SDM volume 3, figure 3-8. */
static void params_put_gdt_holds_flat_segments(void **state)
{
	struct gmem *gm = memory(64 * MIB, 0);

	(void)state;
	assert_int_equal(params_put_gdt(gm, &err), 0);
	assert_int_equal(load64(gm, LAYOUT_BOOT_GDT), 0);
	assert_int_equal(load64(gm, LAYOUT_BOOT_GDT + 8), 0);

	const unsigned sel[] = {LAYOUT_SEL_CODE64, LAYOUT_SEL_DATA, LAYOUT_SEL_CODE32};
	const unsigned type[] = {0xb, 0x3, 0xb}, lbit[] = {1, 0, 0}, dbit[] = {0, 1, 1};
	for (int i = 0; i < 3; i++) {
		uint64_t d = load64(gm, LAYOUT_BOOT_GDT + sel[i]);
		assert_int_equal((d & 0xffff) | (d >> 32 & 0xf0000), 0xfffff); /* limit */
		assert_int_equal((d >> 16 & 0xffffff) | (d >> 56 << 24), 0);   /* base */
		assert_int_equal(d >> 40 & 0xf, type[i]);
		assert_int_equal(d >> 44 & 0xf, 0x9); /* present, ring 0, not a system segment */
		assert_int_equal(d >> 53 & 1, lbit[i]);
		assert_int_equal(d >> 54 & 1, dbit[i]);
		assert_int_equal(d >> 55 & 1, 1); /* 4 KiB granules */
	}
	uint64_t tss = load64(gm, LAYOUT_BOOT_GDT + LAYOUT_SEL_TSS);
	assert_int_equal(tss & 0xffff, 0x67);
	assert_int_equal(tss >> 40 & 0xff, 0x8b); /* present, busy TSS */
	assert_int_equal(load64(gm, LAYOUT_BOOT_GDT + LAYOUT_SEL_TSS + 8), 0);
	assert_int_equal(LAYOUT_SEL_TSS + 16, LAYOUT_BOOT_GDT_SIZE);
	gmem_free(gm);
}

static void params_put_initrd_without_pieces_is_empty(void **state)
{
	const struct kernel_args a = {0};
	const struct span room = {32 * MIB, 16 * MIB}; /* no room is no matter then */
	struct gmem *gm = memory(64 * MIB, 0);
	struct span got = {1, 2};

	(void)state;
	assert_int_equal(params_put_initrd(gm, &a, &room, &got, &err), 0);
	assert_int_equal(got.base, got.end);
	gmem_free(gm);
}

static void params_put_initrd_keeps_within_unaligned_room(void **state)
{
	struct iovec iov = {(void *)(uintptr_t) "x", 1};
	const struct kernel_args a = {.initrd = &iov, .initrd_n = 1};
	struct gmem *gm = memory(64 * MIB, 0);
	struct span got;

	(void)state;
	/* One whole page between two that are not. */
	const struct span room = {32 * MIB + 1, 32 * MIB + 3 * 4096 - 1};
	assert_int_equal(params_put_initrd(gm, &a, &room, &got, &err), 0);
	assert_int_equal(got.base, 32 * MIB + 4096);
	assert_int_equal(got.end, 32 * MIB + 4097);

	const struct span none = {32 * MIB + 1, 32 * MIB + 2 * 4096 - 1};
	assert_int_equal(params_put_initrd(gm, &a, &none, &got, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "leaves 0 bytes"));
	gmem_free(gm);
}

static void params_put_cmdline_takes_none_for_empty(void **state)
{
	struct gmem *gm = memory(64 * MIB, 0);

	(void)state;
	assert_int_equal(gmem_write(gm, gpa(LAYOUT_CMDLINE), "old", 4), 0);
	assert_int_equal(params_put_cmdline(gm, NULL, 0, &err), 0);
	assert_int_equal(load64(gm, LAYOUT_CMDLINE) & 0xff, 0);
	gmem_free(gm);
}

static void pvh_put_info_without_initrd_names_no_module(void **state)
{
	const struct kernel_args a = {.rsdp = {0xe0000}};
	const struct span none = {0, 0};
	struct gmem *gm = memory(64 * MIB, 0);

	(void)state;
	assert_int_equal(pvh_put_info(gm, &a, &none, &err), 0);
	assert_int_equal(load64(gm, LAYOUT_PVH_INFO), 0x1336ec578);
	assert_int_equal(load64(gm, LAYOUT_PVH_INFO + 8), 0);  /* flags, nr_modules */
	assert_int_equal(load64(gm, LAYOUT_PVH_INFO + 16), 0); /* modlist */
	assert_int_equal(load64(gm, LAYOUT_PVH_INFO + 48), 4); /* memmap_entries, reserved */
	uint64_t map = load64(gm, LAYOUT_PVH_INFO + 40);
	assert_int_equal(load64(gm, map + 24), LAYOUT_EBDA);
	assert_int_equal(load64(gm, map + 24 + 16), MEMMAP_RESERVED);
	gmem_free(gm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(params_memmap_reserves_bios_area_and_ecam),
		cmocka_unit_test(params_memmap_tells_memory_beyond_the_hole),
		cmocka_unit_test(params_without_memory_at_zero_are_refused),
		cmocka_unit_test(params_put_zero_page_stands_where_boot_rst_says),
		cmocka_unit_test(params_put_page_tables_map_4_gib_one_to_one),
		cmocka_unit_test(params_put_gdt_holds_flat_segments),
		cmocka_unit_test(params_put_initrd_without_pieces_is_empty),
		cmocka_unit_test(params_put_initrd_keeps_within_unaligned_room),
		cmocka_unit_test(params_put_cmdline_takes_none_for_empty),
		cmocka_unit_test(pvh_put_info_without_initrd_names_no_module),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
