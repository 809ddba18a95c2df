/* SPDX-License-Identifier: Apache-2.0 */
/* Keys wait until the guest listens: Linux would throw them away. */
#include "tests/unit/console_rig.h"

#include <signal.h>

static void say(const char *what)
{
	uint32_t id, len;

	fake_send(&tx, (struct fake_buf[]){{text(what), (uint32_t)strlen(what), 0}}, 1);
	virtio_kick(v, TXQ);
	assert_true(fake_used(&tx, &id, &len));
}

static void console_rx_holds_keys_until_the_guest_listens(void **s)
{
	uint64_t a = fake_alloc(&ram, 64, 1);

	(void)s;
	type("be");
	go_deaf(0);
	fake_send(&rx, (struct fake_buf[]){{a, 64, FAKE_W}}, 1);
	virtio_kick(v, RXQ);
	type("fore");
	nothing_used(&rx);
	console_listen(con);
	turns(loop, 3);
	used_is(&rx, 0, 6);
	assert_memory_equal(fake_at(&ram, a), "before", 6);
	fake_send(&rx, (struct fake_buf[]){{a, 64, FAKE_W}}, 1);
	type("k");
	used_is(&rx, 1, 1);
}

/* The clock is the real one; each turn has output before it, however long it was in coming. */
static void console_rx_silence_after_output_means_that_the_guest_listens(void **s)
{
	uint64_t a = fake_alloc(&ram, 64, 1), until;

	(void)s;
	type("key");
	go_deaf(0);
	fake_send(&rx, (struct fake_buf[]){{a, 64, FAKE_W}}, 1);
	for (until = loop_now() + 400000000; loop_now() < until; usleep(1000)) {
		say("x"); /* an endless log */
		turn(loop);
		nothing_used(&rx);
	}
	TURNS_UNTIL(loop, fake_get16(&ram, rx.used + 2));
	used_is(&rx, 0, 3);
}

static void console_rx_silence_alone_is_no_sign_for_five_seconds(void **s)
{
	uint64_t a = fake_alloc(&ram, 64, 1), until;

	(void)s;
	go_deaf(0);
	fake_send(&rx, (struct fake_buf[]){{a, 64, FAKE_W}}, 1);
	type("key");
	for (until = loop_now() + 400000000; loop_now() < until; usleep(1000)) {
		turn(loop);
		nothing_used(&rx);
	}
	TURNS_UNTIL(loop, fake_get16(&ram, rx.used + 2));
	used_is(&rx, 0, 3);
}

static void console_reset_means_that_nobody_listens(void **s)
{
	uint64_t a = fake_alloc(&ram, 64, 1);

	(void)s;
	go(0);
	virtio_set_status(v, 0);
	console_listen(con); /* there is no driver to do so */
	fake_ring_zero(&rx);
	fake_ring_zero(&tx);
	go_deaf(0);
	fake_send(&rx, (struct fake_buf[]){{a, 64, FAKE_W}}, 1);
	type("key");
	nothing_used(&rx);
	console_listen(con);
	turns(loop, 3);
	used_is(&rx, 0, 3);
}

/* A timer of a device that is gone would be a use after free: ASan looks. */
static void console_reset_and_free_stop_the_clock(void **s)
{
	(void)s;
	go_deaf(0);
	say("x");
	virtio_set_status(v, 0);
	fake_ring_zero(&rx);
	fake_ring_zero(&tx);
	go_deaf(0);
	console_free(con);
	con = NULL;
	for (uint64_t until = loop_now() + 250000000; loop_now() < until; usleep(1000))
		turn(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(console_rx_holds_keys_until_the_guest_listens),
		T(console_rx_silence_after_output_means_that_the_guest_listens),
		T(console_rx_silence_alone_is_no_sign_for_five_seconds),
		T(console_reset_means_that_nobody_listens),
		T(console_reset_and_free_stop_the_clock),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
