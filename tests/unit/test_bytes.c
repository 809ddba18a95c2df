/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/bytes.h"

static void bytes_wrap_and_drop_the_oldest(void **s)
{
	struct bytes b = {.cap = 8};
	const uint8_t *p;

	(void)s;
	assert_int_equal(bytes_peek(&b, &p), 0);
	bytes_put(&b, (const uint8_t *)"abcdef", 6);
	assert_int_equal(bytes_room(&b), 2);
	bytes_drop(&b, 4);
	bytes_put(&b, (const uint8_t *)"ghijk", 5);
	assert_int_equal(b.len, 7);
	assert_int_equal(bytes_peek(&b, &p), 4);
	assert_memory_equal(p, "efgh", 4);
	bytes_put(&b, (const uint8_t *)"lmn", 3);
	assert_int_equal(bytes_peek(&b, &p), 2);
	assert_memory_equal(p, "gh", 2);
	bytes_drop(&b, 2);
	assert_int_equal(bytes_peek(&b, &p), 6);
	assert_memory_equal(p, "ijklmn", 6);
	bytes_put(&b, (const uint8_t *)"0123456789", 10);
	assert_int_equal(b.len, 8);
	for (char c = '2'; c <= '9'; c++) {
		assert_true(bytes_peek(&b, &p) > 0);
		assert_int_equal(*p, c);
		bytes_drop(&b, 1);
	}
	assert_int_equal(b.len, 0);
	bytes_fini(&b);
}

static void bytes_give_a_big_buffer_back(void **s)
{
	struct bytes b = {.cap = 1 << 20};
	uint8_t big[8192] = {0};

	(void)s;
	bytes_put(&b, big, 10);
	bytes_drop(&b, 10);
	assert_non_null(b.buf);
	bytes_put(&b, big, sizeof(big));
	bytes_drop(&b, sizeof(big));
	assert_null(b.buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_wrap_and_drop_the_oldest),
		cmocka_unit_test(bytes_give_a_big_buffer_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
