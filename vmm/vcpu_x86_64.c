/* SPDX-License-Identifier: Apache-2.0 */
#include <asm/kvm.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/cpuid_x86_64.h"
#include "vmm/layout.h"
#include "vmm/vcpu_arch.h"

/* Control registers and EFER, AMD64 Architecture Programmer's Manual vol. 2, 3.1. */
#define CR0_PE 1u
#define CR0_ET 0x10u
#define CR0_PG 0x80000000u
#define CR4_PAE 0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define RFLAGS_ONE 2u

#define MSR_MTRR_DEF_TYPE 0x2ff
#define MTRR_ENABLED_WB 0x806u
#define MSR_MISC_ENABLE 0x1a0
#define MISC_FAST_STRING 1u

#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_EXTINT 0x700u
#define APIC_NMI 0x400u

static struct kvm_segment seg_flat(uint16_t selector, bool code, bool is64)
{
	return (struct kvm_segment){
		.base = 0,
		.limit = 0xffffffff,
		.selector = selector,
		.type = code ? 0xb : 0x3, /* accessed; execute/read or read/write */
		.present = 1,
		.db = !is64,
		.s = 1,
		.l = is64,
		.g = 1,
	};
}

static int set_sregs(int fd, const struct vcpu_entry *entry, struct err *e)
{
	struct kvm_sregs s;
	bool is64 = entry->mode == ENTRY_LONG64;

	if (ioctl(fd, KVM_GET_SREGS, &s) < 0)
		return err_sys(e, "get system registers");
	s.cs = seg_flat(is64 ? LAYOUT_SEL_CODE64 : LAYOUT_SEL_CODE32, true, is64);
	s.ds = s.es = s.fs = s.gs = s.ss = seg_flat(LAYOUT_SEL_DATA, false, false);
	s.tr = (struct kvm_segment){
		.selector = LAYOUT_SEL_TSS, .limit = 0x67, .type = 0xb, .present = 1};
	s.gdt.base = LAYOUT_BOOT_GDT;
	s.gdt.limit = LAYOUT_BOOT_GDT_SIZE - 1;
	s.cr0 = CR0_PE | CR0_ET;
	if (is64) {
		s.cr3 = LAYOUT_BOOT_PGTABLES;
		s.cr4 = CR4_PAE;
		s.cr0 |= CR0_PG;
		s.efer = EFER_LME | EFER_LMA;
	}
	return ioctl(fd, KVM_SET_SREGS, &s) < 0 ? err_sys(e, "set system registers") : 0;
}

static int set_regs(int fd, const struct vcpu_entry *entry, struct err *e)
{
	struct kvm_regs r = {.rflags = RFLAGS_ONE, .rip = entry->ip.v};

	if (entry->mode == ENTRY_LONG64)
		r.rsi = entry->arg.v;
	else
		r.rbx = entry->arg.v;
	return ioctl(fd, KVM_SET_REGS, &r) < 0 ? err_sys(e, "set registers") : 0;
}

/* Firmware would have turned caching on: memory is write-back by default. */
static int set_msrs(int fd, struct err *e)
{
	/* struct kvm_msrs with its entries in place */
	struct {
		uint32_t nmsrs, pad;
		struct kvm_msr_entry entry[2];
	} m = {
		.nmsrs = 2,
		.entry = {{.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED_WB},
			  {.index = MSR_MISC_ENABLE, .data = MISC_FAST_STRING}},
	};

	int r = ioctl(fd, KVM_SET_MSRS, &m); /* how many it took */

	if (r < 0)
		return err_sys(e, "set MSRs");
	if (r < 2)
		return err_msg(e, -EIO, "KVM refuses MSR %#x", m.entry[r].index);
	return 0;
}

static int set_lapic(int fd, struct err *e)
{
	struct kvm_lapic_state s;
	uint32_t extint = APIC_EXTINT, nmi = APIC_NMI;

	if (ioctl(fd, KVM_GET_LAPIC, &s) < 0)
		return err_sys(e, "get the local APIC");
	memcpy(s.regs + APIC_LVT_LINT0, &extint, sizeof(extint));
	memcpy(s.regs + APIC_LVT_LINT1, &nmi, sizeof(nmi));
	return ioctl(fd, KVM_SET_LAPIC, &s) < 0 ? err_sys(e, "set the local APIC") : 0;
}

int vcpu_arch_setup(int fd, unsigned index, const struct vcpu_env *env,
		    const struct vcpu_entry *entry, struct err *e)
{
	int r = cpuid_apply(fd, index, env, e);

	if (r == 0)
		r = set_msrs(fd, e);
	if (r == 0)
		r = set_lapic(fd, e);
	if (r < 0 || entry->mode == ENTRY_NONE)
		return r; /* the others wait for INIT and SIPI, as KVM leaves them */
	r = set_sregs(fd, entry, e);
	return r < 0 ? r : set_regs(fd, entry, e);
}

uint64_t vcpu_arch_ip(int fd)
{
	struct kvm_regs r;

	return ioctl(fd, KVM_GET_REGS, &r) < 0 ? 0 : r.rip;
}

bool vcpu_arch_ip_is_kernel(uint64_t ip)
{
	/* The top 2 GiB of the address space: Documentation/arch/x86/x86_64/mm.rst. */
	return ip >= 0xffffffff80000000ull;
}

bool vcpu_arch_shutdown_is_reset(int fd)
{
	struct kvm_sregs s;

	/* AMD's KVM has put the vCPU through INIT by now, which leaves a limit of 0xffff. */
	return ioctl(fd, KVM_GET_SREGS, &s) == 0 && s.idt.limit == 0;
}
