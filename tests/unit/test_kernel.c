/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel images identified or refused. Needs no KVM. */
#include "tests/unit/kernel_craft.h"

static void refused(const char *why)
{
	struct kernel *k = NULL;

	err = (struct err){0};
	int r = kernel_open_mem(&k, img.p, img.n, &err);
	assert_true(r < 0);
	assert_int_equal(r, err.code);
	assert_null(k);
	if (!strstr(err.text, why) || strchr(err.text, '\n'))
		fail_msg("\"%s\" does not say \"%s\"", err.text, why);
}

/* ---------------------------------------------------------- identifying */

static void kernel_open_knows_a_bzimage_and_its_version(void **state)
{
	(void)state;
	craft_bzimage();
	struct kernel *k = open_ok();
	assert_int_equal(kernel_kind(k), KERNEL_BZIMAGE);
	assert_string_equal(kernel_version(k), "6.1.0-43-cloud-amd64");
	kernel_free(k);
	kernel_free(NULL);
}

static void kernel_open_tells_elf_with_note_from_elf_without(void **state)
{
	(void)state;
	craft_elf(true);
	struct kernel *k = open_ok();
	assert_int_equal(kernel_kind(k), KERNEL_ELF_PVH);
	assert_string_equal(kernel_version(k), "6.12.1-lean");
	kernel_free(k);

	craft_elf(false);
	k = open_ok();
	assert_int_equal(kernel_kind(k), KERNEL_ELF64);
	kernel_free(k);
}

static void kernel_open_without_error_storage_still_refuses(void **state)
{
	struct kernel *k = NULL;

	(void)state;
	assert_true(kernel_open_mem(&k, "abc", 3, NULL) < 0);
	assert_true(kernel_open(&k, "/nonexistent/kernel", NULL) == -ENOENT);
}

static void kernel_version_that_could_leave_its_directory_is_none(void **state)
{
	static const char *const bad[] = {"../../etc", "6/../x y", "",  " 6.1",
					  ".6.1 x",    "6.1\t",    "a6"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		craft_bzimage();
		strcpy((char *)img.p + 0x700, bad[i]);
		struct kernel *k = open_ok();
		assert_null(kernel_version(k));
		kernel_free(k);
	}
}

static void kernel_version_outside_the_setup_part_is_none(void **state)
{
	(void)state;
	craft_bzimage();
	strcpy((char *)img.p + CODE_AT + 0x100, "6.1.0 x");
	bz_header()->kernel_version = CODE_AT - 0x100;
	struct kernel *k = open_ok();
	assert_null(kernel_version(k));
	kernel_free(k);

	bz_header()->kernel_version = 0xffff;
	k = open_ok();
	assert_null(kernel_version(k));
	kernel_free(k);

	/* Runs into the end of the setup part without a blank. */
	memset(img.p + CODE_AT - 8, '6', 8);
	img.p[CODE_AT] = ' ';
	bz_header()->kernel_version = CODE_AT - 0x208;
	k = open_ok();
	assert_null(kernel_version(k));
	kernel_free(k);

	/* Longer than any release. */
	memset(img.p + 0x700, '6', 65);
	img.p[0x700 + 65] = ' ';
	bz_header()->kernel_version = 0x500;
	k = open_ok();
	assert_null(kernel_version(k));
	kernel_free(k);
}

static void kernel_version_across_a_search_boundary_is_found(void **state)
{
	const size_t n = 1 << 20, cuts[] = {256 << 10, (256 << 10) - 5, (256 << 10) - 20};

	(void)state;
	for (size_t c = 0; c < 3; c++) {
		craft_elf(false);
		uint8_t *big = calloc(1, n);
		memcpy(big, img.p, 0x1000);
		Elf64_Phdr *p = (Elf64_Phdr *)(void *)(big + 64);
		p[0].p_filesz = p[0].p_memsz = n - 0x1000;
		p[0].p_paddr = 0x2000000;
		((Elf64_Ehdr *)(void *)big)->e_entry = 0x2000000;
		strcpy((char *)big + 0x1000 + cuts[c], "Linux version 5.10.7+ (x)");
		struct kernel *k = NULL;
		assert_int_equal(kernel_open_mem(&k, big, n, &err), 0);
		assert_string_equal(kernel_version(k), "5.10.7+");
		kernel_free(k);
		free(big);
	}
}

