/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel images: identified, their version read, loaded into a small machine.
 * Beyond what the sanitizers see: an entry point is in RAM, a version is one
 * component of a path, and the initrd arrives whole.
 *
 * The last byte chooses how much memory the machine has.
 */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
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
		return 0;
	}
	const char *v = kernel_version(k);
	check(!v || (v[0] != '.' && !strchr(v, '/') && strlen(v) <= KERNEL_VERSION_MAX));

	uint64_t low = (1 + data[size - 1] % (LOW_MAX >> 20)) << 20;
	struct gmem *gm = machine(low);
	r = kernel_load(k, gm, &a, &entry, &e);
	check(r || (entry.ip.v >= LAYOUT_KERNEL && entry.ip.v < low));
	check(!r || (r == e.code && e.text[0]));
	if (!r)
		check_initrd(gm, &entry, initrd, sizeof(initrd));
	gmem_free(gm);
	kernel_free(k);
	return 0;
}
