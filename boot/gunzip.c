/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gzip (RFC 1952) of a kernel image. The result is copied into guest memory
 * and given back at once: mapping it there would keep the whole of it, debug
 * information included, for as long as the machine runs.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define ZLIB_CONST
#include <zlib.h>

#include "boot/kernel_priv.h"

#define INPUT_CHUNK (64u << 10)
#define OUTPUT_FIRST (4ull << 20)
#define OUTPUT_STEP (1u << 30) /* what a zlib counter takes at once */

struct output {
	uint8_t *p;
	uint64_t len, cap;
};

/* The trailer's ISIZE is a hint about the size and nothing more: it only reserves addresses. */
static int output_init(struct output *o, const struct kernel *k, uint64_t max, struct err *e)
{
	uint8_t t[4];
	uint64_t hint = OUTPUT_FIRST;

	if (k->len >= 18 && !kernel_read(k, k->len - 4, t, 4))
		hint = t[0] | (uint64_t)t[1] << 8 | (uint64_t)t[2] << 16 | (uint64_t)t[3] << 24;
	/* One byte more than allowed tells "too much" from "just enough". */
	o->cap = (hint < max ? hint : max) + 1;
	o->len = 0;
	o->p = mmap(NULL, o->cap, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return o->p == MAP_FAILED ? err_sys(e, "unpacking it: mmap") : 0;
}

static int output_grow(struct output *o, uint64_t max, struct err *e)
{
	uint64_t cap = o->cap < OUTPUT_FIRST ? OUTPUT_FIRST : o->cap * 2;

	if (o->len > max)
		return err_msg(e, -EFBIG, "it unpacks to more than %llu MiB",
			       (unsigned long long)(max >> 20));
	if (cap > max + 1)
		cap = max + 1;
	void *p = mremap(o->p, o->cap, cap, MREMAP_MAYMOVE);
	if (p == MAP_FAILED)
		return err_sys(e, "unpacking it: mremap");
	o->p = p;
	o->cap = cap;
	return 0;
}

static int input_refill(const struct kernel *k, z_stream *z, uint8_t *chunk, uint64_t *off,
			struct err *e)
{
	uint64_t left = k->len - *off;
	uint32_t n = left < INPUT_CHUNK ? (uint32_t)left : INPUT_CHUNK;

	if (!n)
		return err_msg(e, -EIO, "the gzip file is truncated: its %llu bytes end too early",
			       (unsigned long long)k->len);
	if (kernel_read(k, *off, chunk, n))
		return err_msg(e, -EIO, "reading it failed at byte %llu", (unsigned long long)*off);
	*off += n;
	z->next_in = chunk;
	z->avail_in = n;
	return 0;
}

static int unpack(const struct kernel *k, z_stream *z, struct output *o, uint64_t max,
		  struct err *e)
{
	uint8_t chunk[INPUT_CHUNK];
	uint64_t off = 0;

	for (;;) {
		int r = 0;
		if (!z->avail_in)
			r = input_refill(k, z, chunk, &off, e);
		if (!r && o->len == o->cap)
			r = output_grow(o, max, e);
		if (r)
			return r;

		uint64_t room = o->cap - o->len;
		uint32_t step = room < OUTPUT_STEP ? (uint32_t)room : OUTPUT_STEP;
		z->next_out = o->p + o->len;
		z->avail_out = step;
		int zr = inflate(z, Z_NO_FLUSH);
		o->len += step - z->avail_out;
		if (zr == Z_STREAM_END)
			return o->len <= max ? 0 : output_grow(o, max, e);
		/* Z_BUF_ERROR: no progress without more input or room, which the next turn gives.
		 */
		if (zr != Z_OK && zr != Z_BUF_ERROR)
			return err_msg(e, zr == Z_MEM_ERROR ? -ENOMEM : -EIO,
				       "the gzip data are damaged: %s",
				       z->msg ? z->msg : zError(zr));
	}
}

int gunzip_image(struct kernel *k, uint64_t max, struct err *e)
{
	z_stream z = {0};
	struct output o;
	int r = output_init(&o, k, max, e);

	if (r)
		return r;
	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) { /* 16: a gzip header */
		munmap(o.p, o.cap);
		return err_msg(e, -ENOMEM, "unpacking it: out of memory");
	}
	r = unpack(k, &z, &o, max, e);
	inflateEnd(&z);
	if (r) {
		munmap(o.p, o.cap);
		return r;
	}
	if (k->fd >= 0)
		close(k->fd);
	k->fd = -1;
	k->mem = k->unpacked = o.p;
	k->unpacked_len = o.cap;
	k->len = o.len;
	return 0;
}
