/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/initramfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HEADER 110     /* bytes: a magic and 13 fields of 8 hexadecimal digits */
#define NAME_MAX_ 4096 /* init/initramfs.c drops entries with longer ones */

static size_t align4(size_t n)
{
	return (n + 3) & ~(size_t)3;
}

static int reserve(struct cpio *c, size_t more)
{
	size_t cap = c->cap ? c->cap : 1 << 16;
	uint8_t *data;

	if (more > SIZE_MAX / 4 - c->len)
		return -ENOMEM;
	while (cap < c->len + more)
		cap *= 2;
	if (cap == c->cap)
		return 0;
	data = realloc(c->data, cap);
	if (!data)
		return -ENOMEM;
	c->data = data;
	c->cap = cap;
	return 0;
}

static bool name_ok(const char *name)
{
	if (!*name || strlen(name) >= NAME_MAX_)
		return false;
	for (const char *p = name;; p++) {
		size_t n = strcspn(p, "/");

		if (!n || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n;
		if (!*p)
			return true;
	}
}

/* Header, name and room for the data, padded; gives where the data goes. */
static int entry(struct cpio *c, const char *name, const unsigned field[13], size_t len,
		 uint8_t **ret)
{
	size_t head = align4(HEADER + strlen(name) + 1), total = head + align4(len);
	char text[HEADER + 1] = "070701";
	int r;

	if (len > UINT32_MAX - 8)
		return -EINVAL;
	r = reserve(c, total);
	if (r)
		return r;
	for (int i = 0; i < 13; i++)
		snprintf(text + 6 + 8 * i, 9, "%08X", field[i]);
	memcpy(c->data + c->len, text, HEADER);
	memset(c->data + c->len + HEADER, 0, head - HEADER);
	strcpy((char *)c->data + c->len + HEADER, name);
	memset(c->data + c->len + head + len, 0, align4(len) - len);
	*ret = c->data + c->len + head;
	c->len += total;
	return 0;
}

static int add(struct cpio *c, const char *name, const unsigned what[3], size_t len, uint8_t **ret)
{
	unsigned mode = what[0];
	unsigned field[13] = {
		[0] = c->ino + 1,
		[1] = mode,
		[4] = S_ISDIR(mode) ? 2 : 1,
		[6] = (unsigned)len,
		[9] = what[1],
		[10] = what[2],
		[11] = (unsigned)strlen(name) + 1,
	};
	int r;

	if (!name_ok(name))
		return -EINVAL;
	r = entry(c, name, field, len, ret);
	if (!r)
		c->ino++;
	return r;
}

int cpio_add(struct cpio *c, const char *name, uint32_t mode, const void *data, size_t len)
{
	uint8_t *to;
	int r = add(c, name, (unsigned[]){mode, 0, 0}, len, &to);

	if (!r && len)
		memcpy(to, data, len);
	return r;
}

int cpio_add_node(struct cpio *c, const char *name, uint32_t mode, unsigned major, unsigned minor)
{
	uint8_t *to;

	return add(c, name, (unsigned[]){mode, major, minor}, 0, &to);
}

uint8_t *cpio_add_space(struct cpio *c, const char *name, uint32_t mode, size_t len)
{
	uint8_t *to;

	return add(c, name, (unsigned[]){mode, 0, 0}, len, &to) ? NULL : to;
}

int cpio_end(struct cpio *c)
{
	static const char name[] = "TRAILER!!!";
	const unsigned field[13] = {[4] = 1, [11] = sizeof(name)};
	uint8_t *to;

	return entry(c, name, field, 0, &to);
}

void cpio_fini(struct cpio *c)
{
	free(c->data);
	*c = (struct cpio){0};
}
