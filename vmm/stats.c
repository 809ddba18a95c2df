/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/stats.h"

#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

const char *const stats_name[STATS_KINDS] = {
	"exits",          "io_exits",         "mmio_exits",   "halt_exits",
	"irq_exits",      "irq_window_exits", "signal_exits", "hypercalls",
	"insn_emulation", "pf_taken",
};

#define STATS_DESC_MAX 256

void stats_open(struct stats_src *s, int vcpu_fd)
{
	struct kvm_stats_header h;

	memset(s->at, -1, sizeof(s->at));
	s->fd = ioctl(vcpu_fd, KVM_GET_STATS_FD, NULL);
	if (s->fd < 0)
		return;
	if (pread(s->fd, &h, sizeof(h), 0) != sizeof(h) || h.num_desc > STATS_DESC_MAX ||
	    h.name_size > 256) {
		stats_close(s);
		return;
	}
	size_t one = sizeof(struct kvm_stats_desc) + h.name_size;
	uint8_t *all = malloc(one * h.num_desc);
	if (all &&
	    pread(s->fd, all, one * h.num_desc, h.desc_offset) == (ssize_t)(one * h.num_desc))
		for (uint32_t i = 0; i < h.num_desc; i++) {
			const struct kvm_stats_desc *d = (const void *)(all + i * one);
			for (int k = 0; k < STATS_KINDS; k++)
				if (!strncmp(d->name, stats_name[k], h.name_size))
					s->at[k] = (int64_t)h.data_offset + d->offset;
		}
	free(all);
}

void stats_close(struct stats_src *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

void stats_add(const struct stats_src *s, struct stats *sum)
{
	for (int k = 0; s->fd >= 0 && k < STATS_KINDS; k++) {
		uint64_t v;
		if (s->at[k] >= 0 && pread(s->fd, &v, sizeof(v), s->at[k]) == sizeof(v))
			sum->n[k] += v;
	}
}
