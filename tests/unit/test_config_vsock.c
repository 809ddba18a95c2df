/* SPDX-License-Identifier: Apache-2.0 */
/* --vsock: what it takes, and what it says of the rest. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/config.h"

static struct config c;
static struct err e;

static int setup(void **state)
{
	(void)state;
	config_init(&c);
	e = (struct err){0};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	config_fini(&c);
	return 0;
}

static void a_bare_number_is_the_cid(void **state)
{
	(void)state;
	assert_false(c.vsock.present);
	assert_int_equal(config_vsock(&c, "3", &e), 0);
	assert_true(c.vsock.present);
	assert_int_equal(c.vsock.cid, 3);
	assert_null(c.vsock.socket);
	assert_int_equal(c.vsock.queue_size, 0);
	assert_int_equal(config_check_vsock(&c, &e), 0);
}

static void all_keys_are_taken(void **state)
{
	(void)state;
	assert_int_equal(
		config_vsock(&c, "cid=4294967294,socket=\"/run/a,b\",queue_size=256,id=s", &e), 0);
	assert_int_equal(c.vsock.cid, 0xfffffffe);
	assert_string_equal(c.vsock.socket, "/run/a,b");
	assert_int_equal(c.vsock.queue_size, 256);
	assert_string_equal(c.vsock.id, "s");
	assert_int_equal(config_check_vsock(&c, &e), 0);
}

static void bad_ones_are_told_what_is_wrong(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"", "value is empty"},
		{"x", "\"x\" is no CID (3 to 4294967294)"},
		{"-1", "no CID"},
		{"0x10", "no CID"},
		{"cid=", "value is empty"},
		{"0", "0 is the hypervisor's"},
		{"1", "1 is a machine's own"},
		{"2", "2 is the host's"},
		{"4294967295", "means any CID"},
		{"4294967296", "4294967296 is out of range (3 to 4294967294)"},
		{"99999999999999999999999999", "out of range"},
		{"socket=/x", "the CID is missing"},
		{"3,socket=", "value is empty"},
		{"3,queue_size=2", "queue_size: 2 is not a power of two from 4 to 1024"},
		{"3,queue_size=100", "100 is not a power of two"},
		{"3,path=/x", "socket=PATH"},
		{"3,cid=4", "twice"},
		{"3,sockte=/x", "socket"},
		{"3,", "nothing stands"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		e.text[0] = '\0';
		assert_true(config_vsock(&c, bad[i].text, &e) < 0);
		if (!strstr(e.text, bad[i].why))
			fail_msg("%s: \"%s\" lacks \"%s\"", bad[i].text, e.text, bad[i].why);
		assert_false(c.vsock.present);
	}
}

static void a_second_one_is_refused(void **state)
{
	(void)state;
	assert_int_equal(config_vsock(&c, "3", &e), 0);
	assert_int_equal(config_vsock(&c, "4", &e), -EEXIST);
	assert_int_equal(c.vsock.cid, 3);
}

/* sun_path has 108 bytes with its NUL, "_4294967295" is 11. */
static void the_socket_leaves_room_for_the_longest_port(void **state)
{
	char text[128] = "3,socket=";
	size_t at = strlen(text);

	(void)state;
	memset(text + at, 'a', 97);
	assert_int_equal(config_vsock(&c, text, &e), -ENAMETOOLONG);
	assert_non_null(strstr(e.text, "97 bytes long; at most 96"));
	text[at + 96] = '\0';
	assert_int_equal(config_vsock(&c, text, &e), 0);
	assert_int_equal(strlen(c.vsock.socket), 96);
}

/* What JSON may fill in later passes no parser of ours. */
static void the_check_does_not_trust_who_filled_it_in(void **state)
{
	static const struct vsock_config bad[] = {
		{.present = true},
		{.present = true, .cid = 2},
		{.present = true, .cid = UINT32_MAX},
		{.present = true, .cid = 3, .queue_size = 3},
		{.present = true, .cid = 3, .queue_size = 2048},
		{.present = true, .cid = 3, .socket = ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		e.text[0] = '\0';
		c.vsock = bad[i];
		assert_true(config_check_vsock(&c, &e) < 0);
		assert_memory_equal(e.text, "--vsock ", 8);
	}
	c.vsock = (struct vsock_config){0};
	assert_int_equal(config_check_vsock(&c, &e), 0);
}

static void without_a_socket_the_kernel_writes_to_guest_memory(void **state)
{
	(void)state;
	assert_false(config_may_use_vhost(&c));
	assert_int_equal(config_vsock(&c, "3", &e), 0);
	assert_true(config_may_use_vhost(&c));
	assert_int_equal(config_string(&c.vsock.socket, "/x", NULL), 0);
	assert_false(config_may_use_vhost(&c));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_bare_number_is_the_cid),
		T(all_keys_are_taken),
		T(bad_ones_are_told_what_is_wrong),
		T(a_second_one_is_refused),
		T(the_socket_leaves_room_for_the_longest_port),
		T(the_check_does_not_trust_who_filled_it_in),
		T(without_a_socket_the_kernel_writes_to_guest_memory),
	};

	return cmocka_run_group_tests_name("config_vsock", tests, NULL, NULL);
}
