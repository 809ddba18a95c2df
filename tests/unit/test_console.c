/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/console_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vmm/term.h"
#include "vmm/timeline.h"

/* ------------------------------------------------------------- output */

static void console_tx_writes_the_chain_in_order(void **s)
{
	uint16_t head;

	(void)s;
	go(0);
	head = fake_send(&tx,
			 (struct fake_buf[]){{text("one "), 4, 0},
					     {text(""), 0, 0},
					     {text("two "), 4, 0},
					     {text("three"), 5, 0}},
			 4);
	virtio_kick(v, TXQ);
	heard_is("one two three");
	used_is(&tx, head, 0);
	assert_int_equal(bearer.queue[TXQ], 1);
	assert_true(timeline_reached(STAGE_CONSOLE));
}

static void console_tx_ignores_writable_parts(void **s)
{
	uint64_t at = text("....");
	uint16_t head;

	(void)s;
	go(0);
	head = fake_send(&tx, (struct fake_buf[]){{text("x"), 1, 0}, {at, 4, FAKE_W}}, 2);
	virtio_kick(v, TXQ);
	used_is(&tx, head, 0);
	assert_memory_equal(fake_at(&ram, at), "....", 4);
	head = fake_send(&tx, (struct fake_buf[]){{at, 4, FAKE_W}}, 1);
	virtio_kick(v, TXQ);
	used_is(&tx, head, 0);
	assert_memory_equal(fake_at(&ram, at), "....", 4);
	turns(loop, 2);
	heard_is("x");
}

/* 16 descriptors of 64 KiB each over the same memory: one kick must not write a megabyte. */
static void console_tx_long_chain_is_bounded_per_turn(void **s)
{
	uint64_t at = fake_alloc(&ram, 65536, 1);
	struct fake_buf b[16];
	static char buf[2 << 20];
	size_t n;

	(void)s;
	go(0);
	memset(fake_at(&ram, at), 'z', 65536);
	for (int i = 0; i < 16; i++)
		b[i] = (struct fake_buf){at, 65536, 0};
	fake_send(&tx, b, 16);
	virtio_kick(v, TXQ);
	n = heard(buf, sizeof(buf));
	assert_int_equal(n, 65536);
	nothing_used(&tx);
	for (int i = 0; i < 40 && n < 1 << 20; i++) {
		turn(loop);
		n += heard(buf, sizeof(buf));
	}
	assert_int_equal(n, 1 << 20);
	used_is(&tx, 0, 0);
}

static void console_tx_many_chains_are_bounded_per_turn(void **s)
{
	uint64_t at = text("c");
	char buf[512];
	size_t n;
	uint32_t id, len;
	unsigned used = 0;

	(void)s;
	go(0);
	for (int i = 0; i < 128; i++)
		fake_send(&tx, (struct fake_buf[]){{at, 1, 0}}, 1);
	virtio_kick(v, TXQ);
	while (fake_used(&tx, &id, &len))
		used++;
	assert_int_equal(used, 64);
	turns(loop, 5);
	while (fake_used(&tx, &id, &len))
		used++;
	assert_int_equal(used, 128);
	n = heard(buf, sizeof(buf));
	assert_int_equal(n, 128);
}

static void console_tx_broken_ring_latches(void **s)
{
	(void)s;
	go(0);
	fake_avail(&tx, 500); /* head beyond the table */
	virtio_kick(v, TXQ);
	assert_true(v->status & VIRTIO_S_NEEDS_RESET);
	assert_true(bearer.config > 0);
	turns(loop, 5);
	heard_is("");
	/* Reset makes it whole again. */
	fake_ring_zero(&tx);
	fake_ring_zero(&rx);
	go(0);
	fake_send(&tx, (struct fake_buf[]){{text("again"), 5, 0}}, 1);
	virtio_kick(v, TXQ);
	heard_is("again");
}

static void console_reset_in_mid_chain_forgets_it(void **s)
{
	uint64_t at = fake_alloc(&ram, 65536, 1);
	struct fake_buf b[4] = {{at, 65536, 0}, {at, 65536, 0}, {at, 65536, 0}, {at, 65536, 0}};
	static char buf[1 << 20];

	(void)s;
	go(0);
	fake_send(&tx, b, 4);
	virtio_kick(v, TXQ);
	assert_int_equal(heard(buf, sizeof(buf)), 65536);
	virtio_set_status(v, 0);
	fake_ring_zero(&tx);
	fake_ring_zero(&rx);
	turns(loop, 10);
	assert_int_equal(heard(buf, sizeof(buf)), 0);
	nothing_used(&tx);
	go(0);
	fake_send(&tx, (struct fake_buf[]){{text("fresh"), 5, 0}}, 1);
	virtio_kick(v, TXQ);
	heard_is("fresh");
}

