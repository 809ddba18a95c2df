/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `mvm boot`: words separated by NULs. What is accepted
 * must hold what config_check() promises; what is refused must say why in one
 * line.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cmd.h"
#include "vmm/opts.h"

#define WORDS_MAX 64

#define MUST(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond))                                                                       \
			abort();                                                                   \
	} while (0)

static void char_holds(const struct char_config *c)
{
	MUST(c->mode <= CHAR_SOCKET);
	if (c->mode == CHAR_FILE || c->mode == CHAR_SOCKET)
		MUST(c->path && *c->path);
	if (c->mode == CHAR_SOCKET)
		MUST(strlen(c->path) < 108);
}

static void holds(const struct config *c)
{
	MUST(c->cpus >= 1 && c->cpus <= CONFIG_CPUS_MAX);
	MUST(c->memory >= CONFIG_MEM_MIN && c->memory <= CONFIG_MEM_MAX);
	MUST(c->memory % (2 << 20) == 0);
	MUST(c->kernel && *c->kernel);
	MUST(c->ndisks <= CONFIG_DISKS_MAX);
	char_holds(&c->console);
	char_holds(&c->serial);
	for (size_t i = 0; i < c->ndisks; i++) {
		const struct disk_config *d = &c->disks[i];

		MUST(d->path && *d->path);
		MUST(d->queues <= 32 && d->queue_size <= CONFIG_QUEUE_MAX);
		MUST(!(d->queue_size & (d->queue_size - 1)));
		MUST(memchr(d->serial, 0, sizeof(d->serial)));
	}
	if (c->rootfs && c->root_is_fs)
		MUST(c->nfs && !strcmp(c->fs[0].tag, CONFIG_ROOT_TAG) && c->fs[0].dir);
	else if (c->rootfs)
		MUST(c->ndisks);
	MUST(c->nsizes <= CONFIG_SIZES_MAX);
	for (size_t i = 0; i < c->nsizes; i++) {
		const struct sizes_config *s = &c->sizes[i];

		MUST(s->n >= 1 && s->n <= CONFIG_QUEUES_MAX &&
		     s->device[sizeof(s->device) - 1] == 0);
		for (unsigned q = 0; q < s->n; q++)
			MUST(s->size[q] >= 2 && s->size[q] <= CONFIG_QUEUE_MAX &&
			     !(s->size[q] & (s->size[q] - 1)));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *words[WORDS_MAX + 1], *text = malloc(size + 1);
	struct err e = {0};
	struct config c;
	int argc = 0, ret;

	MUST(text);
	memcpy(text, data, size);
	text[size] = '\0';
	for (size_t at = 0; at < size && argc < WORDS_MAX; at += strlen(text + at) + 1)
		words[argc++] = text + at;
	words[argc] = NULL;
	config_init(&c);
	ret = cmd_boot_parse(argc, words, &c, &e);
	if (!ret)
		ret = config_check(&c, &e);
	if (!ret)
		holds(&c);
	MUST(ret <= OPTS_STOP);
	if (ret < 0)
		MUST(e.code < 0 && e.text[0]);
	config_fini(&c);
	free(text);
	return 0;
}
