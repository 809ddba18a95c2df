/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user back end in a thread, for tests: it answers as the protocol wants, notes what
 * it was asked, and at one request of the test's choice does one thing wrong.
 *
 *	struct vu_peer p;   vu_peer_init(&p);   p.at = VU_GET_CONFIG; p.bad = BAD_SIZE;
 *	int fd = vu_peer_start(&p);             the front end's socket
 *	...                                     vu_peer_join(&p) once that is closed
 */
#ifndef TESTS_UNIT_VU_PEER_H
#define TESTS_UNIT_VU_PEER_H

#include <dirent.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/vhost_user_msg.h"

enum vu_bad {
	BAD_NONE,
	BAD_STALL,   /* no answer, and no more reading */
	BAD_DRIP,    /* a byte of the answer at a time, for ever */
	BAD_CLOSE,   /* hangs up */
	BAD_HALF,    /* hangs up in the middle of an answer */
	BAD_REQUEST, /* answers something else */
	BAD_FLAG,    /* without the REPLY flag */
	BAD_VERSION, /* version 2 */
	BAD_SIZE,    /* 4 bytes less */
	BAD_LONG,    /* 8 bytes more */
	BAD_HUGE,    /* says 2 GiB */
	BAD_FDS,     /* with a descriptor */
	BAD_MANY,    /* with more of them than fit */
	BAD_REFUSE,  /* a no where there is one */
	BAD_EXTRA,   /* two answers */
};

#define VU_LOG 128
struct vu_note {
	uint32_t request, flags, size, index;
	uint64_t u64;
	unsigned nfds;
};

struct vu_peer {
	int fd, theirs;
	pthread_t thread;
	uint64_t features, protocol, queues;
	uint8_t config[VU_CONFIG_MAX];
	uint32_t at;
	enum vu_bad bad;
	struct vu_note note[VU_LOG];
	unsigned notes;
	int back, kick, call;    /* the last that came; ours to close */
	struct vu_msg mem, addr; /* the last ones */
	bool ack;
	unsigned slow_us; /* before each answer */
};

static inline unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static inline void vu_peer_init(struct vu_peer *p)
{
	*p = (struct vu_peer){
		.fd = -1,
		.theirs = -1,
		.back = -1,
		.kick = -1,
		.call = -1,
		.features = 1ull << 32 | 1ull << 29 | 1ull << 28 | 1ull << VU_F_PROTOCOL_FEATURES,
		.protocol = 1ull << VU_PROTOCOL_F_MQ | 1ull << VU_PROTOCOL_F_REPLY_ACK |
			    1ull << VU_PROTOCOL_F_BACKEND_REQ | 1ull << VU_PROTOCOL_F_CONFIG,
		.queues = 2,
	};
}

static inline void vu_peer_put(struct vu_peer *p, const void *data, size_t len, unsigned nfds)
{
	union {
		char buf[CMSG_SPACE(64 * sizeof(int))];
		struct cmsghdr align;
	} c = {{0}};
	struct iovec iov = {(void *)data, len};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		h.msg_control = c.buf;
		h.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		struct cmsghdr *cm = CMSG_FIRSTHDR(&h);

		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		for (unsigned i = 0; i < nfds; i++)
			((int *)(void *)CMSG_DATA(cm))[i] = 0;
	}
	if (sendmsg(p->fd, &h, MSG_NOSIGNAL) < 0)
		return;
}

/* The ways that leave no answer. */
static inline void vu_peer_break_off(struct vu_peer *p, struct vu_msg *m)
{
	if (p->bad == BAD_HALF)
		vu_peer_put(p, m, VU_HEADER + m->size / 2, 0);
	for (unsigned i = 0; p->bad == BAD_DRIP && i < VU_HEADER + m->size; i++) {
		vu_peer_put(p, (char *)m + i, 1, 0);
		usleep(20000);
	}
	while (p->bad == BAD_STALL && recv(p->fd, &m->u64, 1, MSG_PEEK) > 0)
		usleep(1000);
}

/* How many bytes of it are said; what is wrong with it otherwise is done to @m. */
static inline size_t vu_peer_spoil(enum vu_bad bad, struct vu_msg *m)
{
	size_t len = VU_HEADER + m->size;

	switch (bad) {
	case BAD_REQUEST:
		m->request++;
		break;
	case BAD_FLAG:
		m->flags &= ~VU_REPLY;
		break;
	case BAD_VERSION:
		m->flags = (m->flags & ~VU_VERSION_MASK) | 2;
		break;
	case BAD_SIZE:
		len -= 4;
		m->size -= 4;
		break;
	case BAD_LONG:
		len += 8;
		m->size += 8;
		break;
	case BAD_HUGE:
		len = VU_HEADER + 8;
		m->size = 0x7fffffff;
		break;
	default: /* a no */
		if (m->request == VU_GET_CONFIG)
			m->size = 0;
		else
			m->u64 = 1;
		len = VU_HEADER + m->size;
	}
	return len;
}

/* False: no more. */
static inline bool vu_peer_misanswer(struct vu_peer *p, struct vu_msg *m)
{
	size_t len = VU_HEADER + m->size;
	unsigned nfds = p->bad == BAD_FDS ? 1 : p->bad == BAD_MANY ? 60 : 0;

	if (p->bad >= BAD_STALL && p->bad <= BAD_HALF) {
		vu_peer_break_off(p, m);
		return false;
	}
	if (p->bad == BAD_EXTRA)
		vu_peer_put(p, m, len, 0);
	else if (!nfds)
		len = vu_peer_spoil(p->bad, m);
	vu_peer_put(p, m, len, nfds);
	return true;
}

