/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/image.h"

#include <assert.h>
#include <stdlib.h>

#include "virtio/raw.h"

int image_open(struct image **ret, const struct disk_config *c, const struct image_env *env,
	       struct err *e)
{
	return raw_open(ret, c, env, e);
}

void image_free(struct image *im)
{
	if (im)
		im->ops->free(im);
}

void image_submit(struct image *im, struct image_req *r)
{
	assert(r->off <= im->size && r->len <= im->size - r->off);
	assert(!im->readonly || r->op == IMAGE_READ || r->op == IMAGE_FLUSH);
	r->im = im;
	r->cancelled = false;
	r->aio.cancelled = false;
	r->alone = false;
	r->cut = 0;
	im->ops->submit(im, r);
}

void image_kick(struct image *im)
{
	im->ops->kick(im);
}

bool image_ready(const struct image *im)
{
	return im->ops->ready(im);
}

void image_take(struct image *im)
{
	im->ops->take(im);
}

void image_cancel(struct image *im, struct image_req *r)
{
	(void)im;
	__atomic_store_n(&r->cancelled, true, __ATOMIC_RELAXED);
	r->aio.cancelled = true;
}

bool image_wait(struct image *im)
{
	return im->ops->wait(im);
}

void image_advance(struct image_req *r, uint64_t n)
{
	r->off += n;
	r->len -= n;
	while (r->niov && n >= r->iov->iov_len) {
		n -= r->iov->iov_len;
		r->iov++;
		r->niov--;
	}
	if (n) {
		r->iov->iov_base = (char *)r->iov->iov_base + n;
		r->iov->iov_len -= n;
	}
}
