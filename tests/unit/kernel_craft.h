/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel images made in memory for the loaders' tests: a bzImage and an ELF
 * file that are right in all that matters, to be spoiled one field at a time.
 */
#ifndef TESTS_UNIT_KERNEL_CRAFT_H
#define TESTS_UNIT_KERNEL_CRAFT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "boot/kernel_priv.h"
#include "vmm/layout.h"

#define MIB (1ull << 20)
#define CODE_AT 0x1000 /* protected-mode code in the crafted bzImage: 7 setup sectors */
#define CODE_LEN 0x2340
#define BZ_LEN (CODE_AT + CODE_LEN)

struct image {
	uint8_t p[64 << 10];
	size_t n;
};

static struct image img;
static struct err err;

/* ------------------------------------------------------------- crafting */

static inline struct setup_header *bz_header(void)
{
	return (struct setup_header *)(void *)(img.p + 0x1f1);
}

static inline void craft_bzimage(void)
{
	memset(&img, 0, sizeof(img));
	img.n = BZ_LEN;
	for (size_t i = CODE_AT; i < img.n; i++)
		img.p[i] = (uint8_t)(i * 7 + 1);
	memcpy(img.p, "MZ", 2);
	strcpy((char *)img.p + 0x700, "6.1.0-43-cloud-amd64 (debian@x) #1 SMP");
	*bz_header() = (struct setup_header){
		.setup_sects = 7,
		.syssize = CODE_LEN / 16,
		.boot_flag = 0xaa55,
		.jump = 0x6aeb, /* the header ends at 0x202 + 0x6a */
		.header = 0x53726448,
		.version = 0x020f,
		.kernel_version = 0x500,
		.loadflags = LOADED_HIGH,
		.setup_data = 0x1234,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = 0x200000,
		.relocatable_kernel = 1,
		.xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
		.cmdline_size = 2047,
		.pref_address = 0x1000000,
		.init_size = 0x800000,
	};
}

static inline Elf64_Ehdr *elf_header(void)
{
	return (Elf64_Ehdr *)(void *)img.p;
}

static inline Elf64_Phdr *elf_ph(unsigned i)
{
	return (Elf64_Phdr *)(void *)(img.p + 64) + i;
}

/* Text at 16 MiB (virtual in the kernel's half), data with bss at 18 MiB, a per-CPU segment at
 * virtual 0. */
static inline void craft_elf(bool pvh)
{
	memset(&img, 0, sizeof(img));
	img.n = 0x5000;
	for (size_t i = 0x1000; i < img.n; i++)
		img.p[i] = (uint8_t)(i * 5 + 3);
	*elf_header() = (Elf64_Ehdr){
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = 0x1000040,
		.e_phoff = 64,
		.e_ehsize = 64,
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 4,
	};
	*elf_ph(0) = (Elf64_Phdr){.p_type = PT_LOAD,
				  .p_offset = 0x1000,
				  .p_vaddr = 0xffffffff81000000,
				  .p_paddr = 0x1000000,
				  .p_filesz = 0x2000,
				  .p_memsz = 0x2000};
	*elf_ph(1) = (Elf64_Phdr){.p_type = PT_LOAD,
				  .p_offset = 0x3000,
				  .p_vaddr = 0xffffffff81200000,
				  .p_paddr = 0x1200000,
				  .p_filesz = 0x1234,
				  .p_memsz = 0x3000};
	*elf_ph(2) = (Elf64_Phdr){.p_type = PT_LOAD,
				  .p_offset = 0x4800,
				  .p_vaddr = 0,
				  .p_paddr = 0x1300000,
				  .p_filesz = 0x800,
				  .p_memsz = 0x800};
	*elf_ph(3) =
		(Elf64_Phdr){.p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = 48, .p_align = 4};

	/* A note of somebody else's first, whose lengths need rounding. */
	static const uint32_t gnu[] = {4, 5, 18, 0x00554e47, 0x11111111, 0x22};
	uint32_t xen[] = {4, 8, pvh ? 18 : 17, 0x006e6558, 0x1200010, 0};
	memcpy(img.p + 0x800, gnu, sizeof(gnu));
	memcpy(img.p + 0x818, xen, sizeof(xen));
	strcpy((char *)img.p + 0x1800, "Linux version %s (%s)");
	strcpy((char *)img.p + 0x1900, "Linux version 6.12.1-lean (a@b) (gcc)");
}

static inline size_t gzip(const void *in, size_t n, uint8_t *out, size_t cap)
{
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY),
			 Z_OK);
	z.next_in = (void *)(uintptr_t)in;
	z.avail_in = (unsigned)n;
	z.next_out = out;
	z.avail_out = (unsigned)cap;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static inline void craft_gzip(void)
{
	static uint8_t out[sizeof(img.p)];

	img.n = gzip(img.p, img.n, out, sizeof(out));
	memcpy(img.p, out, sizeof(out));
}

static inline struct kernel *open_ok(void)
{
	struct kernel *k = NULL;

	err = (struct err){0};
	if (kernel_open_mem(&k, img.p, img.n, &err))
		fail_msg("refused: %s", err.text);
	return k;
}

static inline struct gmem *memory(uint64_t low, uint64_t high)
{
	struct gmem *gm;

	assert_int_equal(gmem_new(&gm, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(0), low, NULL), 0);
	if (high)
		assert_int_equal(gmem_add(gm, gpa(LAYOUT_HIGH_RAM), high, NULL), 0);
	return gm;
}

static inline struct vcpu_entry load_ok(struct gmem *gm, const struct kernel_args *a)
{
	struct kernel *k = open_ok();
	struct vcpu_entry entry = {0};

	if (kernel_load(k, gm, a, &entry, &err))
		fail_msg("not loaded: %s", err.text);
	kernel_free(k);
	return entry;
}

static inline void holds(struct gmem *gm, uint64_t at, const void *want, size_t n)
{
	uint8_t *got = malloc(n);

	assert_int_equal(gmem_read(gm, gpa(at), got, n), 0);
	assert_memory_equal(got, want, n);
	free(got);
}

static const struct kernel_args plain = {.cmdline = "console=hvc0", .rsdp = {LAYOUT_ACPI}};

#endif
