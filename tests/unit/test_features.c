/* SPDX-License-Identifier: Apache-2.0 */
/* Features by name: what the user may say, what a device then offers, and how sets are printed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "virtio/features.h"

#define BIT(n) (1ull << (n))

static struct config c;
static struct err e;

static int say(const char *text)
{
	e.text[0] = '\0';
	return features_config(&c, text, &e);
}

static int reset(void **state)
{
	(void)state;
	memset(&c, 0, sizeof(c));
	return 0;
}

static void names_become_bits(void **state)
{
	(void)state;
	assert_int_equal(say("disk0=-EVENT_IDX,-mq"), 0);
	assert_int_equal(say("console=-SIZE"), 0);
	assert_int_equal(say("rng=-RING_RESET"), 0);
	assert_int_equal(say("vsock=-SEQPACKET"), 0);
	assert_int_equal(c.nfeatures, 4);
	assert_string_equal(c.features[0].device, "disk0");
	assert_int_equal(c.features[0].without, BIT(29) | BIT(12));
	assert_int_equal(c.features[1].without, BIT(0));
	assert_int_equal(c.features[2].without, BIT(40));
	assert_int_equal(c.features[3].without, BIT(1));
}

static void names_may_have_the_standards_prefix(void **state)
{
	(void)state;
	assert_int_equal(say("disk0=-VIRTIO_RING_F_EVENT_IDX,-VIRTIO_BLK_F_MQ"), 0);
	assert_int_equal(say("net0=-virtio_net_f_mrg_rxbuf,-VIRTIO_F_IN_ORDER"), 0);
	assert_int_equal(c.features[0].without, BIT(29) | BIT(12));
	assert_int_equal(c.features[1].without, BIT(15) | BIT(35));
}

static void bad_words_are_named(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"", "must be DEVICE="},
		{"disk0", "must be DEVICE="},
		{"disk0=", "must be DEVICE="},
		{"disk0=,", "no feature is named"},
		{"d=-MQ", "d: no device"},
		{"=-MQ", "no device"},
		{"disk=-MQ", "disk: no device"},
		{"rng0=-EVENT_IDX", "rng0: no device"},
		{"net=-MRG_RXBUF", "net: no device"},
		{"disk0x=-MQ", "disk0x: no device"},
		{"disk0=MQ", "only taken away: -MQ"},
		{"disk0=+MQ", "only taken away: -MQ"},
		{"disk0=-", "no feature"},
		{"disk0=-EVENT_INDEX", "did you mean -EVENT_IDX?"},
		{"disk0=-VIRTIO_RING_F_EVENT_INDEX", "did you mean -EVENT_IDX?"},
		{"disk0=-VIRTIO_F_VERSION_1", "without it no device is left"},
		{"disk0=-VIRTIO_NET_F_MRG_RXBUF", "VIRTIO_NET_F_MRG_RXBUF: no feature of a disk"},
		{"disk0=-NET_F_MQ", "NET_F_MQ: no feature"},
		{"disk0=-VIRTIO_BLK_F_", "no feature"},
		{"rng=-MQ", "MQ: no feature of a rng"},
		{"disk0=-VERSION_1", "without it no device is left"},
		{"a-device-of-a-long-name=-MQ", "must be DEVICE="},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_true(say(bad[i].text) < 0);
		if (!strstr(e.text, bad[i].why))
			fail_msg("%s: %s", bad[i].text, e.text);
	}
	assert_int_equal(c.nfeatures, 0);
	for (unsigned i = 0; i < CONFIG_FEATURES_MAX; i++)
		assert_int_equal(say("rng=-EVENT_IDX"), 0);
	assert_int_equal(say("rng=-EVENT_IDX"), -E2BIG);
}

static void a_device_offers_less(void **state)
{
	const struct virtio_ops ops = {.id = VIRTIO_ID_BLOCK};
	struct virtio v = {.ops = &ops, .name = "disk1", .offered = BIT(9) | BIT(29) | BIT(32)};

	(void)state;
	assert_int_equal(say("disk0=-FLUSH"), 0); /* another's */
	assert_int_equal(say("disk1=-EVENT_IDX"), 0);
	assert_int_equal(features_apply(&c, &v, &e), 0);
	assert_int_equal(v.offered, BIT(9) | BIT(32));
}

static void what_is_not_offered_cannot_be_taken_away(void **state)
{
	const struct virtio_ops ops = {.id = VIRTIO_ID_BLOCK};
	struct virtio v = {.ops = &ops, .name = "disk0", .offered = BIT(32)};

	(void)state;
	assert_int_equal(say("disk0=-MQ,-DISCARD"), 0);
	assert_int_equal(features_apply(&c, &v, &e), -EINVAL);
	assert_string_equal(e.text, "--virtio-features: disk0 does not offer MQ DISCARD");
	assert_int_equal(v.offered, BIT(32));
}

static void sets_are_printed_by_name(void **state)
{
	char text[FEATURES_TEXT], few[8];

	(void)state;
	features_text(text, sizeof(text), VIRTIO_ID_BLOCK, BIT(12) | BIT(29) | BIT(32) | BIT(50));
	assert_string_equal(text, "MQ EVENT_IDX VERSION_1 bit 50");
	features_text(text, sizeof(text), VIRTIO_ID_RNG, BIT(12));
	assert_string_equal(text, "bit 12");
	features_text(text, sizeof(text), VIRTIO_ID_RNG, 0);
	assert_string_equal(text, "none");
	features_text(text, sizeof(text), VIRTIO_ID_BLOCK, ~0ull);
	assert_true(strlen(text) < sizeof(text) - 1); /* all fit */
	features_text(few, sizeof(few), VIRTIO_ID_BLOCK, ~0ull);
	assert_int_equal(strlen(few), sizeof(few) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup(f, reset)
		T(names_become_bits),
		T(names_may_have_the_standards_prefix),
		T(bad_words_are_named),
		T(a_device_offers_less),
		T(what_is_not_offered_cannot_be_taken_away),
		T(sets_are_printed_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
