/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/msix.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define CAP_CONTROL 2 /* message control, section 6.8.2.3 */
#define CAP_LEN 12
#define CTRL_FUNCTION_MASK 0x4000u
#define CTRL_ENABLE 0x8000u

#define ENTRY_MASKED 1u /* vector control, section 6.8.2.9 */

int msix_init(struct msix *m, unsigned n, struct irqs *irqs, struct err *e)
{
	assert(n >= 1 && n <= MSIX_VECTORS_MAX);
	*m = (struct msix){.vec = calloc(n, sizeof(*m->vec))};
	if (!m->vec)
		return err_msg(e, -ENOMEM, "MSI-X: out of memory");
	for (unsigned i = 0; i < n; i++) {
		struct msix_vector *v = &m->vec[i];
		int ret = irqs ? irq_msi_new(&v->irq, irqs, e) : irq_fake_new(&v->irq, e);

		if (ret) {
			msix_fini(m);
			return ret;
		}
		v->ctrl = ENTRY_MASKED;
		v->masked = true;
		m->n++;
	}
	return 0;
}

void msix_fini(struct msix *m)
{
	for (unsigned i = 0; i < m->n; i++)
		irq_free(m->vec[i].irq);
	free(m->vec);
	*m = (struct msix){0};
}

int msix_cap(struct msix *m, struct pci_func *f, unsigned bar, uint32_t table, uint32_t pba)
{
	const uint8_t body[CAP_LEN] = {0};

	m->cap = pci_cap(f, PCI_CAP_MSIX, body, sizeof(body));
	if (!m->cap)
		return -ENOSPC;
	pci_put(f, m->cap + CAP_CONTROL, 2, m->n - 1);
	pci_put(f, m->cap + 4, 4, table | bar);
	pci_put(f, m->cap + 8, 4, pba | bar);
	f->wmask[m->cap + CAP_CONTROL + 1] = (CTRL_ENABLE | CTRL_FUNCTION_MASK) >> 8;
	return 0;
}

static void msix_mask_update(struct msix *m, struct msix_vector *v)
{
	bool masked = m->control != CTRL_ENABLE || (v->ctrl & ENTRY_MASKED);

	if (masked == v->masked)
		return;
	v->masked = masked;
	irq_msi_mask(v->irq, masked);
}

void msix_cfg_written(struct msix *m, const struct pci_func *f, unsigned off, unsigned size)
{
	if (!pci_touches(off, size, m->cap + CAP_CONTROL, 2))
		return;
	m->control = (uint16_t)(pci_get(f, m->cap + CAP_CONTROL, 2) &
				(CTRL_ENABLE | CTRL_FUNCTION_MASK));
	for (unsigned i = 0; i < m->n; i++)
		msix_mask_update(m, &m->vec[i]);
}

bool msix_on(const struct msix *m)
{
	return m->control & CTRL_ENABLE;
}

void msix_raise(struct msix *m, unsigned vector)
{
	if (msix_on(m) && vector < m->n)
		irq_raise(m->vec[vector].irq);
}

int msix_fd(const struct msix *m, unsigned vector)
{
	return msix_on(m) && vector < m->n ? irq_fd(m->vec[vector].irq) : -1;
}

void msix_clear(struct msix *m)
{
	for (unsigned i = 0; i < m->n; i++)
		irq_clear(m->vec[i].irq);
}

/* --------------------------------------------------------------- table */

static bool table_fits(const struct msix *m, uint64_t off, unsigned size)
{
	return (size == 4 || size == 8) && off % size == 0 && off < m->n * MSIX_ENTRY;
}

static uint32_t table_get(const struct msix_vector *v, unsigned word)
{
	switch (word) {
	case 0:
		return (uint32_t)v->addr;
	case 1:
		return (uint32_t)(v->addr >> 32);
	case 2:
		return v->data;
	default:
		return v->ctrl;
	}
}

uint64_t msix_table_read(const struct msix *m, uint64_t off, unsigned size)
{
	const struct msix_vector *v;
	unsigned word = off % MSIX_ENTRY / 4;

	if (!table_fits(m, off, size))
		return 0;
	v = &m->vec[off / MSIX_ENTRY];
	if (size == 4)
		return table_get(v, word);
	return table_get(v, word) | (uint64_t)table_get(v, word + 1) << 32;
}

static void table_put(struct msix_vector *v, unsigned word, uint32_t val)
{
	switch (word) {
	case 0:
		v->addr = (v->addr & ~0xffffffffull) |
			  (val & ~3u); /* section 6.8.2.6: 1:0 are zero */
		break;
	case 1:
		v->addr = (v->addr & 0xffffffffull) | (uint64_t)val << 32;
		break;
	case 2:
		v->data = val;
		break;
	default:
		v->ctrl = val & ENTRY_MASKED;
		break;
	}
}

/*
 * The message is handed over before the mask changes, so a qword that writes
 * data and unmasks delivers with the new data.
 */
void msix_table_write(struct msix *m, uint64_t off, unsigned size, uint64_t val)
{
	struct msix_vector *v;
	unsigned word = off % MSIX_ENTRY / 4;

	if (!table_fits(m, off, size))
		return;
	v = &m->vec[off / MSIX_ENTRY];
	table_put(v, word, (uint32_t)val);
	if (size == 8)
		table_put(v, word + 1, (uint32_t)(val >> 32));
	irq_msi_set(v->irq, v->addr, v->data);
	msix_mask_update(m, v);
}

uint64_t msix_pba_read(const struct msix *m, uint64_t off, unsigned size)
{
	uint64_t bits = 0;

	if ((size != 4 && size != 8) || off % size || off >= MSIX_VECTORS_MAX / 8)
		return 0;
	for (uint64_t i = off * 8; i < m->n && i < off * 8 + size * 8; i++)
		if (irq_pending(m->vec[i].irq))
			bits |= 1ull << (i - off * 8);
	return bits;
}
