/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a freestanding guest stands on: ports, registers, a serial line that
 * tests report on, and the local APIC as a place to see interrupts arrive.
 *
 * Interrupts stay off: a software KVM that emulates each instruction has no
 * protected-mode IRET. An interrupt that arrived is a bit in the APIC's IRR; it
 * never goes away, so each test takes vectors nobody used before.
 */
#ifndef PAYLOAD_GUEST_H
#define PAYLOAD_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/layout.h"

/* ---- tests: one line each on the serial port, "ok NAME" or "not ok NAME: why" */

struct test {
	const char *name;
	void (*run)(void);
};

/* The Python side finds the names by this macro, at the start of a line. */
#define TEST(name) static void test_##name(void)
#define T(name)                                                                                    \
	{                                                                                          \
#name, test_##name                                                                 \
	}

/* A failed check ends the function it is in; later ones in its callers do not hide it. */
#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fail(__FILE__, __LINE__, #cond);                                           \
			return;                                                                    \
		}                                                                                  \
	} while (0)
#define CHECK_EQ(a, b)                                                                             \
	do {                                                                                       \
		uint64_t a_ = (a), b_ = (b);                                                       \
		if (a_ != b_) {                                                                    \
			fail_values(__LINE__, #a, a_, b_);                                         \
			return;                                                                    \
		}                                                                                  \
	} while (0)

void fail(const char *file, int line, const char *what);
void fail_values(int line, const char *what, uint64_t got, uint64_t wanted);
void run_tests(const struct test *tests, unsigned n);

/* ---- each guest's own */
void guest_main(void);

extern const char *guest_cmdline;
bool cmdline_has(const char *word); /* as a blank-separated word */

/* ---- output */
void put(const char *s);
void put_hex(uint64_t v);
void put_dec(uint64_t v);

/* ---- ports and registers */
static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline void outw(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline void outl(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline uint8_t inb(uint16_t port)
{
	uint8_t v;
	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
static inline uint16_t inw(uint16_t port)
{
	uint16_t v;
	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
static inline uint32_t inl(uint16_t port)
{
	uint32_t v;
	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

/* Plain moves of exactly that width: what a KVM that emulates them understands. */
#define MMIO(n, suffix)                                                                            \
	static inline uint##n##_t r##n(uint64_t at)                                                \
	{                                                                                          \
		uint##n##_t v;                                                                     \
		__asm__ volatile("mov" suffix " (%1), %0" : "=r"(v) : "r"(at) : "memory");         \
		return v;                                                                          \
	}                                                                                          \
	static inline void w##n(uint64_t at, uint##n##_t v)                                        \
	{                                                                                          \
		__asm__ volatile("mov" suffix " %0, (%1)" : : "r"(v), "r"(at) : "memory");         \
	}
MMIO(8, "b")
MMIO(16, "w")
MMIO(32, "l")
MMIO(64, "q")

uint64_t mmio_read(uint64_t at, unsigned size);
void mmio_write(uint64_t at, unsigned size, uint64_t v);
uint32_t pio_read(uint16_t port, unsigned size);
void pio_write(uint16_t port, unsigned size, uint32_t v);

static inline void barrier(void)
{
	__asm__ volatile("" : : : "memory");
}
static inline void fence(void)
{
	/* A locked instruction orders stores before loads on every x86. */
	__asm__ volatile("lock; addl $0, (%%rsp)" : : : "memory", "cc");
}

static inline uint64_t addr_of(const volatile void *p)
{
	return (uint64_t)(uintptr_t)p;
}

void *memset(void *d, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);
uint32_t random32(void); /* the same sequence in every run */

/* ---- waiting: bounded by the PM timer, so that what never comes is a failure and no hang */
#define WAIT_SECONDS 30
struct deadline {
	uint32_t last;
	uint64_t ticks;
};
struct deadline deadline_start(void);
bool deadline_over(struct deadline *d); /* an exit to the VMM each time */

#define WAIT(cond)                                                                                 \
	({                                                                                         \
		struct deadline d_ = deadline_start();                                             \
		bool got_ = false;                                                                 \
		while (!(got_ = (cond)) && !deadline_over(&d_))                                    \
			barrier();                                                                 \
		got_;                                                                              \
	})

/* ---- interrupts */
void apic_enable(void);
uint8_t apic_vector(void); /* one that was never used */
bool apic_seen(uint8_t vector);
void ioapic_route(unsigned gsi, uint8_t vector, bool masked);
#define MSI_ADDR LAYOUT_LAPIC

#endif