static void console_queue_reset_in_mid_chain_forgets_it(void **s)
{
	uint64_t at = fake_alloc(&ram, 65536, 1);
	struct fake_buf b[4] = {{at, 65536, 0}, {at, 65536, 0}, {at, 65536, 0}, {at, 65536, 0}};
	static char buf[1 << 20];

	(void)s;
	go(1ull << VIRTIO_F_RING_RESET);
	fake_send(&tx, b, 4);
	virtio_kick(v, TXQ);
	assert_int_equal(heard(buf, sizeof(buf)), 65536);
	virtio_queue_reset(v, TXQ);
	fake_ring_zero(&tx);
	turns(loop, 10);
	assert_int_equal(heard(buf, sizeof(buf)), 0);
	nothing_used(&tx);
	fake_enable(v, TXQ, &tx);
	fake_send(&tx, (struct fake_buf[]){{text("fresh"), 5, 0}}, 1);
	virtio_kick(v, TXQ);
	heard_is("fresh");
}

/* LeakSanitizer looks at what is left. */
static void console_freed_in_mid_chain_leaves_nothing(void **s)
{
	uint64_t at = fake_alloc(&ram, 65536, 1);

	(void)s;
	go(0);
	fake_send(&tx, (struct fake_buf[]){{at, 65536, 0}, {at, 65536, 0}}, 2);
	virtio_kick(v, TXQ);
	nothing_used(&tx);
	console_free(con);
	con = NULL;
	turns(loop, 3);
}

/* ------------------------------------------------------------- input */

static void console_rx_fills_buffers(void **s)
{
	uint64_t a = fake_alloc(&ram, 64, 1), b = fake_alloc(&ram, 64, 1);
	uint16_t first, second;

	(void)s;
	go(0);
	first = fake_send(&rx, (struct fake_buf[]){{a, 2, FAKE_W}, {a + 8, 1, FAKE_W}}, 2);
	second = fake_send(&rx, (struct fake_buf[]){{b, 64, FAKE_W}}, 1);
	virtio_kick(v, RXQ);
	nothing_used(&rx);
	type("hello");
	used_is(&rx, first, 3);
	used_is(&rx, second, 2);
	assert_memory_equal(fake_at(&ram, a), "he", 2);
	assert_memory_equal(fake_at(&ram, a + 8), "l", 1);
	assert_memory_equal(fake_at(&ram, b), "lo", 2);
	assert_true(bearer.queue[RXQ] > 0);
}

static void console_rx_keeps_keys_until_there_are_buffers(void **s)
{
	uint64_t a = fake_alloc(&ram, 64, 1);
	uint16_t head;

	(void)s;
	type("early ");
	go(0);
	turns(loop, 2);
	type("late");
	nothing_used(&rx);
	assert_int_equal(fake_used_flags(&rx), 0); /* kicks are wanted now */
	head = fake_send(&rx, (struct fake_buf[]){{a, 64, FAKE_W}}, 1);
	virtio_kick(v, RXQ);
	used_is(&rx, head, 10);
	assert_memory_equal(fake_at(&ram, a), "early late", 10);
}

static void console_rx_keys_before_the_driver_reach_its_first_buffers(void **s)
{
	uint64_t a = fake_alloc(&ram, 64, 1);
	uint16_t head;

	(void)s;
	type("early");
	head = fake_send(&rx, (struct fake_buf[]){{a, 64, FAKE_W}}, 1);
	go(0);
	turns(loop, 3);
	used_is(&rx, head, 5);
}

static void console_rx_needs_no_kicks_while_nothing_is_typed(void **s)
{
	uint64_t a = fake_alloc(&ram, 64, 1);

	(void)s;
	go(0);
	turns(loop, 3);
	assert_int_equal(fake_used_flags(&rx), 1);
	fake_send(&rx, (struct fake_buf[]){{a, 64, FAKE_W}}, 1); /* and no kick */
	type("k");
	used_is(&rx, 0, 1);
	assert_int_equal(fake_used_flags(&rx), 1);
}

static void console_rx_chain_without_room_is_given_back(void **s)
{
	uint64_t a = fake_alloc(&ram, 64, 1);
	uint16_t first, second;

	(void)s;
	go(0);
	first = fake_send(&rx, (struct fake_buf[]){{a, 8, 0}}, 1);
	second = fake_send(&rx, (struct fake_buf[]){{a, 8, FAKE_W}}, 1);
	type("k");
	used_is(&rx, first, 0);
	used_is(&rx, second, 1);
}

static void console_rx_flow_is_controlled(void **s)
{
	static char keys[64 << 10], got[64 << 10];
	uint64_t a = fake_alloc(&ram, 4096, 1);
	size_t sent = 0, n = 0;
	uint32_t id, len;

	(void)s;
	for (size_t i = 0; i < sizeof(keys); i++)
		keys[i] = (char)('a' + i % 23);
	go(0);
	for (unsigned i = 0; n < sizeof(keys); i++) {
		ssize_t w = write(peer, keys + sent, sizeof(keys) - sent);

		assert_true(i < 10000);
		sent += w > 0 ? (size_t)w : 0;
		turns(loop, 3);
		fake_send(&rx, (struct fake_buf[]){{a, 4096, FAKE_W}}, 1);
		virtio_kick(v, RXQ);
		turns(loop, 1);
		while (fake_used(&rx, &id, &len)) {
			memcpy(got + n, fake_at(&ram, a), len);
			n += len;
		}
	}
	assert_memory_equal(keys, got, sizeof(keys));
}

