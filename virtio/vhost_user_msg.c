/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vhost_user_msg.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/loop.h"

const char *vu_request_name(uint32_t request)
{
	static const char *const names[VU_REQUESTS] = {
		[VU_GET_FEATURES] = "GET_FEATURES",
		[VU_SET_FEATURES] = "SET_FEATURES",
		[VU_SET_OWNER] = "SET_OWNER",
		[VU_SET_MEM_TABLE] = "SET_MEM_TABLE",
		[VU_SET_VRING_NUM] = "SET_VRING_NUM",
		[VU_SET_VRING_ADDR] = "SET_VRING_ADDR",
		[VU_SET_VRING_BASE] = "SET_VRING_BASE",
		[VU_GET_VRING_BASE] = "GET_VRING_BASE",
		[VU_SET_VRING_KICK] = "SET_VRING_KICK",
		[VU_SET_VRING_CALL] = "SET_VRING_CALL",
		[VU_SET_VRING_ERR] = "SET_VRING_ERR",
		[VU_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES",
		[VU_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
		[VU_GET_QUEUE_NUM] = "GET_QUEUE_NUM",
		[VU_SET_VRING_ENABLE] = "SET_VRING_ENABLE",
		[VU_SET_BACKEND_REQ_FD] = "SET_BACKEND_REQ_FD",
		[VU_GET_CONFIG] = "GET_CONFIG",
		[VU_SET_CONFIG] = "SET_CONFIG",
	};

	return request < VU_REQUESTS && names[request] ? names[request] : "request";
}

/* ------------------------------------------------------------- out */

union control {
	char buf[CMSG_SPACE(VU_REGIONS_MAX * sizeof(int))];
	struct cmsghdr align;
};

static void attach(struct msghdr *h, union control *c, const struct vu_fds *fds)
{
	struct cmsghdr *cm;

	memset(c, 0, sizeof(*c));
	h->msg_control = c->buf;
	h->msg_controllen = CMSG_SPACE(fds->n * sizeof(int));
	cm = CMSG_FIRSTHDR(h);
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(fds->n * sizeof(int));
	memcpy(CMSG_DATA(cm), fds->fd, fds->n * sizeof(int));
}

static int wait_for_room(int socket, uint64_t deadline)
{
	struct pollfd p = {.fd = socket, .events = POLLOUT};
	uint64_t now = loop_now();

	if (now >= deadline)
		return -ETIMEDOUT;
	if (poll(&p, 1, (int)((deadline - now + 999999) / 1000000)) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

int vu_send(int socket, const struct vu_msg *m, const struct vu_fds *fds, uint64_t deadline)
{
	const size_t len = VU_HEADER + m->size;
	size_t done = 0;

	while (done < len) {
		struct iovec iov = {(char *)m + done, len - done};
		struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
		union control c;

		/* With the first byte: the peer may take the message in pieces. */
		if (!done && fds && fds->n)
			attach(&h, &c, fds);
		ssize_t n = sendmsg(socket, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r = 0;

		if (n > 0)
			done += (size_t)n;
		else if (errno == EAGAIN)
			r = wait_for_room(socket, deadline);
		else if (errno != EINTR)
			r = -errno;
		if (r < 0)
			return r;
	}
	return 0;
}

/* ------------------------------------------------------------- in */

/* At most @len bytes; 0: none there yet. */
static ssize_t take(int socket, void *to, size_t len, const char **ret_why)
{
	struct iovec iov = {to, len};
	/* No room for descriptors: none gets into our table. */
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = recvmsg(socket, &h, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0) {
		*ret_why = strerror(errno);
		return -errno;
	}
	if (h.msg_flags & MSG_CTRUNC) {
		*ret_why = "it sent file descriptors that nobody asked for";
		return -EPROTO;
	}
	if (!n) {
		*ret_why = "it closed the connection";
		return -ECONNRESET;
	}
	return n;
}

/* The header has come: its length decides how much more is read, so it is checked here. */
static int check_header(const struct vu_msg *m, const char **ret_why)
{
	if ((m->flags & VU_VERSION_MASK) != VU_VERSION) {
		*ret_why = "it sent a message of another version";
		return -EPROTO;
	}
	if (m->size > VU_PAYLOAD_MAX) {
		*ret_why = "it sent a message longer than any that is asked for";
		return -EPROTO;
	}
	return 0;
}

int vu_read(int socket, struct vu_reader *r, const char **ret_why)
{
	for (;;) {
		size_t want = VU_HEADER;

		if (r->got >= VU_HEADER)
			want += r->m.size; /* at most VU_PAYLOAD_MAX: check_header */
		if (r->got >= VU_HEADER && r->got == want) {
			r->got = 0;
			return 1;
		}
		ssize_t n = take(socket, (char *)&r->m + r->got, want - r->got, ret_why);

		if (n == -ECONNRESET && r->got)
			*ret_why = "it closed the connection in the middle of a message";
		if (n <= 0)
			return (int)n;
		r->got += (unsigned)n;
		int bad = r->got == VU_HEADER ? check_header(&r->m, ret_why) : 0;

		if (bad)
			return bad;
	}
}
