/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/bus.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/log.h"

struct bus {
	pthread_mutex_t lock; /* map and generation; never held while a handler runs */
	struct bus_region *region;
	size_t n, cap; /* sorted by base, not overlapping */
	unsigned gen;
	struct log_budget unclaimed;
};

int bus_new(struct bus **ret, struct err *e)
{
	struct bus *b = calloc(1, sizeof(*b));

	if (!b)
		return err_msg(e, -ENOMEM, "bus: out of memory");
	pthread_mutex_init(&b->lock, NULL);
	*ret = b;
	return 0;
}

void bus_free(struct bus *b)
{
	if (!b)
		return;
	pthread_mutex_destroy(&b->lock);
	free(b->region);
	free(b);
}

/* Index of the first region that ends after @addr. */
static size_t bus_slot(const struct bus *b, uint64_t addr)
{
	size_t lo = 0, hi = b->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		const struct bus_region *r = &b->region[mid];
		if (r->base + (r->size - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int bus_insert(struct bus *b, const struct bus_region *r, struct err *e)
{
	size_t at = bus_slot(b, r->base);

	if (at < b->n && b->region[at].base <= r->base + (r->size - 1))
		return err_msg(e, -EEXIST, "bus: %s at %#llx overlaps %s", r->name,
			       (unsigned long long)r->base, b->region[at].name);
	if (b->n == b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 16;
		struct bus_region *p = reallocarray(b->region, cap, sizeof(*p));
		if (!p)
			return err_msg(e, -ENOMEM, "bus: out of memory");
		b->region = p;
		b->cap = cap;
	}
	memmove(&b->region[at + 1], &b->region[at], (b->n - at) * sizeof(*r));
	b->region[at] = *r;
	b->n++;
	__atomic_fetch_add(&b->gen, 1, __ATOMIC_RELEASE);
	return 0;
}

int bus_add(struct bus *b, const struct bus_region *r, struct err *e)
{
	if (!r->size || r->base + (r->size - 1) < r->base)
		return err_msg(e, -EINVAL, "bus: %s has no proper range", r->name);
	pthread_mutex_lock(&b->lock);
	int rc = bus_insert(b, r, e);
	pthread_mutex_unlock(&b->lock);
	return rc;
}

int bus_del(struct bus *b, uint64_t base)
{
	int rc = -ENOENT;

	pthread_mutex_lock(&b->lock);
	size_t at = bus_slot(b, base);
	if (at < b->n && b->region[at].base == base) {
		memmove(&b->region[at], &b->region[at + 1], (b->n - at - 1) * sizeof(b->region[0]));
		b->n--;
		__atomic_fetch_add(&b->gen, 1, __ATOMIC_RELEASE);
		rc = 0;
	}
	pthread_mutex_unlock(&b->lock);
	return rc;
}

/* The region that holds all of [addr, addr+size), copied; false when none does. */
static bool bus_find(struct bus *b, uint64_t addr, unsigned size, struct bus_region *ret,
		     unsigned *ret_gen)
{
	bool found = false;

	pthread_mutex_lock(&b->lock);
	size_t at = bus_slot(b, addr);
	if (at < b->n && b->region[at].base <= addr &&
	    size <= b->region[at].size - (addr - b->region[at].base)) {
		*ret = b->region[at];
		found = true;
	}
	*ret_gen = b->gen;
	pthread_mutex_unlock(&b->lock);
	return found;
}

/* Finds the region and takes its loop's lock, with the map unchanged in between. */
static bool bus_enter(struct bus *b, uint64_t addr, unsigned size, struct bus_region *r)
{
	unsigned gen;

	if (size != 1 && size != 2 && size != 4 && size != 8)
		return false;
	while (bus_find(b, addr, size, r, &gen)) {
		if (!r->loop)
			return true;
		loop_lock(r->loop);
		if (__atomic_load_n(&b->gen, __ATOMIC_ACQUIRE) == gen)
			return true;
		loop_unlock(r->loop);
	}
	return false;
}

uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size)
{
	struct bus_region r;

	if (!bus_enter(b, addr, size, &r)) {
		if (log_on(LOG_DEBUG))
			log_guest(&b->unclaimed, "read of %u bytes at %#llx: nothing is there",
				  size, (unsigned long long)addr);
		return ~0ull;
	}
	uint64_t v = r.ops->read(r.dev, addr - r.base, size);
	if (r.loop)
		loop_unlock(r.loop);
	return v;
}

void bus_write(struct bus *b, uint64_t addr, unsigned size, uint64_t val)
{
	struct bus_region r;

	if (!bus_enter(b, addr, size, &r)) {
		if (log_on(LOG_DEBUG))
			log_guest(&b->unclaimed, "write of %u bytes at %#llx: nothing is there",
				  size, (unsigned long long)addr);
		return;
	}
	r.ops->write(r.dev, addr - r.base, size, val);
	if (r.loop)
		loop_unlock(r.loop);
}
