/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/gmem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/pages.h"

#define GMEM_REGIONS 8
#define GMEM_PAGE 4096ull

struct gmem {
	struct gmem_region region[GMEM_REGIONS];
	bool ours[GMEM_REGIONS]; /* mapped here, to be unmapped here */
	size_t n;
	bool may_borrow, shared;
	struct pages_lent lent;
};

int gmem_new(struct gmem **ret, struct err *e)
{
	struct gmem *gm = calloc(1, sizeof(*gm));

	if (!gm)
		return err_msg(e, -ENOMEM, "guest memory: out of memory");
	*ret = gm;
	return 0;
}

static void region_free(const struct gmem_region *r)
{
	munmap(r->host, r->size);
	if (r->fd < 0)
		return;
	/* A back end has it mapped until it is given another machine's, and would keep the pages.
	 * That they go is all that is wanted: so no word of a failure. */
	fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)r->size);
	close(r->fd);
}

void gmem_free(struct gmem *gm)
{
	if (!gm)
		return;
	for (size_t i = 0; i < gm->n; i++)
		if (gm->ours[i])
			region_free(&gm->region[i]);
	pages_return(&gm->lent);
	free(gm);
}

int gmem_add_fixed(struct gmem *gm, gpa_t base, uint64_t size, void *host, struct err *e)
{
	if (!size || size % GMEM_PAGE || base.v % GMEM_PAGE || base.v + size < base.v)
		return err_msg(e, -EINVAL, "memory region %#llx+%#llx: not whole pages",
			       (unsigned long long)base.v, (unsigned long long)size);
	for (size_t i = 0; i < gm->n; i++) {
		const struct gmem_region *r = &gm->region[i];
		if (base.v < r->base.v + r->size && r->base.v < base.v + size)
			return err_msg(e, -EEXIST, "memory region %#llx+%#llx overlaps another",
				       (unsigned long long)base.v, (unsigned long long)size);
	}
	if (gm->n == GMEM_REGIONS)
		return err_msg(e, -ENOSPC, "more than %d memory regions", GMEM_REGIONS);
	gm->region[gm->n++] =
		(struct gmem_region){.base = base, .size = size, .host = host, .fd = -1};
	return 0;
}

void gmem_share(struct gmem *gm)
{
	gm->shared = true;
}

int gmem_add(struct gmem *gm, gpa_t base, uint64_t size, struct err *e)
{
	int fd = -1;
	void *host = gm->shared ? pages_map_shared(size, &fd) : pages_map(size, NULL);

	if (!host)
		return err_sys(e, "map %llu MiB of guest memory", (unsigned long long)(size >> 20));
	int r = gmem_add_fixed(gm, base, size, host, e);
	if (r < 0) {
		munmap(host, size);
		if (fd >= 0)
			close(fd);
		return r;
	}
	gm->ours[gm->n - 1] = true;
	gm->region[gm->n - 1].fd = fd;
	return 0;
}

const struct gmem_region *gmem_regions(const struct gmem *gm, size_t *ret_n)
{
	*ret_n = gm->n;
	return gm->region;
}

/* The one translation: NULL unless all of [at, at+len) lies in one region. */
static uint8_t *gmem_at(const struct gmem *gm, gpa_t at, uint64_t len)
{
	for (size_t i = 0; i < gm->n; i++) {
		const struct gmem_region *r = &gm->region[i];
		uint64_t off = at.v - r->base.v; /* wraps to something >= size when below base */
		if (off < r->size && len <= r->size - off)
			return (uint8_t *)r->host + off;
	}
	return NULL;
}

bool gmem_ok(const struct gmem *gm, gpa_t at, uint64_t len)
{
	return gmem_at(gm, at, len) != NULL;
}

int gmem_read(const struct gmem *gm, gpa_t at, void *buf, size_t len)
{
	const uint8_t *p = gmem_at(gm, at, len);

	if (!len)
		return 0;
	if (!p)
		return -EFAULT;
	memcpy(buf, p, len);
	return 0;
}

int gmem_write(struct gmem *gm, gpa_t at, const void *buf, size_t len)
{
	uint8_t *p = gmem_at(gm, at, len);

	if (!len)
		return 0;
	if (!p)
		return -EFAULT;
	memcpy(p, buf, len);
	return 0;
}

int gmem_iov(const struct gmem *gm, gpa_t at, size_t len, struct iovec *ret)
{
	uint8_t *p = gmem_at(gm, at, len);

	if (!p)
		return -EFAULT;
	*ret = (struct iovec){.iov_base = p, .iov_len = len};
	return 0;
}

int gmem_window(const struct gmem *gm, gpa_t at, uint32_t len, uint32_t align, struct gwin *ret)
{
	uint8_t *p = gmem_at(gm, at, len);

	if (at.v % align)
		return -EINVAL;
	if (!p)
		return -EFAULT;
	*ret = (struct gwin){.p = p, .len = len};
	return 0;
}

/* -------------------------------------------------------------- files */

void gmem_may_borrow(struct gmem *gm)
{
	gm->may_borrow = !gm->shared;
}

bool gmem_borrows(const struct gmem *gm)
{
	return gm->lent.nfiles;
}

int gmem_copy_borrowed(struct gmem *gm)
{
	return pages_copy(&gm->lent);
}

int gmem_settle(struct gmem *gm, struct err *e)
{
	return pages_settle(&gm->lent, e);
}

static int load_copy(uint8_t *p, const struct gmem_file *f, struct err *e)
{
	for (uint64_t done = 0; done < f->len;) {
		ssize_t n = pread(f->fd, p + done, f->len - done, (off_t)(f->off + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, "read");
		if (n == 0)
			return err_msg(e, -EIO, "the file ended %llu bytes early",
				       (unsigned long long)(f->len - done));
		done += (uint64_t)n;
	}
	return 0;
}

/* Whether what lies at @p was mapped here: a caller's own buffer is not ours to replace. */
static bool gmem_is_ours(const struct gmem *gm, const uint8_t *p)
{
	for (size_t i = 0; i < gm->n; i++) {
		const struct gmem_region *r = &gm->region[i];
		if (gm->ours[i] && (uintptr_t)p - (uintptr_t)r->host < r->size)
			return true;
	}
	return false;
}

int gmem_load_file(struct gmem *gm, gpa_t at, const struct gmem_file *f, struct err *e)
{
	uint8_t *p = gmem_at(gm, at, f->len);

	if (!p && f->len)
		return err_msg(e, -EFAULT, "%llu bytes at %#llx are not all RAM",
			       (unsigned long long)f->len, (unsigned long long)at.v);

	/* Whole pages in the middle are borrowed, if they can be; what stands over is copied. */
	const uint64_t page = (uint64_t)getpagesize();
	uint64_t head = -(uintptr_t)p % page;
	struct pages_part body = {.fd = f->fd, .off = f->off + head};
	if (gm->may_borrow && f->len > head && gmem_is_ours(gm, p))
		body.len = (f->len - head) / page * page;
	if (!body.len || !pages_borrow(&gm->lent, p + head, &body))
		return load_copy(p, f, e);

	uint64_t done = head + body.len;
	int r = load_copy(p, &(struct gmem_file){f->fd, f->off, head}, e);
	return r < 0 ? r
		     : load_copy(p + done, &(struct gmem_file){f->fd, f->off + done, f->len - done},
				 e);
}
