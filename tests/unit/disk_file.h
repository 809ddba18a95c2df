/* SPDX-License-Identifier: Apache-2.0 */
/* Temporary disk files with a known content, for the disk tests, and tests that run twice on them.
 */
#ifndef TESTS_UNIT_DISK_FILE_H
#define TESTS_UNIT_DISK_FILE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct disk_file {
	char path[64];
	int fd; /* the test's own, through the page cache */
};

/* Byte @at of a fresh disk file: no two sectors are alike. */
static inline uint8_t disk_byte(uint64_t at)
{
	return (uint8_t)(at * 7 + at / 512 * 13 + at / 131072);
}

static inline void disk_file_init(struct disk_file *f, uint64_t size)
{
	static uint8_t buf[65536];

	/* Without a name, so that a test that is broken off leaves nothing behind. */
	snprintf(f->path, sizeof(f->path), "/tmp/mvm-disk-XXXXXX");
	f->fd = mkostemp(f->path, O_CLOEXEC);
	if (f->fd < 0 || unlink(f->path))
		abort();
	snprintf(f->path, sizeof(f->path), "/proc/self/fd/%d", f->fd);
	for (uint64_t at = 0; at < size;) {
		uint64_t n = size - at < sizeof(buf) ? size - at : sizeof(buf);

		for (uint64_t i = 0; i < n; i++)
			buf[i] = disk_byte(at + i);
		if (pwrite(f->fd, buf, n, (off_t)at) != (ssize_t)n)
			abort();
		at += n;
	}
	if (fsync(f->fd))
		abort();
}

static inline void disk_file_fini(struct disk_file *f)
{
	close(f->fd);
}

/* A cmocka test with and without O_DIRECT. */
static const bool disk_both[] = {false, true};
#define DISK_DIRECT(state) (*(const bool *)*(state))
#define DISK_BOTH(t)                                                                               \
	{#t ", page cache", t, NULL, NULL, (void *)&disk_both[0]},                                 \
	{                                                                                          \
#t ", direct", t, NULL, NULL, (void *)&disk_both[1]                                \
	}

#endif
