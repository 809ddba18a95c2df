/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF kernels: a vmlinux with a PVH note, one without, or any freestanding
 * x86-64 program whose segments have physical addresses from 1 MiB on.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/kernel_priv.h"
#include "vmm/layout.h"

#define HEADERS_MAX 128 /* program headers; Linux has five */
#define SEARCH_CHUNK (256u << 10)

static const char *machine_name(unsigned m)
{
	switch (m) {
	case EM_AARCH64:
		return "arm64";
	case EM_ARM:
		return "32-bit ARM";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC64:
		return "POWER";
	case EM_S390:
		return "s390";
	case EM_MIPS:
		return "MIPS";
	case 258: /* EM_LOONGARCH, younger than some <elf.h> */
		return "LoongArch";
	}
	return NULL;
}

static int check_header(const Elf64_Ehdr *h, struct err *e)
{
	if (h->e_ident[EI_DATA] != ELFDATA2LSB)
		return err_msg(e, -ENOEXEC, "a big-endian ELF file; this machine is x86-64");
	/* e_machine stands at the same place in both classes. */
	const char *name = machine_name(h->e_machine);
	if (name)
		return err_msg(e, -ENOEXEC, "an ELF file for %s; this machine is x86-64", name);
	if (h->e_ident[EI_CLASS] != ELFCLASS64)
		return err_msg(e, -ENOEXEC, "a 32-bit ELF file; this machine is x86-64");
	if (h->e_machine != EM_X86_64)
		return err_msg(e, -ENOEXEC, "an ELF file for machine %u; this machine is x86-64",
			       h->e_machine);
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return err_msg(e, -ENOEXEC, "an ELF file that is not an executable (type %u)",
			       h->e_type);
	if (h->e_phentsize != sizeof(Elf64_Phdr) || !h->e_phnum || h->e_phnum > HEADERS_MAX)
		return err_msg(e, -ENOEXEC, "damaged: %u program headers of %u bytes", h->e_phnum,
			       h->e_phentsize);
	return 0;
}

/* Bounds of one PT_LOAD, in the file and in guest memory. */
static int check_segment(const struct kernel *k, const Elf64_Phdr *p, unsigned i, struct err *e)
{
	if (p->p_filesz > p->p_memsz)
		return err_msg(e, -ENOEXEC,
			       "damaged: segment %u has more bytes in the file than in memory", i);
	if (p->p_offset > k->len || p->p_filesz > k->len - p->p_offset)
		return err_msg(
			e, -ENOEXEC,
			"truncated: segment %u has 0x%llx bytes at 0x%llx, the file ends at 0x%llx",
			i, (unsigned long long)p->p_filesz, (unsigned long long)p->p_offset,
			(unsigned long long)k->len);
	if (p->p_paddr < LAYOUT_KERNEL)
		return err_msg(e, -ENOEXEC, "segment %u is to be loaded at 0x%llx, below 1 MiB", i,
			       (unsigned long long)p->p_paddr);
	if (p->p_paddr > LAYOUT_LOW_RAM_MAX || p->p_memsz > LAYOUT_LOW_RAM_MAX - p->p_paddr)
		return err_msg(e, -ENOEXEC,
			       "segment %u, 0x%llx bytes at 0x%llx, reaches beyond 3 GiB", i,
			       (unsigned long long)p->p_memsz, (unsigned long long)p->p_paddr);
	return 0;
}

static int add_segment(struct kernel *k, const Elf64_Phdr *p, unsigned i, struct err *e)
{
	struct elf *elf = &k->elf;
	uint64_t end = p->p_paddr + p->p_memsz;
	int r = p->p_memsz ? check_segment(k, p, i, e) : 0;

	if (r || !p->p_memsz)
		return r;
	for (unsigned j = 0; j < elf->nseg; j++)
		if (p->p_paddr < elf->seg[j].paddr + elf->seg[j].memsz && elf->seg[j].paddr < end)
			return err_msg(e, -ENOEXEC, "damaged: segment %u overlaps another", i);
	if (elf->nseg == ELF_SEGMENTS_MAX)
		return err_msg(e, -ENOEXEC, "more than %d segments", ELF_SEGMENTS_MAX);
	elf->seg[elf->nseg++] = (struct elf_segment){.off = p->p_offset,
						     .filesz = p->p_filesz,
						     .vaddr = p->p_vaddr,
						     .paddr = p->p_paddr,
						     .memsz = p->p_memsz};
	if (end > elf->end)
		elf->end = end;
	return 0;
}

