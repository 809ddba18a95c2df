/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU and its thread. The thread owns the vCPU: all its ioctls are made
 * there (set-up excepted). Exits go to the buses; what ends the machine goes to
 * the power sink.
 *
 * A vCPU can be paused: its thread leaves the guest, finishes the access it had
 * left it for, and parks. Parked it touches neither guest memory nor a device, and
 * its state in KVM is whole. Others stay as they are: a machine stands still when all its
 * vCPUs are parked and its devices are drained. From one thread at a time, and
 * with no loop's lock held: the vCPU may be waiting for it in a device.
 *
 *   for each vCPU: vcpu_pause(v);    asks, does not wait
 *   for each vCPU: vcpu_wait(v, t);  parked, or its thread has ended; false: not by then
 *   ...
 *   for each vCPU: vcpu_resume(v);
 *
 * vcpu_kick() ends a parked vCPU, too.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include "vmm/bus.h"
#include "vmm/err.h"
#include "vmm/gmem.h"
#include "vmm/kvm.h"
#include "vmm/power.h"

/* How the boot processor enters the kernel. */
struct vcpu_entry {
	enum { ENTRY_NONE, ENTRY_LONG64, ENTRY_PROT32 } mode;
	gpa_t ip;
	gpa_t arg; /* LONG64: RSI (zero page); PROT32: RBX (PVH start info) */
};

struct vcpu;

struct vcpu_env {
	struct vm *vm;
	struct bus *pio, *mmio;
	struct power_sink power;
	unsigned ncpus;
};

int vcpu_new(struct vcpu **ret, unsigned index, const struct vcpu_env *env, struct err *e);
void vcpu_free(struct vcpu *v); /* stopped before; accepts NULL */

/* Registers, CPUID, MSRs as the boot protocol wants them; @entry->mode ENTRY_NONE for the others.
 */
int vcpu_setup(struct vcpu *v, const struct vcpu_entry *entry, struct err *e);

int vcpu_start(struct vcpu *v, struct err *e);  /* a thread of its own, "vcpuN" */
void vcpu_pause(struct vcpu *v);                /* these three do nothing before vcpu_start */
bool vcpu_wait(struct vcpu *v, uint64_t until); /* CLOCK_MONOTONIC, ns */
void vcpu_resume(struct vcpu *v);
void vcpu_kick(struct vcpu *v); /* asks it to leave KVM_RUN and end */
void vcpu_join(struct vcpu *v);

#endif