static void kernel_version_absent_from_elf_is_none(void **state)
{
	(void)state;
	craft_elf(false);
	memset(img.p + 0x1900, 0, 32);
	struct kernel *k = open_ok();
	assert_null(kernel_version(k));
	assert_null(kernel_version(k));
	kernel_free(k);

	/* Longer than any release, with room for more. */
	memset(img.p + 0x1900 + 14, '6', 500);
	memcpy(img.p + 0x1900, "Linux version ", 14);
	img.p[0x1900 + 514] = ' ';
	k = open_ok();
	assert_null(kernel_version(k));
	kernel_free(k);
}

/* -------------------------------------------------------------- refusing */

static void kernel_open_names_what_is_not_a_kernel(void **state)
{
	static const struct {
		unsigned at;
		const char *magic, *why;
		unsigned n;
	} t[] = {
		{0x38, "ARM\x64", "arm64", 4},
		{0x38, "RSC\x05", "RISC-V", 4},
		{4, "zimg", "zboot", 4},
		{0,
		 "\xfd"
		 "7zXZ\0",
		 "xz", 6},
		{0, "\x28\xb5\x2f\xfd", "zstd", 4},
		{0, "\x02\x21\x4c\x18", "lz4", 4},
		{0, "\x04\x22\x4d\x18", "lz4", 4},
		{0, "BZh9", "bzip2", 4},
		{0, "\x89LZO", "lzo", 4},
		{0, "\x5d\0\0\0", "lzma", 4},
		{0, "070701", "initramfs", 6},
		{0, "!<arch>\n", "archive", 8},
		{0, "MZ", "EFI program", 2},
		{0, "#!/bin/sh", "not a Linux kernel", 9},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		memset(&img, 0, sizeof(img));
		img.n = 8192;
		memcpy(img.p + t[i].at, t[i].magic, t[i].n);
		refused(t[i].why);
	}
	memset(&img, 0, sizeof(img));
	refused("empty");
	img.n = 100;
	refused("truncated: it has only 100 bytes");
}

static void kernel_open_on_bad_bzimage_header_is_refused(void **state)
{
	(void)state;
	craft_bzimage();
	bz_header()->boot_flag = 0;
	refused("EFI program");
	craft_bzimage();
	bz_header()->header = 0;
	refused("EFI program");
	craft_bzimage();
	bz_header()->version = 0x020b;
	refused("boot protocol 2.11 is too old");
	craft_bzimage();
	bz_header()->xloadflags = 0;
	refused("32-bit x86 kernel");
	craft_bzimage();
	bz_header()->loadflags = 0;
	refused("zImage");
	craft_bzimage();
	bz_header()->kernel_alignment = 0;
	refused("alignment is 0x0");
	craft_bzimage();
	bz_header()->kernel_alignment = 0x300000;
	refused("alignment is 0x300000");
	craft_bzimage();
	bz_header()->pref_address = 0x8000;
	refused("at 0x8000");
	craft_bzimage();
	bz_header()->pref_address = UINT64_MAX;
	refused("at 0xffffffffffffffff");
	craft_bzimage();
	bz_header()->syssize = 0x20; /* ends where the 64-bit entry point is */
	refused("damaged");
	craft_bzimage();
	bz_header()->syssize = UINT32_MAX;
	refused("truncated");
}

static void kernel_open_on_header_shorter_than_its_fields_is_refused(void **state)
{
	(void)state;
	craft_bzimage();
	img.p[0x201] = 0x10; /* ends before xloadflags: those bytes are not the header's */
	refused("32-bit x86 kernel");
	craft_bzimage();
	img.p[0x201] = 0xff; /* longer than ours: only what we know is taken */
	memset(img.p + 0x1f1 + sizeof(struct setup_header), 0xff, 0x100);
	struct kernel *k = open_ok();
	assert_int_equal(k->elf.seg[0].off, 0); /* the first thing behind struct bzimage */
	kernel_free(k);
}

static void kernel_open_on_every_truncation_of_a_bzimage_is_refused(void **state)
{
	(void)state;
	craft_bzimage();
	for (size_t n = 0; n + 15 < BZ_LEN; n += 13) {
		/* An exact copy, so that ASan sees a byte too far. */
		void *cut = malloc(n ? n : 1);
		struct kernel *k = NULL;
		memcpy(cut, img.p, n);
		assert_true(kernel_open_mem(&k, cut, n, &err) < 0);
		assert_true(!n || strstr(err.text, "truncated"));
		free(cut);
	}
}

