/* SPDX-License-Identifier: Apache-2.0 */
/* A device that the user names and the machine lacks: one line says so, and what there is. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/assemble.h"

static struct machine m;
static struct host h;
static struct config c;
static struct virtio v[MACHINE_VIRTIO_MAX];
static char name[MACHINE_VIRTIO_MAX][8];
static struct err e;

static int setup(void **state)
{
	(void)state;
	memset(&m, 0, sizeof(m));
	memset(&c, 0, sizeof(c));
	h.cfg = &c;
	m.host = &h;
	return 0;
}

static void has(const char *device)
{
	unsigned n = m.nslots++;

	snprintf(name[n], sizeof(name[n]), "%s", device);
	v[n].name = name[n];
	m.slot[n].v = &v[n];
}

static void what_there_is_stands_beside_what_there_is_not(void **state)
{
	(void)state;
	has("console");
	has("fs0");
	has("rng");
	strcpy(c.features[0].device, "rng");
	strcpy(c.sizes[0].device, "fs0");
	c.nfeatures = c.nsizes = 1;
	assert_int_equal(slots_check_named(&m, &e), 0);
	strcpy(c.sizes[0].device, "net0");
	assert_int_equal(slots_check_named(&m, &e), -ENODEV);
	assert_string_equal(e.text, "--virtio-queue-sizes net0: this machine has none; it has "
				    "console, fs0, rng");
	strcpy(c.features[0].device, "disk0");
	assert_int_equal(slots_check_named(&m, &e), -ENODEV);
	assert_string_equal(e.text, "--virtio-features disk0: this machine has none; it has "
				    "console, fs0, rng");
}

static void all_that_fit_are_named(void **state)
{
	char device[8];

	(void)state;
	for (unsigned i = 0; i < MACHINE_VIRTIO_MAX - 1; i++) {
		snprintf(device, sizeof(device), "disk%u", i);
		has(device);
	}
	has("console");
	strcpy(c.features[0].device, "vsock");
	c.nfeatures = 1;
	assert_int_equal(slots_check_named(&m, &e), -ENODEV);
	assert_string_equal(e.text + strlen(e.text) - 9, ", console");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_there_is_stands_beside_what_there_is_not, setup),
		cmocka_unit_test_setup(all_that_fit_are_named, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
