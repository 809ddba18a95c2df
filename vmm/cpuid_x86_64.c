/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/cpuid_x86_64.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* Intel SDM vol. 2A, CPUID; AMD64 APM vol. 3, appendix E; KVM:
 * Documentation/virt/kvm/x86/cpuid.rst. */
#define LEAF_VENDOR 0x0
#define LEAF_FEATURES 0x1
#define LEAF_CACHE 0x4
#define LEAF_TOPOLOGY 0xb
#define LEAF_TSC 0x15
#define LEAF_FREQUENCY 0x16
#define LEAF_TOPOLOGY2 0x1f
#define LEAF_KVM 0x40000000
#define LEAF_KVM_TIMING 0x40000010
#define LEAF_SIZES 0x80000008
#define LEAF_AMD_CACHE 0x8000001d
#define LEAF_AMD_TOPOLOGY 0x8000001e

#define F1_ECX_TSC_DEADLINE (1u << 24)
#define F1_ECX_HYPERVISOR (1u << 31)
#define F1_EDX_HTT (1u << 28)
#define APIC_BUS_KHZ 1000000u /* KVM's local APIC timer counts nanoseconds */

_Static_assert(offsetof(struct cpuid_table, entry) == offsetof(struct kvm_cpuid2, entries),
	       "the ioctls take a struct kvm_cpuid2");

static struct kvm_cpuid_entry2 *find(struct cpuid_table *t, uint32_t leaf, uint32_t index)
{
	for (uint32_t i = 0; i < t->nent; i++)
		if (t->entry[i].function == leaf && t->entry[i].index == index)
			return &t->entry[i];
	return NULL;
}

static struct kvm_cpuid_entry2 *find_or_add(struct cpuid_table *t, uint32_t leaf, uint32_t index)
{
	struct kvm_cpuid_entry2 *c = find(t, leaf, index);

	if (c || t->nent == CPUID_ENTRIES_MAX)
		return c;
	c = &t->entry[t->nent++];
	*c = (struct kvm_cpuid_entry2){.function = leaf, .index = index};
	return c;
}

/* Bits that hold the numbers 0 to n-1. */
static unsigned width(unsigned n)
{
	unsigned bits = 0;

	while ((1u << bits) < n)
		bits++;
	return bits;
}

static void patch_features(struct cpuid_table *t, const struct cpuid_facts *f)
{
	struct kvm_cpuid_entry2 *c = find(t, LEAF_FEATURES, 0);

	if (!c)
		return;
	c->ebx = (c->ebx & 0xffff) | ((1u << width(f->ncpus)) << 16) | (f->index << 24);
	c->ecx |= F1_ECX_HYPERVISOR;
	if (f->tsc_deadline)
		c->ecx |= F1_ECX_TSC_DEADLINE;
	if (f->ncpus > 1)
		c->edx |= F1_EDX_HTT;
	else
		c->edx &= ~F1_EDX_HTT;
}

/* One socket of single-threaded cores: 0xb and 0x1f level 0 are threads, level 1 cores. */
static void patch_topology(struct cpuid_table *t, const struct cpuid_facts *f, uint32_t leaf)
{
	if (!find(t, leaf, 0))
		return;
	for (uint32_t level = 0; level < 3; level++) {
		struct kvm_cpuid_entry2 *c = find_or_add(t, leaf, level);
		if (!c)
			return;
		c->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		c->eax = level == 1 ? width(f->ncpus) : 0;
		c->ebx = level == 0 ? 1 : level == 1 ? f->ncpus : 0;
		c->ecx = level | (level < 2 ? (level + 1) << 8 : 0);
		c->edx = f->index;
	}
}

/* Levels 1 and 2 belong to one core, level 3 to all of them. */
static void patch_caches(struct cpuid_table *t, const struct cpuid_facts *f)
{
	for (uint32_t i = 0; i < t->nent; i++) {
		struct kvm_cpuid_entry2 *c = &t->entry[i];
		if ((c->function != LEAF_CACHE && c->function != LEAF_AMD_CACHE) || !(c->eax & 31))
			continue;
		uint32_t sharing = ((c->eax >> 5) & 7) >= 3 ? f->ncpus - 1 : 0;
		c->eax = (c->eax & 0x3fff) | (sharing << 14);
		if (c->function ==
		    LEAF_CACHE) /* cores in the package, as the APIC IDs leave room for */
			c->eax |= ((1u << width(f->ncpus)) - 1) << 26;
	}
}

