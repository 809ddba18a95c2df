/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every way of booting shares: the memory map, the command line, the
 * initrd's place, the zero page (Documentation/arch/x86/zero-page.rst), and the
 * tables that the boot processor starts with. All of it lies below 1 MiB at the
 * addresses of vmm/layout.h, in RAM that the kernel is told it may reuse.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "boot/kernel_priv.h"
#include "vmm/layout.h"

#define PAGE 4096ull
#define LOADER_UNDEFINED 0xff /* type_of_loader: no number assigned */

_Static_assert(sizeof(struct boot_params) == PAGE, "the zero page is one page");
_Static_assert(LAYOUT_BOOT_GDT + LAYOUT_BOOT_GDT_SIZE <= LAYOUT_PVH_INFO &&
		       LAYOUT_PVH_INFO + PAGE <= LAYOUT_BOOT_PARAMS &&
		       LAYOUT_BOOT_PARAMS + PAGE <= LAYOUT_BOOT_PGTABLES &&
		       LAYOUT_BOOT_PGTABLES + 6 * PAGE <= LAYOUT_CMDLINE &&
		       LAYOUT_CMDLINE + LAYOUT_CMDLINE_MAX <= LAYOUT_EBDA,
	       "the boot structures follow one another below the EBDA");

static int put(struct gmem *gm, uint64_t at, const void *buf, size_t len, struct err *e)
{
	int r = gmem_write(gm, gpa(at), buf, len);

	return r ? err_msg(e, r, "no memory at 0x%llx for the boot parameters",
			   (unsigned long long)at)
		 : 0;
}

/* -------------------------------------------------------- the memory map */

int params_low_end(const struct gmem *gm, uint64_t *ret, struct err *e)
{
	size_t n;
	const struct gmem_region *r = gmem_regions(gm, &n);

	for (size_t i = 0; i < n; i++)
		if (!r[i].base.v && r[i].size > LAYOUT_KERNEL) {
			*ret = r[i].size < LAYOUT_LOW_RAM_MAX ? r[i].size : LAYOUT_LOW_RAM_MAX;
			return 0;
		}
	return err_msg(e, -EINVAL, "the guest has no memory from 0 to beyond 1 MiB");
}

static void memmap_add(struct memmap *m, uint64_t base, uint64_t end, uint32_t type)
{
	m->e[m->n++] = (struct boot_e820_entry){.addr = base, .size = end - base, .type = type};
}

int params_memmap(const struct gmem *gm, struct memmap *ret, struct err *e)
{
	size_t n;
	const struct gmem_region *r = gmem_regions(gm, &n);
	uint64_t low_end;
	int err = params_low_end(gm, &low_end, e);

	if (err)
		return err;
	if (n > E820_MAX_ENTRIES_ZEROPAGE - 4) /* the low region counts three, ECAM one */
		return err_msg(e, -E2BIG, "%zu memory regions do not fit the zero page", n);
	ret->n = 0;
	memmap_add(ret, 0, LAYOUT_EBDA, MEMMAP_RAM);
	memmap_add(ret, LAYOUT_EBDA, LAYOUT_KERNEL, MEMMAP_RESERVED); /* ACPI tables among it */
	memmap_add(ret, LAYOUT_KERNEL, low_end, MEMMAP_RAM);
	/* Linux uses ECAM only where firmware reserved it: Documentation/PCI/acpi-info.rst. */
	memmap_add(ret, LAYOUT_ECAM_BASE, LAYOUT_ECAM_BASE + LAYOUT_ECAM_SIZE, MEMMAP_RESERVED);
	for (size_t i = 0; i < n; i++)
		if (r[i].base.v)
			memmap_add(ret, r[i].base.v, r[i].base.v + r[i].size, MEMMAP_RAM);
	return 0;
}

/* -------------------------------------------- command line and initrd */

int params_put_cmdline(struct gmem *gm, const char *cmdline, uint64_t max, struct err *e)
{
	const char *text = cmdline ? cmdline : "";
	size_t len = strlen(text);

	if (max > LAYOUT_CMDLINE_MAX - 1)
		max = LAYOUT_CMDLINE_MAX - 1;
	if (len > max)
		return err_msg(e, -E2BIG,
			       "the command line has %zu characters, the kernel takes %llu", len,
			       (unsigned long long)max);
	return put(gm, LAYOUT_CMDLINE, text, len + 1, e);
}

struct size_text {
	char s[32];
};

static struct size_text size_text(uint64_t n)
{
	struct size_text t;

	if (n < 1 << 10)
		snprintf(t.s, sizeof(t.s), "%llu byte%s", (unsigned long long)n, n == 1 ? "" : "s");
	else if (n < 1 << 20)
		snprintf(t.s, sizeof(t.s), "%.1f KiB", (double)n / (1 << 10));
	else
		snprintf(t.s, sizeof(t.s), "%.1f MiB", (double)n / (1 << 20));
	return t;
}