static int read_header(const struct kernel *k, const Elf64_Ehdr *h, unsigned i, Elf64_Phdr *ret,
		       struct err *e)
{
	/* The first read bounds e_phoff by the file, so later sums cannot wrap. */
	if (kernel_read(k, h->e_phoff + i * sizeof(*ret), ret, sizeof(*ret)))
		return err_msg(e, -ENOEXEC,
			       "truncated: its %llu bytes end before its program headers",
			       (unsigned long long)k->len);
	return 0;
}

/*
 * *ret_pvh, and the entry set, when a note names one. That is also what tells a
 * kernel from a program for user space: FreeBSD's has an interpreter as well.
 */
static int find_pvh(struct kernel *k, const Elf64_Ehdr *h, bool *ret_pvh, struct err *e)
{
	bool user = false;

	*ret_pvh = false;
	for (unsigned i = 0; i < h->e_phnum; i++) {
		Elf64_Phdr p;
		int r = read_header(k, h, i, &p, e);

		if (r)
			return r;
		if (p.p_type == PT_INTERP || p.p_type == PT_DYNAMIC || p.p_type == PT_TLS)
			user = true;
		if (p.p_type != PT_NOTE || *ret_pvh)
			continue;
		if (p.p_offset > k->len || p.p_filesz > k->len - p.p_offset)
			return err_msg(e, -ENOEXEC, "truncated: it ends before its notes");
		struct span file = {p.p_offset, p.p_offset + p.p_filesz};
		*ret_pvh = pvh_find_entry(k, &file, p.p_align == 8 ? 8 : 4, &k->elf.entry);
	}
	return user && !*ret_pvh ? err_msg(e, -ENOEXEC, "a program for user space, not a kernel")
				 : 0;
}

static int add_segments(struct kernel *k, const Elf64_Ehdr *h, struct err *e)
{
	for (unsigned i = 0; i < h->e_phnum; i++) {
		Elf64_Phdr p;
		int r = read_header(k, h, i, &p, e);

		if (!r && p.p_type == PT_LOAD)
			r = add_segment(k, &p, i, e);
		if (r)
			return r;
	}
	return 0;
}

static bool inside(const struct elf *elf, uint64_t paddr)
{
	for (unsigned i = 0; i < elf->nseg; i++)
		if (paddr - elf->seg[i].paddr < elf->seg[i].memsz) /* wraps when below */
			return true;
	return false;
}

/*
 * e_entry as a physical address. Linux gives one already, and its per-CPU
 * segment is linked at virtual 0, so physical is tried first.
 */
static bool to_physical(const struct elf *elf, uint64_t entry, uint64_t *ret)
{
	*ret = entry;
	if (inside(elf, entry))
		return true;
	for (unsigned i = 0; i < elf->nseg; i++)
		if (entry - elf->seg[i].vaddr < elf->seg[i].memsz) {
			*ret = elf->seg[i].paddr + (entry - elf->seg[i].vaddr);
			return true;
		}
	return false;
}

int elf_parse(struct kernel *k, const uint8_t *head, size_t n, struct err *e)
{
	Elf64_Ehdr h = {0};
	bool pvh;

	memcpy(&h, head, n < sizeof(h) ? n : sizeof(h));
	if (n < sizeof(h) &&
	    (n < 52 || h.e_ident[EI_CLASS] == ELFCLASS64)) /* 52: an ELF32 header */
		return err_msg(e, -ENOEXEC, "truncated: %llu bytes are too few for an ELF header",
			       (unsigned long long)k->len);

	int r = check_header(&h, e);
	if (r || (r = find_pvh(k, &h, &pvh, e)) || (r = add_segments(k, &h, e)))
		return r;
	if (!k->elf.nseg)
		return err_msg(e, -ENOEXEC, "an ELF file with nothing to load");
	k->kind = pvh ? KERNEL_ELF_PVH : KERNEL_ELF64;
	if (pvh ? !inside(&k->elf, k->elf.entry) : !to_physical(&k->elf, h.e_entry, &k->elf.entry))
		return err_msg(e, -ENOEXEC, "its %sentry point 0x%llx lies outside its segments",
			       pvh ? "PVH " : "", (unsigned long long)k->elf.entry);
	return 0;
}

