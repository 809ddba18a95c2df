/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables of the x86-64 machine (ACPI 6.4, hardware-reduced): RSDP, XSDT,
 * FADT, MADT with x2APIC entries, MCFG, DSDT with PC00, COM1, power button,
 * GED, _S5, LNRO0005 devices. Written once before the first vCPU runs.
 */
#ifndef BOOT_ACPI_H
#define BOOT_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/err.h"
#include "vmm/gmem.h"

struct acpi_vmmio {
	uint64_t base; /* one LAYOUT_VMMIO_STRIDE */
	unsigned gsi;
};

struct acpi_args {
	unsigned cpus;
	bool pci, serial;
	uint64_t pci64_base, pci64_size;
	uint64_t ged; /* address of the GED's one-byte event register */
	const struct acpi_vmmio *vmmio;
	unsigned nvmmio;
};

int acpi_build(struct gmem *gm, const struct acpi_args *a, gpa_t *ret_rsdp, struct err *e);

#endif
