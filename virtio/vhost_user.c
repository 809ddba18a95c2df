/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front end's side of vhost-user: a back end in another process (virtio/vhost.h). Names of
 * messages and features are those of QEMU's docs/interop/vhost-user.rst without VHOST_USER_.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio/vhost_user_conn.h"
#include "vmm/evfd.h"
#include "vmm/unix_listen.h"

#define BIT(n) (1ull << (n))

/* ------------------------------------------------------------- requests */

static int get_u64(struct vhost_user *u, uint32_t request, uint64_t *ret)
{
	struct vu_msg m = {.request = request};
	int r = vu_ask(u, &m, sizeof(m.u64));

	if (r == 0)
		*ret = m.u64;
	return r;
}

static int set_u64(struct vhost_user *u, uint32_t request, uint64_t v)
{
	struct vu_msg m = {.request = request, .size = sizeof(m.u64), .u64 = v};

	return vu_must(u, &m, NULL);
}

static int set_state(struct vhost_user *u, uint32_t request, uint32_t index, uint32_t num)
{
	struct vu_msg m = {.request = request, .size = sizeof(m.state), .state = {index, num}};

	return vu_must(u, &m, NULL);
}

static int tell_fd(struct vhost_user *u, uint32_t request, unsigned ring, int fd)
{
	struct vu_msg m = {.request = request, .size = sizeof(m.u64), .u64 = ring};
	const struct vu_fds fds = {{fd}, 1};

	if (fd < 0)
		m.u64 |= VU_VRING_NOFD;
	return vu_tell(u, &m, fd < 0 ? NULL : &fds);
}

static int set_fd(struct vhost_user *u, uint32_t request, unsigned ring, int fd)
{
	int r = tell_fd(u, request, ring, fd);

	return r == -EREMOTEIO ? vu_refused(u, request) : r;
}

/* ------------------------------------------------------------- struct vhost_ops */

static void user_begin(struct vhost *h)
{
	vu_begin((struct vhost_user *)h);
}

static int user_set_features(struct vhost *h, uint64_t features)
{
	struct vhost_user *u = (struct vhost_user *)h;

	features &= h->features;
	if (u->has_protocol)
		features |= BIT(VU_F_PROTOCOL_FEATURES);
	return set_u64(u, VU_SET_FEATURES, features);
}

/*
 * What the protocol calls user addresses. The peer never uses them but to find its own mapping of
 * the same byte, so they need not be ours; and they must not change with the next machine: a peer
 * looks the rings that it had up again as soon as it gets new memory.
 */
#define USER_BASE (1ull << 44)

static uint64_t user_address(const struct vhost_user *u, const void *at)
{
	const uint64_t ours = (uintptr_t)at;

	for (unsigned i = 0; i < u->nregions; i++)
		if (ours - u->region[i].user < u->region[i].size)
			return USER_BASE + u->region[i].gpa + (ours - u->region[i].user);
	return 0; /* none: what a ring's place is was checked by vq_start */
}

static int user_set_memory(struct vhost *h, const struct gmem *gm)
{
	struct vhost_user *u = (struct vhost_user *)h;
	struct vu_msg m = {.request = VU_SET_MEM_TABLE};
	struct vu_fds fds = {.n = 0};
	const struct gmem_region *r;
	size_t n;

	r = gmem_regions(gm, &n);
	if (n > VU_REGIONS_MAX)
		return -E2BIG;
	for (size_t i = 0; i < n; i++) {
		if (r[i].fd < 0)
			return -EINVAL; /* not shared: gmem_share */
		u->region[i] = (struct vu_region){
			.gpa = r[i].base.v,
			.size = r[i].size,
			.user = (uintptr_t)r[i].host,
		};
		m.mem.region[i] = u->region[i];
		m.mem.region[i].user = USER_BASE + r[i].base.v;
		fds.fd[i] = r[i].fd;
	}
	u->nregions = (unsigned)n;
	m.mem.n = (uint32_t)n;
	fds.n = (unsigned)n;
	m.size = (uint32_t)(2 * sizeof(uint32_t) + n * sizeof(struct vu_region));
	return vu_must(u, &m, &fds);
}

static int set_addr(struct vhost_user *u, unsigned ring, const struct vhost_ring *r)
{
	struct vu_msg m = {.request = VU_SET_VRING_ADDR, .size = sizeof(m.addr)};

	m.addr.index = ring;
	m.addr.desc = user_address(u, r->desc);
	m.addr.avail = user_address(u, r->avail);
	m.addr.used = user_address(u, r->used);
	m.addr.log = r->used_gpa;
	return vu_must(u, &m, NULL);
}

