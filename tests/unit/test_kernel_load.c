/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel images put into guest memory, from memory and from files. Needs no KVM. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/kernel_craft.h"

static void load_refused(struct gmem *gm, const struct kernel_args *a, int code, const char *why)
{
	struct kernel *k = open_ok();
	struct vcpu_entry entry = {0};
	int r = kernel_load(k, gm, a, &entry, &err);

	assert_int_equal(r, code);
	assert_int_equal(err.code, code);
	assert_int_equal(entry.mode, ENTRY_NONE);
	if (!strstr(err.text, why))
		fail_msg("\"%s\" does not say \"%s\"", err.text, why);
	kernel_free(k);
}

static struct boot_params zero_page(struct gmem *gm)
{
	struct boot_params bp;

	assert_int_equal(gmem_read(gm, gpa(LAYOUT_BOOT_PARAMS), &bp, sizeof(bp)), 0);
	return bp;
}

/* --------------------------------------------------------------- loading */

static void kernel_load_enters_a_bzimage_in_long_mode(void **state)
{
	(void)state;
	craft_bzimage();
	struct gmem *gm = memory(64 * MIB, 0);
	struct vcpu_entry entry = load_ok(gm, &plain);

	assert_int_equal(entry.mode, ENTRY_LONG64);
	assert_int_equal(entry.ip.v, 0x1000200);
	assert_int_equal(entry.arg.v, LAYOUT_BOOT_PARAMS);
	holds(gm, 0x1000000, img.p + CODE_AT, CODE_LEN);
	holds(gm, LAYOUT_CMDLINE, "console=hvc0", 13);

	struct boot_params bp = zero_page(gm);
	assert_int_equal(bp.hdr.header, 0x53726448);
	assert_int_equal(bp.hdr.version, 0x020f);
	assert_int_equal(bp.hdr.type_of_loader, 0xff);
	assert_int_equal(bp.hdr.cmd_line_ptr, LAYOUT_CMDLINE);
	assert_int_equal(bp.hdr.init_size, 0x800000);
	assert_int_equal(bp.hdr.ramdisk_image, 0);
	assert_int_equal(bp.hdr.ramdisk_size, 0);
	assert_int_equal(bp.hdr.setup_data, 0);
	assert_int_equal(bp.acpi_rsdp_addr, LAYOUT_ACPI);
	assert_int_equal(bp.sentinel, 0);
	gmem_free(gm);
}