static void kernel_open_on_every_truncation_of_an_elf_is_refused(void **state)
{
	(void)state;
	craft_elf(true);
	for (size_t n = 4; n < img.n; n += n < 300 ? 1 : 11) {
		void *cut = malloc(n);
		struct kernel *k = NULL;
		memcpy(cut, img.p, n);
		assert_true(kernel_open_mem(&k, cut, n, &err) < 0);
		assert_non_null(strstr(err.text, "truncated"));
		free(cut);
	}
}

static void kernel_open_on_foreign_elf_is_refused(void **state)
{
	(void)state;
	craft_elf(true);
	elf_header()->e_ident[EI_CLASS] = ELFCLASS32;
	elf_header()->e_machine = EM_386;
	refused("a 32-bit ELF file");
	craft_elf(true);
	elf_header()->e_machine = EM_AARCH64;
	refused("arm64");
	craft_elf(true);
	elf_header()->e_machine = 9999;
	refused("machine 9999");
	craft_elf(true);
	elf_header()->e_ident[EI_DATA] = ELFDATA2MSB;
	refused("big-endian");
	craft_elf(true);
	elf_header()->e_type = ET_REL;
	refused("not an executable");
}

static void kernel_open_on_hostile_program_headers_is_refused(void **state)
{
	(void)state;
	craft_elf(true);
	elf_header()->e_phentsize = 8;
	refused("program headers of 8 bytes");
	craft_elf(true);
	elf_header()->e_phnum = 0;
	refused("0 program headers");
	craft_elf(true);
	elf_header()->e_phnum = 0xffff;
	refused("65535 program headers");
	craft_elf(true);
	elf_header()->e_phoff = UINT64_MAX - 10;
	refused("truncated");
	craft_elf(true);
	elf_header()->e_phoff = UINT64_MAX - 55; /* wraps to 0 after the first */
	refused("truncated");
	craft_elf(true);
	for (unsigned i = 0; i < 4; i++)
		elf_ph(i)->p_type = PT_NULL;
	refused("nothing to load");
}

static void kernel_open_on_hostile_segments_is_refused(void **state)
{
	(void)state;
	craft_elf(true);
	elf_ph(0)->p_filesz = 0x3000;
	refused("more bytes in the file");
	craft_elf(true);
	elf_ph(0)->p_offset = UINT64_MAX - 0xfff; /* + filesz wraps */
	refused("truncated: segment 0");
	craft_elf(true);
	elf_ph(1)->p_filesz = elf_ph(1)->p_memsz = UINT64_MAX;
	refused("truncated: segment 1");
	craft_elf(true);
	elf_ph(0)->p_paddr = 0xff000;
	refused("below 1 MiB");
	craft_elf(true);
	elf_ph(0)->p_paddr = 0xffffffff81000000;
	refused("beyond 3 GiB");
	craft_elf(true);
	elf_ph(1)->p_memsz = UINT64_MAX; /* paddr + memsz wraps */
	refused("beyond 3 GiB");
	craft_elf(true);
	elf_ph(1)->p_paddr = 0x1001fff;
	refused("segment 1 overlaps");
	craft_elf(true);
	elf_ph(1)->p_paddr = 0x1000000 - 0x2fff;
	refused("segment 1 overlaps");
	craft_elf(true);
	elf_header()->e_phnum = ELF_SEGMENTS_MAX + 1;
	elf_header()->e_phoff = 0x2000;
	for (unsigned i = 0; i <= ELF_SEGMENTS_MAX; i++)
		((Elf64_Phdr *)(void *)(img.p + 0x2000))[i] = (Elf64_Phdr){
			.p_type = PT_LOAD, .p_paddr = 0x1000000 + i * 0x1000, .p_memsz = 0x1000};
	refused("more than 64 segments");
}

