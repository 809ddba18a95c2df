/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzImage: Documentation/arch/x86/boot.rst, "64-bit boot protocol". The real-mode
 * part of the file is left out; only its header goes into the zero page.
 */
#include <errno.h>
#include <string.h>

#include "boot/kernel_priv.h"
#include "vmm/layout.h"

#define HDR_OFF 0x1f1ull   /* of setup_header in the file and in the zero page */
#define HDR_JUMP_LEN 0x201 /* 0x202 + this byte: the header's end */
#define HDR_BASE 0x202
#define ENTRY64_OFF 0x200    /* startup_64 from the start of the protected-mode code */
#define VERSION_64BIT 0x020c /* protocol 2.12, Linux 3.8: xloadflags */
#define SECTOR 512u

static int copy_header(struct kernel *k, const uint8_t *head, size_t n, struct err *e)
{
	size_t end = HDR_BASE + (size_t)head[HDR_JUMP_LEN];

	if (end > n)
		return err_msg(e, -ENOEXEC, "truncated: its %llu bytes end within its header",
			       (unsigned long long)k->len);
	/* The file says how long its header is; it may know more fields than we do, or fewer. */
	if (end > HDR_OFF + sizeof(k->bz.hdr))
		end = HDR_OFF + sizeof(k->bz.hdr);
	memcpy(&k->bz.hdr, head + HDR_OFF, end - HDR_OFF);
	return 0;
}

/* Where the protected-mode code lies in the file; the file must hold all of it. */
static int find_code(struct kernel *k, struct err *e)
{
	struct bzimage *bz = &k->bz;
	unsigned sectors = bz->hdr.setup_sects ? bz->hdr.setup_sects : 4; /* boot.rst: 0 means 4 */
	uint64_t want = (uint64_t)bz->hdr.syssize * 16;

	bz->code = (uint64_t)(sectors + 1) * SECTOR;
	/* syssize counts paragraphs: the last one may be cut. */
	if (bz->code >= k->len || k->len - bz->code + 15 < want)
		return err_msg(e, -ENOEXEC, "truncated: it has %llu bytes of %llu",
			       (unsigned long long)k->len, (unsigned long long)(bz->code + want));
	bz->code_len = k->len - bz->code < want ? k->len - bz->code : want;
	if (bz->code_len <= ENTRY64_OFF)
		return err_msg(e, -ENOEXEC,
			       "damaged: its header says that it holds %llu bytes of code",
			       (unsigned long long)want);
	return 0;
}

/*
 * The decompressor of a relocatable kernel moves up to pref_address when it was
 * loaded lower, so nothing is won by another place than that one.
 */
static int find_place(struct bzimage *bz, struct err *e)
{
	uint64_t align = bz->hdr.kernel_alignment;
	uint64_t at = bz->hdr.pref_address ? bz->hdr.pref_address : LAYOUT_KERNEL;

	if (bz->hdr.relocatable_kernel && (!align || align & (align - 1)))
		return err_msg(e, -ENOEXEC, "damaged: its alignment is 0x%llx",
			       (unsigned long long)align);
	if (at < LAYOUT_KERNEL || at >= LAYOUT_LOW_RAM_MAX)
		return err_msg(e, -ENOEXEC,
			       "it wants to be loaded at 0x%llx, out of 1 MiB to 3 GiB",
			       (unsigned long long)at);
	if (bz->hdr.relocatable_kernel)
		at = (at + align - 1) & ~(align - 1); /* both below 4 GiB: no overflow */
	/* The decompressor works inside init_size bytes from there on. */
	uint64_t need = bz->hdr.init_size > bz->code_len ? bz->hdr.init_size : bz->code_len;
	bz->at = (struct span){at, at + need};
	return 0;
}

int bzimage_parse(struct kernel *k, const uint8_t *head, size_t n, struct err *e)
{
	struct bzimage *bz = &k->bz;
	int r = copy_header(k, head, n, e);

	k->kind = KERNEL_BZIMAGE;
	if (r)
		return r;
	if (bz->hdr.version < VERSION_64BIT)
		return err_msg(e, -ENOEXEC,
			       "boot protocol %u.%02u is too old: 2.12 (Linux 3.8) is needed",
			       bz->hdr.version >> 8, bz->hdr.version & 0xff);
	if (!(bz->hdr.xloadflags & XLF_KERNEL_64))
		return err_msg(e, -ENOEXEC, "a 32-bit x86 kernel; this machine is x86-64");
	if (!(bz->hdr.loadflags & LOADED_HIGH))
		return err_msg(e, -ENOEXEC,
			       "a zImage, which loads below 1 MiB; a bzImage is needed");
	r = find_code(k, e);
	return r ? r : find_place(bz, e);
}

/* kernel_version: offset of a string, less 0x200, within the real-mode part. */
void bzimage_version(struct kernel *k)
{
	char text[KERNEL_VERSION_MAX + 1];
	uint64_t off = (uint64_t)k->bz.hdr.kernel_version + 0x200;

	if (!k->bz.hdr.kernel_version || off >= k->bz.code)
		return;
	size_t n = k->bz.code - off < sizeof(text) ? k->bz.code - off : sizeof(text);
	if (!kernel_read(k, off, text, n))
		kernel_take_version(k, text, n);
}

static int check_fit(const struct kernel *k, uint64_t low_end, struct err *e)
{
	const struct span *at = &k->bz.at;

	if (at->end <= low_end)
		return 0;
	err_msg(e, -ENOSPC,
		"it runs at %llu MiB and needs %llu MiB there, but memory ends at %llu MiB",
		(unsigned long long)(at->base >> 20),
		(unsigned long long)((at->end - at->base + (1 << 20) - 1) >> 20),
		(unsigned long long)(low_end >> 20));
	if (k->path)
		err_ctx(e, "kernel %s", k->path);
	else
		err_ctx(e, "kernel");
	return -ENOSPC;
}

int bzimage_load(const struct kernel *k, struct gmem *gm, const struct kernel_args *a,
		 struct vcpu_entry *ret, struct err *e)
{
	const struct bzimage *bz = &k->bz;
	const struct span file = {bz->code, bz->code + bz->code_len};
	struct span initrd, room = {.base = bz->at.end};
	uint64_t low_end;
	int r = params_low_end(gm, &low_end, e);

	if (r || (r = check_fit(k, low_end, e)))
		return r;
	/* initrd_addr_max is the last byte's address; 64-bit entry lifts it where the kernel says
	 * so. */
	room.end = (uint64_t)bz->hdr.initrd_addr_max + 1;
	if (bz->hdr.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G || room.end > low_end)
		room.end = low_end;
	if ((r = params_put_cmdline(gm, a->cmdline, bz->hdr.cmdline_size, e)) ||
	    (r = params_put_initrd(gm, a, &room, &initrd, e)) ||
	    (r = kernel_put(k, gm, bz->at.base, &file, e)) ||
	    (r = params_put_zero_page(gm, &bz->hdr, a, &initrd, e)) ||
	    (r = params_put_page_tables(gm, e)) || (r = params_put_gdt(gm, e)))
		return r;
	*ret = (struct vcpu_entry){.mode = ENTRY_LONG64,
				   .ip = gpa(bz->at.base + ENTRY64_OFF),
				   .arg = gpa(LAYOUT_BOOT_PARAMS)};
	return 0;
}
