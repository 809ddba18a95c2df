/* SPDX-License-Identifier: Apache-2.0 */
/* Queue sizes: what the user may say, what a device's queues then are. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/sizes.h"

static struct config c;
static struct err e;

static int say(const char *text)
{
	e.text[0] = '\0';
	return sizes_config(&c, text, &e);
}

/* ------------------------------------------------------------- a device of three queues */

static unsigned resized;
static uint16_t kicked;

static int dev_start(struct virtio *v)
{
	(void)v;
	return 0;
}

static void dev_stop(struct virtio *v)
{
	(void)v;
}

static void dev_kick(struct virtio *v, unsigned q)
{
	(void)v;
	kicked |= (uint16_t)(1 << q);
}

static void dev_resized(struct virtio *v)
{
	resized++;
	v->config[0] = (uint8_t)vq_max_size(virtio_vq(v, 0));
}

static struct virtio_ops ops = {
	.id = VIRTIO_ID_CONSOLE,
	.start = dev_start,
	.stop = dev_stop,
	.kick = dev_kick,
	.resized = dev_resized,
};

static struct virtio v;
static struct fake_ram ram;
static struct loop *loop;

static int before(void **state)
{
	(void)state;
	log_set_level(LOG_ERROR);
	memset(&c, 0, sizeof(c));
	memset(&v, 0, sizeof(v));
	resized = kicked = 0;
	ops.id = VIRTIO_ID_CONSOLE;
	fake_ram_init(&ram, FAKE_RAM);
	if (loop_new(&loop, "test", NULL) || virtio_init(&v, &ops, "console", ram.gm, loop))
		return -1;
	return virtio_add_queue(&v, 64) | virtio_add_queue(&v, 64) | virtio_add_queue(&v, 8);
}

static int after(void **state)
{
	(void)state;
	virtio_fini(&v);
	loop_free(loop);
	fake_ram_fini(&ram);
	return 0;
}

static void are(const char *want)
{
	char text[SIZES_TEXT];

	sizes_text(text, sizeof(text), &v);
	assert_string_equal(text, want);
	for (unsigned q = 0; q < v.nqueues; q++)
		assert_int_equal(v.queue[q].size, vq_max_size(virtio_vq(&v, q)));
}

/* ------------------------------------------------------------- tests */

static void sizes_are_numbers_in_order(void **state)
{
	(void)state;
	assert_int_equal(say("net0=256:1024"), 0);
	assert_int_equal(say("rng=8"), 0);
	assert_int_equal(c.nsizes, 2);
	assert_string_equal(c.sizes[0].device, "net0");
	assert_int_equal(c.sizes[0].n, 2);
	assert_int_equal(c.sizes[0].size[0], 256);
	assert_int_equal(c.sizes[0].size[1], 1024);
	assert_int_equal(c.sizes[1].n, 1);
	assert_int_equal(c.sizes[1].size[0], 8);
}

static void bad_words_are_named(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"", "must be DEVICE=SIZE"},
		{"disk0", "must be DEVICE=SIZE"},
		{"=8", "must be DEVICE=SIZE"},
		{"disk0=", "must be DEVICE=SIZE"},
		{"disk0=8:", "must be DEVICE=SIZE"},
		{"disk0=:8", "must be DEVICE=SIZE"},
		{"disk0=8::8", "must be DEVICE=SIZE"},
		{"a-device-of-a-long-name=8", "must be DEVICE=SIZE"},
		{"disk0=-8", "-8 is not a power of two from 2 to 1024"},
		{"disk0=+8", "+8 is not a power of two from 2 to 1024"},
		{"disk0=8x", "8x is not a power of two from 2 to 1024"},
		{"disk0=0x8", "0x8 is not a power of two from 2 to 1024"},
		{"disk0=8:48", "48 is not a power of two"},
		{"disk0=1", "1 is not a power of two from 2 to 1024"},
		{"disk0=0", "0 is not a power of two"},
		{"disk0=2048", "2048 is not a power of two"},
		{"disk0=99999999999999999999", "99 is not a power of two"},
		{"disk0=2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2:2",
		 "at most 33 queues"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_true(say(bad[i].text) < 0);
		if (!strstr(e.text, bad[i].why))
			fail_msg("%s: %s", bad[i].text, e.text);
	}
	assert_int_equal(c.nsizes, 0);
	assert_int_equal(say("rng=8"), 0);
	assert_int_equal(say("rng=16"), -EEXIST);
	assert_string_equal(e.text, "rng has its sizes already");
	for (char n[] = "disk?=8"; c.nsizes < CONFIG_SIZES_MAX; n[4]++) {
		n[4] = (char)('A' + c.nsizes);
		assert_int_equal(say(n), 0);
	}
	assert_int_equal(say("net0=32"), -E2BIG);
}