static void patch_amd(struct cpuid_table *t, const struct cpuid_facts *f)
{
	struct kvm_cpuid_entry2 *c = find(t, LEAF_SIZES, 0);

	if (c)
		c->ecx = (c->ecx & ~0xf0ffu) | (width(f->ncpus) << 12) | (f->ncpus - 1);
	c = find(t, LEAF_AMD_TOPOLOGY, 0);
	if (c) {
		c->eax = f->index;
		c->ebx = f->index; /* core ID; one thread a core */
		c->ecx = 0;
	}
}

/*
 * The TSC's frequency. 0x15 must give it exactly, and the guest's kernel
 * multiplies in 32 bits of kHz: so the "crystal" runs at the TSC's rate (or half
 * of it where Hz would not fit) rather than at the APIC's, which only matters
 * to a guest without the TSC deadline timer.
 */
static void patch_frequency(struct cpuid_table *t, const struct cpuid_facts *f)
{
	struct kvm_cpuid_entry2 *max = find(t, LEAF_VENDOR, 0), *c;

	if (!f->tsc_khz || !max)
		return;
	if (f->tsc_deadline && (c = find_or_add(t, LEAF_TSC, 0))) {
		uint32_t n = f->tsc_khz > 4000000 ? 2 : 1;
		c->eax = 1;
		c->ebx = n;
		c->ecx = (uint32_t)((uint64_t)f->tsc_khz * 1000 / n);
		c->edx = 0;
		if (max->eax < LEAF_TSC)
			max->eax = LEAF_TSC;
	}
	if ((c = find_or_add(t, LEAF_FREQUENCY, 0))) {
		c->eax = c->ebx = f->tsc_khz / 1000;
		c->ecx = 100;
		c->edx = 0;
		if (max->eax < LEAF_FREQUENCY)
			max->eax = LEAF_FREQUENCY;
	}
	struct kvm_cpuid_entry2 *kvm = find(t, LEAF_KVM, 0);
	if (kvm && (c = find_or_add(t, LEAF_KVM_TIMING, 0))) {
		c->eax = f->tsc_khz;
		c->ebx = APIC_BUS_KHZ;
		kvm = find(t, LEAF_KVM, 0);
		if (kvm->eax < LEAF_KVM_TIMING)
			kvm->eax = LEAF_KVM_TIMING;
	}
}

void cpuid_patch(struct cpuid_table *t, const struct cpuid_facts *f)
{
	patch_features(t, f);
	patch_topology(t, f, LEAF_TOPOLOGY);
	patch_topology(t, f, LEAF_TOPOLOGY2);
	patch_caches(t, f);
	patch_amd(t, f);
	patch_frequency(t, f);
}

int cpuid_init(struct vm *vm, struct err *e)
{
	struct cpuid_table *t = calloc(1, sizeof(*t));

	if (!t)
		return err_msg(e, -ENOMEM, "CPUID: out of memory");
	vm->arch = t;
	t->nent = CPUID_ENTRIES_MAX;
	if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, t) < 0)
		return err_sys(e, "get the supported CPUID");
	if (t->nent > CPUID_ENTRIES_MAX)
		return err_msg(e, -EPROTO, "KVM gave %u CPUID entries", t->nent);
	return 0;
}

uint32_t cpuid_tsc_hint(const struct vm *vm)
{
	struct kvm_cpuid_entry2 *c = find(vm->arch, LEAF_VENDOR, 0);
	static const char intel[] = "GenuntelineI"; /* EBX, ECX, EDX */

	if (c && !memcmp(&c->ebx, intel, 12))
		return 0;
	/* Of the VM since Linux 5.18, whether its capability (for setting it) is there or not. */
	int khz = ioctl(vm->fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint32_t)khz : 0;
}

int cpuid_apply(int fd, unsigned index, const struct vcpu_env *env, struct err *e)
{
	struct cpuid_table t = *(const struct cpuid_table *)env->vm->arch;
	int khz = ioctl(fd, KVM_GET_TSC_KHZ, 0);
	struct cpuid_facts f = {
		.index = index,
		.ncpus = env->ncpus,
		.tsc_khz = khz > 0 ? (uint32_t)khz : 0,
		.tsc_deadline = vm_has(env->vm, KVM_CAP_TSC_DEADLINE_TIMER),
	};

	cpuid_patch(&t, &f);
	return ioctl(fd, KVM_SET_CPUID2, &t) < 0 ? err_sys(e, "set CPUID") : 0;
}

unsigned cpuid_phys_bits(const struct vm *vm)
{
	const struct kvm_cpuid_entry2 *c = find(vm->arch, LEAF_SIZES, 0);

	if (!c)
		return 36;
	unsigned bits = c->eax & 0xff;
	return bits < 36 ? 36 : bits > 46 ? 46 : bits;
}
