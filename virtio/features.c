/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/features.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "vmm/opts.h"

struct feature {
	const char *name;
	unsigned bit;
};

static const struct feature blk[] = {
	{"SIZE_MAX", 1},      {"SEG_MAX", 2},   {"GEOMETRY", 4},      {"RO", 5},  {"BLK_SIZE", 6},
	{"FLUSH", 9},         {"TOPOLOGY", 10}, {"CONFIG_WCE", 11},   {"MQ", 12}, {"DISCARD", 13},
	{"WRITE_ZEROES", 14}, {"LIFETIME", 15}, {"SECURE_ERASE", 16}, {NULL, 0},
};
static const struct feature console[] = {
	{"SIZE", 0},
	{"MULTIPORT", 1},
	{"EMERG_WRITE", 2},
	{NULL, 0},
};
static const struct feature none[] = {{NULL, 0}};

/* Section 6. */
static const struct feature common[] = {
	{"INDIRECT_DESC", 28},     {"EVENT_IDX", 29},   {"VERSION_1", 32},
	{"ACCESS_PLATFORM", 33},   {"RING_PACKED", 34}, {"IN_ORDER", 35},
	{"ORDER_PLATFORM", 36},    {"SR_IOV", 37},      {"NOTIFICATION_DATA", 38},
	{"NOTIF_CONFIG_DATA", 39}, {"RING_RESET", 40},  {NULL, 0},
};

/* By the names that the assembly gives; those with a number are numbered from 0. */
static const struct kind {
	const char *name;
	uint16_t id;
	bool numbered;
	const struct feature *own;
} kinds[] = {
	{"disk", VIRTIO_ID_BLOCK, true, blk},
	{"console", VIRTIO_ID_CONSOLE, false, console},
	{"rng", VIRTIO_ID_RNG, false, none},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const struct kind *kind_of(const char *device)
{
	for (size_t i = 0; i < KINDS; i++) {
		size_t len = strlen(kinds[i].name), digits;

		if (strncmp(device, kinds[i].name, len))
			continue; /* it may be shorter */
		digits = strspn(device + len, "0123456789");
		if (!device[len + digits] && (digits != 0) == kinds[i].numbered)
			return &kinds[i];
	}
	return NULL;
}

static const struct feature *lookup(const struct feature *f, const char *name)
{
	for (; f->name; f++)
		if (!strcasecmp(f->name, name))
			return f;
	return NULL;
}

/* ------------------------------------------------------------- what the user says */

static int unknown(const struct kind *k, const char *name, struct err *e)
{
	const char *names[32];
	size_t n = 0;

	for (const struct feature *f = k->own; f->name; f++)
		names[n++] = f->name;
	for (const struct feature *f = common; f->name; f++)
		names[n++] = f->name;
	names[n] = NULL;

	const char *near = opts_nearest(name, names);

	return err_msg(e, -EINVAL, "%s: no feature of a %s%s%s%s", name, k->name,
		       near ? " (did you mean -" : "", near ? near : "", near ? "?)" : "");
}

static int take(const struct kind *k, const char *word, uint64_t *without, struct err *e)
{
	const struct feature *f;

	if (*word != '-')
		return err_msg(e, -EINVAL, "\"%s\": features are only taken away: -%s", word,
			       *word == '+' ? word + 1 : word);
	f = lookup(k->own, word + 1);
	if (!f)
		f = lookup(common, word + 1);
	if (!f)
		return unknown(k, word + 1, e);
	if (f->bit == VIRTIO_F_VERSION_1)
		return err_msg(e, -EINVAL, "%s: without it no device is left: all are modern",
			       f->name);
	*without |= 1ull << f->bit;
	return 0;
}

int features_config(struct config *c, const char *text, struct err *e)
{
	struct features_config f = {0};
	size_t len = strcspn(text, "=");
	const struct kind *k;
	char list[512], *save = NULL;
	int r = 0;

	if (!text[len] || !text[len + 1] || len >= sizeof(f.device) ||
	    strlen(text + len + 1) >= sizeof(list))
		return err_msg(e, -EINVAL, "must be DEVICE=-FEATURE[,-FEATURE...]");
	memcpy(f.device, text, len);
	k = kind_of(f.device);
	if (!k)
		return err_msg(e, -EINVAL, "%s: no device (disk0, disk1, ..., console, rng)",
			       f.device);
	strcpy(list, text + len + 1);
	for (char *w = strtok_r(list, ",", &save); w && !r; w = strtok_r(NULL, ",", &save))
		r = take(k, w, &f.without, e);
	if (!r && !f.without)
		r = err_msg(e, -EINVAL, "no feature is named: DEVICE=-FEATURE[,-FEATURE...]");
	if (r)
		return r;
	if (c->nfeatures == CONFIG_FEATURES_MAX)
		return err_msg(e, -E2BIG, "at most %d of them fit", CONFIG_FEATURES_MAX);
	c->features[c->nfeatures++] = f;
	return 0;
}

int features_apply(const struct config *c, struct virtio *v, struct err *e)
{
	char text[FEATURES_TEXT];

	for (size_t i = 0; i < c->nfeatures; i++) {
		const struct features_config *f = &c->features[i];

		if (strcmp(f->device, v->name))
			continue;
		if (f->without & ~v->offered) {
			features_text(text, sizeof(text), v->ops->id, f->without & ~v->offered);
			return err_msg(e, -EINVAL, "--virtio-features: %s does not offer %s",
				       v->name, text);
		}
		v->offered &= ~f->without;
	}
	return 0;
}

/* ------------------------------------------------------------- what is said of them */

static const char *name_of(const struct feature *f, unsigned bit)
{
	for (; f->name; f++)
		if (f->bit == bit)
			return f->name;
	return NULL;
}

void features_text(char *buf, size_t size, uint16_t id, uint64_t set)
{
	const struct feature *own = none;
	size_t at = 0;

	for (size_t i = 0; i < KINDS; i++)
		if (kinds[i].id == id)
			own = kinds[i].own;
	*buf = '\0';
	for (unsigned bit = 0; bit < 64 && at < size; bit++) {
		const char *name = name_of(own, bit), *gap = at ? " " : "";

		if (!(set & 1ull << bit))
			continue;
		if (!name)
			name = name_of(common, bit);
		at += (size_t)(name ? snprintf(buf + at, size - at, "%s%s", gap, name)
				    : snprintf(buf + at, size - at, "%sbit %u", gap, bit));
	}
	if (!at)
		snprintf(buf, size, "none");
}