static void kernel_load_puts_a_bzimage_where_its_header_says(void **state)
{
	static const struct {
		uint64_t pref, ip;
		uint32_t align;
		uint8_t relocatable;
	} t[] = {
		{0x1000000, 0x1000200, 0x200000, 1},
		{0x1100000, 0x1200200, 0x200000, 1}, /* up to its alignment */
		{0x1100000, 0x1100200, 0x200000, 0}, /* not relocatable: exactly there */
		{0, LAYOUT_KERNEL + 0x200, 0x1000, 1},
		{0, 0x200200, 0x200000, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		craft_bzimage();
		bz_header()->pref_address = t[i].pref;
		bz_header()->kernel_alignment = t[i].align;
		bz_header()->relocatable_kernel = t[i].relocatable;
		struct gmem *gm = memory(64 * MIB, 0);
		assert_int_equal(load_ok(gm, &plain).ip.v, t[i].ip);
		gmem_free(gm);
	}
}

static void kernel_load_into_too_little_memory_is_refused(void **state)
{
	struct gmem *gm = memory(24 * MIB - 4096, 0);

	(void)state;
	craft_bzimage(); /* 16 MiB + init_size = 24 MiB */
	load_refused(gm, &plain, -ENOSPC, "memory ends at 23 MiB");
	gmem_free(gm);

	gm = memory(18 * MIB, 0);
	craft_elf(true);
	load_refused(gm, &plain, -ENOSPC, "memory ends at 18 MiB");
	gmem_free(gm);

	gm = memory(MIB, 0);
	load_refused(gm, &plain, -EINVAL, "no memory from 0");
	gmem_free(gm);

	assert_int_equal(gmem_new(&gm, NULL), 0);
	load_refused(gm, &plain, -EINVAL, "no memory from 0");
	gmem_free(gm);
}

static void kernel_load_joins_the_initrd_high_in_low_memory(void **state)
{
	static const struct iovec iov[] = {
		{(void *)(uintptr_t) "first,", 6}, {NULL, 0}, {(void *)(uintptr_t) "second", 6}};
	const struct kernel_args a = {.cmdline = "", .initrd = iov, .initrd_n = 3};

	(void)state;
	craft_bzimage();
	struct gmem *gm = memory(3072 * MIB, 64 * MIB);
	load_ok(gm, &a);
	struct boot_params bp = zero_page(gm);
	assert_int_equal(bp.hdr.ramdisk_image, 0xbffff000); /* may lie above initrd_addr_max */
	assert_int_equal(bp.hdr.ramdisk_size, 12);
	assert_int_equal(bp.ext_ramdisk_image, 0);
	assert_int_equal(bp.ext_ramdisk_size, 0);
	holds(gm, 0xbffff000, "first,second", 12);
	gmem_free(gm);

	bz_header()->xloadflags = XLF_KERNEL_64;
	gm = memory(3072 * MIB, 64 * MIB);
	load_ok(gm, &a);
	bp = zero_page(gm);
	assert_int_equal(bp.hdr.ramdisk_image, 0x7ffff000);
	gmem_free(gm);

	gm = memory(64 * MIB, 0); /* less memory than the kernel would take */
	load_ok(gm, &a);
	assert_int_equal(zero_page(gm).hdr.ramdisk_image, 64 * MIB - 4096);
	gmem_free(gm);
}

static void kernel_load_fits_an_initrd_to_the_page_and_no_more(void **state)
{
	uint8_t *disk = calloc(1, MIB + 1);
	struct iovec iov = {disk, MIB};
	const struct kernel_args a = {.initrd = &iov, .initrd_n = 1};

	(void)state;
	memset(disk, 0xd5, MIB);
	craft_bzimage();
	struct gmem *gm = memory(25 * MIB, 0);
	load_ok(gm, &a); /* kernel up to 24 MiB, initrd behind it */
	assert_int_equal(zero_page(gm).hdr.ramdisk_image, 24 * MIB);
	holds(gm, 24 * MIB, disk, MIB);
	iov.iov_len++;
	load_refused(gm, &a, -ENOSPC, "initrd of 1.0 MiB does not fit");
	gmem_free(gm);

	/* An ELF image's end is that of its highest segment, 0x1300800, to the next page. */
	craft_elf(false);
	gm = memory(20 * MIB, 0);
	iov.iov_len = 20 * MIB - 0x1301000;
	load_ok(gm, &a);
	assert_int_equal(zero_page(gm).hdr.ramdisk_image, 0x1301000);
	holds(gm, 0x1300000, img.p + 0x4800, 0x800);
	iov.iov_len++;
	load_refused(gm, &a, -ENOSPC, "initrd of 1020.0 KiB does not fit");
	gmem_free(gm);

	/* A limit of the kernel's that is below the kernel itself leaves no room at all. */
	craft_bzimage();
	bz_header()->xloadflags = XLF_KERNEL_64;
	bz_header()->initrd_addr_max = 0xfffff;
	iov.iov_len = 1;
	gm = memory(64 * MIB, 0);
	load_refused(gm, &a, -ENOSPC, "initrd of 1 byte does not fit: the kernel leaves 0 bytes");
	gmem_free(gm);
	free(disk);
}

static void kernel_load_holds_the_command_line_to_the_kernels_limit(void **state)
{
	static char text[LAYOUT_CMDLINE_MAX + 2];
	const struct kernel_args a = {.cmdline = text};
	struct gmem *gm = memory(64 * MIB, 0);

	(void)state;
	memset(text, 'a', 2047);
	craft_bzimage();
	load_ok(gm, &a);
	holds(gm, LAYOUT_CMDLINE, text, 2048);
	craft_elf(true);
	load_ok(gm, &a);
	text[2047] = 'a';
	load_refused(gm, &a, -E2BIG, "has 2048 characters, the kernel takes 2047");
	craft_bzimage();
	load_refused(gm, &a, -E2BIG, "has 2048 characters, the kernel takes 2047");

	bz_header()->cmdline_size = UINT32_MAX;
	load_ok(gm, &a);
	memset(text, 'a', LAYOUT_CMDLINE_MAX);
	load_refused(gm, &a, -E2BIG, "has 65536 characters, the kernel takes 65535");
	text[LAYOUT_CMDLINE_MAX - 1] = '\0';
	load_ok(gm, &a);
	gmem_free(gm);
}

static void kernel_load_enters_an_elf_with_note_through_pvh(void **state)
{
	static const struct iovec iov = {(void *)(uintptr_t) "initrd!", 7};
	const struct kernel_args a = {
		.cmdline = "quiet", .initrd = &iov, .initrd_n = 1, .rsdp = {0xe0010}};
	uint32_t info[14];
	uint64_t mod[4], map[3];

	(void)state;
	craft_elf(true);
	struct gmem *gm = memory(64 * MIB, 64 * MIB);
	struct vcpu_entry entry = load_ok(gm, &a);
	assert_int_equal(entry.mode, ENTRY_PROT32);
	assert_int_equal(entry.ip.v, 0x1200010);
	assert_int_equal(entry.arg.v, LAYOUT_PVH_INFO);

	/* Offsets of hvm_start_info, version 1. */
	assert_int_equal(gmem_read(gm, entry.arg, info, sizeof(info)), 0);
	assert_int_equal(info[0], 0x336ec578);
	assert_int_equal(info[1], 1);
	assert_int_equal(info[3], 1);
	assert_int_equal(info[6], LAYOUT_CMDLINE);
	assert_int_equal(info[8], 0xe0010);
	assert_int_equal(info[12], 5);
	assert_int_equal(gmem_read(gm, gpa(info[4]), mod, sizeof(mod)), 0);
	assert_int_equal(mod[0], 64 * MIB - 4096);
	assert_int_equal(mod[1], 7);
	holds(gm, mod[0], "initrd!", 7);
	assert_int_equal(gmem_read(gm, gpa(info[10] + 4 * 24), map, sizeof(map)), 0);
	assert_int_equal(map[0], LAYOUT_HIGH_RAM);
	assert_int_equal(map[1], 64 * MIB);
	assert_int_equal((uint32_t)map[2], 1);
	gmem_free(gm);
}

static void kernel_load_enters_an_elf_without_note_in_long_mode(void **state)
{
	(void)state;
	craft_elf(false);
	struct gmem *gm = memory(64 * MIB, 0);
	struct vcpu_entry entry = load_ok(gm, &plain);
	assert_int_equal(entry.mode, ENTRY_LONG64);
	assert_int_equal(entry.ip.v, 0x1000040);
	assert_int_equal(entry.arg.v, LAYOUT_BOOT_PARAMS);
	struct boot_params bp = zero_page(gm);
	assert_int_equal(bp.hdr.boot_flag, 0xaa55);
	assert_int_equal(bp.hdr.header, 0x53726448);
	assert_int_equal(bp.hdr.type_of_loader, 0xff);
	assert_int_equal(bp.hdr.cmd_line_ptr, LAYOUT_CMDLINE);
	assert_int_equal(bp.acpi_rsdp_addr, LAYOUT_ACPI);

	elf_header()->e_entry = 0xffffffff81200008; /* virtual, in the second segment */
	assert_int_equal(load_ok(gm, &plain).ip.v, 0x1200008);
	elf_header()->e_entry = 0x10; /* virtual, in the per-CPU segment */
	assert_int_equal(load_ok(gm, &plain).ip.v, 0x1300010);
	gmem_free(gm);
}

/* Bss is zero because memory is: what follows a segment's bytes in the file must not follow it in.
 */
static void kernel_load_puts_nothing_behind_a_segments_bytes(void **state)
{
	uint8_t dirt[0x4000];

	(void)state;
	craft_elf(false);
	struct gmem *gm = memory(64 * MIB, 0);
	memset(dirt, 0xcc, sizeof(dirt));
	assert_int_equal(gmem_write(gm, gpa(0x1200000), dirt, sizeof(dirt)), 0);
	load_ok(gm, &plain);
	holds(gm, 0x1200000, img.p + 0x3000, 0x1234);
	holds(gm, 0x1201234, dirt, sizeof(dirt) - 0x1234);
	gmem_free(gm);
}

/* ----------------------------------------------------------------- files */

struct place {
	char dir[64], path[80];
};

static int place_setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	strcpy(p->dir, "/tmp/test_kernel.XXXXXX");
	if (!mkdtemp(p->dir))
		return -1;
	snprintf(p->path, sizeof(p->path), "%s/k", p->dir);
	*state = p;
	return 0;
}

