/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/sizes.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert(CONFIG_QUEUES_MAX == VIRTIO_QUEUES_MAX, "a size for each queue");
static_assert(CONFIG_QUEUE_MAX == VQ_SIZE_MAX, "what the user may ask for is what a queue can be");

/*
 * A request is no longer than its queue, indirect tables included (virtio 1.2 section
 * 2.7.5.3.1), so a queue has to hold the longest one that drivers need.
 */
static const struct {
	uint16_t id, min;
	const char *why;
} least[] = {
	{VIRTIO_ID_NET, CONFIG_NET_QUEUE_MIN, "a packet may take 19 buffers"},
	{VIRTIO_ID_BLOCK, CONFIG_DISK_QUEUE_MIN, "a request takes at least 3 buffers"},
	{VIRTIO_ID_VSOCK, CONFIG_VSOCK_QUEUE_MIN, "a packet takes 2 buffers"},
	{VIRTIO_ID_FS, CONFIG_FS_QUEUE_MIN, "a request may take 9 buffers"},
};

/* ------------------------------------------------------------- what the user says */

static int spelling(struct err *e)
{
	return err_msg(e, -EINVAL, "must be DEVICE=SIZE[:SIZE...]");
}

/* @list: the sizes, which are taken apart. */
static int all(struct sizes_config *s, char *list, struct err *e)
{
	char *word;
	int r = 0;

	while (!r && (word = strsep(&list, ":"))) {
		if (s->n == CONFIG_QUEUES_MAX)
			return err_msg(e, -E2BIG, "a device has at most %d queues",
				       CONFIG_QUEUES_MAX);
		r = *word ? config_queue_size(word, CONFIG_QUEUE_MIN, &s->size[s->n++], e)
			  : spelling(e);
	}
	return r;
}

int sizes_config(struct config *c, const char *text, struct err *e)
{
	struct sizes_config s = {0};
	size_t len = strcspn(text, "=");
	char *list;
	int r;

	if (!len || !text[len] || len >= sizeof(s.device))
		return spelling(e);
	memcpy(s.device, text, len);
	for (size_t i = 0; i < c->nsizes; i++)
		if (!strcmp(c->sizes[i].device, s.device))
			return err_msg(e, -EEXIST, "%s has its sizes already", s.device);
	list = strdup(text + len + 1);
	if (!list)
		return err_msg(e, -ENOMEM, "out of memory");
	r = all(&s, list, e);
	free(list);
	if (r)
		return r;
	if (c->nsizes == CONFIG_SIZES_MAX)
		return err_msg(e, -E2BIG, "at most %d of them fit", CONFIG_SIZES_MAX);
	c->sizes[c->nsizes++] = s;
	return 0;
}

/* ------------------------------------------------------------- what a device gets */

static int enough(const struct sizes_config *s, const struct virtio *v, struct err *e)
{
	for (size_t i = 0; i < sizeof(least) / sizeof(least[0]); i++)
		for (unsigned q = 0; least[i].id == v->ops->id && q < s->n; q++)
			if (s->size[q] < least[i].min)
				return err_msg(e, -ERANGE, "%u is too small: %s, so at least %u",
					       s->size[q], least[i].why, least[i].min);
	return 0;
}

static int apply(const struct sizes_config *s, struct virtio *v, struct err *e)
{
	int r = enough(s, v, e);

	if (r)
		return r;
	if (s->n > v->nqueues)
		return err_msg(e, -EINVAL, "%u sizes, but it has %u queue%s", s->n, v->nqueues,
			       v->nqueues == 1 ? "" : "s");
	r = virtio_resize(v, s->size, s->n);
	return r ? err_msg(e, r, "%s", strerror(-r)) : 0;
}

int sizes_apply(const struct config *c, struct virtio *v, struct err *e)
{
	for (size_t i = 0; i < c->nsizes; i++)
		if (!strcmp(c->sizes[i].device, v->name) && apply(&c->sizes[i], v, e))
			return err_ctx(e, "--virtio-queue-sizes: %s", v->name);
	return 0;
}

/* ------------------------------------------------------------- what is said of them */

uint16_t sizes_least(const struct virtio *v)
{
	uint16_t min = VQ_SIZE_MAX;

	for (unsigned q = 0; q < v->nqueues; q++)
		if (vq_max_size(v->queue[q].vq) < min)
			min = vq_max_size(v->queue[q].vq);
	return min;
}

static bool are_alike(const struct virtio *v)
{
	for (unsigned q = 1; q < v->nqueues; q++)
		if (vq_max_size(v->queue[q].vq) != vq_max_size(v->queue[0].vq))
			return false;
	return true;
}

void sizes_text(char *buf, size_t size, const struct virtio *v)
{
	unsigned n = are_alike(v) && v->nqueues ? 1 : v->nqueues;
	size_t at = 0;

	*buf = '\0';
	for (unsigned q = 0; q < n && at < size; q++)
		at += (size_t)snprintf(buf + at, size - at, "%s%u", q ? ":" : "",
				       vq_max_size(v->queue[q].vq));
}
