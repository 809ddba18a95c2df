/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "boot/acpi.h"
#include "vmm/assemble.h"
#include "vmm/cpuid_x86_64.h"
#include "vmm/layout.h"

struct platform {
	struct irq *serial_irq, *ged_irq;
	struct serial *serial;
	struct cmos *cmos;
	struct i8042 *i8042;
	struct acpi_pm *pm;
	struct ged *ged;
	struct pvpanic *pvpanic;
	struct marker *marker;
	uint64_t base; /* platform registers: the end of physical space */
};

static uint64_t low_ram(const struct machine *m)
{
	uint64_t size = m->host->cfg->memory;

	return size < LAYOUT_LOW_RAM_MAX ? size : LAYOUT_LOW_RAM_MAX;
}

static uint64_t high_ram(const struct machine *m)
{
	return m->host->cfg->memory - low_ram(m);
}

int platform_memory(struct machine *m, struct err *e)
{
	unsigned bits = cpuid_phys_bits(&m->vm);
	uint64_t high = high_ram(m);

	/* RAM, at least one GiB of PCI window and the platform registers share physical space. */
	uint64_t high_max = (1ull << bits) - LAYOUT_HIGH_RAM - 2 * LAYOUT_PCI64_ALIGN;

	if (high > high_max) {
		char asked[CONFIG_SIZE_TEXT], most[CONFIG_SIZE_TEXT];

		config_size_text(asked, m->host->cfg->memory);
		config_size_text(most, (LAYOUT_LOW_RAM_MAX + high_max) & ~((1ull << 30) - 1));
		return err_msg(e, -EINVAL,
			       "--memory %s: this host's CPU addresses %u bits, which lets a "
			       "machine have at most %s",
			       asked, bits, most);
	}
	int r = gmem_add(m->gm, gpa(0), low_ram(m), e);
	if (r == 0 && high)
		r = gmem_add(m->gm, gpa(LAYOUT_HIGH_RAM), high, e);
	return r;
}

int platform_cmdline(struct machine *m, struct err *e)
{
	uint32_t khz = cpuid_tsc_hint(&m->vm);
	char words[32];

	if (!khz)
		return 0;
	snprintf(words, sizeof(words), "tsc_early_khz=%u", khz);
	return payload_cmdline_front(&m->payload, words, e);
}

static uint64_t platform_base(const struct machine *m)
{
	return (1ull << cpuid_phys_bits(&m->vm)) - LAYOUT_PLATFORM_SIZE;
}

void platform_window(struct machine *m)
{
	uint64_t start = LAYOUT_HIGH_RAM + high_ram(m);

	start = (start + LAYOUT_PCI64_ALIGN - 1) & ~(LAYOUT_PCI64_ALIGN - 1);
	m->window = (struct pci_window){
		.base32 = LAYOUT_PCI32_BASE,
		.size32 = LAYOUT_PCI32_SIZE,
		.base64 = start,
		.size64 = platform_base(m) - start,
		.base_io = LAYOUT_PCI_IO_BASE,
		.size_io = LAYOUT_PCI_IO_SIZE,
	};
}

static int build_serial(struct machine *m, struct platform *p, struct err *e)
{
	if (!m->host->serial)
		return 0;
	int r = irq_line_new(&p->serial_irq, m->irqs, LAYOUT_GSI_SERIAL, e);
	if (r < 0)
		return r;
	/* Freestanding test guests do without an operating system, and read from the start. */
	const struct serial_env env = {p->serial_irq, m->host->serial, !m->host->cfg->software_kvm};
	return serial_new(&p->serial, m->pio, m->host->loop, &env, e);
}

