/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ethernet frames over a stream socket, as passt and QEMU's "stream" back end
 * have them: each with its length in front, four bytes, big-endian. A frame is
 * never cut in what the other end sees: what a full socket did not take is kept
 * and goes first.
 *
 * Under one lock. The peer is not trusted: a length that no frame has ends it.
 */
#ifndef VIRTIO_FRAMES_H
#define VIRTIO_FRAMES_H

#include <stddef.h>
#include <stdint.h>

/* An IP packet of 65535 bytes, the Ethernet header and one VLAN tag. */
#define FRAME_MAX (65535u + 18)

struct frames {
	int fd; /* nonblocking; the caller's */
	uint8_t *in, *out;
	size_t in_at, in_end;   /* received and not given out yet */
	size_t out_at, out_end; /* to be sent */
};

int frames_init(struct frames *f, int fd); /* 0 or -ENOMEM; @f zeroed */
void frames_fini(struct frames *f);

/* 1: a frame, valid until the next call; 0: none now; -errno: there will be none any more. */
int frames_next(struct frames *f, const uint8_t **ret, uint32_t *ret_len);

/* Where to write a frame of @len bytes, at most FRAME_MAX, that is to be sent; NULL: no room. */
uint8_t *frames_put(struct frames *f, uint32_t len);
/* 0: all is sent; 1: the socket is full; -errno: it is no more. */
int frames_flush(struct frames *f);

#endif
