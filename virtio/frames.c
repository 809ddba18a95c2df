/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/frames.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PREFIX 4u
#define BUFFER (256u << 10) /* a few of the largest frames */

int frames_init(struct frames *f, int fd)
{
	f->fd = fd;
	f->in = malloc(BUFFER);
	f->out = malloc(BUFFER);
	return f->in && f->out ? 0 : -ENOMEM;
}

void frames_fini(struct frames *f)
{
	free(f->in);
	free(f->out);
	*f = (struct frames){.fd = -1};
}

/* True: a whole frame is there. *ret_len: of it, or 0 while that is not known. */
static bool whole(const struct frames *f, uint32_t *ret_len)
{
	size_t have = f->in_end - f->in_at;
	uint32_t len;

	*ret_len = 0;
	if (have < PREFIX)
		return false;
	memcpy(&len, f->in + f->in_at, PREFIX);
	*ret_len = ntohl(len);
	return have - PREFIX >= *ret_len;
}

int frames_next(struct frames *f, const uint8_t **ret, uint32_t *ret_len)
{
	bool got = whole(f, ret_len);

	if (!got && (!*ret_len || *ret_len <= FRAME_MAX)) {
		/* The buffer holds several frames, so there is room behind the part of one. */
		memmove(f->in, f->in + f->in_at, f->in_end - f->in_at);
		f->in_end -= f->in_at;
		f->in_at = 0;
		ssize_t n = recv(f->fd, f->in + f->in_end, BUFFER - f->in_end, MSG_DONTWAIT);

		if (n == 0)
			return -ECONNRESET;
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		f->in_end += (size_t)n;
		got = whole(f, ret_len);
	}
	/* The peer's length: FRAME_MAX bounds it, long before it is an offset. */
	if ((got || *ret_len) && (*ret_len == 0 || *ret_len > FRAME_MAX))
		return -EPROTO;
	if (!got)
		return 0;
	*ret = f->in + f->in_at + PREFIX;
	f->in_at += PREFIX + *ret_len;
	return 1;
}

uint8_t *frames_put(struct frames *f, uint32_t len)
{
	uint32_t prefix = htonl(len);
	uint8_t *at;

	if (f->out_at) {
		memmove(f->out, f->out + f->out_at, f->out_end - f->out_at);
		f->out_end -= f->out_at;
		f->out_at = 0;
	}
	if (BUFFER - f->out_end < PREFIX + len)
		return NULL;
	at = f->out + f->out_end;
	memcpy(at, &prefix, PREFIX);
	f->out_end += PREFIX + len;
	return at + PREFIX;
}

int frames_flush(struct frames *f)
{
	while (f->out_at < f->out_end) {
		ssize_t n = send(f->fd, f->out + f->out_at, f->out_end - f->out_at,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 1 : -errno;
		f->out_at += (size_t)n;
	}
	f->out_at = f->out_end = 0;
	return 0;
}
