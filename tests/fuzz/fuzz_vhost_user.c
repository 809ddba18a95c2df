/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile vhost-user peer: all that it will ever say is there before the front
 * end asks. The input is a list of messages, most of them nearly right, for the socket and for
 * the back end's channel. Whatever they are, the front end comes to an end, leaks no
 * descriptor, and its owner is told at most once.
 */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/turns.h"
#include "virtio/vhost_user_conn.h"
#include "vmm/evfd.h"
#include "vmm/log.h"

static unsigned died;

static void on_died(void *arg)
{
	(void)arg;
	died++;
}

static void on_changed(void *arg)
{
	uint8_t buf[60];

	vhost_user_get_config(arg, buf, sizeof(buf), NULL);
}

/* The next of what an honest peer is asked, in this order, so that the input gets far. */
static uint32_t usual(unsigned n)
{
	static const uint32_t order[] = {
		VU_GET_FEATURES,       VU_GET_PROTOCOL_FEATURES,
		VU_SET_BACKEND_REQ_FD, VU_GET_QUEUE_NUM,
		VU_GET_CONFIG,         VU_SET_FEATURES,
		VU_SET_CONFIG,         VU_SET_VRING_NUM,
		VU_SET_VRING_BASE,     VU_SET_VRING_ADDR,
		VU_SET_VRING_ERR,      VU_SET_VRING_CALL,
		VU_SET_VRING_KICK,     VU_SET_VRING_ENABLE,
		VU_GET_VRING_BASE,
	};

	return order[n % (sizeof(order) / sizeof(order[0]))];
}

static void answer_as_usual(struct vu_msg *m)
{
	m->size = sizeof(m->u64);
	m->u64 = 0;
	if (m->request == VU_GET_FEATURES)
		m->u64 = 1ull << 32 | 1ull << VU_F_PROTOCOL_FEATURES;
	if (m->request == VU_GET_PROTOCOL_FEATURES)
		m->u64 = 1 << VU_PROTOCOL_F_MQ | 1 << VU_PROTOCOL_F_REPLY_ACK |
			 1 << VU_PROTOCOL_F_BACKEND_REQ | 1 << VU_PROTOCOL_F_CONFIG;
	if (m->request == VU_GET_QUEUE_NUM)
		m->u64 = 2;
	if (m->request == VU_GET_CONFIG) {
		m->size = VU_CONFIG_HEADER + 60;
		m->config.offset = 0;
		m->config.size = 60;
	}
}

static void put(int fd, struct vu_msg *m, struct input *in, uint32_t how)
{
	size_t len = VU_HEADER + (m->size < VU_PAYLOAD_MAX ? m->size : VU_PAYLOAD_MAX);
	union {
		char buf[CMSG_SPACE(12 * sizeof(int))];
		struct cmsghdr align;
	} c = {{0}};
	struct iovec iov = {m, len};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	if ((how & 0xf0) == 0xf0) {
		unsigned n = 1 + (unsigned)take(in, 1) % 12;
		struct cmsghdr *cm = (struct cmsghdr *)(void *)c.buf;

		h.msg_control = c.buf;
		h.msg_controllen = CMSG_SPACE(n * sizeof(int));
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(n * sizeof(int));
	}
	if ((how & 0xf0) == 0xe0)
		iov.iov_len = take(in, 1) % len + 1;
	(void)!sendmsg(fd, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void say(int fd, struct input *in)
{
	for (unsigned n = 0; in->left && n < 40; n++) {
		struct vu_msg m = {.request = usual(n), .flags = VU_VERSION | VU_REPLY};
		uint32_t how = (uint32_t)take(in, 1);

		answer_as_usual(&m);
		if (how & 1)
			m.u64 = take(in, 8);
		if ((how & 6) == 6)
			m.size = (uint32_t)take(in, how & 8 ? 4 : 1);
		if ((how & 0xf0) == 0x80)
			m.request = (uint32_t)take(in, 1);
		if ((how & 0xf0) == 0x90)
			m.flags = (uint32_t)take(in, 1);
		put(fd, &m, in, how);
	}
}

/* Takes what the front end said, and the channel that came with it. */
static int channel_of(int fd)
{
	union {
		char buf[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} c;
	char bytes[4096];
	int channel = -1;

	for (;;) {
		struct iovec iov = {bytes, sizeof(bytes)};
		struct msghdr h = {.msg_iov = &iov,
				   .msg_iovlen = 1,
				   .msg_control = c.buf,
				   .msg_controllen = sizeof(c.buf)};
		struct cmsghdr *cm;

		if (recvmsg(fd, &h, MSG_DONTWAIT) <= 0)
			return channel;
		for (cm = CMSG_FIRSTHDR(&h); cm; cm = CMSG_NXTHDR(&h, cm)) {
			if (channel >= 0)
				close(channel);
			memcpy(&channel, CMSG_DATA(cm), sizeof(channel));
		}
	}
}

static void say_on_channel(int fd, struct input *in)
{
	for (unsigned n = 0; in->left && n < 20; n++) {
		uint32_t how = (uint32_t)take(in, 1);
		struct vu_msg m = {
			.request = how & 1 ? (uint32_t)take(in, 1) : VU_BACKEND_CONFIG_CHANGE_MSG,
			.flags = how & 2 ? (uint32_t)take(in, 1) : VU_VERSION | VU_NEED_REPLY,
			.size = how & 4 ? (uint32_t)take(in, 4) : 0,
		};

		put(fd, &m, in, how & ~1u);
	}
}

static void use(struct vhost_user *u)
{
	const struct vhost_ops *ops = vhost_user_vhost(u)->ops;
	struct vhost_ring r = {.size = 8, .kick = 0, .call = 0, .err = -1};
	uint8_t buf[60] = {0};
	uint16_t base;

	vhost_user_queues(u);
	vhost_user_get_config(u, buf, sizeof(buf), NULL);
	ops->set_features(&u->h, 1ull << 32);
	vhost_user_set_config(u, 32, buf, 1);
	ops->ring_start(&u->h, 0, &r);
	ops->ring_stop(&u->h, 0, &base);
}

static unsigned files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void meet(struct loop *l, int theirs, int ours, struct input *in)
{
	const uint64_t want = take(in, 1) & 1 ? VHOST_USER_NEEDS_CONFIG : 0;
	struct vhost_user_owner o = {on_died, on_changed, NULL, "fuzz"};
	struct vhost_user *u;
	struct err e = {0};
	struct input half = {in->p, in->left / 2 + in->left % 2};

	say(theirs, &half);
	shutdown(theirs, SHUT_WR); /* so that nobody waits */
	if (vhost_user_adopt(&u, ours, want, &e)) {
		CHECK(e.text[0]);
		close(theirs);
		return;
	}
	o.arg = u;
	CHECK(!vhost_user_bind(u, l, &o));
	int channel = channel_of(theirs);

	if (channel >= 0) {
		struct input rest = {in->p + in->left / 2, in->left / 2};

		say_on_channel(channel, &rest);
	}
	use(u);
	turns(l, 3);
	CHECK(died <= 1 && (died == 1) == vhost_user_dead(u));
	vhost_user_free(u);
	if (channel >= 0)
		close(channel);
	close(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct loop *l;
	struct input in = {data, size};
	unsigned before;
	int pair[2];

	if (!l) {
		log_set_level(-1);
		vu_wait_ms = 100;
		CHECK(!loop_new(&l, "fuzz", NULL));
		CHECK(!evfd_prepare(NULL)); /* has a file, for good */
	}
	died = 0;
	before = files();
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	meet(l, pair[0], pair[1], &in);
	CHECK(files() == before);
	return 0;
}
