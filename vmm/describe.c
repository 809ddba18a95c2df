/* SPDX-License-Identifier: Apache-2.0 */
/* What -v says of a machine: all that was decided for it, a line a thing. */
#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "virtio/features.h"
#include "virtio/sizes.h"
#include "vmm/assemble.h"
#include "vmm/log.h"

#define CMDLINE_PIECE 900 /* a log line is no longer than a kilobyte */

static void describe_kernel(const struct payload *p, const struct config *c)
{
	static const char *const kinds[] = {
		[KERNEL_BZIMAGE] = "bzImage",
		[KERNEL_ELF_PVH] = "ELF with a PVH entry",
		[KERNEL_ELF64] = "ELF",
	};
	/* An ELF file is read through for its version: not for the sake of this line alone. */
	const char *version = log_on(LOG_INFO) ? kernel_version(p->kernel) : NULL;

	log_info("kernel: %s, %s, %s", c->kernel, kinds[kernel_kind(p->kernel)],
		 version ? version : "of unknown version");
}

static void describe_initrd(const struct payload *p, const struct config *c)
{
	if (p->initrd_size)
		log_info("initrd: %s, %llu bytes", c->initrd, (unsigned long long)p->initrd_size);
	else if (p->cpio.len)
		log_info("initramfs: mvm's, %zu bytes with %zu module%s", p->cpio.len, p->modules,
			 p->modules == 1 ? "" : "s");
	else
		log_info("initramfs: none");
}

static void describe_cmdline(const char *text)
{
	size_t len = strlen(text);

	if (!len)
		log_info("command line: empty");
	for (size_t at = 0; at < len; at += CMDLINE_PIECE)
		log_info("command line%s: %.*s", at ? " goes on" : "", CMDLINE_PIECE, text + at);
}

static void describe_root(const struct config *c)
{
	if (c->root_is_fs && c->root_rw)
		log_info("root: the directory %s, written through", c->fs[0].dir);
	else if (c->root_is_fs)
		log_info(
			"root: the directory %s, read-only; what the guest writes is in its memory "
			"and lost at the end",
			c->fs[0].dir);
	if (c->root_is_host)
		log_info("root: it is this host's own, so a shell runs, not its init");
}

static void describe_disk(const struct machine *m, unsigned i)
{
	const struct disk_config *d = &m->host->cfg->disks[i];
	char name[16];
	uint64_t sectors; /* section 5.2.4: capacity comes first */

	snprintf(name, sizeof(name), "disk%u", i);
	const struct virtio *v = slots_find(m, name);
	if (d->vhost_user) {
		log_info("%s %s: vhost-user, %u queue%s", config_disk_option(d), d->path,
			 v->nqueues, v->nqueues == 1 ? "" : "s");
		return;
	}
	memcpy(&sectors, v->config, sizeof(sectors));
	log_info("%s %s: %llu bytes, raw, %s, %s, %s, %u queue%s", config_disk_option(d), d->path,
		 (unsigned long long)le64toh(sectors) * 512, d->readonly ? "read-only" : "writable",
		 d->direct ? "past the page cache" : "through the page cache",
		 d->writethrough ? "write-through" : "write-back", v->nqueues,
		 v->nqueues == 1 ? "" : "s");
}

static void describe_virtio(const struct virtio *v)
{
	char text[FEATURES_TEXT], sizes[SIZES_TEXT];

	if (!log_on(LOG_INFO))
		return;
	sizes_text(sizes, sizeof(sizes), v);
	log_info("%s: %u queue%s of %s", v->name, v->nqueues, v->nqueues == 1 ? "" : "s", sizes);
	features_text(text, sizeof(text), v->ops->id, v->offered);
	log_info("%s offers: %s", v->name, text);
}

static void describe_chr(const char *what, const struct char_config *c)
{
	static const char *const modes[] = {
		[CHAR_OFF] = "off", [CHAR_NULL] = "null",  [CHAR_TTY] = "tty",
		[CHAR_PTY] = "pty", [CHAR_FILE] = "file=", [CHAR_SOCKET] = "socket=",
	};

	log_info("%s: %s%s", what, modes[c->mode], c->path ? c->path : "");
}

void machine_describe(const struct machine *m)
{
	const struct config *c = m->host->cfg;
	char memory[CONFIG_SIZE_TEXT];

	config_size_text(memory, c->memory);
	describe_kernel(&m->payload, c);
	describe_initrd(&m->payload, c);
	describe_cmdline(m->payload.cmdline);
	log_info("machine: %u CPU%s, %s of memory, virtio over %s", c->cpus,
		 c->cpus == 1 ? "" : "s", memory, c->transport == TRANSPORT_MMIO ? "MMIO" : "PCI");
	describe_root(c);
	for (unsigned i = 0; i < c->ndisks; i++)
		describe_disk(m, i);
	for (unsigned i = 0; i < m->nslots; i++)
		describe_virtio(m->slot[i].v);
	describe_chr("console", &c->console);
	describe_chr("serial", &c->serial);
}