/* FreeBSD's kernel has what a program for user space has, and the note. */
static void kernel_open_tells_a_kernel_from_a_program_by_its_note(void **state)
{
	static const uint32_t types[] = {PT_INTERP, PT_DYNAMIC, PT_TLS};

	(void)state;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		for (unsigned at = 0; at < 5; at += 4) { /* before the note and after it */
			craft_elf(true);
			elf_header()->e_phnum = 5;
			*elf_ph(4) = *elf_ph(at);
			*elf_ph(at) = (Elf64_Phdr){.p_type = types[i]};
			struct kernel *k = open_ok();
			assert_int_equal(kernel_kind(k), KERNEL_ELF_PVH);
			assert_int_equal(k->elf.nseg, 3);
			assert_int_equal(k->elf.entry, 0x1200010);
			kernel_free(k);
			craft_elf(false);
			elf_ph(0)->p_paddr = 0; /* of what is wrong with it, this is told first */
			elf_header()->e_phnum = 5;
			*elf_ph(4) = *elf_ph(at);
			*elf_ph(at) = (Elf64_Phdr){.p_type = types[i]};
			refused("a program for user space, not a kernel");
		}
}

static void kernel_open_on_entry_outside_the_segments_is_refused(void **state)
{
	(void)state;
	craft_elf(false);
	elf_header()->e_entry = 0x1002000;
	refused("its entry point 0x1002000 lies outside");
	craft_elf(true);
	memset(img.p + 0x818 + 16, 0xff, 8);
	refused("its PVH entry point 0xffffffffffffffff lies outside");
}

static void kernel_open_on_hostile_notes_finds_no_entry(void **state)
{
	static const struct {
		unsigned at;
		uint32_t val;
	} t[] = {
		{0x800, UINT32_MAX}, /* the first note's name covers all */
		{0x804, UINT32_MAX}, /* its descriptor */
		{0x818, 5},          /* a name that is not "Xen" */
		{0x81c, 16},         /* a descriptor of no known size, beyond the end */
		{0x81c, 0},          /* an empty one */
		{0x824, 0x006e6559}, /* "Yen" */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		craft_elf(true);
		memcpy(img.p + t[i].at, &t[i].val, 4);
		struct kernel *k = open_ok();
		assert_int_equal(kernel_kind(k), KERNEL_ELF64);
		kernel_free(k);
	}
	craft_elf(true);
	elf_ph(3)->p_filesz = 47; /* the descriptor's last byte is outside */
	struct kernel *k = open_ok();
	assert_int_equal(kernel_kind(k), KERNEL_ELF64);
	kernel_free(k);
	elf_ph(3)->p_filesz = UINT64_MAX;
	refused("truncated: it ends before its notes");

	craft_elf(true);
	elf_ph(3)->p_filesz =
		21; /* the padding of the first note, and all of the second, are outside */
	k = open_ok();
	assert_int_equal(kernel_kind(k), KERNEL_ELF64);
	kernel_free(k);

	craft_elf(true);
	img.p[0x818] = 5; /* begins with "Xen" and its NUL, but is longer */
	elf_ph(3)->p_filesz = 56;
	k = open_ok();
	assert_int_equal(kernel_kind(k), KERNEL_ELF64);
	kernel_free(k);
}

static void kernel_open_reads_notes_of_either_size_and_alignment(void **state)
{
	static const uint32_t note8[] = {4, 3, 1,  0x00554e47, 7,        0,
					 4, 4, 18, 0x006e6558, 0x1000020};

	(void)state;
	craft_elf(true);
	memcpy(img.p + 0x800, note8, sizeof(note8)); /* the first one padded to 24 bytes */
	elf_ph(3)->p_align = 8;
	elf_ph(3)->p_filesz = sizeof(note8);
	struct kernel *k = open_ok();
	assert_int_equal(kernel_kind(k), KERNEL_ELF_PVH);
	assert_int_equal(k->elf.entry, 0x1000020);
	kernel_free(k);
}

/* ----------------------------------------------------------------- gzip */

static void kernel_open_unpacks_gzip_of_every_kind(void **state)
{
	(void)state;
	craft_bzimage();
	craft_gzip();
	struct kernel *k = open_ok();
	assert_int_equal(kernel_kind(k), KERNEL_BZIMAGE);
	assert_string_equal(kernel_version(k), "6.1.0-43-cloud-amd64");
	assert_int_equal(k->len, BZ_LEN);
	kernel_free(k);

	craft_elf(true);
	craft_gzip();
	memset(img.p + img.n, 0xee, 100); /* what follows the stream does not matter */
	img.n += 100;
	struct gmem *gm = memory(64 * MIB, 0);
	struct vcpu_entry entry = load_ok(gm, &plain);
	assert_int_equal(entry.mode, ENTRY_PROT32);
	craft_elf(true);
	holds(gm, 0x1000000, img.p + 0x1000, 0x2000);
	gmem_free(gm);
}

