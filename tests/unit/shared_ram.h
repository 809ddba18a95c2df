/* SPDX-License-Identifier: Apache-2.0 */
/* fake_driver.h's guest memory, but shared as a back end needs it. */
#ifndef TESTS_UNIT_SHARED_RAM_H
#define TESTS_UNIT_SHARED_RAM_H

#include "tests/unit/fake_driver.h"

static inline void shared_ram_init(struct fake_ram *m, uint64_t size)
{
	size_t n;

	*m = (struct fake_ram){.size = size};
	if (gmem_new(&m->gm, NULL))
		abort();
	gmem_share(m->gm);
	if (gmem_add(m->gm, gpa(FAKE_BASE), size, NULL))
		abort();
	m->host = gmem_regions(m->gm, &n)->host;
}

static inline void shared_ram_fini(struct fake_ram *m)
{
	gmem_free(m->gm);
}

#endif
