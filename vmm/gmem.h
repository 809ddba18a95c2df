/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory.
 *
 * A guest physical address is a gpa_t, a type that does not mix with integers.
 * Every access carries a length and is checked against the RAM regions; an
 * access may not cross from one region into another (they are never adjacent
 * in a way a guest could use: RAM below 3 GiB and RAM from 4 GiB).
 *
 * Nobody gets a bare pointer.  Three ways in:
 *  - gmem_read/gmem_write copy;
 *  - a window (struct gwin) is a checked range with single, atomic
 *    little-endian loads and stores: for descriptor tables and rings only;
 *  - gmem_iov gives an iovec for the kernel's use alone (readv, io_submit, …).
 *
 * Guest memory changes under the reader at any time: read once, then check
 * what was read (the double-fetch rule).
 *
 * Threading: regions are added before the first vCPU runs and live until
 * gmem_free; the accessors may be used from any thread, but not during gmem_settle.
 */
#ifndef VMM_GMEM_H
#define VMM_GMEM_H

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/err.h"

typedef struct {
	uint64_t v;
} gpa_t;

static inline gpa_t gpa(uint64_t v)
{
	return (gpa_t){v};
}

struct gmem;

struct gmem_region {
	gpa_t base;
	uint64_t size; /* bytes, a multiple of 4096 */
	void *host;    /* for KVM_SET_USER_MEMORY_REGION, vhost and gmem.c alone */
	int fd; /* shared memory: the memfd whose first byte is the region's; else -1. gmem.c's */
};

int gmem_new(struct gmem **ret, struct err *e);
void gmem_free(struct gmem *gm); /* accepts NULL */

/*
 * From here on gmem_add makes memory that other processes can map: a memfd for each
 * region, sealed at its size, so that none of them can take pages away from under us.
 * Nothing is borrowed then (gmem_load_file).
 */
void gmem_share(struct gmem *gm);

/* Maps @size bytes of anonymous memory at @base. -EINVAL, -ENOMEM, -EEXIST (overlap). */
int gmem_add(struct gmem *gm, gpa_t base, uint64_t size, struct err *e);

/* For tests: the same over the caller's own buffer. */
int gmem_add_fixed(struct gmem *gm, gpa_t base, uint64_t size, void *host, struct err *e);

const struct gmem_region *gmem_regions(const struct gmem *gm, size_t *ret_n);

/* 0, or -EFAULT with nothing read or written when any byte is not RAM. A length of 0 is always
 * fine. */
int gmem_read(const struct gmem *gm, gpa_t at, void *buf, size_t len);
int gmem_write(struct gmem *gm, gpa_t at, const void *buf, size_t len);

/* Whether [at, at+len) is all RAM of one region. */
bool gmem_ok(const struct gmem *gm, gpa_t at, uint64_t len);

/* An iovec over [at, at+len) for system calls; 0 or -EFAULT. Never dereference it. */
int gmem_iov(const struct gmem *gm, gpa_t at, size_t len, struct iovec *ret);

/*
 * Fills RAM from a file; -errno, -EIO at an early end of the file. It copies, but
 * for large pieces of a local file after gmem_may_borrow(): their whole pages are
 * mapped privately under a read lease, when file and guest address agree within
 * a page, and copied later, while the guest runs (vmm/pages.h says how that is
 * safe). What the guest writes never gets into the file. Before the first vCPU runs.
 */
struct gmem_file { /* a part of a file */
	int fd;
	uint64_t off, len;
};
int gmem_load_file(struct gmem *gm, gpa_t at, const struct gmem_file *f, struct err *e);

/*
 * From here on files may be borrowed, by a caller that settles soon after the
 * start, and without delay at a SIGIO: then somebody waits to write the file. It
 * blocks that signal and reads it from a signalfd.
 */
void gmem_may_borrow(struct gmem *gm);
bool gmem_borrows(const struct gmem *gm); /* something, right now */

/*
 * Makes the copies that gmem_settle needs, so that it need not: on any one
 * thread, while the guest runs. 0 or a negative errno; gmem_settle tries again.
 */
int gmem_copy_borrowed(struct gmem *gm);

/*
 * Makes all of guest memory the guest's own. Nobody may use it meanwhile:
 * vCPUs are paused and no I/O is in flight. After an error the content is not to
 * be trusted: -ESTALE, -ENOMEM, -EIO, -EFAULT.
 */
int gmem_settle(struct gmem *gm, struct err *e);

/* ------------------------------------------------------------- windows */

struct gwin {
	uint8_t *p; /* private to the inline functions below */
	uint32_t len;
};

/* 0, -EFAULT when not all RAM, -EINVAL when @at is not a multiple of @align. */
int gmem_window(const struct gmem *gm, gpa_t at, uint32_t len, uint32_t align, struct gwin *ret);

/* @off comes from our own arithmetic, bounded by the ring's size: an assertion is right. */
#define GWIN_AT(w, off, type)                                                                      \
	(assert((off) % sizeof(type) == 0 && (w)->len >= sizeof(type) &&                           \
		(off) <= (w)->len - sizeof(type)),                                                 \
	 (type *)(void *)((w)->p + (off)))

static inline uint16_t gwin_load16(const struct gwin *w, uint32_t off)
{
	return le16toh(__atomic_load_n(GWIN_AT(w, off, uint16_t), __ATOMIC_RELAXED));
}
static inline uint16_t gwin_load16_acquire(const struct gwin *w, uint32_t off)
{
	return le16toh(__atomic_load_n(GWIN_AT(w, off, uint16_t), __ATOMIC_ACQUIRE));
}
static inline uint32_t gwin_load32(const struct gwin *w, uint32_t off)
{
	return le32toh(__atomic_load_n(GWIN_AT(w, off, uint32_t), __ATOMIC_RELAXED));
}
static inline uint64_t gwin_load64(const struct gwin *w, uint32_t off)
{
	return le64toh(__atomic_load_n(GWIN_AT(w, off, uint64_t), __ATOMIC_RELAXED));
}
static inline void gwin_store16(const struct gwin *w, uint32_t off, uint16_t v)
{
	__atomic_store_n(GWIN_AT(w, off, uint16_t), htole16(v), __ATOMIC_RELAXED);
}
static inline void gwin_store16_release(const struct gwin *w, uint32_t off, uint16_t v)
{
	__atomic_store_n(GWIN_AT(w, off, uint16_t), htole16(v), __ATOMIC_RELEASE);
}
static inline void gwin_store32(const struct gwin *w, uint32_t off, uint32_t v)
{
	__atomic_store_n(GWIN_AT(w, off, uint32_t), htole32(v), __ATOMIC_RELAXED);
}

#endif
