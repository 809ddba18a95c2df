/* SPDX-License-Identifier: Apache-2.0 */
/* Clock, keyboard controller, ACPI registers, events, pvpanic and markers, as a guest reaches them.
 */
#include "devices/devices.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/layout.h"
#include "vmm/timeline.h"

#define GED_ADDR 0x3fffff0000ull

static struct bus *pio, *mmio;
static struct loop *loop;
static struct irq *irq;
static struct cmos *cmos;
static struct i8042 *i8042;
static struct acpi_pm *pm;
static struct ged *ged;
static struct pvpanic *pvpanic;
static struct marker *marker;

static enum power_event events[16];
static unsigned nevents;

static void power(void *arg, enum power_event ev)
{
	(void)arg;
	if (nevents < 16)
		events[nevents++] = ev;
}

static uint8_t marks[4];
static unsigned nmarks;

static void marked(void *arg, uint8_t mark)
{
	assert_ptr_equal(arg, marks);
	if (nmarks < 4)
		marks[nmarks++] = mark;
}

static const struct marker_user listener = {marked, marks};

static int setup(void **state)
{
	const struct power_sink sink = {.fn = power};
	struct err e;

	(void)state;
	nevents = nmarks = 0;
	return bus_new(&pio, &e) || bus_new(&mmio, &e) || loop_new(&loop, "test", &e) ||
	       irq_fake_new(&irq, &e) ||
	       cmos_new(&cmos, pio, loop, &(struct cmos_ram){3ull << 30, 5ull << 30}, &e) ||
	       i8042_new(&i8042, pio, loop, &sink, &e) || acpi_pm_new(&pm, pio, loop, &sink, &e) ||
	       ged_new(&ged, mmio, loop, &(struct ged_env){GED_ADDR, irq}, &e) ||
	       pvpanic_new(&pvpanic, pio, loop, &sink, &e) ||
	       marker_new(&marker, pio, loop, &listener, &e);
}

static int teardown(void **state)
{
	(void)state;
	marker_free(marker);
	pvpanic_free(pvpanic);
	ged_free(ged);
	acpi_pm_free(pm);
	i8042_free(i8042);
	cmos_free(cmos);
	irq_free(irq);
	loop_free(loop);
	bus_free(mmio);
	bus_free(pio);
	return 0;
}

static uint8_t in(unsigned port)
{
	return (uint8_t)bus_read(pio, port, 1);
}

static void out(unsigned port, uint8_t v)
{
	bus_write(pio, port, 1, v);
}

static void check_power(enum power_event ev)
{
	assert_int_equal(nevents, 1);
	assert_int_equal(events[0], ev);
	nevents = 0;
}

/* -------------------------------------------------------------- cmos */

static uint8_t cmos_in(unsigned reg)
{
	out(0x70, (uint8_t)reg);
	return in(0x71);
}

static void cmos_out(unsigned reg, uint8_t v)
{
	out(0x70, (uint8_t)reg);
	out(0x71, v);
}

static int bcd(uint8_t v)
{
	assert_true((v & 0xf) < 10 && v >> 4 < 10);
	return (v >> 4) * 10 + (v & 0xf);
}

/* As a kernel reads the clock: again when a second ended in between. */
static time_t cmos_time(bool binary)
{
	struct tm tm;
	uint8_t s, v[7];
	static const uint8_t reg[7] = {0, 2, 4, 7, 8, 9, 0x32};

	do {
		s = cmos_in(0);
		for (unsigned i = 0; i < 7; i++)
			v[i] = cmos_in(reg[i]);
	} while (s != cmos_in(0));
	for (unsigned i = 0; !binary && i < 7; i++)
		v[i] = (uint8_t)bcd(v[i]);
	tm = (struct tm){.tm_sec = v[0],
			 .tm_min = v[1],
			 .tm_hour = v[2],
			 .tm_mday = v[3],
			 .tm_mon = v[4] - 1,
			 .tm_year = v[6] * 100 + v[5] - 1900};
	return timegm(&tm);
}

static void cmos_tells_utc_in_both_formats(void **state)
{
	(void)state;
	for (int binary = 0; binary < 2; binary++) {
		cmos_out(0x0b, binary ? 0x04 : 0x00);
		assert_int_equal(cmos_in(0x0b), binary ? 0x06 : 0x02); /* 24 hours always */
		time_t before = time(NULL), t = cmos_time(binary), after = time(NULL);
		assert_in_range(t, before, after);
	}
	assert_in_range(cmos_in(6), 1, 7); /* day of the week */
}