/* A ring starts with its kick ("Starting and stopping rings"), so that comes last. */
static int user_ring_start(struct vhost *h, unsigned ring, const struct vhost_ring *r)
{
	struct vhost_user *u = (struct vhost_user *)h;
	int ret;

	if ((ret = set_state(u, VU_SET_VRING_NUM, ring, r->size)) ||
	    (ret = set_state(u, VU_SET_VRING_BASE, ring, r->base)) ||
	    (ret = set_addr(u, ring, r)) || (ret = set_fd(u, VU_SET_VRING_ERR, ring, r->err)) ||
	    (ret = set_fd(u, VU_SET_VRING_CALL, ring, r->call)))
		return ret;
	u->rings |= BIT(ring);
	ret = tell_fd(u, VU_SET_VRING_KICK, ring, r->kick);
	if (ret == -EREMOTEIO) {
		u->rings &= ~BIT(ring); /* it says itself that it has not started */
		return vu_refused(u, VU_SET_VRING_KICK);
	}
	if (ret)
		return ret;
	return u->has_protocol ? set_state(u, VU_SET_VRING_ENABLE, ring, 1) : 0;
}

static int user_ring_call(struct vhost *h, unsigned ring, int fd)
{
	return set_fd((struct vhost_user *)h, VU_SET_VRING_CALL, ring, fd);
}

static int user_ring_stop(struct vhost *h, unsigned ring, uint16_t *ret_base)
{
	struct vhost_user *u = (struct vhost_user *)h;
	struct vu_msg m = {
		.request = VU_GET_VRING_BASE,
		.size = sizeof(m.state),
		.state = {ring, 0},
	};
	int r = vu_ask(u, &m, sizeof(m.state));

	if (r < 0)
		return r;
	if (m.state.index != ring)
		return vu_fail(u, vu_request_name(VU_GET_VRING_BASE),
			       "it answered for another ring");
	u->rings &= ~BIT(ring);
	*ret_base = (uint16_t)m.state.num;
	return 0;
}

static const struct vhost_ops user_ops = {
	.begin = user_begin,
	.set_features = user_set_features,
	.set_memory = user_set_memory,
	.ring_start = user_ring_start,
	.ring_call = user_ring_call,
	.ring_stop = user_ring_stop,
};

/* ------------------------------------------------------------- set-up */

static int give_channel(struct vhost_user *u)
{
	struct vu_msg m = {.request = VU_SET_BACKEND_REQ_FD};
	struct vu_fds fds = {.n = 1};
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return vu_fail(u, "socketpair", strerror(errno));
	unix_refuse_fds(pair[0]);
	u->back_fd = pair[0];
	fds.fd[0] = pair[1];
	r = vu_must(u, &m, &fds);
	close(pair[1]);
	return r;
}

static int negotiate_protocol(struct vhost_user *u, uint64_t want)
{
	uint64_t offered = 0, take = want | BIT(VU_PROTOCOL_F_REPLY_ACK) | BIT(VU_PROTOCOL_F_MQ);
	int r = get_u64(u, VU_GET_PROTOCOL_FEATURES, &offered);

	if (r < 0)
		return r;
	if (want & BIT(VU_PROTOCOL_F_CONFIG))
		take |= BIT(VU_PROTOCOL_F_BACKEND_REQ);
	take &= offered;
	if (want & ~take)
		return vu_fail(u, NULL,
			       "it lacks a protocol feature that this device needs (CONFIG)");
	r = set_u64(u, VU_SET_PROTOCOL_FEATURES, take);
	if (r < 0)
		return r;
	u->protocol = take;
	return take & BIT(VU_PROTOCOL_F_BACKEND_REQ) ? give_channel(u) : 0;
}

static int negotiate(struct vhost_user *u, uint64_t want)
{
	struct vu_msg owner = {.request = VU_SET_OWNER};
	uint64_t features = 0;
	int r;

	vu_begin(u);
	r = get_u64(u, VU_GET_FEATURES, &features);
	if (r == 0)
		r = vu_must(u, &owner, NULL);
	if (r < 0)
		return r;
	if (!(features & BIT(VIRTIO_F_VERSION_1)))
		return vu_fail(u, NULL, "it offers no VERSION_1: too old for us");
	u->has_protocol = features & BIT(VU_F_PROTOCOL_FEATURES);
	u->h.features = features & ~BIT(VU_F_PROTOCOL_FEATURES);
	if (u->has_protocol)
		return negotiate_protocol(u, want);
	return want ? vu_fail(u, NULL, "it has no protocol features, and this device needs one")
		    : 0;
}

