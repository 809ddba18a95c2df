/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel loaders share among themselves; nobody outside boot/ and its
 * tests includes this.
 *
 * An image is parsed once, at open: every number that comes from the file is
 * copied, checked and kept here, so that loading works on checked copies even
 * when the file changes underneath. Only the bytes of the kernel proper are
 * taken from the file again, with offsets and lengths known to be good.
 */
#ifndef BOOT_KERNEL_PRIV_H
#define BOOT_KERNEL_PRIV_H

#include <asm/bootparam.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "boot/kernel.h"

#define KERNEL_HEAD 4096      /* bytes read first; every header searched for starts in them */
#define KERNEL_VERSION_MAX 64 /* __NEW_UTS_LEN */
#define KERNEL_CMDLINE_MAX                                                                         \
	2047 /* x86's COMMAND_LINE_SIZE less the NUL; an ELF image does not say */

/* [base, end) of guest physical addresses. */
struct span {
	uint64_t base, end;
};

struct bzimage {
	struct setup_header hdr; /* as far as the image's own reaches, zero beyond */
	uint64_t code, code_len; /* the protected-mode code in the file */
	struct span at;          /* where it runs: its start and init_size */
};

#define ELF_SEGMENTS_MAX 64
struct elf_segment {
	uint64_t off, filesz;
	uint64_t vaddr;
	uint64_t paddr, memsz; /* 1 MiB ≤ paddr, paddr + memsz ≤ 3 GiB, no two overlap */
};
struct elf {
	struct elf_segment seg[ELF_SEGMENTS_MAX];
	unsigned nseg;
	uint64_t entry; /* physical, inside a segment */
	uint64_t end;   /* of the highest segment */
};

struct kernel {
	char *path;         /* NULL: opened from memory */
	int fd;             /* the file, or -1: the image is at mem */
	const uint8_t *mem; /* the caller's, or unpacked */
	uint64_t len;       /* of the image */
	void *unpacked;     /* our mapping; NULL: none */
	size_t unpacked_len;
	enum kernel_kind kind;
	struct bzimage bz;
	struct elf elf;
	bool version_known;
	char version[KERNEL_VERSION_MAX + 1]; /* "": the image does not say */
};

/* ------------------------------------------------------------ kernel.c */

/* Bytes of the image; 0, -EIO past its end or when the file cannot be read. */
int kernel_read(const struct kernel *k, uint64_t off, void *buf, size_t len);

/* Puts [off, off+len) of the image at @at: straight from the file. */
int kernel_put(const struct kernel *k, struct gmem *gm, uint64_t at, const struct span *file,
	       struct err *e);

/*
 * A release that starts at @s and ends with a blank or NUL within @n bytes. It
 * becomes a part of a path (/lib/modules/…): digits first, and no slash.
 */
bool kernel_take_version(struct kernel *k, const char *s, size_t n);

/* ------------------------------------------------------------ gunzip.c */

/* Unpacks all of @k into memory and makes that the image; at most @max bytes. */
int gunzip_image(struct kernel *k, uint64_t max, struct err *e);

/* --------------------------------------------------- one file a format */

/* @head: the first @n bytes. -ENOEXEC and a reason when it is not bootable here. */
int bzimage_parse(struct kernel *k, const uint8_t *head, size_t n, struct err *e);
void bzimage_version(struct kernel *k);
int bzimage_load(const struct kernel *k, struct gmem *gm, const struct kernel_args *a,
		 struct vcpu_entry *ret, struct err *e);

int elf_parse(struct kernel *k, const uint8_t *head, size_t n, struct err *e);
void elf_version(struct kernel *k);
int elf_load(const struct kernel *k, struct gmem *gm, const struct kernel_args *a,
	     struct vcpu_entry *ret, struct err *e);

/*
 * The entry point that a PVH note in [off, off+len) of the image names.
 * 1 found, 0 none; a malformed note ends the search. @align: of the notes.
 */
int pvh_find_entry(const struct kernel *k, const struct span *file, unsigned align,
		   uint64_t *ret_entry);
/* Start info, memory map and module list at LAYOUT_PVH_INFO. */
int pvh_put_info(struct gmem *gm, const struct kernel_args *a, const struct span *initrd,
		 struct err *e);

/* ------------------------------------------------------------ params.c */

struct memmap {
	struct boot_e820_entry e[E820_MAX_ENTRIES_ZEROPAGE];
	unsigned n;
};
enum { MEMMAP_RAM = 1, MEMMAP_RESERVED = 2 }; /* the same in e820 and in PVH */

int params_memmap(const struct gmem *gm, struct memmap *ret, struct err *e);
/* End of the RAM that starts at 0; an error when it does not reach beyond LAYOUT_KERNEL. */
int params_low_end(const struct gmem *gm, uint64_t *ret, struct err *e);

/* At LAYOUT_CMDLINE; @max: characters the kernel takes. */
int params_put_cmdline(struct gmem *gm, const char *cmdline, uint64_t max, struct err *e);
/* As high in @room as it goes, on a page boundary; *ret is empty without an initrd. */
int params_put_initrd(struct gmem *gm, const struct kernel_args *a, const struct span *room,
		      struct span *ret, struct err *e);
/* Completes @hdr and puts the zero page at LAYOUT_BOOT_PARAMS. */
int params_put_zero_page(struct gmem *gm, const struct setup_header *hdr,
			 const struct kernel_args *a, const struct span *initrd, struct err *e);
int params_put_gdt(struct gmem *gm, struct err *e);
/* The first 4 GiB mapped one to one. */
int params_put_page_tables(struct gmem *gm, struct err *e);

#endif