/* The banner that Linux prints first, somewhere in its read-only data. */
static bool search_version(struct kernel *k, const struct elf_segment *s, char *buf)
{
	static const char banner[] = "Linux version ";
	const size_t len = sizeof(banner) - 1;
	const uint64_t overlap = len + KERNEL_VERSION_MAX + 1; /* so that none is cut in two */

	for (uint64_t off = 0; off < s->filesz; off += SEARCH_CHUNK - overlap) {
		uint64_t left = s->filesz - off;
		size_t n = left < SEARCH_CHUNK ? left : SEARCH_CHUNK;
		if (kernel_read(k, s->off + off, buf, n))
			return false;
		for (char *p = buf; (p = memmem(p, (size_t)(buf + n - p), banner, len)); p += len)
			if (kernel_take_version(k, p + len, (size_t)(buf + n - p) - len))
				return true;
		if (left <= SEARCH_CHUNK)
			break;
	}
	return false;
}

void elf_version(struct kernel *k)
{
	char *buf = malloc(SEARCH_CHUNK);

	for (unsigned i = 0; buf && i < k->elf.nseg; i++)
		if (search_version(k, &k->elf.seg[i], buf))
			break;
	free(buf);
}

static int put_segments(const struct kernel *k, struct gmem *gm, uint64_t low_end, struct err *e)
{
	if (k->elf.end > low_end)
		return err_msg(e, -ENOSPC,
			       "kernel%s%s: it reaches up to %llu MiB, but memory ends at %llu MiB",
			       k->path ? " " : "", k->path ? k->path : "",
			       (unsigned long long)((k->elf.end + (1 << 20) - 1) >> 20),
			       (unsigned long long)(low_end >> 20));
	/* Exactly the file's bytes; what a segment has beyond them is zero, as fresh memory is. */
	for (unsigned i = 0; i < k->elf.nseg; i++) {
		const struct elf_segment *s = &k->elf.seg[i];
		const struct span file = {s->off, s->off + s->filesz};
		int r = kernel_put(k, gm, s->paddr, &file, e);
		if (r)
			return r;
	}
	return 0;
}

/* No header in the image: what the 64-bit protocol would have found in a bzImage's. */
static const struct setup_header plain_header = {
	.boot_flag = 0xaa55,
	.header = 0x53726448, /* HdrS */
	.version = 0x020c,
	.loadflags = LOADED_HIGH,
	.cmdline_size = KERNEL_CMDLINE_MAX,
};

int elf_load(const struct kernel *k, struct gmem *gm, const struct kernel_args *a,
	     struct vcpu_entry *ret, struct err *e)
{
	struct span initrd, room = {.base = k->elf.end};
	bool pvh = k->kind == KERNEL_ELF_PVH;
	int r = params_low_end(gm, &room.end, e);

	if (r || (r = put_segments(k, gm, room.end, e)) ||
	    (r = params_put_cmdline(gm, a->cmdline, KERNEL_CMDLINE_MAX, e)) ||
	    (r = params_put_initrd(gm, a, &room, &initrd, e)) || (r = params_put_gdt(gm, e)))
		return r;
	if (pvh)
		r = pvh_put_info(gm, a, &initrd, e);
	else if (!(r = params_put_page_tables(gm, e)))
		r = params_put_zero_page(gm, &plain_header, a, &initrd, e);
	if (r)
		return r;
	*ret = (struct vcpu_entry){.mode = pvh ? ENTRY_PROT32 : ENTRY_LONG64,
				   .ip = gpa(k->elf.entry),
				   .arg = gpa(pvh ? LAYOUT_PVH_INFO : LAYOUT_BOOT_PARAMS)};
	return 0;
}