int platform_build(struct machine *m, struct err *e)
{
	struct platform *p = calloc(1, sizeof(*p));
	const struct marker_user marked = {machine_marked, m};
	const struct cmos_ram ram = {low_ram(m), high_ram(m)};
	struct loop *l = m->host->loop;

	if (!p)
		return err_msg(e, -ENOMEM, "platform: out of memory");
	m->platform = p;
	p->base = platform_base(m);
	int r = build_serial(m, p, e);
	if (r == 0)
		r = cmos_new(&p->cmos, m->pio, l, &ram, e);
	if (r == 0)
		r = i8042_new(&p->i8042, m->pio, l, &m->host->power, e);
	if (r == 0)
		r = acpi_pm_new(&p->pm, m->pio, l, &m->host->power, e);
	if (r == 0)
		r = irq_line_new(&p->ged_irq, m->irqs, LAYOUT_GSI_GED, e);
	const struct ged_env ged = {p->base, p->ged_irq};
	if (r == 0)
		r = ged_new(&p->ged, m->mmio, l, &ged, e);
	if (r == 0)
		r = pvpanic_new(&p->pvpanic, m->pio, l, &m->host->power, e);
	return r < 0 ? r : marker_new(&p->marker, m->pio, l, &marked, e);
}

/*
 * A PC's firmware begins here, and a kernel may jump to it in real mode to
 * restart: Linux with CONFIG_EFI does on hardware-reduced ACPI, reset register
 * or not (arch/x86/kernel/reboot.c: reboot_init). The keyboard controller
 * resets the machine for it.
 */
static int put_reset_vector(struct machine *m, struct err *e)
{
	/* mov al, 0xfe; out 0x64, al; hlt; jmp to the hlt */
	static const uint8_t code[] = {0xb0, 0xfe, 0xe6, LAYOUT_PORT_I8042 + 4, 0xf4, 0xeb, 0xfd};

	if (gmem_write(m->gm, gpa(LAYOUT_RESET_VECTOR), code, sizeof(code)) < 0)
		return err_msg(e, -EFAULT, "reset vector: no memory");
	return 0;
}

int platform_tables(struct machine *m, gpa_t *ret_rsdp, struct err *e)
{
	struct acpi_vmmio vmmio[MACHINE_VIRTIO_MAX];
	struct acpi_args a = {
		.cpus = m->host->cfg->cpus,
		.pci = m->pci != NULL,
		.serial = m->host->serial != NULL,
		.pci64_base = m->window.base64,
		.pci64_size = m->window.size64,
		.ged = m->platform->base,
		.vmmio = vmmio,
	};

	for (unsigned i = 0; !m->pci && i < m->nslots; i++)
		vmmio[a.nvmmio++] = (struct acpi_vmmio){
			.base = LAYOUT_VMMIO_BASE + i * LAYOUT_VMMIO_STRIDE,
			.gsi = platform_vmmio_gsi(i),
		};
	int r = put_reset_vector(m, e);
	return r < 0 ? r : acpi_build(m->gm, &a, ret_rsdp, e);
}

void platform_free(struct platform *p)
{
	if (!p)
		return;
	marker_free(p->marker);
	pvpanic_free(p->pvpanic);
	ged_free(p->ged);
	acpi_pm_free(p->pm);
	i8042_free(p->i8042);
	cmos_free(p->cmos);
	serial_free(p->serial);
	irq_free(p->ged_irq);
	irq_free(p->serial_irq);
	free(p);
}

void platform_listen(struct platform *p)
{
	serial_listen(p->serial);
}

void platform_power_button(struct platform *p)
{
	ged_event(p->ged, GED_POWER);
}

unsigned platform_vmmio_gsi(unsigned n)
{
	/* 5–8 and 10–23: the GED's lies between. */
	unsigned gsi = LAYOUT_GSI_VMMIO + n;

	if (gsi >= LAYOUT_GSI_GED)
		gsi++;
	return gsi < LAYOUT_GSIS ? gsi : 0;
}

bool platform_irqs_masked(const struct machine *m)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

	if (ioctl(m->vm.fd, KVM_GET_IRQCHIP, &chip) < 0)
		return false;
	for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		if (!chip.chip.ioapic.redirtbl[i].fields.mask)
			return false;
	return true;
}
