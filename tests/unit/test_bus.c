/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/bus.h"

struct dev {
	struct bus *bus;
	uint64_t off, val;
	unsigned size, calls;
	bool inside; /* a call is under way */
};

static uint64_t dev_read(void *arg, uint64_t off, unsigned size)
{
	struct dev *d = arg;

	d->off = off;
	d->size = size;
	d->calls++;
	return 0x1122334455667788ull;
}

static void dev_write(void *arg, uint64_t off, unsigned size, uint64_t val)
{
	struct dev *d = arg;

	dev_read(arg, off, size);
	d->val = val;
}

static const struct bus_ops dev_ops = {dev_read, dev_write};

static struct bus_region region(struct dev *d, uint64_t base, uint64_t size)
{
	return (struct bus_region){base, size, &dev_ops, d, NULL, "dev"};
}

static void an_access_reaches_the_region_that_holds_it(void **state)
{
	(void)state;
	struct bus *b;
	struct dev d[3] = {0};

	assert_int_equal(bus_new(&b, NULL), 0);
	for (unsigned i = 0; i < 3; i++) { /* not in order of address */
		struct bus_region r = region(&d[i], (uint64_t[]){0x3000, 0x1000, 0x2000}[i], 0x100);
		assert_int_equal(bus_add(b, &r, NULL), 0);
	}
	bus_write(b, 0x2010, 4, 7);
	assert_int_equal(d[2].calls, 1);
	assert_int_equal(d[2].off, 0x10);
	assert_int_equal(d[2].size, 4);
	assert_int_equal(d[2].val, 7);
	assert_true(bus_read(b, 0x1000, 8) == 0x1122334455667788ull);
	assert_int_equal(d[1].calls, 1);
	assert_int_equal(d[0].calls, 0);
	bus_free(b);
}

static void an_access_that_is_not_wholly_inside_reads_ones(void **state)
{
	(void)state;
	struct bus *b;
	struct dev d = {0};
	struct bus_region r = region(&d, 0x1000, 0x10);

	bus_new(&b, NULL);
	bus_add(b, &r, NULL);
	assert_true(bus_read(b, 0x100d, 4) == ~0ull);
	assert_true(bus_read(b, 0xfff, 2) == ~0ull);
	assert_true(bus_read(b, 0x1010, 1) == ~0ull);
	assert_true(bus_read(b, ~0ull, 8) == ~0ull);
	assert_true(bus_read(b, 0x1000, 3) == ~0ull);
	bus_write(b, 0x100f, 2, 1);
	assert_int_equal(d.calls, 0);
	bus_free(b);
}

static void overlaps_are_refused(void **state)
{
	(void)state;
	struct bus *b;
	struct dev d = {0};
	struct bus_region r = region(&d, 0x1000, 0x10);

	bus_new(&b, NULL);
	assert_int_equal(bus_add(b, &r, NULL), 0);
	r.base = 0x100f;
	assert_int_equal(bus_add(b, &r, NULL), -EEXIST);
	r.base = 0xff1;
	assert_int_equal(bus_add(b, &r, NULL), -EEXIST);
	r.base = 0xff0;
	assert_int_equal(bus_add(b, &r, NULL), 0);
	r.base = 0x1010;
	assert_int_equal(bus_add(b, &r, NULL), 0);
	r = region(&d, 0, 0);
	assert_int_equal(bus_add(b, &r, NULL), -EINVAL);
	r = region(&d, ~0ull - 3, 8);
	assert_int_equal(bus_add(b, &r, NULL), -EINVAL);
	r = region(&d, ~0ull - 7, 8); /* the very end of the space */
	assert_int_equal(bus_add(b, &r, NULL), 0);
	assert_true(bus_read(b, ~0ull - 7, 8) == 0x1122334455667788ull);
	assert_int_equal(bus_del(b, 0x1001), -ENOENT);
	assert_int_equal(bus_del(b, 0x1000), 0);
	assert_true(bus_read(b, 0x1000, 1) == ~0ull);
	bus_free(b);
}

/* A handler that moves itself, as a BAR does when the guest writes it. */
static void moving_write(void *arg, uint64_t off, unsigned size, uint64_t val)
{
	struct dev *d = arg;
	static const struct bus_ops ops = {dev_read, moving_write};
	struct bus_region r = {val, 0x10, &ops, d, NULL, "mv"};

	(void)off;
	(void)size;
	bus_del(d->bus, d->off);
	d->off = val;
	bus_add(d->bus, &r, NULL);
}

static void a_handler_may_move_its_own_region(void **state)
{
	(void)state;
	struct dev d = {.off = 0x1000};
	static const struct bus_ops ops = {dev_read, moving_write};
	struct bus_region r = {0x1000, 0x10, &ops, &d, NULL, "mv"};

	bus_new(&d.bus, NULL);
	bus_add(d.bus, &r, NULL);
	bus_write(d.bus, 0x1000, 4, 0x8000);
	assert_true(bus_read(d.bus, 0x1000, 1) == ~0ull);
	assert_true(bus_read(d.bus, 0x8004, 1) == 0x1122334455667788ull);
	bus_free(d.bus);
}

/* Two threads hammer a region while it comes and goes; under its loop's lock it never is entered
 * twice. */
static struct {
	struct bus *bus;
	struct loop *loop;
	bool registered;
	unsigned bad, calls;
	int inside;
} race;

static uint64_t race_read(void *arg, uint64_t off, unsigned size)
{
	(void)arg, (void)off, (void)size;
	if (race.inside++ || !race.registered)
		race.bad++;
	race.calls++;
	race.inside--;
	return 0;
}

static void race_write(void *arg, uint64_t off, unsigned size, uint64_t val)
{
	(void)val;
	race_read(arg, off, size);
}

static void *race_thread(void *arg)
{
	(void)arg;
	for (int i = 0; i < 20000; i++)
		bus_read(race.bus, 0x1000, 1);
	return NULL;
}

static void after_del_no_call_comes(void **state)
{
	(void)state;
	static const struct bus_ops ops = {race_read, race_write};
	pthread_t t[2];

	bus_new(&race.bus, NULL);
	assert_int_equal(loop_new(&race.loop, "race", NULL), 0);
	struct bus_region r = {0x1000, 16, &ops, NULL, race.loop, "race"};
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, race_thread, NULL);
	for (int i = 0; i < 2000; i++) {
		loop_lock(race.loop);
		race.registered = true;
		bus_add(race.bus, &r, NULL);
		loop_unlock(race.loop);
		loop_lock(race.loop);
		bus_del(race.bus, 0x1000);
		race.registered = false;
		loop_unlock(race.loop);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(race.bad, 0);
	bus_free(race.bus);
	loop_free(race.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_access_reaches_the_region_that_holds_it),
		cmocka_unit_test(an_access_that_is_not_wholly_inside_reads_ones),
		cmocka_unit_test(overlaps_are_refused),
		cmocka_unit_test(a_handler_may_move_its_own_region),
		cmocka_unit_test(after_del_no_call_comes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
