/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/native/payload/smp.h"

#define SMP_PAGE 0x8000ull /* below 1 MiB, and nobody's in vmm/layout.h */
#define ICR_LOW 0x300
#define ICR_INIT_ALL_OTHERS 0xc4500
#define ICR_SIPI_ALL_OTHERS (0xc4600 | (uint32_t)(SMP_PAGE >> 12))

extern char smp_begin[], smp_end[], smp_cr3[];
extern volatile uint32_t smp_arrived;
void smp_entry(unsigned cpu);

volatile uint32_t smp_arrived;
static uint32_t started;
static void (*volatile work)(unsigned);
static volatile uint32_t order; /* counts smp_run */
static uint32_t returned;       /* atomic */

static uint32_t cr3(void)
{
	uint64_t v;

	__asm__ volatile("mov %%cr3, %0" : "=r"(v));
	return (uint32_t)v;
}

void smp_entry(unsigned cpu)
{
	for (uint32_t done = 0;; done++) {
		while (order == done)
			__asm__ volatile("pause");
		work(cpu);
		__atomic_fetch_add(&returned, 1, __ATOMIC_SEQ_CST);
	}
}

bool smp_start(unsigned n)
{
	uint64_t to = SMP_PAGE + (uint64_t)(smp_cr3 - smp_begin);

	if (n > SMP_MAX)
		return false;
	memcpy((void *)SMP_PAGE, smp_begin, (size_t)(smp_end - smp_begin));
	w32(to, cr3());
	apic_enable();
	w32(LAYOUT_LAPIC + ICR_LOW, ICR_INIT_ALL_OTHERS);
	w32(LAYOUT_LAPIC + ICR_LOW, ICR_SIPI_ALL_OTHERS);
	started = n;
	return WAIT(smp_arrived == n);
}

void smp_run(void (*fn)(unsigned cpu))
{
	__atomic_store_n(&returned, 0, __ATOMIC_SEQ_CST);
	work = fn;
	barrier();
	order++;
}

bool smp_wait(void)
{
	return WAIT(__atomic_load_n(&returned, __ATOMIC_SEQ_CST) == started);
}
