/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "vmm/cpuid_x86_64.h"
#include "vmm/kvm.h"
#include "vmm/layout.h"

int vm_arch_init(struct vm *vm, struct err *e)
{
	uint64_t identity = LAYOUT_KVM_IDENTITY;

	int r = cpuid_init(vm, e);

	if (r < 0)
		return r;
	/*
	 * Intel without "unrestricted guest" runs real mode inside these four pages;
	 * both must be set before the first vCPU (KVM API 4.28, 4.78). AMD ignores them.
	 */
	if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)
		return err_sys(e, "KVM: set the identity-map address");
	if (ioctl(vm->fd, KVM_SET_TSS_ADDR, LAYOUT_KVM_TSS) < 0)
		return err_sys(e, "KVM: set the TSS address");
	if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return err_sys(e, "KVM: create the interrupt controllers");
	/*
	 * A kernel that learns its TSC frequency from nothing else calibrates against
	 * the PIT through port 0x61: the dummy speaker answers that port.
	 */
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	if (ioctl(vm->fd, KVM_CREATE_PIT2, &pit) < 0)
		return err_sys(e, "KVM: create the PIT");
	return 0;
}
