/* SPDX-License-Identifier: Apache-2.0 */
/* --net: what it may say, and what is said of what it may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/config.h"

static struct config c;
static struct err e;

static int say(const char *text)
{
	e.text[0] = '\0';
	return config_net(&c, text, &e);
}

static int reset(void **state)
{
	(void)state;
	config_nets_fini(&c);
	memset(&c, 0, sizeof(c));
	return 0;
}

static void all_keys_are_understood(void **state)
{
	static const uint8_t mac[] = {0x52, 0x54, 0, 0xab, 0xCD, 0xef};
	const struct net_config *n = &c.nets[0];

	(void)state;
	assert_int_equal(say("tap0,mac=52:54:00:ab:CD:ef,mtu=9000,queues=4,queue_size=1024,"
			     "vhost=off,offload=off,id=lan"),
			 0);
	assert_int_equal(n->kind, NET_TAP);
	assert_string_equal(n->tap, "tap0");
	assert_memory_equal(n->mac, mac, 6);
	assert_int_equal(n->mtu, 9000);
	assert_int_equal(n->pairs, 4);
	assert_int_equal(n->queue_size, 1024);
	assert_int_equal(n->vhost, CONFIG_OFF);
	assert_true(n->no_offload);
	assert_string_equal(n->id, "lan");
	assert_int_equal(say("tap=user,vhost=on,mtu=68"), 0);
	assert_int_equal(c.nets[1].kind, NET_TAP);
	assert_string_equal(c.nets[1].tap, "user");
	assert_int_equal(c.nets[1].vhost, CONFIG_ON);
	assert_int_equal(c.nets[1].pairs, 1);
	assert_int_equal(say("user"), 0);
	assert_int_equal(say("user,mtu=65535"), 0);
	assert_int_equal(c.nets[2].kind, NET_USER);
	assert_int_equal(c.nets[3].mtu, 65535);
	assert_int_equal(c.nets[3].vhost, CONFIG_AUTO);
	assert_false(c.nets[3].no_offload);
	assert_int_equal(say("users"), 0);
	assert_string_equal(c.nets[4].tap, "users");
}

/* Each alone, behind --net. */
static const struct {
	const char *text, *why;
} bad[] = {
	{"", "tap: the value is empty"},
	{"mtu=1500", "a TAP's name, fd=N or user"},
	{"user,tap=t", "given already"},
	{"tap=t,fd=3", "given already"},
	{"user,", "nothing stands between"},
	{"t,user", "not key=value"},
	{"abcdefghijklmnop", "longer than 15"},
	{"a/b", "no name of a network device"},
	{"tap%d", "no name of a network device"},
	{"a b", "no name of a network device"},
	{"..", "no name of a network device"},
	{"t,mac=52:54:00:12:34", "not six bytes"},
	{"t,mac=52:54:00:12:34:5", "not six bytes"},
	{"t,mac=52:54:00:12:34:5g", "not six bytes"},
	{"t,mac=52-54-00-12-34-56", "not six bytes"},
	{"t,mac=52:54:00:12:34:56:", "not six bytes"},
	{"t,mac=52:54:00:12:34: 6", "not six bytes"},
	{"t,mac=53:54:00:12:34:56", "multicast"},
	{"t,mac=ff:ff:ff:ff:ff:ff", "multicast"},
	{"t,mac=00:00:00:00:00:00", "nobody's"},
	{"t,mtu=67", "mtu: out of range (68 to 65535)"},
	{"t,mtu=65536", "mtu: out of range (68 to 65535)"},
	{"t,mtu=x", "mtu: not a whole number (68 to 65535)"},
	{"t,queues=0", "queues: out of range (1 to 16)"},
	{"t,queues=17", "queues: out of range (1 to 16)"},
	{"t,queue_size=16", "queue_size: 16 is not a power of two from 32 to 1024"},
	{"t,queue_size=2048", "queue_size: 2048 is not a power of two"},
	{"t,vhost=yes", "neither auto, on nor off"},
	{"t,vhost", "did you mean vhost=on?"},
	{"t,offload=1", "neither on nor off"},
	{"user,queues=2", "queues=2: with user there is one"},
	{"user,vhost=on", "vhost=on: needs a TAP"},
	{"ifname=t", "did you mean tap=NAME?"},
	{"user,foo=1", "unknown key \"foo\" (there are "},
	{"t,mtu=1500,mtu=1500", "given twice"},
	{"fd=2", "fd: out of range (3 to"},
	{"fd=999", "999 is not open"},
	{"fd=-1", "not a whole number"},
	{"fd=", "value is empty"},
	{"fd=3:", "fd:"},
	{"fd=99999999999999999999", "fd:"},
};

