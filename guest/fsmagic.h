/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How to tell a root file system by its superblock. Shared with the host, which
 * looks into a disk image to choose the modules that go into the initramfs.
 * What is read is only compared, never used as an offset or a length.
 */
#ifndef GUEST_FSMAGIC_H
#define GUEST_FSMAGIC_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

struct fsmagic {
	const char *name;
	uint32_t at; /* bytes from the start of the device */
	uint32_t len;
	char magic[9];
	uint32_t uuid, label; /* where they are; 0: it has none */
	uint32_t label_len;
};

/*
 * In this order: mkfs of each wipes what stands before it in the table, but
 * mke2fs leaves an old btrfs superblock at 64 KiB alone.
 */
static const struct fsmagic fsmagic_table[] = {
	{"xfs", 0, 4, "XFSB", 32, 108, 12},
	{"squashfs", 0, 4, "hsqs", 0, 0, 0},
	{"erofs", 1024, 4, "\xe2\xe1\xf5\xe0", 1024 + 48, 1024 + 64, 16},
	{"ext4", 1024 + 56, 2, "\x53\xef", 1024 + 104, 1024 + 120, 16},
	{"btrfs", 0x10040, 8, "_BHRfS_M", 0x10020, 0x1012b, 256},
};

#define FSMAGIC_N (sizeof(fsmagic_table) / sizeof(fsmagic_table[0]))

/* ext's magic is two bytes, too few to believe alone: block size and revision must be possible too.
 */
static inline bool fsmagic_ext_ok(int fd)
{
	uint8_t sb[80];

	if (pread(fd, sb, sizeof(sb), 1024) != (ssize_t)sizeof(sb))
		return false;
	return sb[24] <= 6 && !sb[25] && !sb[26] && !sb[27] && sb[76] <= 1 && !sb[77];
}

/* The first entry that @fd's contents match, or NULL. */
static inline const struct fsmagic *fsmagic_probe(int fd)
{
	char buf[8];

	for (size_t i = 0; i < FSMAGIC_N; i++) {
		const struct fsmagic *m = &fsmagic_table[i];

		if (pread(fd, buf, m->len, m->at) != (ssize_t)m->len)
			continue;
		if (memcmp(buf, m->magic, m->len))
			continue;
		if (m->len == 2 && !fsmagic_ext_ok(fd))
			continue;
		return m;
	}
	return NULL;
}

#endif
