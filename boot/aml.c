/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/aml.h"

#include <assert.h>
#include <string.h>

#define OP_NAME 0x08
#define OP_BYTE 0x0a
#define OP_WORD 0x0b
#define OP_DWORD 0x0c
#define OP_STRING 0x0d
#define OP_QWORD 0x0e
#define OP_SCOPE 0x10
#define OP_BUFFER 0x11
#define OP_PACKAGE 0x12
#define OP_METHOD 0x14
#define OP_DUAL_NAME 0x2e
#define OP_MULTI_NAME 0x2f
#define OP_EXT 0x5b
#define OP_EXT_REGION 0x80
#define OP_EXT_FIELD 0x81
#define OP_EXT_DEVICE 0x82
#define OP_IF 0xa0

#define SEG 4u /* bytes of a NameSeg */

void aml_init(struct aml *a, void *buf, uint32_t cap)
{
	*a = (struct aml){.buf = buf, .cap = cap};
}

/* ------------------------------------------------------------- bytes */

/* Makes a gap of @n bytes at @at; false, and the latch, when the buffer is full. */
static bool aml_gap(struct aml *a, uint32_t at, uint32_t n)
{
	if (a->over || n > a->cap - a->len || at > a->len) {
		a->over = true;
		return false;
	}
	memmove(a->buf + at + n, a->buf + at, a->len - at);
	a->len += n;
	return true;
}

static void aml_insert(struct aml *a, uint32_t at, const void *data, uint32_t n)
{
	if (aml_gap(a, at, n))
		memcpy(a->buf + at, data, n);
}

void aml_raw(struct aml *a, const void *data, uint32_t n)
{
	aml_insert(a, a->len, data, n);
}

void aml_zero(struct aml *a, uint32_t n)
{
	uint32_t at = a->len;

	if (aml_gap(a, at, n))
		memset(a->buf + at, 0, n);
}

static void aml_le(struct aml *a, uint64_t v, unsigned bytes)
{
	uint8_t b[8];

	for (unsigned i = 0; i < bytes; i++)
		b[i] = (uint8_t)(v >> (8 * i));
	aml_raw(a, b, bytes);
}

void aml_u8(struct aml *a, uint8_t v)
{
	aml_le(a, v, 1);
}

void aml_u16(struct aml *a, uint16_t v)
{
	aml_le(a, v, 2);
}

void aml_u32(struct aml *a, uint32_t v)
{
	aml_le(a, v, 4);
}

void aml_u64(struct aml *a, uint64_t v)
{
	aml_le(a, v, 8);
}

/* ---------------------------------------------------- names and data */

/* 20.2.2. A segment shorter than four characters is filled up with underscores. */
void aml_path(struct aml *a, const char *path)
{
	unsigned segs = 1;

	if (*path == '\\')
		aml_u8(a, (uint8_t)*path++);
	for (const char *p = path; *p; p++)
		segs += *p == '.';
	if (segs == 2)
		aml_u8(a, OP_DUAL_NAME);
	if (segs > 2) {
		aml_u8(a, OP_MULTI_NAME);
		aml_u8(a, (uint8_t)segs);
	}
	while (segs--) {
		char seg[SEG] = "____";
		size_t n = strcspn(path, ".");
		assert(n >= 1 && n <= SEG);
		memcpy(seg, path, n);
		aml_raw(a, seg, SEG);
		path += n + (path[n] == '.');
	}
}

/* 20.2.3 */
void aml_int(struct aml *a, uint64_t v)
{
	if (v <= AML_ONE) {
		aml_u8(a, (uint8_t)v);
	} else if (v <= UINT8_MAX) {
		aml_u8(a, OP_BYTE);
		aml_u8(a, (uint8_t)v);
	} else if (v <= UINT16_MAX) {
		aml_u8(a, OP_WORD);
		aml_u16(a, (uint16_t)v);
	} else if (v <= UINT32_MAX) {
		aml_u8(a, OP_DWORD);
		aml_u32(a, (uint32_t)v);
	} else {
		aml_u8(a, OP_QWORD);
		aml_u64(a, v);
	}
}