static inline bool vu_peer_answer(struct vu_peer *p, struct vu_msg *m)
{
	m->flags = VU_VERSION | VU_REPLY;
	usleep(p->slow_us);
	if (p->bad != BAD_NONE && m->request == p->at)
		return vu_peer_misanswer(p, m);
	vu_peer_put(p, m, VU_HEADER + m->size, 0);
	return true;
}

static inline bool vu_peer_u64(struct vu_peer *p, struct vu_msg *m, uint64_t v)
{
	m->size = sizeof(m->u64);
	m->u64 = v;
	return vu_peer_answer(p, m);
}

static inline bool vu_peer_serve(struct vu_peer *p, struct vu_msg *m)
{
	bool wants_ack = p->ack && (m->flags & VU_NEED_REPLY);

	switch (m->request) {
	case VU_GET_FEATURES:
		return vu_peer_u64(p, m, p->features);
	case VU_GET_PROTOCOL_FEATURES:
		return vu_peer_u64(p, m, p->protocol);
	case VU_SET_PROTOCOL_FEATURES:
		p->ack = m->u64 & 1ull << VU_PROTOCOL_F_REPLY_ACK;
		return true;
	case VU_GET_QUEUE_NUM:
		return vu_peer_u64(p, m, p->queues);
	case VU_GET_VRING_BASE:
		m->state.num = 7;
		return vu_peer_answer(p, m);
	case VU_GET_CONFIG:
		memcpy(m->config.data, p->config, m->config.size);
		return vu_peer_answer(p, m);
	case VU_SET_CONFIG:
		memcpy(p->config + m->config.offset, m->config.data, m->config.size);
		break;
	case VU_SET_MEM_TABLE:
		p->mem = *m;
		break;
	case VU_SET_VRING_ADDR:
		p->addr = *m;
		break;
	}
	if (!wants_ack)
		return p->bad != BAD_CLOSE || m->request != p->at;
	return vu_peer_u64(p, m, 0);
}

static inline void vu_peer_keep(struct vu_peer *p, uint32_t request, int fd)
{
	int *at = request == VU_SET_BACKEND_REQ_FD ? &p->back
		  : request == VU_SET_VRING_KICK   ? &p->kick
		  : request == VU_SET_VRING_CALL   ? &p->call
						   : NULL;

	if (!at) {
		close(fd);
		return;
	}
	if (*at >= 0)
		close(*at);
	*at = fd;
}

/* One request, with what came beside it. */
static inline bool vu_peer_get(struct vu_peer *p, struct vu_msg *m)
{
	union {
		char buf[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} c;
	struct iovec iov = {m, VU_HEADER};
	struct msghdr h = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = c.buf,
		.msg_controllen = sizeof(c.buf),
	};
	struct vu_note n = {0};
	struct cmsghdr *cm;

	if (recvmsg(p->fd, &h, MSG_WAITALL | MSG_CMSG_CLOEXEC) != VU_HEADER ||
	    (m->size && recv(p->fd, &m->u64, m->size, MSG_WAITALL) != (ssize_t)m->size))
		return false;
	for (cm = CMSG_FIRSTHDR(&h); cm; cm = CMSG_NXTHDR(&h, cm))
		for (; CMSG_LEN((n.nfds + 1) * sizeof(int)) <= cm->cmsg_len; n.nfds++)
			vu_peer_keep(p, m->request, ((int *)(void *)CMSG_DATA(cm))[n.nfds]);
	n.request = m->request;
	n.flags = m->flags;
	n.size = m->size;
	n.index = m->state.index;
	n.u64 = m->u64;
	if (p->notes < VU_LOG)
		p->note[p->notes] = n;
	__atomic_add_fetch(&p->notes, 1, __ATOMIC_RELEASE);
	return true;
}

static inline void *vu_peer_run(void *arg)
{
	struct vu_peer *p = arg;
	struct vu_msg m;

	while (vu_peer_get(p, &m) && vu_peer_serve(p, &m))
		;
	shutdown(p->fd, SHUT_RDWR);
	return NULL;
}

/* On a socket that is connected already. */
static inline void vu_peer_on(struct vu_peer *p, int fd)
{
	p->fd = fd;
	if (pthread_create(&p->thread, NULL, vu_peer_run, p))
		abort();
}

static inline int vu_peer_start(struct vu_peer *p)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	vu_peer_on(p, pair[0]);
	return pair[1];
}

/* Once the front end's side is closed or the peer has hung up. */
static inline void vu_peer_join(struct vu_peer *p)
{
	pthread_join(p->thread, NULL);
	close(p->fd);
	for (unsigned i = 0; i < 3; i++)
		if ((&p->back)[i] >= 0)
			close((&p->back)[i]);
}

/* How often it was asked that; *ret: the last time. */
static inline unsigned vu_peer_asked(const struct vu_peer *p, uint32_t request, struct vu_note *ret)
{
	unsigned n = __atomic_load_n(&p->notes, __ATOMIC_ACQUIRE), k = 0;

	for (unsigned i = 0; i < n && i < VU_LOG; i++) {
		if (p->note[i].request != request)
			continue;
		if (ret)
			*ret = p->note[i];
		k++;
	}
	return k;
}

#endif
