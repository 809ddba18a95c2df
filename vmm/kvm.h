/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /dev/kvm and one VM of it: capabilities, memory slots, ioeventfds, statistics.
 * What kind of KVM a host has is told here too. KVM API documentation:
 * Documentation/virt/kvm/api.rst of the Linux kernel.
 */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/err.h"
#include "vmm/gmem.h"

enum kvm_kind {
	KVM_KIND_NONE,     /* no /dev/kvm, or it cannot be opened */
	KVM_KIND_SOFTWARE, /* opens, but the CPU shows neither vmx nor svm: cannot run stock kernels
			    */
	KVM_KIND_HARDWARE,
};

/* Looks without starting anything. @e says why for KVM_KIND_NONE. */
enum kvm_kind kvm_kind(struct err *e);

/* What of KVM a machine needs, or does worse without. */
struct kvm_cap {
	unsigned cap; /* KVM_CAP_* */
	bool required;
	const char *name, *without; /* what it is called; what follows when it is not there */
};
extern const struct kvm_cap kvm_caps[]; /* ends with a NULL name */

struct vm {
	int kvm_fd;
	int fd;
	uint32_t run_size; /* bytes of each vCPU's kvm_run mapping */
	unsigned max_vcpus;
	void *arch; /* cpuid_x86_64.c's table; freed by vm_close */
};

/* Opens /dev/kvm, checks API version and required capabilities, creates the VM. */
int vm_open(struct vm *vm, struct err *e);
void vm_close(struct vm *vm);

int vm_has(const struct vm *vm, unsigned cap); /* KVM_CHECK_EXTENSION; 0 when absent */
int vm_map(struct vm *vm, const struct gmem *gm, struct err *e);
/*
 * KVM may look for @ns before the thread of a halted vCPU sleeps, if that is longer than what
 * the host lets it (kvm.halt_poll_ns) and the host does not forbid it with 0.
 */
void vm_halt_poll(struct vm *vm, uint64_t ns);

/* A guest's write that becomes a write to an eventfd. */
struct vm_ioeventfd {
	uint64_t addr;         /* MMIO, or a port */
	bool pio;              /* it is a port */
	unsigned len;          /* 0: any (KVM_CAP_IOEVENTFD_ANY_LENGTH, else -EINVAL) */
	const uint64_t *match; /* NULL: any value */
	int fd;
};
int vm_ioeventfd(struct vm *vm, const struct vm_ioeventfd *io, bool add); /* 0 or -errno */

/* Architecture's part: interrupt controllers, TSS and identity-map addresses, clocks. */
int vm_arch_init(struct vm *vm, struct err *e);

#endif
