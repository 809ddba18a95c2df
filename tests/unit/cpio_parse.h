/* SPDX-License-Identifier: Apache-2.0 */
/* Reads newc archives back (buffer-format.rst), for tests. */
#ifndef TESTS_UNIT_CPIO_PARSE_H
#define TESTS_UNIT_CPIO_PARSE_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "boot/initramfs.h"

struct cpio_entry {
	const char *name;
	const uint8_t *data;
	size_t len;
	unsigned ino, mode, nlink, rmajor, rminor;
};

static inline unsigned cpio_field(const uint8_t *header, unsigned n)
{
	char text[9] = "", *end;
	unsigned long v;

	memcpy(text, header + 6 + 8 * (size_t)n, 8);
	v = strtoul(text, &end, 16);
	return *end ? ~0u : (unsigned)v;
}

/* The entry at *at, which moves on; false when there is none or it is not well-formed. */
static inline bool cpio_next(const struct cpio *c, size_t *at, struct cpio_entry *ret)
{
	const uint8_t *h = c->data + *at;
	size_t name_len, body;

	if (c->len - *at < 110 || memcmp(h, "070701", 6))
		return false;
	*ret = (struct cpio_entry){
		.name = (const char *)h + 110,
		.ino = cpio_field(h, 0),
		.mode = cpio_field(h, 1),
		.nlink = cpio_field(h, 4),
		.len = cpio_field(h, 6),
		.rmajor = cpio_field(h, 9),
		.rminor = cpio_field(h, 10),
	};
	name_len = cpio_field(h, 11);
	if (!name_len || name_len > c->len - *at - 110 || ret->name[name_len - 1] ||
	    strlen(ret->name) != name_len - 1)
		return false;
	body = (*at + 110 + name_len + 3) & ~(size_t)3;
	if (body > c->len || ret->len > c->len - body)
		return false;
	ret->data = c->data + body;
	*at = (body + ret->len + 3) & ~(size_t)3;
	return *at <= c->len;
}

#endif
