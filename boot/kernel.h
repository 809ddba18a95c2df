/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux kernels: what kind of image a file is, its version, and its way into
 * guest memory. The file is hostile: every offset and size in it is checked
 * against the file and against guest memory.
 *
 *  bzImage       Documentation/arch/x86/boot.rst, 64-bit boot protocol (>= 2.12)
 *  ELF, PVH note Xen's "x86/HVM direct boot ABI": XEN_ELFNOTE_PHYS32_ENTRY
 *  ELF without   the registers and zero page of the 64-bit protocol, entered at e_entry
 *  gzip of those unpacked in memory first (zlib), at most KERNEL_MAX bytes
 *
 * A struct kernel belongs to one thread at a time. Errors are negative errnos;
 * their text names the kernel's file where the kernel is at fault.
 */
#ifndef BOOT_KERNEL_H
#define BOOT_KERNEL_H

#include "vmm/err.h"
#include "vmm/gmem.h"
#include "vmm/vcpu.h"

#define KERNEL_MAX (1ull << 30)

enum kernel_kind { KERNEL_BZIMAGE, KERNEL_ELF_PVH, KERNEL_ELF64 };

struct kernel; /* an opened, identified image */

/*
 * One clear line for: missing, a directory, empty, truncated, 32-bit or another
 * architecture's, otherwise compressed, not a kernel (-ENOEXEC where errno has
 * no better name). Reads headers alone unless the image is compressed.
 */
int kernel_open(struct kernel **ret, const char *path, struct err *e);
/* The same from memory, for tests and fuzzing; @data is copied nowhere and must outlive the kernel.
 */
int kernel_open_mem(struct kernel **ret, const void *data, size_t len, struct err *e);
void kernel_free(struct kernel *k); /* accepts NULL; what was loaded stays */

enum kernel_kind kernel_kind(const struct kernel *k);

/*
 * "6.1.0-43-cloud-amd64": safe as one component of a path. NULL when the image
 * does not say. Looked up at the first call, which for ELF reads the file through.
 */
const char *kernel_version(struct kernel *k);

struct kernel_args {
	const char *cmdline; /* at most what the kernel and LAYOUT_CMDLINE_MAX take, else -E2BIG */
	const struct iovec *initrd; /* pieces in order; may be NULL */
	int initrd_n;
	int initrd_fd; /* instead of the pieces, when initrd_size is not 0: a file from its start */
	uint64_t initrd_size;
	gpa_t rsdp;
};

/*
 * Puts kernel, initrd, command line, zero page or start info, page tables and
 * GDT into memory. @gm is fresh: what nobody wrote is zero. -ENOSPC when the
 * kernel or the initrd does not fit.
 */
int kernel_load(const struct kernel *k, struct gmem *gm, const struct kernel_args *a,
		struct vcpu_entry *ret, struct err *e);

#endif
