/* SPDX-License-Identifier: Apache-2.0 */
/* The 16550A through the bus, with a host's end that counts what it is asked. */
#include "devices/devices.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/timeline.h"

#define BASE 0x3f8
enum { RBR = 0, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR IIR

/* ---- the host's end: stands in for vmm/chr.c */
struct chr {
	struct chr_user user;
	uint8_t out[4096];
	size_t nout;
	const char *in; /* what the host would send, given on chr_room */
	unsigned asked;
	bool later; /* on chr_room only takes note */
};

void chr_bind(struct chr *c, const struct chr_user *u)
{
	c->user = u ? *u : (struct chr_user){0};
}

void chr_write(struct chr *c, const uint8_t *buf, size_t n)
{
	assert_true(n <= sizeof(c->out) - c->nout);
	memcpy(c->out + c->nout, buf, n);
	c->nout += n;
}

static void give(struct chr *c)
{
	size_t n = strlen(c->in), room = c->user.room(c->user.dev);

	if (n > room)
		n = room;
	if (n)
		c->user.input(c->user.dev, (const uint8_t *)c->in, n);
	c->in += n;
}

void chr_room(struct chr *c)
{
	c->asked++;
	if (!c->later)
		give(c);
}

/* ---- the machine around it */
static struct chr host;
static struct bus *pio;
static struct loop *loop;
static struct irq *irq;
static struct serial *serial;

static int setup(void **state)
{
	struct err e;

	(void)state;
	host = (struct chr){.in = ""};
	return bus_new(&pio, &e) || loop_new(&loop, "test", &e) || irq_fake_new(&irq, &e) ||
	       serial_new(&serial, pio, loop, &(struct serial_env){irq, &host, false}, &e);
}

static int teardown(void **state)
{
	(void)state;
	serial_free(serial);
	irq_free(irq);
	loop_free(loop);
	bus_free(pio);
	return 0;
}

static uint8_t in(unsigned reg)
{
	return (uint8_t)bus_read(pio, BASE + reg, 1);
}

static void out(unsigned reg, uint8_t v)
{
	bus_write(pio, BASE + reg, 1, v);
}

/* Edges since the last call. */
static unsigned edges(void)
{
	uint64_t n;

	return read(irq_fd(irq), &n, sizeof(n)) == sizeof(n) ? (unsigned)n : 0;
}

static void type(const char *text)
{
	host.in = text;
	give(&host);
}

/* Once more, with the host's input held back. */
static void hold(void)
{
	struct err e;

	serial_free(serial);
	assert_int_equal(serial_new(&serial, pio, loop, &(struct serial_env){irq, &host, true}, &e),
			 0);
	type("ab");
}

/* ------------------------------------------------------------- tests */

static void held_input_comes_when_the_guest_says_that_it_listens(void **state)
{
	(void)state;
	serial_listen(NULL);
	hold();
	out(FCR, 0x07);
	out(IER, 0x01);
	assert_int_equal(in(LSR)&1, 0);
	assert_string_equal(host.in, "ab");
	serial_listen(serial);
	assert_int_equal(in(RBR), 'a');
	assert_int_equal(in(RBR), 'b');
}

static void stop_soon(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

/* Looks are a tenth of a second apart. */
static void let_it_look(void)
{
	struct loop_timer t = {.fn = stop_soon};

	loop_timer_set(loop, &t, loop_now() + 450000000ull);
	loop_run(loop);
}

static void held_input_comes_when_an_open_port_has_fallen_silent(void **state)
{
	(void)state;
	hold();
	let_it_look(); /* it may not even have started */
	assert_string_equal(host.in, "ab");
	out(RBR, 'x');
	let_it_look(); /* its receiver is off */
	assert_string_equal(host.in, "ab");
	out(FCR, 0x07);
	out(IER, 0x01);
	let_it_look();
	assert_string_equal(host.in, "");
	assert_int_equal(in(RBR), 'a');
}

static void output_goes_to_the_host_byte_by_byte(void **state)
{
	(void)state;
	assert_false(timeline_reached(STAGE_CONSOLE));
	out(RBR, 'o');
	assert_true(timeline_reached(STAGE_CONSOLE));
	out(RBR, 'k');
	assert_int_equal(host.nout, 2);
	assert_memory_equal(host.out, "ok", 2);
	assert_int_equal(in(LSR), 0x60);
	assert_int_equal(edges(), 0);
}

static void registers_keep_what_autoconfig_writes(void **state)
{
	(void)state;
	out(IER, 0);
	assert_int_equal(in(IER), 0);
	out(IER, 0xff);
	assert_int_equal(in(IER), 0x0f); /* no sleep or other bits of later chips */
	out(IER, 0);
	out(SCR, 0xa5);
	assert_int_equal(in(SCR), 0xa5);
	out(MCR, 0xff);
	assert_int_equal(in(MCR), 0x1f);
	out(MCR, 0);
	out(LCR, 0x1b);
	assert_int_equal(in(LCR), 0x1b);
}

static void fifo_bits_name_a_16550a(void **state)
{
	(void)state;
	assert_int_equal(in(IIR), 0x01);
	out(FCR, 0x01);
	assert_int_equal(in(IIR), 0xc1);
	out(FCR, 0x21); /* no 64-byte FIFO of a 16750 */
	assert_int_equal(in(IIR), 0xc1);
	out(FCR, 0x00);
	assert_int_equal(in(IIR), 0x01);
}

static void divisor_latch_covers_data_and_ier(void **state)
{
	(void)state;
	out(LCR, 0x83);
	assert_int_equal(in(0) | in(1) << 8, 12);
	out(0, 0x01);
	out(1, 0x02);
	assert_int_equal(in(0) | in(1) << 8, 0x201);
	out(LCR, 0x03);
	assert_int_equal(in(IER), 0);
	assert_int_equal(host.nout, 0);
}

static void loopback_maps_mcr_to_msr(void **state)
{
	(void)state;
	assert_int_equal(in(MSR), 0xb0); /* carrier, ready and clear to send, no deltas */
	out(MCR, 0x1a);
	assert_int_equal(in(MSR)&0xf0, 0x90);
	out(MCR, 0x10);
	assert_int_equal(in(MSR)&0xf0, 0x00);
	out(MCR, 0x15);
	assert_int_equal(in(MSR), 0x60 | 0x02); /* DSR rose; a rising RI is no delta */
	out(MCR, 0x10);
	assert_int_equal(in(MSR), 0x06); /* DSR fell, trailing edge of RI */
	out(MCR, 0x00);
	assert_int_equal(in(MSR), 0xb0 | 0x0b);
	assert_int_equal(in(MSR), 0xb0);
}

static void loopback_returns_bytes_and_tells_the_host_nothing(void **state)
{
	(void)state;
	out(FCR, 0x01);
	out(MCR, 0x10);
	for (unsigned i = 0; i < 17; i++)
		out(RBR, (uint8_t)('a' + i));
	assert_int_equal(host.nout, 0);
	type("host"); /* the input pin is off */
	assert_string_equal(host.in, "host");
	assert_int_equal(in(LSR), 0x63); /* data, overrun */
	assert_int_equal(in(LSR), 0x61); /* reading took the overrun */
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(in(RBR), 'a' + i);
	assert_int_equal(in(LSR), 0x60);
	out(MCR, 0x00); /* back on: the host is asked */
	assert_string_equal(host.in, "");
	assert_int_equal(in(RBR), 'h');
}

static void thre_interrupt_comes_when_enabled_and_goes_on_iir_read(void **state)
{
	(void)state;
	out(IER, 0x02);
	assert_int_equal(edges(), 1);
	assert_int_equal(in(IIR), 0x02);
	assert_int_equal(in(IIR), 0x01); /* acknowledged */
	out(IER, 0x00);
	out(IER, 0x02); /* asserts again, as real ones do */
	assert_int_equal(edges(), 1);
	assert_int_equal(in(IIR), 0x02);
	out(RBR, 'x');
	assert_int_equal(edges(), 1);
	assert_int_equal(in(IIR), 0x02);
}

static void thre_is_not_acknowledged_while_data_is_shown(void **state)
{
	(void)state;
	out(FCR, 0x01);
	out(IER, 0x03);
	type("z");
	assert_int_equal(in(IIR), 0xc4);
	assert_int_equal(in(IIR), 0xc4);
	assert_int_equal(in(RBR), 'z');
	assert_int_equal(in(IIR), 0xc2);
	assert_int_equal(in(IIR), 0xc1);
}

static void a_burst_of_output_is_one_edge_per_acknowledge(void **state)
{
	(void)state;
	out(FCR, 0x01);
	out(IER, 0x02);
	in(IIR);
	edges();
	for (unsigned i = 0; i < 16; i++)
		out(RBR, 'x');
	assert_int_equal(edges(), 1);
	assert_int_equal(in(IIR), 0xc2);
	out(RBR, 'y');
	assert_int_equal(edges(), 1);
}

static void input_interrupts_below_and_at_the_trigger(void **state)
{
	(void)state;
	out(FCR, 0x41); /* trigger at 4 */
	out(IER, 0x01);
	type("abc");
	assert_int_equal(edges(), 1);
	assert_int_equal(in(IIR), 0xcc); /* time-out: fewer */
	type("d");
	assert_int_equal(edges(), 1);
	assert_int_equal(in(IIR), 0xc4);
	assert_int_equal(in(LSR), 0x61);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(in(RBR), 'a' + i);
	assert_int_equal(in(IIR), 0xc1);
	type("e"); /* after the handler has left: a new edge */
	assert_int_equal(edges(), 1);
}

static void input_waiting_raises_when_enabled(void **state)
{
	(void)state;
	type("a");
	assert_int_equal(edges(), 0);
	out(IER, 0x01);
	assert_int_equal(edges(), 1);
}

static void every_new_condition_is_an_edge(void **state)
{
	(void)state;
	out(FCR, 0x01);
	out(IER, 0x0b);
	assert_int_equal(edges(), 1); /* THRE */
	type("a");
	assert_int_equal(edges(), 1); /* data, THRE still pending */
	out(MCR, 0x10);
	assert_int_equal(edges(), 1); /* modem lines, both still pending */
	assert_int_equal(in(RBR), 'a');
	assert_int_equal(in(IIR), 0xc2);
	assert_int_equal(in(IIR), 0xc0);
	in(MSR);
	assert_int_equal(in(IIR), 0xc1);
	assert_int_equal(edges(), 0);
}

static void overrun_without_fifo_replaces_the_byte_and_interrupts(void **state)
{
	(void)state;
	out(IER, 0x04);
	out(MCR, 0x10);
	out(RBR, 'a');
	assert_int_equal(edges(), 0);
	out(RBR, 'b');
	assert_int_equal(edges(), 1);
	assert_int_equal(in(IIR), 0x06);
	assert_int_equal(in(LSR), 0x63);
	assert_int_equal(in(IIR), 0x01);
	assert_int_equal(in(RBR), 'b');
	assert_int_equal(in(LSR), 0x60);
}

static void host_input_waits_at_the_host_when_the_fifo_is_full(void **state)
{
	static const char text[] = "0123456789abcdefghijklmnopqrstuvwxyz";

	(void)state;
	out(FCR, 0x01);
	type(text);
	assert_int_equal(host.in - text, 16);
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(in(RBR), text[i]);
	unsigned asked = host.asked;
	assert_int_equal(in(RBR), text[15]); /* empty: asks once, and gets the next sixteen */
	assert_int_equal(host.asked, asked + 1);
	for (unsigned i = 16; i < 36; i++)
		assert_int_equal(in(RBR), text[i]);
	assert_int_equal(in(LSR), 0x60);
	assert_int_equal(in(RBR), 0); /* an empty FIFO has nothing to give */
}

static void clearing_the_fifo_drops_input_and_asks_for_more(void **state)
{
	(void)state;
	out(FCR, 0x01);
	type("0123456789abcdefXY");
	assert_string_equal(host.in, "XY");
	out(FCR, 0x03);
	assert_string_equal(host.in, "");
	assert_int_equal(in(RBR), 'X');
	out(FCR, 0x00); /* turning them off clears them too, and leaves room for one */
	assert_int_equal(in(LSR), 0x60);
	type("12");
	assert_string_equal(host.in, "2");
}

/* ---- a driver in the manner of Linux' 8250: it acts on edges alone */
struct driver {
	size_t to_send, sent;
	char got[4096];
	size_t ngot;
};

static void handle(struct driver *d)
{
	while (!(in(IIR)&1)) {
		for (unsigned n = 0; n < 256 && in(LSR)&1; n++)
			d->got[d->ngot++] = (char)in(RBR);
		in(MSR);
		if (!(in(LSR)&0x20) || !(in(IER)&2))
			continue;
		for (unsigned n = 0; n < 16 && d->sent < d->to_send; n++, d->sent++)
			out(RBR, 'x');
		if (d->sent == d->to_send)
			out(IER, 0x05);
	}
}

static void a_driver_that_acts_on_edges_alone_never_stalls(void **state)
{
	static struct driver d;
	static char text[2001];
	uint32_t r = 1;

	(void)state;
	d = (struct driver){0};
	for (unsigned i = 0; i < 2000; i++)
		text[i] = (char)('!' + i % 90);
	out(FCR, 0x81);
	out(IER, 0x05);
	host.in = text;
	host.later = true;
	for (unsigned step = 0; step < 20000 && d.ngot < 2000; step++) {
		r = r * 1664525 + 1013904223;
		if (r >> 30 == 0)
			give(&host); /* the host may send whenever there is room */
		if (r >> 30 == 1 && d.sent == d.to_send && d.to_send < 1000) {
			d.to_send += r >> 8 & 31;
			out(IER, 0x07);
		}
		if (r >> 30 >= 2 && edges())
			handle(&d);
	}
	assert_int_equal(d.ngot, 2000);
	assert_memory_equal(d.got, text, 2000);
	if (edges())
		handle(&d);
	assert_int_equal(d.sent, d.to_send);
	assert_int_equal(host.nout, d.sent);
	assert_true(d.sent > 500);
}

static void wide_accesses_are_byte_cycles(void **state)
{
	(void)state;
	out(SCR, 0x5a);
	assert_int_equal(bus_read(pio, BASE + 4, 4), 0x5ab06000);
	bus_write(pio, BASE, 2, 0x0f00 | 'w');
	assert_int_equal(host.out[0], 'w');
	assert_int_equal(in(IER), 0x0f);
	assert_int_equal(bus_read(pio, BASE + 6, 4), ~0ull); /* beyond: not the device's */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(output_goes_to_the_host_byte_by_byte),
		TEST(registers_keep_what_autoconfig_writes),
		TEST(fifo_bits_name_a_16550a),
		TEST(divisor_latch_covers_data_and_ier),
		TEST(loopback_maps_mcr_to_msr),
		TEST(loopback_returns_bytes_and_tells_the_host_nothing),
		TEST(thre_interrupt_comes_when_enabled_and_goes_on_iir_read),
		TEST(thre_is_not_acknowledged_while_data_is_shown),
		TEST(a_burst_of_output_is_one_edge_per_acknowledge),
		TEST(input_interrupts_below_and_at_the_trigger),
		TEST(input_waiting_raises_when_enabled),
		TEST(every_new_condition_is_an_edge),
		TEST(overrun_without_fifo_replaces_the_byte_and_interrupts),
		TEST(host_input_waits_at_the_host_when_the_fifo_is_full),
		TEST(held_input_comes_when_the_guest_says_that_it_listens),
		TEST(held_input_comes_when_an_open_port_has_fallen_silent),
		TEST(clearing_the_fifo_drops_input_and_asks_for_more),
		TEST(a_driver_that_acts_on_edges_alone_never_stalls),
		TEST(wide_accesses_are_byte_cycles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
