/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The x86-64 machine's addresses: the map that cloud-hypervisor guests and
 * their callers know. tests/ and boot/acpi use these names, nobody the numbers.
 */
#ifndef VMM_LAYOUT_H
#define VMM_LAYOUT_H

#include "guest/marks.h" /* what the host shares with its guest: MARK_PORT, MARK_* */

/* Memory */
#define LAYOUT_LOW_RAM_MAX 0xC0000000ull /* RAM below the hole: 0–3 GiB */
#define LAYOUT_HIGH_RAM 0x100000000ull   /* the rest from 4 GiB */
#define LAYOUT_PCI32_BASE 0xC0000000ull  /* 32-bit PCI window */
#define LAYOUT_PCI32_SIZE (640ull << 20)
#define LAYOUT_ECAM_BASE 0xE8000000ull /* one bus */
#define LAYOUT_ECAM_SIZE (1ull << 20)
#define LAYOUT_VMMIO_BASE 0xF0000000ull /* virtio-mmio devices, one page each */
#define LAYOUT_VMMIO_STRIDE 0x1000ull
#define LAYOUT_KVM_TSS 0xF8000000ull      /* three pages */
#define LAYOUT_KVM_IDENTITY 0xF8003000ull /* one page */
#define LAYOUT_IOAPIC 0xFEC00000ull
#define LAYOUT_LAPIC 0xFEE00000ull
#define LAYOUT_PLATFORM_SIZE 0x10000ull /* platform registers: the end of physical space */
#define LAYOUT_PCI64_ALIGN (1ull << 30) /* the 64-bit PCI window begins on a GiB after RAM */

/* Below 1 MiB, written by boot/ */
#define LAYOUT_BOOT_GDT 0x500ull       /* LAYOUT_BOOT_GDT_SIZE bytes, descriptors below */
#define LAYOUT_BOOT_PARAMS 0x7000ull   /* struct boot_params (zero page) */
#define LAYOUT_PVH_INFO 0x6000ull      /* hvm_start_info and its tables */
#define LAYOUT_BOOT_PGTABLES 0x9000ull /* PML4, PDPT, 4 PDs: 6 pages */
#define LAYOUT_CMDLINE 0x20000ull
#define LAYOUT_CMDLINE_MAX 0x10000ull
#define LAYOUT_EBDA 0x9FC00ull /* conventional memory ends here */
#define LAYOUT_ACPI 0xE0000ull /* RSDP and tables */
#define LAYOUT_ACPI_SIZE 0x1fff0ull
#define LAYOUT_RESET_VECTOR 0xFFFF0ull /* F000:FFF0, 16 bytes */
#define LAYOUT_KERNEL 0x100000ull      /* where a kernel is loaded unless it says otherwise */

/*
 * The boot GDT, all segments flat. boot.rst wants __BOOT_CS and __BOOT_DS at
 * 0x10 and 0x18; the task segment is busy, base 0, limit 0x67, and its slot is
 * 16 bytes so that it serves both modes (PVH asks for a TSS, VMX for any).
 */
#define LAYOUT_BOOT_GDT_SIZE 0x38
#define LAYOUT_SEL_CODE64 0x10 /* LONG64: CS */
#define LAYOUT_SEL_DATA 0x18   /* both: DS, ES, SS */
#define LAYOUT_SEL_CODE32 0x20 /* PROT32: CS */
#define LAYOUT_SEL_TSS 0x28    /* both: TR */

/* Ports */
#define LAYOUT_PORT_CMOS 0x70
#define LAYOUT_PORT_SYSB 0x61  /* system control port B (KVM's PIT answers it) */
#define LAYOUT_PORT_I8042 0x60 /* and 0x64 */
#define LAYOUT_PORT_DEBUG 0x80
#define LAYOUT_PORT_SERIAL 0x3f8
#define LAYOUT_PORT_PVPANIC 0x505
#define LAYOUT_PORT_MARK MARK_PORT /* guest/init reports its stages, one byte each */
#define LAYOUT_PORT_ACPI 0x600     /* sleep control and reset; PM timer at 0x608 */
#define LAYOUT_PORT_PMTIMER 0x608
#define LAYOUT_PORT_PCI 0xcf8
#define LAYOUT_PCI_IO_BASE 0x1000 /* I/O BARs: above every fixed port; Linux assigns none below */
#define LAYOUT_PCI_IO_SIZE 0xe000 /* to 0xefff */

/* GSIs */
#define LAYOUT_GSI_SERIAL 4
#define LAYOUT_GSI_GED 9
#define LAYOUT_GSI_VMMIO 5 /* virtio-mmio devices take 5–8 and 10–23 in order */
#define LAYOUT_GSIS 24

#endif