static void cmos_status_is_sound_and_has_no_interrupts(void **state)
{
	(void)state;
	assert_int_equal(cmos_in(0x0d), 0x80); /* power was never lost */
	assert_int_equal(cmos_in(0x0c), 0);
	cmos_out(0x0b, 0x72); /* periodic, alarm, update */
	assert_int_equal(cmos_in(0x0b), 0x02);
	cmos_out(0x0d, 0x00);
	cmos_out(0x0c, 0xff);
	assert_int_equal(cmos_in(0x0d), 0x80);
	assert_int_equal(cmos_in(0x0c), 0);
}

static void cmos_update_flag_is_not_stuck_and_not_writable(void **state)
{
	bool clear = false;

	(void)state;
	cmos_out(0x0a, 0xa6);
	assert_int_equal(cmos_in(0x0a) & 0x7f, 0x26);
	/* Longer than the quarter of a millisecond that it lasts. */
	struct timespec ms = {.tv_nsec = 1000000};
	for (unsigned i = 0; i < 100 && !clear; i++) {
		clear = !(cmos_in(0x0a) & 0x80);
		nanosleep(&ms, NULL);
	}
	assert_true(clear);
	cmos_out(0x0b, 0x80); /* SET holds updates off */
	assert_int_equal(cmos_in(0x0b), 0x82);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(cmos_in(0x0a) & 0x80, 0);
}

static void cmos_time_cannot_be_set(void **state)
{
	static const uint8_t reg[] = {0, 2, 4, 6, 7, 8, 9, 0x32};

	(void)state;
	for (unsigned i = 0; i < sizeof(reg); i++)
		cmos_out(reg[i], 0x55);
	time_t before = time(NULL), t = cmos_time(false), after = time(NULL);
	assert_in_range(t, before, after);
}

static void cmos_bytes_are_kept_and_the_index_stays_inside(void **state)
{
	(void)state;
	cmos_out(0x0f, 0x0a);
	assert_int_equal(cmos_in(0x0f), 0x0a);
	out(0x70, 0xff); /* NMI mask and the last byte */
	out(0x71, 0x77);
	assert_int_equal(cmos_in(0x7f), 0x77);
	assert_int_equal(cmos_in(0x8f), 0x0a);
	assert_int_equal(in(0x70), 0xff);
	/* Both ports in one access: index, then its byte. */
	bus_write(pio, 0x70, 2, 0x9940);
	assert_int_equal(cmos_in(0x40), 0x99);
}

static void cmos_tells_the_memory(void **state)
{
	(void)state;
	assert_int_equal(cmos_in(0x15) | cmos_in(0x16) << 8, 640);
	assert_int_equal(cmos_in(0x17) | cmos_in(0x18) << 8, 0xffff); /* all it can say */
	assert_int_equal(cmos_in(0x30) | cmos_in(0x31) << 8, 0xffff);
	assert_int_equal(cmos_in(0x34) | cmos_in(0x35) << 8, ((3u << 30) - (16u << 20)) >> 16);
	assert_int_equal(cmos_in(0x5b) | cmos_in(0x5c) << 8 | cmos_in(0x5d) << 16,
			 (5ull << 30) >> 16);
}

/* ------------------------------------------------------------- i8042 */

static uint8_t answer(void)
{
	assert_int_equal(in(0x64) & 0x03, 0x01); /* there at once, and ready for more */
	uint8_t v = in(0x60);
	assert_int_equal(in(0x64) & 0x01, 0);
	return v;
}

static void i8042_passes_its_self_test(void **state)
{
	(void)state;
	assert_int_equal(in(0x64), 0x14); /* nothing waits, system flag, not locked */
	out(0x64, 0xaa);
	assert_int_equal(answer(), 0x55);
	assert_int_equal(nevents, 0);
}

static void i8042_command_byte_is_stable_and_keeps_aux_off(void **state)
{
	(void)state;
	out(0x64, 0x20);
	uint8_t ctr = answer();
	assert_int_equal(ctr & 0x70, 0x70); /* translating, both ports off */
	out(0x64, 0x60);
	out(0x60, 0x45);
	out(0x64, 0x20);
	assert_int_equal(answer(), 0x65);
	out(0x64, 0xa8); /* enable aux: there is none */
	out(0x64, 0x20);
	assert_int_equal(answer(), 0x65);
	out(0x64, 0xad);
	out(0x64, 0x20);
	assert_int_equal(answer(), 0x75);
	out(0x64, 0xae);
	out(0x64, 0x20);
	assert_int_equal(answer(), 0x65);
	out(0x64, 0x7f); /* the last byte of its memory */
	out(0x60, 0x12);
	out(0x64, 0x3f);
	assert_int_equal(answer(), 0x12);
}