static void the_last_size_stands_for_the_rest(void **state)
{
	(void)state;
	are("64:64:8");
	assert_int_equal(say("console=128:16"), 0);
	assert_int_equal(say("rng=2"), 0); /* another's */
	assert_int_equal(sizes_apply(&c, &v, &e), 0);
	are("128:16:16");
	assert_int_equal(resized, 1);
	assert_int_equal(v.config[0], 128); /* the device had its word */
}

static void one_size_is_said_once(void **state)
{
	(void)state;
	assert_int_equal(say("console=1024"), 0);
	assert_int_equal(sizes_apply(&c, &v, &e), 0);
	are("1024");
}

static void what_a_device_cannot_have_is_refused(void **state)
{
	static const struct {
		uint16_t id;
		const char *text, *why;
	} bad[] = {
		{VIRTIO_ID_CONSOLE, "console=8:8:8:8", "console: 4 sizes, but it has 3 queues"},
		{VIRTIO_ID_NET, "console=32:16", "16 is too small: a packet may take 19 buffers"},
		{VIRTIO_ID_BLOCK, "console=2", "2 is too small: a request takes"},
		{VIRTIO_ID_VSOCK, "console=2", "so at least 4"},
		{VIRTIO_ID_FS, "console=8", "so at least 16"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		c.nsizes = 0;
		ops.id = bad[i].id;
		assert_int_equal(say(bad[i].text), 0);
		assert_true(sizes_apply(&c, &v, &e) < 0);
		assert_int_equal(strncmp(e.text, "--virtio-queue-sizes: ", 22), 0);
		if (!strstr(e.text, bad[i].why))
			fail_msg("%s: %s", bad[i].text, e.text);
		are("64:64:8");
	}
	assert_int_equal(resized, 0);
}

static void a_resize_that_fails_changes_nothing(void **state)
{
	(void)state;
	assert_int_equal(virtio_resize(&v, (const uint16_t[]){128, 48}, 2), -EINVAL);
	are("64:64:8");
	assert_int_equal(resized, 0);
}

static void resized_queues_work_at_their_new_size(void **state)
{
	struct fake_bearer bearer = {0};
	struct fake_ring r;

	(void)state;
	assert_int_equal(virtio_resize(&v, (const uint16_t[]){4, 256}, 2), 0);
	fake_bear(&v, &bearer);
	fake_ring_init(&r, &ram, 256);
	assert_true(fake_negotiate(&v, 0));
	fake_enable(&v, 1, &r);
	fake_driver_ok(&v);
	assert_true(vq_live(virtio_vq(&v, 1)));
	assert_int_equal(eventfd_write(v.queue[1].kick_fd, 1), 0);
	turn(loop);
	assert_int_equal(kicked, 1 << 1);
	virtio_set_status(&v, 0);
	are("4:256:256"); /* after a reset as well */

	/* What was possible before is no more. */
	fake_ring_init(&r, &ram, 64);
	assert_true(fake_negotiate(&v, 0));
	fake_enable(&v, 0, &r);
	fake_driver_ok(&v);
	assert_false(vq_live(virtio_vq(&v, 0)));
	assert_true(v.status & VIRTIO_S_NEEDS_RESET);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, before, after)
		T(sizes_are_numbers_in_order),
		T(bad_words_are_named),
		T(the_last_size_stands_for_the_rest),
		T(one_size_is_said_once),
		T(what_a_device_cannot_have_is_refused),
		T(a_resize_that_fails_changes_nothing),
		T(resized_queues_work_at_their_new_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
