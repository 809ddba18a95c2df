/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest's CPUID says: KVM's own offer with topology, frequency and identity filled in. */
#ifndef VMM_CPUID_X86_64_H
#define VMM_CPUID_X86_64_H

#include <linux/kvm.h>

#include "vmm/vcpu.h"

#define CPUID_ENTRIES_MAX 128

/* struct kvm_cpuid2 with its entries in place. */
struct cpuid_table {
	uint32_t nent, padding;
	struct kvm_cpuid_entry2 entry[CPUID_ENTRIES_MAX];
};

struct cpuid_facts {
	unsigned index, ncpus;
	uint32_t tsc_khz; /* 0: unknown */
	bool tsc_deadline;
};

/* Pure: for unit tests. The table keeps room for what is added. */
void cpuid_patch(struct cpuid_table *t, const struct cpuid_facts *f);

/* Asks KVM what it can offer, once a VM: vm->arch. */
int cpuid_init(struct vm *vm, struct err *e);

int cpuid_apply(int vcpu_fd, unsigned index, const struct vcpu_env *env, struct err *e);

/*
 * The TSC's kHz where a guest has to be told of it on its command line: Linux reads leaf 0x15 on
 * Intel's processors alone, and a kernel without KVM guest support knows no other way. 0: none,
 * or not known.
 */
uint32_t cpuid_tsc_hint(const struct vm *vm);

/* Physical address bits of the guest. */
unsigned cpuid_phys_bits(const struct vm *vm);

#endif
