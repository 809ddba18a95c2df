/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes ACPI machine language (ACPI 6.4, chapter 20) and resource descriptors
 * (6.4) into a buffer of fixed size. What does not fit is dropped and latched
 * in `over`, which the caller looks at once, at the end.
 *
 * A construct with a length is opened, filled and closed; opening returns a
 * mark to close it with. Constructs nest.
 */
#ifndef BOOT_AML_H
#define BOOT_AML_H

#include <stdbool.h>
#include <stdint.h>

struct aml {
	uint8_t *buf;
	uint32_t cap, len; /* len <= cap */
	bool over;
};

void aml_init(struct aml *a, void *buf, uint32_t cap);

/* Little-endian bytes. */
void aml_u8(struct aml *a, uint8_t v);
void aml_u16(struct aml *a, uint16_t v);
void aml_u32(struct aml *a, uint32_t v);
void aml_u64(struct aml *a, uint64_t v);
void aml_raw(struct aml *a, const void *data, uint32_t n);
void aml_zero(struct aml *a, uint32_t n);

/* A NameString: segments of four characters joined by dots, "\\" in front for the root. */
void aml_path(struct aml *a, const char *path);
/* The shortest encoding of an integer, a string, an EISA identifier ("PNP0A08"), a UUID's buffer.
 */
void aml_int(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *s);
void aml_eisaid(struct aml *a, const char *id);
void aml_uuid(struct aml *a, const char *uuid);

/* Name(name, value) */
void aml_name(struct aml *a, const char *name); /* the value follows */
void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_string(struct aml *a, const char *name, const char *s);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

/* The terms used here; operands that are not parameters follow or were opened. */
#define AML_ZERO 0x00
#define AML_ONE 0x01
#define AML_ARG(n) (0x68 + (n))
#define AML_LOCAL(n) (0x60 + (n))
#define AML_STORE 0x70
#define AML_AND 0x7b
#define AML_OR 0x7d
#define AML_NOTIFY 0x86
#define AML_CREATE_DWORD_FIELD 0x8a
#define AML_LNOT 0x92
#define AML_LEQUAL 0x93
#define AML_RETURN 0xa4

uint32_t aml_open_scope(struct aml *a, const char *path);
uint32_t aml_open_device(struct aml *a, const char *name);
uint32_t aml_open_method(struct aml *a, const char *name, unsigned args); /* serialized */
uint32_t aml_open_package(struct aml *a, uint8_t elements);
uint32_t aml_open_if(struct aml *a); /* the predicate follows */
void aml_close(struct aml *a, uint32_t mark);

/* OperationRegion(name, SystemMemory, base, size) and a field of one byte over its first. */
void aml_byte_region(struct aml *a, const char *region, const char *field, uint64_t base);

/* Name(_CRS, ResourceTemplate() { ... }) */
uint32_t aml_open_crs(struct aml *a);
void aml_close_crs(struct aml *a, uint32_t mark);
void aml_res_io(struct aml *a, uint16_t base, uint8_t size);
void aml_res_mem32(struct aml *a, uint32_t base, uint32_t size);
void aml_res_irq(struct aml *a, uint32_t gsi); /* edge, active high, exclusive */
/* Windows that a bridge hands on, [base, base + size). */
void aml_res_bus(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_mem32_window(struct aml *a, uint32_t base, uint32_t size);
void aml_res_mem64_window(struct aml *a, uint64_t base, uint64_t size);

#endif