static void i8042_says_at_once_that_nothing_is_attached(void **state)
{
	(void)state;
	out(0x64, 0xd3); /* aux loop: comes back, but not from aux */
	out(0x60, 0x5a);
	assert_int_equal(in(0x64) & 0x21, 0x01);
	assert_int_equal(answer(), 0x5a);
	out(0x64, 0xa9);
	uint8_t v = answer();
	assert_true(v && v != 0xfa && v != 0xff);
	out(0x64, 0xab);
	assert_int_equal(answer(), 0x01);
	out(0x60, 0xf2); /* to the keyboard */
	assert_int_equal(in(0x64) & 0x41, 0x41);
	assert_int_equal(answer(), 0xfe);
	assert_int_equal(in(0x64) & 0x40, 0);
	out(0x64, 0xd4); /* to the mouse */
	out(0x60, 0xf2);
	assert_int_equal(answer(), 0xfe);
}

static void i8042_resets_by_pulse_and_by_output_port(void **state)
{
	(void)state;
	out(0x64, 0xfe);
	check_power(POWER_RESET);
	out(0x64, 0xf0);
	check_power(POWER_RESET);
	out(0x64, 0xd1);
	out(0x60, 0x02);
	check_power(POWER_RESET);
}

static void i8042_resets_for_nothing_else(void **state)
{
	(void)state;
	out(0x64, 0xd1);
	out(0x60, 0xdf); /* A20 */
	for (unsigned c = 0xf1; c <= 0xff; c += 2)
		out(0x64, (uint8_t)c);
	for (unsigned c = 0; c < 0xf0; c++) {
		out(0x64, (uint8_t)c);
		if (c != 0xd1)
			out(0x60, 0x00);
	}
	assert_int_equal(nevents, 0);
}

/* ----------------------------------------------------------- acpi_pm */

static void sleep_control_powers_off_for_s5_alone(void **state)
{
	(void)state;
	out(0x600, 0x80); /* what comes before it: clear WAK_STS */
	out(0x600, 0x14); /* type without enable */
	assert_int_equal(nevents, 0);
	out(0x600, 0x34);
	check_power(POWER_OFF);
	assert_int_equal(in(0x600), 0);
	bus_write(pio, 0x600, 4, 0x34);
	check_power(POWER_OFF);
}

static void another_sleep_state_wakes_at_once(void **state)
{
	(void)state;
	assert_int_equal(in(0x600), 0);
	out(0x600, 0x24);
	assert_int_equal(nevents, 0);
	assert_int_equal(in(0x600), 0x80);
	out(0x600, 0x80);
	assert_int_equal(in(0x600), 0);
}

static void reset_register_resets_for_its_value_alone(void **state)
{
	(void)state;
	for (unsigned v = 0; v < 0x100; v++)
		if (v != 1 && (v & 0x3c) != 0x34)
			out(0x600, (uint8_t)v);
	out(0x601, 1);
	out(0x603, 1);
	assert_int_equal(nevents, 0);
	out(0x600, 1);
	check_power(POWER_RESET);
}

static uint64_t ticks(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * 3579545 / 1000000000);
}

static void pm_timer_counts_up_at_its_rate(void **state)
{
	struct timespec ms = {.tv_nsec = 1000000};

	(void)state;
	uint64_t outer = loop_now();
	uint32_t a = (uint32_t)bus_read(pio, 0x608, 4);
	uint64_t inner = loop_now();
	nanosleep(&ms, NULL);
	inner = loop_now() - inner;
	uint32_t b = (uint32_t)bus_read(pio, 0x608, 4);
	outer = loop_now() - outer;
	/* What passed between the two reads lies between two spans of the same clock. */
	assert_in_range(b - a, ticks(inner) - 1, ticks(outer) + 1);
	bus_write(pio, 0x608, 4, 0);
	assert_true((uint32_t)bus_read(pio, 0x608, 4) - b < 1u << 31);
	assert_true((uint32_t)bus_read(pio, 0x608, 4) - a >= b - a);
	assert_int_equal(bus_read(pio, 0x60a, 4), ~0ull); /* not all of it the timer's */
}

/* --------------------------------------------------------------- ged */

static void ged_events_gather_and_reading_takes_them(void **state)
{
	(void)state;
	assert_int_equal(bus_read(mmio, GED_ADDR, 1), 0);
	loop_lock(loop);
	ged_event(ged, GED_POWER);
	ged_event(ged, 4); /* any other bit */
	loop_unlock(loop);
	uint64_t n = 0;
	assert_int_equal(read(irq_fd(irq), &n, sizeof(n)), sizeof(n));
	assert_int_equal(n, 2);
	bus_write(mmio, GED_ADDR, 1, 0);
	assert_int_equal(bus_read(mmio, GED_ADDR, 1), 12);
	assert_int_equal(bus_read(mmio, GED_ADDR, 1), 0);
	assert_false(irq_pending(irq));
}

