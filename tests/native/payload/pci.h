/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration space, by both ways in. */
#ifndef PAYLOAD_PCI_H
#define PAYLOAD_PCI_H

#include "tests/native/payload/guest.h"

#define PCI_COMMAND 0x04
#define PCI_COMMAND_IO 1
#define PCI_COMMAND_MEM 2
#define PCI_COMMAND_MASTER 4
#define PCI_COMMAND_ON 7 /* all three */
#define PCI_BAR0 0x10
#define PCI_BAR2 0x18
#define PCI_CAPS 0x34

static inline uint64_t pci_ecam(unsigned slot)
{
	return LAYOUT_ECAM_BASE + ((uint64_t)slot << 15);
}

static inline uint32_t cf8_read(unsigned slot, unsigned off)
{
	outl(LAYOUT_PORT_PCI, 0x80000000u | slot << 11 | off);
	return inl(LAYOUT_PORT_PCI + 4);
}

#endif
