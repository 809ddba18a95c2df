/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Xen's "x86/HVM direct boot ABI" (PVH): an ELF note names a 32-bit entry point,
 * EBX points to a start info of version 1 (xen/include/public/arch-x86/hvm/start_info.h).
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "boot/kernel_priv.h"
#include "vmm/layout.h"

#define NOTE_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define NOTES_MAX 256        /* looked at in one segment; Linux has about twenty */
#define START_MAGIC 0x336ec578
#define START_VERSION 1

struct start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist;
	uint64_t cmdline;
	uint64_t rsdp;
	uint64_t memmap; /* version 1 on */
	uint32_t memmap_entries;
	uint32_t reserved;
};

struct start_module {
	uint64_t addr, size;
	uint64_t cmdline;
	uint64_t reserved;
};

struct start_memmap {
	uint64_t addr, size;
	uint32_t type, reserved;
};

/* One page: the structure, its one module, its map. */
struct start_page {
	struct start_info info;
	struct start_module initrd;
	struct start_memmap map[E820_MAX_ENTRIES_ZEROPAGE];
};
_Static_assert(sizeof(struct start_info) == 56, "start info version 1");
_Static_assert(LAYOUT_PVH_INFO + sizeof(struct start_page) <= LAYOUT_BOOT_PARAMS,
	       "the start info ends before the zero page");

static bool note_entry(const struct kernel *k, const Elf64_Nhdr *n, uint64_t name, uint64_t desc,
		       uint64_t *ret)
{
	char who[4];
	uint64_t v = 0;

	if (n->n_type != NOTE_PHYS32_ENTRY || n->n_namesz != 4 ||
	    (n->n_descsz != 4 && n->n_descsz != 8))
		return false;
	if (kernel_read(k, name, who, 4) || memcmp(who, "Xen", 4) ||
	    kernel_read(k, desc, &v, n->n_descsz))
		return false;
	*ret = v;
	return true;
}

int pvh_find_entry(const struct kernel *k, const struct span *file, unsigned align,
		   uint64_t *ret_entry)
{
	uint64_t off = file->base, mask = align - 1;

	for (unsigned i = 0; i < NOTES_MAX; i++) {
		Elf64_Nhdr n;

		if (file->end - off < sizeof(n) || kernel_read(k, off, &n, sizeof(n)))
			return 0;
		/* Sums of 32-bit lengths: they cannot wrap, and are bounded before use. */
		uint64_t desc = (sizeof(n) + n.n_namesz + mask) & ~mask;
		uint64_t next = desc + (((uint64_t)n.n_descsz + mask) & ~mask);
		if (desc + n.n_descsz > file->end - off)
			return 0;
		if (note_entry(k, &n, off + sizeof(n), off + desc, ret_entry))
			return 1;
		if (next > file->end - off)
			return 0;
		off += next;
	}
	return 0;
}

int pvh_put_info(struct gmem *gm, const struct kernel_args *a, const struct span *initrd,
		 struct err *e)
{
	struct start_page p = {
		.info = {.magic = START_MAGIC,
			 .version = START_VERSION,
			 .cmdline = LAYOUT_CMDLINE,
			 .rsdp = a->rsdp.v,
			 .memmap = LAYOUT_PVH_INFO + offsetof(struct start_page, map)},
	};
	struct memmap m;
	int r = params_memmap(gm, &m, e);

	if (r)
		return r;
	p.info.memmap_entries = m.n;
	for (unsigned i = 0; i < m.n; i++)
		p.map[i] = (struct start_memmap){
			.addr = m.e[i].addr, .size = m.e[i].size, .type = m.e[i].type};
	if (initrd->end > initrd->base) {
		p.info.nr_modules = 1;
		p.info.modlist = LAYOUT_PVH_INFO + offsetof(struct start_page, initrd);
		p.initrd.addr = initrd->base;
		p.initrd.size = initrd->end - initrd->base;
	}
	r = gmem_write(gm, gpa(LAYOUT_PVH_INFO), &p, sizeof(p));
	return r ? err_msg(e, r, "no memory for the PVH start info") : 0;
}