int params_put_initrd(struct gmem *gm, const struct kernel_args *a, const struct span *room,
		      struct span *ret, struct err *e)
{
	uint64_t low = (room->base + PAGE - 1) & ~(PAGE - 1), high = room->end & ~(PAGE - 1);
	uint64_t space = high > low ? high - low : 0, len = 0;

	*ret = (struct span){0, 0};
	for (int i = 0; i < a->initrd_n; i++) /* pieces in our memory: their sum cannot wrap */
		len += a->initrd[i].iov_len;
	if (a->initrd_size)
		len = a->initrd_size;
	if (!len)
		return 0;
	if (len > space)
		return err_msg(
			e, -ENOSPC,
			"initrd of %s does not fit: the kernel leaves %s (%llu to %llu MiB); "
			"give the guest more memory",
			size_text(len).s, size_text(space).s, (unsigned long long)(low >> 20),
			(unsigned long long)(high >> 20));

	uint64_t at = (high - len) & ~(PAGE - 1);
	*ret = (struct span){at, at + len};
	if (a->initrd_size) {
		const struct gmem_file f = {a->initrd_fd, 0, len};
		int r = gmem_load_file(gm, gpa(at), &f, e);
		if (r < 0) {
			err_ctx(e, "initrd");
			return r;
		}
	}
	for (int i = 0; !a->initrd_size && i < a->initrd_n; i++) {
		int r = put(gm, at, a->initrd[i].iov_base, a->initrd[i].iov_len, e);
		if (r)
			return r;
		at += a->initrd[i].iov_len;
	}
	return 0;
}

/* -------------------------------------------------------- the zero page */

int params_put_zero_page(struct gmem *gm, const struct setup_header *hdr,
			 const struct kernel_args *a, const struct span *initrd, struct err *e)
{
	struct boot_params bp = {.hdr = *hdr, .acpi_rsdp_addr = a->rsdp.v};
	uint64_t len = initrd->end - initrd->base;
	struct memmap m;
	int r = params_memmap(gm, &m, e);

	if (r)
		return r;
	bp.hdr.type_of_loader = LOADER_UNDEFINED;
	bp.hdr.cmd_line_ptr = LAYOUT_CMDLINE;
	bp.hdr.setup_data = 0; /* the loader's to fill, not the image's */
	bp.hdr.ramdisk_image = (uint32_t)initrd->base;
	bp.hdr.ramdisk_size = (uint32_t)len;
	bp.ext_ramdisk_image = (uint32_t)(initrd->base >> 32);
	bp.ext_ramdisk_size = (uint32_t)(len >> 32);
	bp.e820_entries = (uint8_t)m.n;
	memcpy(bp.e820_table, m.e, m.n * sizeof(m.e[0]));
	return put(gm, LAYOUT_BOOT_PARAMS, &bp, sizeof(bp), e);
}

/* ------------------------------------------------- the CPU's own tables */

/* Intel SDM volume 3, 3.4.5: present, ring 0, accessed, 4 KiB granules up to 4 GiB. */
#define SEG_CODE64 0x00af9b000000ffffull
#define SEG_DATA 0x00cf93000000ffffull
#define SEG_CODE32 0x00cf9b000000ffffull
#define SEG_TSS_BUSY 0x00008b0000000067ull

int params_put_gdt(struct gmem *gm, struct err *e)
{
	const uint64_t gdt[LAYOUT_BOOT_GDT_SIZE / 8] = {
		[LAYOUT_SEL_CODE64 / 8] = SEG_CODE64,
		[LAYOUT_SEL_DATA / 8] = SEG_DATA,
		[LAYOUT_SEL_CODE32 / 8] = SEG_CODE32,
		[LAYOUT_SEL_TSS / 8] = SEG_TSS_BUSY,
	};

	return put(gm, LAYOUT_BOOT_GDT, gdt, sizeof(gdt), e);
}

/* Intel SDM volume 3, 4.5: entries of the 4-level tables. */
#define PT_TABLE 0x003ull /* present, writable */
#define PT_LARGE 0x083ull /* the same, and the entry maps 2 MiB itself */
#define PT_ENTRIES 512u

/* PML4, PDPT, then four directories of 2 MiB pages: not every CPU has 1 GiB pages. */
int params_put_page_tables(struct gmem *gm, struct err *e)
{
	const uint64_t pdpt_at = LAYOUT_BOOT_PGTABLES + PAGE, pd_at = pdpt_at + PAGE;
	uint64_t t[PT_ENTRIES] = {pdpt_at | PT_TABLE};
	int r = put(gm, LAYOUT_BOOT_PGTABLES, t, sizeof(t), e);

	for (unsigned i = 0; i < 4; i++)
		t[i] = (pd_at + i * PAGE) | PT_TABLE;
	if (!r)
		r = put(gm, pdpt_at, t, sizeof(t), e);
	for (uint64_t gib = 0; !r && gib < 4; gib++) {
		for (uint64_t i = 0; i < PT_ENTRIES; i++)
			t[i] = (gib << 30) | (i << 21) | PT_LARGE;
		r = put(gm, pd_at + gib * PAGE, t, sizeof(t), e);
	}
	return r;
}