void aml_string(struct aml *a, const char *s)
{
	aml_u8(a, OP_STRING);
	aml_raw(a, s, (uint32_t)strlen(s) + 1);
}

static unsigned aml_hex(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

/* 19.6.36: three letters of five bits and four hexadecimal digits, stored big-endian. */
void aml_eisaid(struct aml *a, const char *id)
{
	uint32_t v = 0;

	assert(strlen(id) == 7);
	for (unsigned i = 0; i < 3; i++)
		v = v << 5 | ((uint32_t)(id[i] - '@') & 0x1f);
	for (unsigned i = 3; i < 7; i++)
		v = v << 4 | aml_hex(id[i]);
	aml_u8(a, OP_DWORD);
	aml_u32(a, __builtin_bswap32(v));
}

/* 19.6.142: the first three groups are little-endian. */
void aml_uuid(struct aml *a, const char *uuid)
{
	static const uint8_t at[16] = {6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34};
	uint8_t b[16];

	assert(strlen(uuid) == 36);
	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(aml_hex(uuid[at[i]]) << 4 | aml_hex(uuid[at[i] + 1]));
	aml_u8(a, OP_BUFFER);
	uint32_t mark = a->len;
	aml_int(a, sizeof(b));
	aml_raw(a, b, sizeof(b));
	aml_close(a, mark);
}

void aml_name(struct aml *a, const char *name)
{
	aml_u8(a, OP_NAME);
	aml_path(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
	aml_name(a, name);
	aml_int(a, v);
}

void aml_name_string(struct aml *a, const char *name, const char *s)
{
	aml_name(a, name);
	aml_string(a, s);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	aml_name(a, name);
	aml_eisaid(a, id);
}

/* ---------------------------------------------------------- packages */

/*
 * 20.2.4: the length counts its own bytes. Up to 63 it is one byte; beyond, the
 * first byte holds the number of bytes that follow and the low four bits.
 */
static void aml_insert_length(struct aml *a, uint32_t at, uint32_t len, bool self)
{
	uint8_t b[4];
	uint32_t n = 1;

	while (len + (self ? n : 0) >= (n == 1 ? 1u << 6 : 1u << (8 * n - 4)) && n < sizeof(b))
		n++;
	if (self)
		len += n;
	b[0] = (uint8_t)(n == 1 ? len : (n - 1) << 6 | (len & 0xf));
	for (unsigned i = 1; i < n; i++)
		b[i] = (uint8_t)(len >> (8 * i - 4));
	aml_insert(a, at, b, n);
}

void aml_close(struct aml *a, uint32_t mark)
{
	if (!a->over)
		aml_insert_length(a, mark, a->len - mark, true);
}

uint32_t aml_open_scope(struct aml *a, const char *path)
{
	aml_u8(a, OP_SCOPE);
	uint32_t mark = a->len;
	aml_path(a, path);
	return mark;
}

uint32_t aml_open_device(struct aml *a, const char *name)
{
	aml_u8(a, OP_EXT);
	aml_u8(a, OP_EXT_DEVICE);
	uint32_t mark = a->len;
	aml_path(a, name);
	return mark;
}

uint32_t aml_open_method(struct aml *a, const char *name, unsigned args)
{
	aml_u8(a, OP_METHOD);
	uint32_t mark = a->len;
	aml_path(a, name);
	aml_u8(a, (uint8_t)(args |
			    1 << 3)); /* serialized: methods here create names or read registers */
	return mark;
}

uint32_t aml_open_package(struct aml *a, uint8_t elements)
{
	aml_u8(a, OP_PACKAGE);
	uint32_t mark = a->len;
	aml_u8(a, elements);
	return mark;
}

uint32_t aml_open_if(struct aml *a)
{
	aml_u8(a, OP_IF);
	return a->len;
}

void aml_byte_region(struct aml *a, const char *region, const char *field, uint64_t base)
{
	aml_u8(a, OP_EXT);
	aml_u8(a, OP_EXT_REGION);
	aml_path(a, region);
	aml_u8(a, 0); /* SystemMemory */
	aml_int(a, base);
	aml_int(a, 1);

	aml_u8(a, OP_EXT);
	aml_u8(a, OP_EXT_FIELD);
	uint32_t mark = a->len;
	aml_path(a, region);
	aml_u8(a, 1); /* ByteAcc, NoLock, Preserve */
	aml_path(a, field);
	aml_insert_length(a, a->len, 8, false); /* a field's length is its bits */
	aml_close(a, mark);
}

/* --------------------------------------------------------- resources */

uint32_t aml_open_crs(struct aml *a)
{
	aml_name(a, "_CRS");
	aml_u8(a, OP_BUFFER);
	return a->len;
}

void aml_close_crs(struct aml *a, uint32_t mark)
{
	uint8_t size[3] = {OP_WORD};

	aml_u16(a, 0x0079); /* 6.4.2.9: end tag, checksum 0: taken as right */
	if (a->over)
		return;
	uint32_t n = a->len - mark;
	assert(n <= UINT16_MAX);
	if (n <= UINT8_MAX) {
		size[0] = OP_BYTE;
		size[1] = (uint8_t)n;
		aml_insert(a, mark, size, 2);
	} else {
		size[1] = (uint8_t)n;
		size[2] = (uint8_t)(n >> 8);
		aml_insert(a, mark, size, 3);
	}
	aml_close(a, mark);
}

/* 6.4.2.5 */
void aml_res_io(struct aml *a, uint16_t base, uint8_t size)
{
	aml_u8(a, 0x47);
	aml_u8(a, 1); /* all 16 address bits are decoded */
	aml_u16(a, base);
	aml_u16(a, base);
	aml_u8(a, 1); /* alignment */
	aml_u8(a, size);
}

/* 6.4.3.4 */
void aml_res_mem32(struct aml *a, uint32_t base, uint32_t size)
{
	aml_u8(a, 0x86);
	aml_u16(a, 9);
	aml_u8(a, 1); /* writable */
	aml_u32(a, base);
	aml_u32(a, size);
}

/* 6.4.3.6 */
void aml_res_irq(struct aml *a, uint32_t gsi)
{
	aml_u8(a, 0x89);
	aml_u16(a, 6);
	aml_u8(a, 0x03); /* consumer, edge, active high, exclusive */
	aml_u8(a, 1);
	aml_u32(a, gsi);
}

#define RES_MEMORY 0
#define RES_IO 1
#define RES_BUS 2
#define RES_MIN_MAX_FIXED 0x0c /* a producer, decoded positively */
#define RES_IO_ENTIRE 0x03
#define RES_MEM_WRITABLE 0x01

/* 6.4.3.5.1 to 6.4.3.5.3: @tag gives the width, @bytes of granularity, minimum, maximum, offset,
 * length. */
static void aml_window(struct aml *a, unsigned bytes, unsigned type, uint64_t first, uint64_t last)
{
	static const uint8_t flags[] = {
		[RES_MEMORY] = RES_MEM_WRITABLE, [RES_IO] = RES_IO_ENTIRE, [RES_BUS] = 0};

	aml_u8(a, bytes == 2 ? 0x88 : bytes == 4 ? 0x87 : 0x8a);
	aml_u16(a, (uint16_t)(3 + 5 * bytes));
	aml_u8(a, (uint8_t)type);
	aml_u8(a, RES_MIN_MAX_FIXED);
	aml_u8(a, flags[type]);
	aml_le(a, 0, bytes);
	aml_le(a, first, bytes);
	aml_le(a, last, bytes);
	aml_le(a, 0, bytes);
	aml_le(a, last - first + 1, bytes);
}

void aml_res_bus(struct aml *a, uint16_t first, uint16_t last)
{
	aml_window(a, 2, RES_BUS, first, last);
}

void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last)
{
	aml_window(a, 2, RES_IO, first, last);
}

void aml_res_mem32_window(struct aml *a, uint32_t base, uint32_t size)
{
	aml_window(a, 4, RES_MEMORY, base, (uint64_t)base + size - 1);
}

void aml_res_mem64_window(struct aml *a, uint64_t base, uint64_t size)
{
	aml_window(a, 8, RES_MEMORY, base, base + (size - 1));
}