static int place_teardown(void **state)
{
	struct place *p = *state;

	unlink(p->path);
	rmdir(p->dir);
	free(p);
	return 0;
}

static void write_file(const struct place *p, size_t n)
{
	int fd = open(p->path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, img.p, n), n);
	close(fd);
}

static void file_refused(const char *path, int code, const char *why)
{
	struct kernel *k = NULL;

	assert_int_equal(kernel_open(&k, path, &err), code);
	assert_null(k);
	if (!strstr(err.text, why) || !strstr(err.text, path))
		fail_msg("\"%s\" does not say \"%s\"", err.text, why);
}

static void kernel_open_on_what_is_no_file_says_which_and_why(void **state)
{
	const struct place *p = *state;

	file_refused(p->path, -ENOENT, "No such file");
	file_refused(p->dir, -EISDIR, "directory");
	write_file(p, 0);
	file_refused(p->path, -ENOEXEC, "it is empty");
	unlink(p->path);
	assert_int_equal(mkfifo(p->path, 0600), 0);
	file_refused(p->path, -EINVAL, "not a regular file");
	file_refused("/dev/null", -EINVAL, "not a regular file");
}

static void kernel_load_takes_a_file_of_every_kind(void **state)
{
	const struct place *p = *state;

	for (int i = 0; i < 4; i++) {
		struct kernel *k = NULL;
		struct vcpu_entry entry;
		struct gmem *gm = memory(64 * MIB, 0);

		if (i & 1)
			craft_bzimage();
		else
			craft_elf(true);
		if (i & 2)
			craft_gzip();
		write_file(p, img.n);
		assert_int_equal(kernel_open(&k, p->path, &err), 0);
		assert_non_null(kernel_version(k));
		assert_int_equal(kernel_load(k, gm, &plain, &entry, &err), 0);
		kernel_free(k);
		if (i & 1)
			craft_bzimage();
		else
			craft_elf(true);
		holds(gm, 0x1000000, img.p + 0x1000, 0x2000);
		gmem_free(gm);
	}
}

