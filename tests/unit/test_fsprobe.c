/* SPDX-License-Identifier: Apache-2.0 */
/* File systems told by their superblocks: made by hand, and by mkfs where it is installed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot/initramfs.h"

#define SIZE (1u << 20)

static int image(void)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	return fd;
}

static void put(int fd, off_t at, const void *p, size_t n)
{
	assert_int_equal(pwrite(fd, p, n, at), n);
}

static void ext(int fd)
{
	put(fd, 0x438, "\x53\xef", 2);
	put(fd, 1024 + 24, "\2\0\0\0", 4); /* blocks of 4 KiB */
	put(fd, 1024 + 76, "\1\0\0\0", 4); /* dynamic revision */
}

static void magic_names_the_file_system(void **state)
{
	static const struct {
		const char *name, *magic;
		off_t at;
	} known[] = {
		{"xfs", "XFSB", 0},
		{"squashfs", "hsqs", 0},
		{"erofs", "\xe2\xe1\xf5\xe0", 1024},
		{"btrfs", "_BHRfS_M", 0x10040},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		int fd = image();
		const char *name;

		put(fd, known[i].at, known[i].magic, strlen(known[i].magic));
		name = fs_probe(fd);
		assert_non_null(name);
		assert_string_equal(name, known[i].name);
		close(fd);
	}
}

static void ext_needs_more_than_its_magic(void **state)
{
	int fd = image();

	(void)state;
	ext(fd);
	assert_string_equal(fs_probe(fd), "ext4");
	put(fd, 1024 + 24, "\7", 1);
	assert_null(fs_probe(fd));
	put(fd, 1024 + 24, "\2", 1);
	put(fd, 1024 + 76, "\2", 1);
	assert_null(fs_probe(fd));
	close(fd);
}

/* mke2fs does not wipe 64 KiB in. */
static void ext_over_an_old_btrfs_is_ext(void **state)
{
	int fd = image();

	(void)state;
	put(fd, 0x10040, "_BHRfS_M", 8);
	ext(fd);
	assert_string_equal(fs_probe(fd), "ext4");
	close(fd);
}

static void unknown_is_null(void **state)
{
	int fd = image();

	(void)state;
	assert_null(fs_probe(fd));
	put(fd, 510, "\x55\xaa", 2);
	put(fd, 512, "EFI PART", 8);
	assert_null(fs_probe(fd));
	close(fd);
	assert_null(fs_probe(-1));
}

static void short_file_is_null_at_every_length(void **state)
{
	int fd = image();

	(void)state;
	ext(fd);
	for (off_t n = 1024 + 79; n >= 0; n -= 13) {
		assert_int_equal(ftruncate(fd, n), 0);
		assert_null(fs_probe(fd));
	}
	close(fd);
}

static bool shell_ok(const char *what, const char *arg)
{
	char cmd[400];

	snprintf(cmd, sizeof(cmd), "PATH=$PATH:/usr/sbin:/sbin; exec >/dev/null 2>&1; %s %s", what,
		 arg);
	return system(cmd) == 0;
}

static void what_mkfs_makes_is_told(void **state)
{
	/* $D is an empty directory, $F the image. */
	static const struct {
		const char *name, *tool, *cmd;
	} make[] = {
		{"ext4", "mke2fs", "truncate -s 8M $F; mke2fs -q -t ext4 $F"},
		{"ext4", "mke2fs", "truncate -s 8M $F; mke2fs -q -t ext2 -b 1024 $F"},
		{"btrfs", "mkfs.btrfs", "truncate -s 128M $F; mkfs.btrfs -q $F"},
		{"xfs", "mkfs.xfs", "truncate -s 320M $F; mkfs.xfs -q $F"},
		{"erofs", "mkfs.erofs", "mkfs.erofs $F $D"},
		{"squashfs", "mksquashfs", "mksquashfs $D $F -quiet"},
	};
	char dir[] = "/tmp/test_fsprobe-XXXXXX", path[64];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s.img", dir);
	setenv("D", dir, 1);
	setenv("F", path, 1);
	for (size_t i = 0; i < sizeof(make) / sizeof(make[0]); i++) {
		const char *name;
		int fd;

		if (!shell_ok("command -v", make[i].tool)) {
			print_message("no %s here: not tried\n", make[i].tool);
			continue;
		}
		assert_true(shell_ok(make[i].cmd, ""));
		fd = open(path, O_RDONLY);
		assert_true(fd >= 0);
		name = fs_probe(fd);
		close(fd);
		unlink(path);
		assert_non_null(name);
		assert_string_equal(name, make[i].name);
	}
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(magic_names_the_file_system),
		cmocka_unit_test(ext_needs_more_than_its_magic),
		cmocka_unit_test(ext_over_an_old_btrfs_is_ext),
		cmocka_unit_test(unknown_is_null),
		cmocka_unit_test(short_file_is_null_at_every_length),
		cmocka_unit_test(what_mkfs_makes_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
