/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel images: identified, their version read, loaded into a small machine.
 * Beyond what the sanitizers see: an entry point is in RAM, a version is one
 * component of a path, and the initrd arrives whole.
 *
 * The first byte chooses: the bytes as they are, or a good image spoiled by them
 * (records of a 16-bit offset, a length up to 8, and that many bytes), so that the
 * fuzzer need not find out by itself what a kernel looks like. The last byte is the
 * machine's memory in MiB.
 */
#include <elf.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "boot/kernel_priv.h"
#include "vmm/layout.h"

#define LOW_MAX (96ull << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

/* Mapped once; what one input leaves there, the next one finds. */
static struct gmem *machine(uint64_t low)
{
	static void *host;
	struct gmem *gm = NULL;

	if (!host)
		check(!posix_memalign(&host, 4096, LOW_MAX));
	check(!gmem_new(&gm, NULL));
	check(!gmem_add_fixed(gm, gpa(0), low, host, NULL));
	return gm;
}

static void check_initrd(struct gmem *gm, const struct vcpu_entry *entry, const char *want,
			 size_t len)
{
	char got[64];
	uint64_t at = 0, end = 0;

	if (entry->mode == ENTRY_PROT32) {
		uint64_t list;
		check(!gmem_read(gm, gpa(entry->arg.v + 16), &list, 8));
		check(!gmem_read(gm, gpa(list), &at, 8) && !gmem_read(gm, gpa(list + 8), &end, 8));
	} else {
		struct boot_params bp;
		check(!gmem_read(gm, entry->arg, &bp, sizeof(bp)));
		at = bp.hdr.ramdisk_image;
		end = bp.hdr.ramdisk_size;
	}
	check(end == len && !(at & 4095));
	check(!gmem_read(gm, gpa(at), got, len) && !memcmp(got, want, len));
}

struct image {
	uint8_t p[0x800];
	size_t n;
};

static void make_bzimage(struct image *img)
{
	const struct setup_header h = {.setup_sects = 1,
				       .syssize = 0x40,
				       .boot_flag = 0xaa55,
				       .jump = 0x6aeb,
				       .header = 0x53726448,
				       .version = 0x020f,
				       .kernel_version = 0x100,
				       .loadflags = LOADED_HIGH,
				       .initrd_addr_max = 0x7fffffff,
				       .kernel_alignment = 0x200000,
				       .relocatable_kernel = 1,
				       .xloadflags = XLF_KERNEL_64,
				       .cmdline_size = 2047,
				       .pref_address = 0x1000000,
				       .init_size = 0x800000};
	memcpy(img->p + 0x1f1, &h, sizeof(h));
	strcpy((char *)img->p + 0x300, "6.1.0-43-cloud-amd64 (debian)");
	img->n = 0x800;
}

static void make_elf(struct image *img)
{
	const Elf64_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1},
			      .e_type = ET_EXEC,
			      .e_machine = EM_X86_64,
			      .e_entry = 0xffffffff81000004,
			      .e_phoff = 64,
			      .e_phentsize = sizeof(Elf64_Phdr),
			      .e_phnum = 3};
	const Elf64_Phdr p[] = {
		{PT_LOAD, 5, 0x200, 0xffffffff81000000, 0x1000000, 0x180, 0x2000, 0x1000},
		{PT_LOAD, 6, 0x380, 0, 0x1200000, 0x80, 0x3000, 0x1000},
		{PT_NOTE, 4, 0x100, 0, 0, 0x40, 0x40, 4}};
	const uint32_t notes[] = {4, 5, 18, 0x00554e47, 1, 2, 4, 8, 18, 0x006e6558, 0x1000010, 0};

	memcpy(img->p, &h, sizeof(h));
	memcpy(img->p + sizeof(h), p, sizeof(p));
	memcpy(img->p + 0x100, notes, sizeof(notes));
	strcpy((char *)img->p + 0x210, "Linux version 6.12.1-lean (a@b)");
	img->n = 0x400;
}

static void spoil(struct image *img, const uint8_t *data, size_t size)
{
	while (size > 3) {
		size_t at = (data[0] | (size_t)data[1] << 8) % img->n, n = data[2] % 9;
		data += 3;
		size -= 3;
		for (size_t i = 0; i < n && i < size && at + i < img->n; i++)
			img->p[at + i] = data[i];
		data += n < size ? n : size;
		size -= n < size ? n : size;
	}
}

static void try_image(const uint8_t *data, size_t size, uint8_t mib)
{
	static char initrd[40] = "the initrd of the fuzzer, forty bytes.";
	const struct iovec iov[] = {{initrd, 7}, {initrd + 7, sizeof(initrd) - 7}};
	const struct kernel_args a = {
		.cmdline = "quiet", .initrd = iov, .initrd_n = 2, .rsdp = {LAYOUT_ACPI}};
	struct vcpu_entry entry = {0};
	struct kernel *k = NULL;
	struct err e = {0};

	int r = kernel_open_mem(&k, data, size, &e);
	if (r) {
		check(r == e.code && e.text[0] && !k);
		return;
	}
	const char *v = kernel_version(k);
	check(!v || (v[0] != '.' && !strchr(v, '/') && strlen(v) <= KERNEL_VERSION_MAX));

	uint64_t low = (1 + mib % (LOW_MAX >> 20)) << 20;
	struct gmem *gm = machine(low);
	r = kernel_load(k, gm, &a, &entry, &e);
	check(r || (entry.ip.v >= LAYOUT_KERNEL && entry.ip.v < low));
	check(!r || (r == e.code && e.text[0]));
	if (!r)
		check_initrd(gm, &entry, initrd, sizeof(initrd));
	gmem_free(gm);
	kernel_free(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image img = {.n = 0};

	if (size < 2)
		return 0;
	uint8_t kind = data[0] % 4, mib = data[size - 1];
	data++;
	size--;
	if (kind < 2) {
		try_image(data, size, mib);
		return 0;
	}
	if (kind == 2)
		make_bzimage(&img);
	else
		make_elf(&img);
	spoil(&img, data, size);
	try_image(img.p, img.n, mib);
	return 0;
}
