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
	uint64_t needs; /* one of these at least; 0: nothing */
};

#define BIT(n) (1ull << (n))

static const struct feature blk[] = {
	{"SIZE_MAX", 1, 0},      {"SEG_MAX", 2, 0},  {"GEOMETRY", 4, 0},      {"RO", 5, 0},
	{"BLK_SIZE", 6, 0},      {"FLUSH", 9, 0},    {"TOPOLOGY", 10, 0},     {"CONFIG_WCE", 11, 0},
	{"MQ", 12, 0},           {"DISCARD", 13, 0}, {"WRITE_ZEROES", 14, 0}, {"LIFETIME", 15, 0},
	{"SECURE_ERASE", 16, 0}, {NULL, 0, 0},
};
static const struct feature console[] = {
	{"SIZE", 0, 0},
	{"MULTIPORT", 1, 0},
	{"EMERG_WRITE", 2, 0},
	{NULL, 0, 0},
};
/* Section 5.1.3 and, for what needs what, 5.1.3.1. */
#define CSUM BIT(0)
#define GUEST_CSUM BIT(1)
#define CTRL_VQ BIT(17)
static const struct feature net[] = {
	{"CSUM", 0, 0},
	{"GUEST_CSUM", 1, 0},
	{"CTRL_GUEST_OFFLOADS", 2, CTRL_VQ},
	{"MTU", 3, 0},
	{"MAC", 5, 0},
	{"GUEST_TSO4", 7, GUEST_CSUM},
	{"GUEST_TSO6", 8, GUEST_CSUM},
	{"GUEST_ECN", 9, BIT(7) | BIT(8)},
	{"GUEST_UFO", 10, GUEST_CSUM},
	{"HOST_TSO4", 11, CSUM},
	{"HOST_TSO6", 12, CSUM},
	{"HOST_ECN", 13, BIT(11) | BIT(12)},
	{"HOST_UFO", 14, CSUM},
	{"MRG_RXBUF", 15, 0},
	{"STATUS", 16, 0},
	{"CTRL_VQ", 17, 0},
	{"CTRL_RX", 18, CTRL_VQ},
	{"CTRL_VLAN", 19, CTRL_VQ},
	{"CTRL_RX_EXTRA", 20, CTRL_VQ},
	{"GUEST_ANNOUNCE", 21, CTRL_VQ},
	{"MQ", 22, CTRL_VQ},
	{"CTRL_MAC_ADDR", 23, CTRL_VQ},
	{"GUEST_USO4", 54, GUEST_CSUM},
	{"GUEST_USO6", 55, GUEST_CSUM},
	{"HOST_USO", 56, CSUM},
	{NULL, 0, 0},
};
static const struct feature vsock[] = {{"STREAM", 0, 0}, {"SEQPACKET", 1, 0}, {NULL, 0, 0}};
static const struct feature fs[] = {{"NOTIFICATION", 0, 0}, {NULL, 0, 0}};
static const struct feature none[] = {{NULL, 0, 0}};

/* Section 6. */
static const struct feature common[] = {
	{"INDIRECT_DESC", 28, 0},     {"EVENT_IDX", 29, 0},   {"VERSION_1", 32, 0},
	{"ACCESS_PLATFORM", 33, 0},   {"RING_PACKED", 34, 0}, {"IN_ORDER", 35, 0},
	{"ORDER_PLATFORM", 36, 0},    {"SR_IOV", 37, 0},      {"NOTIFICATION_DATA", 38, 0},
	{"NOTIF_CONFIG_DATA", 39, 0}, {"RING_RESET", 40, 0},  {NULL, 0, 0},
};

/* By the names that the assembly gives; those with a number are numbered from 0. */
static const struct kind {
	const char *name;
	uint16_t id;
	bool numbered;
	const struct feature *own;
} kinds[] = {
	{"disk", VIRTIO_ID_BLOCK, true, blk},     {"console", VIRTIO_ID_CONSOLE, false, console},
	{"rng", VIRTIO_ID_RNG, false, none},      {"net", VIRTIO_ID_NET, true, net},
	{"vsock", VIRTIO_ID_VSOCK, false, vsock}, {"fs", VIRTIO_ID_FS, true, fs},
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

/* "VIRTIO_RING_F_EVENT_IDX", as the standard has it in full: "EVENT_IDX". */
static const char *without_prefix(const char *name)
{
	const char *at = strcasestr(name, "_F_");

	return at && !strncasecmp(name, "VIRTIO_", 7) ? at + 3 : name;
}

/* ------------------------------------------------------------- what the user says */

static int unknown(const struct kind *k, const char *name, struct err *e)
{
	const char *names[48];
	size_t n = 0;

	for (const struct feature *f = k->own; f->name; f++)
		names[n++] = f->name;
	for (const struct feature *f = common; f->name; f++)
		names[n++] = f->name;
	names[n] = NULL;

	const char *near = opts_nearest(without_prefix(name), names);

	return err_msg(e, -EINVAL, "%s: no feature of a %s%s%s%s", name, k->name,
		       near ? " (did you mean -" : "", near ? near : "", near ? "?)" : "");
}

static int take(const struct kind *k, const char *word, uint64_t *without, struct err *e)
{
	const char *name = without_prefix(word + 1);
	const struct feature *f;

	if (*word != '-')
		return err_msg(e, -EINVAL, "\"%s\": features are only taken away: -%s", word,
			       *word == '+' ? word + 1 : word);
	f = lookup(k->own, name);
	if (!f)
		f = lookup(common, name);
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
		return err_msg(
			e, -EINVAL,
			"%s: no device (console, disk0, ..., fs0, ..., net0, ..., rng, vsock)",
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

static const struct feature *own_of(uint16_t id)
{
	for (size_t i = 0; i < KINDS; i++)
		if (kinds[i].id == id)
			return kinds[i].own;
	return none;
}

/* Section 2.2.1: a feature is not offered without those that it needs. */
static void drop_dependent(struct virtio *v)
{
	uint64_t before;

	do {
		before = v->offered;
		for (const struct feature *f = own_of(v->ops->id); f->name; f++)
			if (f->needs && !(v->offered & f->needs))
				v->offered &= ~BIT(f->bit);
	} while (v->offered != before);
}

int features_apply(const struct config *c, struct virtio *v, struct err *e)
{
	uint64_t without = 0;
	char text[FEATURES_TEXT];

	for (size_t i = 0; i < c->nfeatures; i++)
		if (!strcmp(c->features[i].device, v->name))
			without |= c->features[i].without;
	if (without & ~v->offered) {
		features_text(text, sizeof(text), v->ops->id, without & ~v->offered);
		return err_msg(e, -EINVAL, "--virtio-features: %s does not offer %s", v->name,
			       text);
	}
	v->offered &= ~without;
	drop_dependent(v);
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
	const struct feature *own = own_of(id);
	size_t at = 0;

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