/* --------------------------------------------------- pvpanic, marker */

static void pvpanic_tells_and_takes_two_events(void **state)
{
	(void)state;
	assert_int_equal(in(0x505), 3);
	out(0x505, 0);
	out(0x505, 0xfc);
	assert_int_equal(nevents, 0);
	out(0x505, 1);
	check_power(POWER_PANIC);
	out(0x505, 2);
	check_power(POWER_CRASHLOADED);
}

static void marker_reports_each_stage(void **state)
{
	(void)state;
	out(LAYOUT_PORT_MARK, 0);
	out(LAYOUT_PORT_MARK, 77);
	assert_false(timeline_reached(STAGE_INIT));
	out(LAYOUT_PORT_MARK, 1);
	assert_true(timeline_reached(STAGE_INIT));
	assert_false(timeline_reached(STAGE_ROOT));
	out(LAYOUT_PORT_MARK, 2);
	assert_true(timeline_reached(STAGE_ROOT));
	assert_false(timeline_reached(STAGE_ROOT_INIT));
	out(LAYOUT_PORT_MARK, 3);
	assert_true(timeline_reached(STAGE_ROOT_INIT));
	out(LAYOUT_PORT_DEBUG, 3);
	assert_int_equal(in(LAYOUT_PORT_DEBUG), 0xff);
}

static void marker_passes_every_byte_on(void **state)
{
	(void)state;
	out(LAYOUT_PORT_MARK, MARK_FAILED);
	out(LAYOUT_PORT_MARK, 0x77);
	out(LAYOUT_PORT_DEBUG, 1);
	assert_int_equal(nmarks, 2);
	assert_int_equal(marks[0], MARK_FAILED);
	assert_int_equal(marks[1], 0x77);
}

/* --------------------------------------------------------- lifetimes */

static void a_taken_port_is_an_error_and_leaves_nothing_behind(void **state)
{
	const struct power_sink sink = {0};
	struct acpi_pm *second = NULL;
	struct marker *m = NULL;
	struct i8042 *k = NULL;
	struct err e = {0};

	(void)state;
	assert_true(acpi_pm_new(&second, pio, loop, &sink, &e) < 0);
	assert_non_null(strstr(e.text, "acpi sleep"));
	/* The first port is free, the second is not. */
	marker_free(marker);
	marker = NULL;
	struct bus_region r = {.base = LAYOUT_PORT_DEBUG, .size = 1, .name = "other"};
	assert_int_equal(bus_add(pio, &r, &e), 0);
	assert_true(marker_new(&m, pio, loop, &listener, &e) < 0);
	assert_int_equal(bus_read(pio, LAYOUT_PORT_MARK, 1), ~0ull);
	assert_int_equal(bus_del(pio, LAYOUT_PORT_DEBUG), 0);
	assert_int_equal(marker_new(&marker, pio, loop, &listener, &e), 0);
	assert_null(m);

	i8042_free(i8042);
	i8042 = NULL;
	assert_int_equal(i8042_new(&k, pio, loop, &sink, &e), 0);
	i8042_free(k);
	serial_free(NULL);
	cmos_free(NULL);
	i8042_free(NULL);
	acpi_pm_free(NULL);
	ged_free(NULL);
	pvpanic_free(NULL);
	marker_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(cmos_tells_utc_in_both_formats),
		TEST(cmos_status_is_sound_and_has_no_interrupts),
		TEST(cmos_update_flag_is_not_stuck_and_not_writable),
		TEST(cmos_time_cannot_be_set),
		TEST(cmos_bytes_are_kept_and_the_index_stays_inside),
		TEST(cmos_tells_the_memory),
		TEST(i8042_passes_its_self_test),
		TEST(i8042_command_byte_is_stable_and_keeps_aux_off),
		TEST(i8042_says_at_once_that_nothing_is_attached),
		TEST(i8042_resets_by_pulse_and_by_output_port),
		TEST(i8042_resets_for_nothing_else),
		TEST(sleep_control_powers_off_for_s5_alone),
		TEST(another_sleep_state_wakes_at_once),
		TEST(reset_register_resets_for_its_value_alone),
		TEST(pm_timer_counts_up_at_its_rate),
		TEST(ged_events_gather_and_reading_takes_them),
		TEST(pvpanic_tells_and_takes_two_events),
		TEST(marker_reports_each_stage),
		TEST(marker_passes_every_byte_on),
		TEST(a_taken_port_is_an_error_and_leaves_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
