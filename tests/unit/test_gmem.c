/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/gmem.h"

#define LOW 0x10000ull
#define HIGH 0x100000000ull
#define SIZE 0x4000ull

static int setup(void **state)
{
	struct gmem *gm;

	assert_int_equal(gmem_new(&gm, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(LOW), SIZE, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(HIGH), SIZE, NULL), 0);
	*state = gm;
	return 0;
}

static int teardown(void **state)
{
	gmem_free(*state);
	return 0;
}

static void what_is_written_is_read_back(void **state)
{
	struct gmem *gm = *state;
	char got[6];

	assert_int_equal(gmem_write(gm, gpa(HIGH + SIZE - 6), "hello", 6), 0);
	assert_int_equal(gmem_read(gm, gpa(HIGH + SIZE - 6), got, 6), 0);
	assert_string_equal(got, "hello");
}

static void an_access_outside_ram_fails_and_moves_nothing(void **state)
{
	struct gmem *gm = *state;
	char buf[8] = "keep";
	const struct {
		uint64_t at;
		size_t len;
	} bad[] = {
		{0, 1},
		{LOW - 1, 1},
		{LOW - 1, 2},
		{LOW + SIZE, 1},
		{LOW + SIZE - 1, 2},
		{HIGH + SIZE - 7, 8},
		{~0ull, 1},
		{~0ull - 3, 8},
		{HIGH, SIZE + 1},
		{LOW, (size_t)-1},
		{HIGH, ~0ull},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(gmem_ok(gm, gpa(bad[i].at), bad[i].len));
		assert_int_equal(gmem_read(gm, gpa(bad[i].at), buf, bad[i].len), -EFAULT);
		assert_int_equal(gmem_write(gm, gpa(bad[i].at), buf, bad[i].len), -EFAULT);
	}
	assert_string_equal(buf, "keep");
}

static void nothing_at_all_can_be_read_anywhere(void **state)
{
	char c = 'x';

	assert_int_equal(gmem_read(*state, gpa(~0ull), &c, 0), 0);
	assert_int_equal(gmem_write(*state, gpa(5), &c, 0), 0);
}

static void a_window_is_aligned_and_inside_ram(void **state)
{
	struct gmem *gm = *state;
	struct gwin w;

	assert_int_equal(gmem_window(gm, gpa(LOW + 2), 16, 4, &w), -EINVAL);
	assert_int_equal(gmem_window(gm, gpa(LOW + SIZE - 8), 16, 4, &w), -EFAULT);
	assert_int_equal(gmem_window(gm, gpa(LOW + 4), 16, 4, &w), 0);
	gwin_store16_release(&w, 6, 0x1234);
	gwin_store32(&w, 8, 0xdeadbeef);
	assert_int_equal(gwin_load16_acquire(&w, 6), 0x1234);
	assert_int_equal(gwin_load64(&w, 8) & UINT32_MAX, 0xdeadbeef);
	uint8_t raw[2];
	assert_int_equal(gmem_read(gm, gpa(LOW + 10), raw, 2), 0);
	assert_int_equal(raw[0], 0x34); /* little-endian */
}

static void regions_do_not_overlap(void **state)
{
	struct gmem *gm = *state;
	struct err e = {0};

	assert_int_equal(gmem_add(gm, gpa(LOW + SIZE - 4096), 8192, &e), -EEXIST);
	assert_int_equal(gmem_add(gm, gpa(LOW + 1), 4096, &e), -EINVAL);
	assert_int_equal(gmem_add(gm, gpa(0x40000), 0, &e), -EINVAL);
	assert_int_equal(gmem_add(gm, gpa(~0xfffull), 8192, &e), -EINVAL);
}

static void a_file_that_ends_early_is_an_error(void **state)
{
	struct gmem *gm = *state;
	struct err e = {0};
	FILE *f = tmpfile();
	char got[4];

	fputs("0123456789", f);
	fflush(f);
	assert_int_equal(gmem_load_file(gm, gpa(LOW + 3), &(struct gmem_file){fileno(f), 4, 4}, &e),
			 0);
	gmem_read(gm, gpa(LOW + 3), got, 4);
	assert_memory_equal(got, "4567", 4);
	assert_int_equal(gmem_load_file(gm, gpa(LOW), &(struct gmem_file){fileno(f), 4, 7}, &e),
			 -EIO);
	assert_non_null(strstr(e.text, "1 bytes early"));
	assert_int_equal(
		gmem_load_file(gm, gpa(LOW + SIZE), &(struct gmem_file){fileno(f), 0, 1}, &e),
		-EFAULT);
	fclose(f);
}

static void a_loaded_file_that_is_rewritten_leaves_the_guest_alone(void **state)
{
	(void)state;
	struct gmem *gm;
	struct err e = {0};
	char path[] = "/var/tmp/mvm-gmem-XXXXXX", got[5] = "";
	const size_t len = 2 << 20;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	assert_int_equal(pwrite(fd, "true", 4, (off_t)len - 4096), 4);
	close(fd);
	assert_int_equal(gmem_new(&gm, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(0), 4 * len, NULL), 0);
	fd = open(path, O_RDONLY);
	assert_int_equal(gmem_load_file(gm, gpa(len), &(struct gmem_file){fd, 0, len}, &e), 0);
	close(fd);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "lies", 4, (off_t)len - 4096), 4);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(gmem_read(gm, gpa(2 * len - 4096), got, 4), 0);
	assert_string_equal(got, "true");
	close(fd);
	unlink(path);
	gmem_free(gm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_written_is_read_back, setup, teardown),
		cmocka_unit_test_setup_teardown(an_access_outside_ram_fails_and_moves_nothing,
						setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_at_all_can_be_read_anywhere, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_window_is_aligned_and_inside_ram, setup,
						teardown),
		cmocka_unit_test_setup_teardown(regions_do_not_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_ends_early_is_an_error, setup,
						teardown),
		cmocka_unit_test(a_loaded_file_that_is_rewritten_leaves_the_guest_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
