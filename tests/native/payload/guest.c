/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/native/payload/guest.h"

#define ZERO_PAGE_CMDLINE 0x228 /* Documentation/arch/x86/boot.rst: cmd_line_ptr */
#define POWER_OFF 0x34          /* SLP_EN, and S5's type in bits 2 to 4 */

const char *guest_cmdline;
static bool failed;
static const char *current;

/* --------------------------------------------------------------- output */

static size_t length(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

void put(const char *s)
{
	size_t n = length(s);

	__asm__ volatile("rep outsb" : "+S"(s), "+c"(n) : "d"(LAYOUT_PORT_SERIAL) : "memory");
}

void put_hex(uint64_t v)
{
	char buf[19] = "0x0000000000000000";

	for (int i = 17; i > 1; i--, v >>= 4)
		buf[i] = "0123456789abcdef"[v & 15];
	put(buf);
}

void put_dec(uint64_t v)
{
	char buf[21] = "";
	int i = 20;

	do
		buf[--i] = (char)('0' + v % 10);
	while (v /= 10);
	put(buf + i);
}

/* ---------------------------------------------------------------- tests */

static void not_ok(void)
{
	if (!failed) {
		put("not ok ");
		put(current);
		put(":");
	}
	failed = true;
	put(" ");
}

void fail(const char *file, int line, const char *what)
{
	not_ok();
	put(file);
	put(" line ");
	put_dec((uint64_t)line);
	put(": ");
	put(what);
	put(";");
}

void fail_values(int line, const char *what, uint64_t got, uint64_t wanted)
{
	not_ok();
	put("line ");
	put_dec((uint64_t)line);
	put(": ");
	put(what);
	put(" is ");
	put_hex(got);
	put(", not ");
	put_hex(wanted);
	put(";");
}

void run_tests(const struct test *tests, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		failed = false;
		current = tests[i].name;
		tests[i].run();
		if (!failed) {
			put("ok ");
			put(current);
		}
		put("\n");
	}
}

bool cmdline_has(const char *word)
{
	size_t n = length(word);

	for (const char *p = guest_cmdline; *p;) {
		size_t len = 0;

		while (p[len] && p[len] != ' ')
			len++;
		if (len == n && !memcmp(p, word, n))
			return true;
		p += len;
		while (*p == ' ')
			p++;
	}
	return false;
}

void guest_start(uint64_t zero_page);
void guest_start(uint64_t zero_page)
{
	guest_cmdline = (const char *)(uintptr_t)r32(zero_page + ZERO_PAGE_CMDLINE);
	guest_main();
	put("end\n");
	outb(LAYOUT_PORT_ACPI, POWER_OFF);
}

/* --------------------------------------------------------------- memory */

void *memset(void *d, int c, size_t n)
{
	void *ret = d;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return ret;
}

void *memcpy(void *d, const void *s, size_t n)
{
	void *ret = d;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return ret;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;

	for (size_t i = 0; i < n; i++)
		if (x[i] != y[i])
			return x[i] - y[i];
	return 0;
}

uint64_t mmio_read(uint64_t at, unsigned size)
{
	switch (size) {
	case 1:
		return r8(at);
	case 2:
		return r16(at);
	case 4:
		return r32(at);
	default:
		return r64(at);
	}
}

void mmio_write(uint64_t at, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		w8(at, (uint8_t)v);
		break;
	case 2:
		w16(at, (uint16_t)v);
		break;
	case 4:
		w32(at, (uint32_t)v);
		break;
	default:
		w64(at, v);
	}
}

uint32_t pio_read(uint16_t port, unsigned size)
{
	if (size == 1)
		return inb(port);
	return size == 2 ? inw(port) : inl(port);
}

void pio_write(uint16_t port, unsigned size, uint32_t v)
{
	if (size == 1)
		outb(port, (uint8_t)v);
	else if (size == 2)
		outw(port, (uint16_t)v);
	else
		outl(port, v);
}

uint32_t random32(void)
{
	static uint32_t x = 0x9e3779b9;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x;
}

/* -------------------------------------------------------------- waiting */

#define PM_TIMER_HZ 3579545ull

struct deadline deadline_start(void)
{
	return (struct deadline){.last = inl(LAYOUT_PORT_PMTIMER)};
}

bool deadline_over(struct deadline *d)
{
	uint32_t now = inl(LAYOUT_PORT_PMTIMER);

	d->ticks += now - d->last;
	d->last = now;
	return d->ticks > WAIT_SECONDS * PM_TIMER_HZ;
}

/* ----------------------------------------------------------- interrupts */

#define APIC_SVR 0xf0
#define APIC_SVR_ON 0x1ff
#define APIC_IRR 0x200
#define IOAPIC_SELECT 0x00
#define IOAPIC_DATA 0x10
#define IOAPIC_REDIRECT 0x10
#define IOAPIC_MASKED 0x10000

void apic_enable(void)
{
	w32(LAYOUT_LAPIC + APIC_SVR, APIC_SVR_ON);
}

uint8_t apic_vector(void)
{
	static uint8_t next = 0x30;

	return next++;
}

bool apic_seen(uint8_t vector)
{
	return r32(LAYOUT_LAPIC + APIC_IRR + vector / 32 * 16) >> (vector % 32) & 1;
}

void ioapic_route(unsigned gsi, uint8_t vector, bool masked)
{
	/* Edge, active high, fixed delivery to APIC 0. */
	w32(LAYOUT_IOAPIC + IOAPIC_SELECT, IOAPIC_REDIRECT + 2 * gsi + 1);
	w32(LAYOUT_IOAPIC + IOAPIC_DATA, 0);
	w32(LAYOUT_IOAPIC + IOAPIC_SELECT, IOAPIC_REDIRECT + 2 * gsi);
	w32(LAYOUT_IOAPIC + IOAPIC_DATA, vector | (masked ? IOAPIC_MASKED : 0));
}