int vhost_user_adopt(struct vhost_user **ret, int fd, uint64_t want, struct err *e)
{
	struct vhost_user *u = calloc(1, sizeof(*u));
	int r = u ? evfd_prepare(e) : err_msg(e, -ENOMEM, "out of memory");

	if (r < 0) {
		free(u);
		close(fd);
		return r;
	}
	u->fd = fd;
	u->back_fd = -1;
	u->h.ops = &user_ops;
	u->h.name = u->name;
	snprintf(u->name, sizeof(u->name), "vhost-user");
	if (negotiate(u, want) < 0) {
		r = err_msg(e, -EPROTO, "vhost-user: %s", u->reason);
		vhost_user_free(u);
		return r;
	}
	u->begun = 0; /* nothing waited for it yet that has to go on */
	*ret = u;
	return 0;
}

int vhost_user_connect(struct vhost_user **ret, const char *path, uint64_t want, struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_msg(e, -ENAMETOOLONG, "%s: longer than the %zu bytes of a socket's path",
			       path, sizeof(sa.sun_path) - 1);
	strcpy(sa.sun_path, path);
	/* Not blocking: where others stand in line it would wait for them. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "socket");
	unix_refuse_fds(fd);
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
		int r = err_sys(e, "connect to %s", path);
		struct stat st;

		if (r == -ECONNREFUSED && !stat(path, &st) && !S_ISSOCK(st.st_mode))
			err_msg(e, r, "%s: is no socket", path);
		else if (r == -ECONNREFUSED)
			err_msg(e, r,
				"%s: nobody listens there: who did has ended, or took the one "
				"connection that it takes",
				path);
		close(fd);
		return r;
	}
	int r = vhost_user_adopt(ret, fd, want, e);
	return r < 0 ? err_ctx(e, "%s", path) : 0;
}

void vhost_user_free(struct vhost_user *u)
{
	if (!u)
		return;
	vhost_user_bind(u, NULL, NULL);
	vu_back_close(u);
	if (u->fd >= 0)
		close(u->fd);
	free(u);
}

struct vhost *vhost_user_vhost(struct vhost_user *u)
{
	return &u->h;
}

bool vhost_user_dead(const struct vhost_user *u)
{
	return u->fd < 0;
}

/* ------------------------------------------------------------- what devices ask */

int vhost_user_get_config(struct vhost_user *u, void *buf, uint32_t len, struct err *e)
{
	struct vu_msg m = {
		.request = VU_GET_CONFIG,
		.size = VU_CONFIG_HEADER + len,
		.config = {.size = len},
	};
	int r;

	vu_begin(u);
	r = len > VU_CONFIG_MAX ? -EINVAL : vu_ask(u, &m, m.size);
	if (r == 0 && !m.size)
		r = -EREMOTEIO;
	else if (r == 0 && m.config.size != len)
		r = vu_fail(u, vu_request_name(VU_GET_CONFIG), "its answer has a wrong size");
	if (r < 0)
		return err_msg(e, r, "vhost-user: %s",
			       u->fd < 0 ? u->reason : "GET_CONFIG: it refused");
	memcpy(buf, m.config.data, len);
	return 0;
}

int vhost_user_set_config(struct vhost_user *u, uint32_t off, const void *buf, uint32_t len)
{
	struct vu_msg m = {
		.request = VU_SET_CONFIG,
		.size = VU_CONFIG_HEADER + len,
		.config = {.offset = off, .size = len},
	};

	if (len > VU_CONFIG_MAX || !(u->protocol & BIT(VU_PROTOCOL_F_CONFIG)))
		return -EINVAL;
	memcpy(m.config.data, buf, len);
	vu_begin(u);
	return vu_tell(u, &m, NULL);
}

int vhost_user_queues(struct vhost_user *u)
{
	uint64_t n = 0;
	int r;

	if (!(u->protocol & BIT(VU_PROTOCOL_F_MQ)))
		return -ENOTSUP;
	vu_begin(u);
	r = get_u64(u, VU_GET_QUEUE_NUM, &n);
	if (r < 0)
		return r;
	if (!n)
		return vu_fail(u, vu_request_name(VU_GET_QUEUE_NUM), "it serves no queue");
	return n < VIRTIO_QUEUES_MAX ? (int)n : VIRTIO_QUEUES_MAX;
}