static void kernel_load_of_a_file_cut_meanwhile_fails(void **state)
{
	const struct place *p = *state;
	struct gmem *gm = memory(64 * MIB, 0);
	struct kernel *k = NULL;
	struct vcpu_entry entry;

	craft_bzimage();
	write_file(p, img.n);
	assert_int_equal(kernel_open(&k, p->path, &err), 0);
	assert_int_equal(truncate(p->path, CODE_AT + 100), 0);
	assert_int_equal(kernel_load(k, gm, &plain, &entry, &err), -EIO);
	assert_non_null(strstr(err.text, p->path));
	kernel_free(k);

	craft_elf(true);
	write_file(p, img.n);
	assert_int_equal(kernel_open(&k, p->path, &err), 0);
	assert_int_equal(truncate(p->path, 0), 0);
	assert_null(kernel_version(k));
	kernel_free(k);
	gmem_free(gm);
}

int main(void)
{
#define FILE_TEST(t) cmocka_unit_test_setup_teardown(t, place_setup, place_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernel_load_enters_a_bzimage_in_long_mode),
		cmocka_unit_test(kernel_load_puts_a_bzimage_where_its_header_says),
		cmocka_unit_test(kernel_load_into_too_little_memory_is_refused),
		cmocka_unit_test(kernel_load_joins_the_initrd_high_in_low_memory),
		cmocka_unit_test(kernel_load_fits_an_initrd_to_the_page_and_no_more),
		cmocka_unit_test(kernel_load_holds_the_command_line_to_the_kernels_limit),
		cmocka_unit_test(kernel_load_enters_an_elf_with_note_through_pvh),
		cmocka_unit_test(kernel_load_enters_an_elf_without_note_in_long_mode),
		cmocka_unit_test(kernel_load_puts_nothing_behind_a_segments_bytes),
		FILE_TEST(kernel_open_on_what_is_no_file_says_which_and_why),
		FILE_TEST(kernel_load_takes_a_file_of_every_kind),
		FILE_TEST(kernel_load_of_a_file_cut_meanwhile_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