static void what_is_wrong_is_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_true(say(bad[i].text) < 0);
		if (!strstr(e.text, bad[i].why) || strchr(e.text, '\n'))
			fail_msg("%s: \"%s\"", bad[i].text, e.text);
		assert_int_equal(c.nnets, 0);
	}
}

static void a_descriptor_that_is_no_tap_is_refused(void **state)
{
	char text[32];
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	snprintf(text, sizeof(text), "fd=%d", p[0]);
	assert_true(say(text) < 0);
	assert_non_null(strstr(e.text, "is no TAP"));
	close(p[0]);
	close(p[1]);
}

static void what_two_devices_cannot_share_is_refused(void **state)
{
	(void)state;
	assert_int_equal(say("t"), 0);
	assert_int_equal(say("tap=t"), 0);
	assert_true(config_check_nets(&c, &e) < 0);
	assert_non_null(strstr(e.text, "TAP t is that of two"));
	reset(NULL);
	c.nnets = 2;
	c.nets[0] = (struct net_config){.kind = NET_FDS, .fd = {7, 8}, .nfds = 2};
	c.nets[1] = (struct net_config){.kind = NET_FDS, .fd = {9, 8}, .nfds = 2};
	assert_true(config_check_nets(&c, &e) < 0);
	assert_non_null(strstr(e.text, "descriptor in common"));
	reset(NULL);
	assert_int_equal(say("t"), 0);
	assert_int_equal(say("u,mac=52:54:00:12:34:ab"), 0);
	assert_int_equal(say("user,mac=52:54:00:12:34:AB,id=lan"), 0);
	assert_true(config_check_nets(&c, &e) < 0);
	assert_string_equal(e.text,
			    "--net: mac=52:54:00:12:34:ab is that of net1 and of net2 (id lan)");
}

static void addresses_that_are_made_up_are_local_and_differ(void **state)
{
	(void)state;
	assert_int_equal(say("t,mac=52:54:00:12:34:56"), 0);
	assert_int_equal(say("u"), 0);
	assert_int_equal(say("v"), 0);
	assert_int_equal(config_check_nets(&c, &e), 0);
	assert_int_equal(c.nets[0].mac[0], 0x52);
	for (unsigned i = 1; i < 3; i++) {
		assert_true(c.nets[i].has_mac);
		assert_int_equal(c.nets[i].mac[0] & 3, 2);
	}
	assert_memory_not_equal(c.nets[1].mac, c.nets[2].mac, 6);
}

static void more_than_fit_are_refused(void **state)
{
	char name[8];

	(void)state;
	for (unsigned i = 0; i < CONFIG_NETS_MAX; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		assert_int_equal(say(name), 0);
	}
	assert_true(say("more") < 0);
	assert_non_null(strstr(e.text, "at most 8"));
}

#define T(name) cmocka_unit_test_setup_teardown(name, reset, reset)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(all_keys_are_understood),
		T(what_is_wrong_is_named),
		T(a_descriptor_that_is_no_tap_is_refused),
		T(what_two_devices_cannot_share_is_refused),
		T(addresses_that_are_made_up_are_local_and_differ),
		T(more_than_fit_are_refused),
	};

	return cmocka_run_group_tests_name("config net", tests, NULL, NULL);
}
