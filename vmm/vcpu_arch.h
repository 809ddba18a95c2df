/* SPDX-License-Identifier: Apache-2.0 */
/* What of a vCPU differs between architectures; vcpu.c is the common part. */
#ifndef VMM_VCPU_ARCH_H
#define VMM_VCPU_ARCH_H

#include "vmm/vcpu.h"

/* Registers and identification before the first run. @fd: the vCPU. */
int vcpu_arch_setup(int fd, unsigned index, const struct vcpu_env *env,
		    const struct vcpu_entry *entry, struct err *e);

/* The instruction pointer, for log lines; 0 when it cannot be had. */
uint64_t vcpu_arch_ip(int fd);

/* Whether @ip lies in the kernel proper, past decompressor and boot code. */
bool vcpu_arch_ip_is_kernel(uint64_t ip);

/* A triple fault that Linux asked for (reboot=t empties the IDT first) rather than suffered. */
bool vcpu_arch_shutdown_is_reset(int fd);

#endif