static void kernel_open_on_bad_gzip_is_refused(void **state)
{
	(void)state;
	craft_elf(true);
	craft_gzip();
	size_t whole = img.n;
	for (img.n = 2; img.n < whole; img.n += 7)
		refused("truncated");
	img.n = whole;
	img.p[whole - 6] ^= 1; /* the checksum */
	refused("damaged");
	craft_elf(true);
	craft_gzip();
	img.p[2] = 9; /* no such method */
	refused("damaged");
	craft_elf(true);
	craft_gzip();
	craft_gzip();
	refused("twice");
	memset(&img, 0, sizeof(img));
	craft_gzip();
	refused("what it unpacks to is empty");
}

static void gunzip_image_stops_at_its_limit(void **state)
{
	(void)state;
	craft_elf(true);
	craft_gzip();
	struct kernel k = {.fd = -1, .mem = img.p, .len = img.n};
	assert_int_equal(gunzip_image(&k, 0x5000 - 1, &err), -EFBIG);
	assert_non_null(strstr(err.text, "unpacks to more than"));
	assert_null(k.unpacked);
	assert_ptr_equal(k.mem, img.p);
}

static void gunzip_image_on_lying_size_unpacks_the_same(void **state)
{
	static const uint32_t sizes[] = {0, 1, 0x4fff, 0x5000, 0x5001, UINT32_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		craft_elf(true);
		craft_gzip();
		/* Behind the stream, where the trailer of the last stream would be. */
		memcpy(img.p + img.n, &sizes[i], 4);
		struct kernel *k = calloc(1, sizeof(*k));
		*k = (struct kernel){.fd = -1, .mem = img.p, .len = img.n + 4};
		assert_int_equal(gunzip_image(k, i % 2 ? 0x5000 : 64 * MIB, &err), 0);
		craft_elf(true);
		assert_int_equal(k->len, img.n);
		assert_memory_equal(k->mem, img.p, img.n);
		kernel_free(k);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernel_open_knows_a_bzimage_and_its_version),
		cmocka_unit_test(kernel_open_tells_elf_with_note_from_elf_without),
		cmocka_unit_test(kernel_open_without_error_storage_still_refuses),
		cmocka_unit_test(kernel_version_that_could_leave_its_directory_is_none),
		cmocka_unit_test(kernel_version_outside_the_setup_part_is_none),
		cmocka_unit_test(kernel_version_across_a_search_boundary_is_found),
		cmocka_unit_test(kernel_version_absent_from_elf_is_none),
		cmocka_unit_test(kernel_open_names_what_is_not_a_kernel),
		cmocka_unit_test(kernel_open_on_bad_bzimage_header_is_refused),
		cmocka_unit_test(kernel_open_on_header_shorter_than_its_fields_is_refused),
		cmocka_unit_test(kernel_open_on_every_truncation_of_a_bzimage_is_refused),
		cmocka_unit_test(kernel_open_on_every_truncation_of_an_elf_is_refused),
		cmocka_unit_test(kernel_open_on_foreign_elf_is_refused),
		cmocka_unit_test(kernel_open_on_hostile_program_headers_is_refused),
		cmocka_unit_test(kernel_open_on_hostile_segments_is_refused),
		cmocka_unit_test(kernel_open_tells_a_kernel_from_a_program_by_its_note),
		cmocka_unit_test(kernel_open_on_entry_outside_the_segments_is_refused),
		cmocka_unit_test(kernel_open_on_hostile_notes_finds_no_entry),
		cmocka_unit_test(kernel_open_reads_notes_of_either_size_and_alignment),
		cmocka_unit_test(kernel_open_unpacks_gzip_of_every_kind),
		cmocka_unit_test(kernel_open_on_bad_gzip_is_refused),
		cmocka_unit_test(gunzip_image_stops_at_its_limit),
		cmocka_unit_test(gunzip_image_on_lying_size_unpacks_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
