/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's binary statistics of one vCPU (KVM API 4.133, KVM_GET_STATS_FD): the
 * counters that say why the guest left, by KVM's own names. Any thread.
 */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include <stdint.h>

#define STATS_KINDS 10

/* The kinds kept, in the order of struct stats: "exits" first. */
extern const char *const stats_name[STATS_KINDS];

struct stats {
	uint64_t n[STATS_KINDS];
};

struct stats_src {
	int fd;                  /* -1: KVM has none */
	int64_t at[STATS_KINDS]; /* offset in the file; -1: not a counter of this KVM */
};

void stats_open(struct stats_src *s, int vcpu_fd);
void stats_close(struct stats_src *s);
void stats_add(const struct stats_src *s, struct stats *sum);

#endif
