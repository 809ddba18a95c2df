/* SPDX-License-Identifier: Apache-2.0 */
/* The newc archive, read back by a parser of the format's document, and by cpio(1) where it is
 * there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/cpio_parse.h"

static void entry_reads_back(void **state)
{
	struct cpio c = {0};
	struct cpio_entry e;
	size_t at = 0;

	(void)state;
	assert_int_equal(cpio_add(&c, "dev", S_IFDIR | 0755, NULL, 0), 0);
	assert_int_equal(cpio_add_node(&c, "dev/console", S_IFCHR | 0600, 5, 1), 0);
	assert_int_equal(cpio_add(&c, "init", S_IFREG | 0755, "hello", 5), 0);
	assert_int_equal(cpio_end(&c), 0);

	assert_true(cpio_next(&c, &at, &e));
	assert_string_equal(e.name, "dev");
	assert_int_equal(e.mode, S_IFDIR | 0755);
	assert_int_equal(e.nlink, 2);
	assert_true(cpio_next(&c, &at, &e));
	assert_string_equal(e.name, "dev/console");
	assert_int_equal(e.mode, S_IFCHR | 0600);
	assert_int_equal(e.rmajor, 5);
	assert_int_equal(e.rminor, 1);
	assert_true(cpio_next(&c, &at, &e));
	assert_string_equal(e.name, "init");
	assert_int_equal(e.mode, S_IFREG | 0755);
	assert_int_equal(e.nlink, 1);
	assert_int_equal(e.len, 5);
	assert_memory_equal(e.data, "hello", 5);
	assert_true(cpio_next(&c, &at, &e));
	assert_string_equal(e.name, "TRAILER!!!");
	assert_int_equal(at, c.len);
	cpio_fini(&c);
}

/* Names and data of every length modulo 4: both are padded, from the archive's start. */
static void every_alignment_reads_back(void **state)
{
	struct cpio c = {0};
	struct cpio_entry e;
	size_t at = 0;

	(void)state;
	for (size_t n = 1; n <= 9; n++)
		for (size_t d = 0; d <= 9; d++) {
			char name[10] = "";

			memset(name, 'a', n);
			assert_int_equal(cpio_add(&c, name, S_IFREG | 0644, "0123456789", d), 0);
			assert_int_equal(c.len % 4, 0);
		}
	assert_int_equal(cpio_end(&c), 0);
	for (size_t n = 1; n <= 9; n++)
		for (size_t d = 0; d <= 9; d++) {
			assert_true(cpio_next(&c, &at, &e));
			assert_int_equal(strlen(e.name), n);
			assert_int_equal(e.len, d);
			assert_memory_equal(e.data, "0123456789", d);
		}
	cpio_fini(&c);
}

static void inode_numbers_differ(void **state)
{
	struct cpio c = {0};
	struct cpio_entry a, b;
	size_t at = 0;

	(void)state;
	assert_int_equal(cpio_add(&c, "a", S_IFREG | 0644, NULL, 0), 0);
	assert_int_equal(cpio_add(&c, "b", S_IFREG | 0644, NULL, 0), 0);
	assert_true(cpio_next(&c, &at, &a));
	assert_true(cpio_next(&c, &at, &b));
	assert_int_not_equal(a.ino, b.ino);
	cpio_fini(&c);
}

static void space_is_filled_by_the_caller(void **state)
{
	struct cpio c = {0};
	struct cpio_entry e;
	size_t at = 0, len = 300001; /* beyond the first allocation, and odd */
	uint8_t *p;

	(void)state;
	p = cpio_add_space(&c, "big", S_IFREG | 0644, len);
	assert_non_null(p);
	memset(p, 0xab, len);
	assert_int_equal(cpio_add(&c, "after", S_IFREG | 0644, "x", 1), 0);
	assert_true(cpio_next(&c, &at, &e));
	assert_int_equal(e.len, len);
	assert_int_equal(e.data[0], 0xab);
	assert_int_equal(e.data[len - 1], 0xab);
	assert_true(cpio_next(&c, &at, &e));
	assert_string_equal(e.name, "after");
	cpio_fini(&c);
}

static void bad_name_is_refused(void **state)
{
	static const char *const bad[] = {"",   "/init", "a//b",   "a/",
					  "..", "../x",  "a/../b", "a/.."};
	struct cpio c = {0};
	char longer[5000];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(cpio_add(&c, bad[i], S_IFREG | 0644, NULL, 0), -EINVAL);
	memset(longer, 'a', sizeof(longer));
	longer[4096] = 0;
	assert_int_equal(cpio_add(&c, longer, S_IFREG | 0644, NULL, 0), -EINVAL);
	assert_null(cpio_add_space(&c, "../x", S_IFREG | 0644, 1));
	assert_int_equal(c.len, 0);
	longer[4095] = 0;
	assert_int_equal(cpio_add(&c, longer, S_IFREG | 0644, NULL, 0), 0);
	assert_int_equal(cpio_add(&c, "a..b/..c", S_IFREG | 0644, NULL, 0), 0);
	cpio_fini(&c);
}

/* Sizes have 32 bits in the format. */
static void too_large_is_refused(void **state)
{
	struct cpio c = {0};

	(void)state;
	assert_null(cpio_add_space(&c, "a", S_IFREG | 0644, (size_t)1 << 32));
	assert_null(cpio_add_space(&c, "a", S_IFREG | 0644, SIZE_MAX));
	assert_int_equal(c.len, 0);
	cpio_fini(&c);
}

static void cpio_program_lists_it(void **state)
{
	struct cpio c = {0};
	char path[] = "/tmp/test_cpio-XXXXXX", cmd[200], out[4096] = "";
	FILE *p;
	int fd;

	(void)state;
	if (system("command -v cpio >/dev/null 2>&1")) {
		print_message("no cpio(1) here: the archive was read by this test's parser only\n");
		skip();
	}
	assert_int_equal(cpio_add(&c, "dev", S_IFDIR | 0755, NULL, 0), 0);
	assert_int_equal(cpio_add_node(&c, "dev/console", S_IFCHR | 0600, 5, 1), 0);
	assert_int_equal(cpio_add(&c, "init", S_IFREG | 0755, "hello", 5), 0);
	assert_int_equal(cpio_end(&c), 0);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, c.data, c.len), c.len);
	close(fd);
	snprintf(cmd, sizeof(cmd), "LC_ALL=C cpio -itv --quiet <%s 2>&1", path);
	p = popen(cmd, "r");
	assert_non_null(p);
	assert_true(fread(out, 1, sizeof(out) - 1, p) > 0);
	assert_int_equal(pclose(p), 0);
	unlink(path);
	assert_non_null(strstr(out, "drwxr-xr-x"));
	assert_non_null(strstr(out, "crw-------"));
	assert_non_null(strstr(out, "5,   1"));
	assert_non_null(strstr(out, "-rwxr-xr-x"));
	cpio_fini(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entry_reads_back),
		cmocka_unit_test(every_alignment_reads_back),
		cmocka_unit_test(inode_numbers_differ),
		cmocka_unit_test(space_is_filled_by_the_caller),
		cmocka_unit_test(bad_name_is_refused),
		cmocka_unit_test(too_large_is_refused),
		cmocka_unit_test(cpio_program_lists_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
