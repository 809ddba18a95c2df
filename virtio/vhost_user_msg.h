/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vhost-user protocol on the wire: one message, with file descriptors beside it, over a
 * Unix stream socket (QEMU's docs/interop/vhost-user.rst, "Message Specification").
 *
 * What a peer sends is read into a struct of a fixed size: a message that says it is
 * longer, of another version, or that comes with file descriptors, which no answer
 * that we ask for has, is refused. The kernel drops the descriptors: none gets into our table.
 *
 * Threading: one thread at a time a socket. Nothing here waits longer than it was told.
 */
#ifndef VIRTIO_VHOST_USER_MSG_H
#define VIRTIO_VHOST_USER_MSG_H

#include <stdint.h>

/* Requests of the front end: "Front-end message types". */
enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_SET_MEM_TABLE = 5,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_REQUESTS = 26
};
/* "GET_FEATURES"; of a number that is none of these: "request". */
const char *vu_request_name(uint32_t request);

/* Requests of the back end, on a channel of their own: "Back-end message types". */
#define VU_BACKEND_CONFIG_CHANGE_MSG 2

/* A virtio feature that the peer has protocol features; and those, by number. */
#define VU_F_PROTOCOL_FEATURES 30
#define VU_PROTOCOL_F_MQ 0
#define VU_PROTOCOL_F_REPLY_ACK 3
#define VU_PROTOCOL_F_BACKEND_REQ 5
#define VU_PROTOCOL_F_CONFIG 9

/* Flags: bits 0 and 1 are the version. */
#define VU_VERSION_MASK 3u
#define VU_VERSION 1u
#define VU_REPLY 4u
#define VU_NEED_REPLY 8u

#define VU_REGIONS_MAX 8
#define VU_CONFIG_MAX 256
#define VU_VRING_NOFD 0x100u

struct vu_region {
	uint64_t gpa, size, user, offset;
};

/* All little-endian, as the guest and this host are: the protocol uses the host's order. */
struct vu_msg {
	uint32_t request, flags, size; /* size: of the payload */
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct {
			uint32_t n, padding;
			struct vu_region region[VU_REGIONS_MAX];
		} mem;
		struct {
			uint32_t offset, size, flags;
			uint8_t data[VU_CONFIG_MAX];
		} config;
	} __attribute__((packed));
};
#define VU_HEADER 12u
#define VU_CONFIG_HEADER 12u
#define VU_PAYLOAD_MAX (sizeof(struct vu_msg) - VU_HEADER)

/* Sends a message whole, @fds beside it; -ETIMEDOUT when it was not taken by @deadline (loop_now's
 * clock), or another negative errno. */
struct vu_fds {
	int fd[VU_REGIONS_MAX];
	unsigned n;
};
int vu_send(int socket, const struct vu_msg *m, const struct vu_fds *fds, uint64_t deadline);

/* A message on its way in. Begins as zeros. */
struct vu_reader {
	struct vu_msg m;
	unsigned got;
};
/*
 * Takes what has arrived, without waiting. 1: @r holds a message, and the next call begins
 * another; 0: it is not there yet; or a negative errno with @ret_why set, and the socket is of
 * no more use: -ECONNRESET (the peer closed it), -EPROTO, others.
 */
int vu_read(int socket, struct vu_reader *r, const char **ret_why);

#endif