static void console_rx_driver_that_takes_nothing_stops_reading(void **s)
{
	static char keys[1 << 20];
	size_t sent = 0;
	ssize_t w;

	(void)s;
	memset(keys, 'k', sizeof(keys));
	go(0);
	/* Bounded by the device's keys and the socket: the writer is stopped, nothing grows. */
	for (int i = 0; i < 200; i++) {
		w = write(peer, keys, sizeof(keys));
		sent += w > 0 ? (size_t)w : 0;
		turn(loop);
	}
	assert_int_equal(write(peer, keys, 1), -1);
	assert_int_equal(errno, EAGAIN);
	assert_true(sent < 4 << 20);
}

/* ------------------------------------------------------------- configuration */

static void console_without_terminal_offers_no_size(void **s)
{
	(void)s;
	assert_false(v->offered & (1ull << F_SIZE));
	assert_true(v->offered & (1ull << F_EMERG_WRITE));
	assert_int_equal(virtio_config_read(v, 0, 4), 0);
}

static void console_emergency_write_needs_no_rings(void **s)
{
	(void)s;
	virtio_config_write(v, 8, 4, 'o');
	virtio_config_write(v, 8, 4, 0xffffff00u | 'h');
	turns(loop, 2);
	heard_is("oh");
	/* The rest of the space is read-only, and its end is an end. */
	virtio_config_write(v, 0, 4, 0x00500050);
	virtio_config_write(v, 12, 4, 'x');
	virtio_config_write(v, 9, 1, 'x');
	turns(loop, 2);
	heard_is("");
	assert_int_equal(virtio_config_read(v, 0, 4), 0);
}

static void console_size_follows_the_terminal(void **s)
{
	struct winsize ws = {.ws_col = 80, .ws_row = 24};
	struct char_config c = {.mode = CHAR_TTY};
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave, in = dup(0), out = dup(1);
	struct chr *tty;
	struct console *other;
	struct fake_bearer b;
	struct virtio *o;
	uint8_t generation;

	(void)s;
	fflush(stdout);
	assert_int_equal(grantpt(master) | unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	ioctl(master, TIOCSWINSZ, &ws);
	dup2(slave, 0);
	dup2(slave, 1);
	assert_int_equal(chr_new(&tty, loop, &c, "console", NULL), 0);
	assert_int_equal(console_new(&other, ram.gm, loop, tty, NULL), 0);
	o = console_virtio(other);
	fake_bear(o, &b);
	assert_true(fake_negotiate(o, 1ull << F_SIZE));
	fake_enable(o, RXQ, &rx);
	fake_enable(o, TXQ, &tx);
	fake_driver_ok(o);
	assert_int_equal(virtio_config_read(o, 0, 4), 80 | 24 << 16);
	assert_int_equal(b.config, 0);
	console_listen(
		other); /* Linux reads the first size when it hears of a change, and only now */
	assert_int_equal(b.config, 1);
	generation = o->generation;
	ws = (struct winsize){.ws_col = 132, .ws_row = 50};
	ioctl(master, TIOCSWINSZ, &ws);
	term_winch();
	assert_int_equal(virtio_config_read(o, 0, 4), 132 | 50 << 16);
	assert_int_not_equal(o->generation, generation);
	assert_int_equal(b.config, 2);
	console_free(other);
	term_winch(); /* to nobody */
	chr_free(tty);
	dup2(in, 0);
	dup2(out, 1);
	close(in);
	close(out);
	close(slave);
	close(master);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(console_tx_writes_the_chain_in_order),
		T(console_tx_ignores_writable_parts),
		T(console_tx_long_chain_is_bounded_per_turn),
		T(console_tx_many_chains_are_bounded_per_turn),
		T(console_tx_broken_ring_latches),
		T(console_reset_in_mid_chain_forgets_it),
		T(console_queue_reset_in_mid_chain_forgets_it),
		T(console_freed_in_mid_chain_leaves_nothing),
		T(console_rx_fills_buffers),
		T(console_rx_keeps_keys_until_there_are_buffers),
		T(console_rx_keys_before_the_driver_reach_its_first_buffers),
		T(console_rx_needs_no_kicks_while_nothing_is_typed),
		T(console_rx_chain_without_room_is_given_back),
		T(console_rx_flow_is_controlled),
		T(console_rx_driver_that_takes_nothing_stops_reading),
		T(console_without_terminal_offers_no_size),
		T(console_emergency_write_needs_no_rings),
		T(console_size_follows_the_terminal),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
