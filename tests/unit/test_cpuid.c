/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/cpuid_x86_64.h"

static struct cpuid_table table;

static void put(uint32_t leaf, uint32_t index, uint32_t eax, uint32_t ebx)
{
	table.entry[table.nent++] =
		(struct kvm_cpuid_entry2){.function = leaf, .index = index, .eax = eax, .ebx = ebx};
}

static const struct kvm_cpuid_entry2 *get(uint32_t leaf, uint32_t index)
{
	for (uint32_t i = 0; i < table.nent; i++)
		if (table.entry[i].function == leaf && table.entry[i].index == index)
			return &table.entry[i];
	return NULL;
}

static int setup(void **state)
{
	(void)state;
	table = (struct cpuid_table){0};
	put(0, 0, 0xd, 0);
	put(1, 0, 0, 0xff00aa11);
	put(0xb, 0, 0, 0);
	put(0x40000000, 0, 0x40000001, 0);
	put(0x80000008, 0, 0x3028, 0);
	put(0x8000001e, 0, 0, 0);
	return 0;
}

static void topology_is_one_socket_of_cores(void **state)
{
	(void)state;
	cpuid_patch(&table, &(struct cpuid_facts){.index = 5, .ncpus = 6});
	assert_int_equal(get(1, 0)->ebx >> 24, 5);
	assert_int_equal((get(1, 0)->ebx >> 16) & 0xff, 8);
	assert_int_equal(get(1, 0)->ebx & 0xffff, 0xaa11);
	assert_true(get(1, 0)->edx & (1u << 28));
	assert_true(get(1, 0)->ecx & (1u << 31));
	assert_int_equal(get(0xb, 0)->eax, 0);
	assert_int_equal(get(0xb, 0)->ebx, 1);
	assert_int_equal(get(0xb, 0)->ecx, 0x100);
	assert_int_equal(get(0xb, 1)->eax, 3); /* 6 cores need 3 bits */
	assert_int_equal(get(0xb, 1)->ebx, 6);
	assert_int_equal(get(0xb, 1)->ecx, 0x201);
	assert_int_equal(get(0xb, 1)->edx, 5);
	assert_int_equal(get(0xb, 2)->ebx, 0);
	assert_int_equal(get(0x80000008, 0)->ecx & 0xff, 5);
	assert_int_equal((get(0x80000008, 0)->ecx >> 12) & 0xf, 3);
	assert_int_equal(get(0x8000001e, 0)->ebx & 0xff, 5);
}

static void one_cpu_is_not_hyperthreaded(void **state)
{
	(void)state;
	cpuid_patch(&table, &(struct cpuid_facts){.index = 0, .ncpus = 1});
	assert_false(get(1, 0)->edx & (1u << 28));
	assert_int_equal(get(0xb, 1)->eax, 0);
}

/* As Linux computes it: crystal in kHz times numerator in 32 bits, over the denominator. */
static uint32_t linux_tsc_khz(void)
{
	const struct kvm_cpuid_entry2 *c = get(0x15, 0);
	uint32_t crystal_khz = c->ecx / 1000;

	assert_true((uint64_t)crystal_khz * c->ebx <= UINT32_MAX);
	return crystal_khz * c->ebx / c->eax;
}

static void the_tsc_frequency_is_exact_in_every_leaf(void **state)
{
	static const uint32_t khz[] = {1000000, 2299992, 3999999, 4294968, 5700000};

	for (size_t i = 0; i < sizeof(khz) / sizeof(khz[0]); i++) {
		setup(state);
		cpuid_patch(&table, &(struct cpuid_facts){
					    .ncpus = 1, .tsc_khz = khz[i], .tsc_deadline = true});
		assert_in_range(linux_tsc_khz(), khz[i] - 1, khz[i]);
		assert_int_equal(get(0x16, 0)->eax, khz[i] / 1000);
		assert_int_equal(get(0, 0)->eax, 0x16);
		assert_int_equal(get(0x40000010, 0)->eax, khz[i]);
		assert_int_equal(get(0x40000000, 0)->eax, 0x40000010);
		assert_true(get(1, 0)->ecx & (1u << 24));
	}
}

static void an_unknown_frequency_is_not_made_up(void **state)
{
	(void)state;
	cpuid_patch(&table, &(struct cpuid_facts){.ncpus = 1, .tsc_deadline = true});
	assert_null(get(0x15, 0));
	assert_int_equal(get(0, 0)->eax, 0xd);
}

static void a_full_table_is_not_overrun(void **state)
{
	(void)state;
	while (table.nent < CPUID_ENTRIES_MAX)
		put(0x7fffff00, table.nent, 0, 0);
	cpuid_patch(&table,
		    &(struct cpuid_facts){.ncpus = 4, .tsc_khz = 2000000, .tsc_deadline = true});
	assert_int_equal(table.nent, CPUID_ENTRIES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(topology_is_one_socket_of_cores, setup),
		cmocka_unit_test_setup(one_cpu_is_not_hyperthreaded, setup),
		cmocka_unit_test_setup(the_tsc_frequency_is_exact_in_every_leaf, setup),
		cmocka_unit_test_setup(an_unknown_frequency_is_not_made_up, setup),
		cmocka_unit_test_setup(a_full_table_is_not_overrun, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
