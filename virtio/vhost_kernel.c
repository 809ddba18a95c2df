/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-net and vhost-vsock: threads of the host's kernel that serve a device's rings,
 * linux/vhost.h. They read and write guest memory through our address space.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/vhost.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/vhost.h"

#define NET_PATH "/dev/vhost-net"
#define VSOCK_PATH "/dev/vhost-vsock"
#define RINGS 2 /* each: receive, transmit */

#define BIT(n) (1ull << (n))
#define NET_F_MRG_RXBUF 15
/* Types of sockets, section 5.10.3. */
#define VSOCK_F_STREAM 0
#define VSOCK_F_SEQPACKET 1

/*
 * What the kernel may offer and we know. Left out above all: VHOST_NET_F_VIRTIO_NET_HDR, for the
 * TAP makes and takes the packets' headers, and VHOST_F_LOG_ALL, for nobody reads a log.
 */
#define NET_KNOWN (VHOST_RING_FEATURES | BIT(NET_F_MRG_RXBUF))
#define VSOCK_KNOWN (VHOST_RING_FEATURES | BIT(VSOCK_F_STREAM) | BIT(VSOCK_F_SEQPACKET))

static struct vhost_kernel *of(struct vhost *h)
{
	return (struct vhost_kernel *)h; /* the first member */
}

static int call(const struct vhost_kernel *k, unsigned long request, const void *arg)
{
	return ioctl(k->fd, request, arg) < 0 ? -errno : 0;
}

static int state(const struct vhost_kernel *k, unsigned long request, unsigned ring, unsigned num)
{
	return call(k, request, &(struct vhost_vring_state){.index = ring, .num = num});
}

static int file(const struct vhost_kernel *k, unsigned long request, unsigned ring, int fd)
{
	return call(k, request, &(struct vhost_vring_file){.index = ring, .fd = fd});
}

/* Ends whatever the kernel does with our memory: what cannot fail where all else did. */
static void closed(struct vhost_kernel *k)
{
	if (k->fd >= 0)
		close(k->fd);
	k->fd = -1;
}

/* ------------------------------------------------------------- operations */

static int set_features(struct vhost *h, uint64_t features)
{
	features &= h->features;
	return call(of(h), VHOST_SET_FEATURES, &features);
}

static int set_memory(struct vhost *h, const struct gmem *gm)
{
	size_t n;
	const struct gmem_region *r = gmem_regions(gm, &n);
	struct vhost_memory *m = calloc(1, sizeof(*m) + n * sizeof(m->regions[0]));
	int ret;

	if (!m)
		return -ENOMEM;
	m->nregions = (uint32_t)n;
	for (size_t i = 0; i < n; i++)
		m->regions[i] = (struct vhost_memory_region){
			.guest_phys_addr = r[i].base.v,
			.memory_size = r[i].size,
			.userspace_addr = (uintptr_t)r[i].host,
		};
	ret = call(of(h), VHOST_SET_MEM_TABLE, m);
	free(m);
	return ret;
}

/* Unties the eventfds, so that what happens there later wakes nobody in the kernel. */
static void untie(const struct vhost_kernel *k, unsigned ring)
{
	file(k, VHOST_SET_VRING_KICK, ring, VHOST_FILE_UNBIND);
	file(k, VHOST_SET_VRING_CALL, ring, VHOST_FILE_UNBIND);
	file(k, VHOST_SET_VRING_ERR, ring, VHOST_FILE_UNBIND);
}

static int ring_start(struct vhost *h, unsigned ring, const struct vhost_ring *r)
{
	const struct vhost_kernel *k = of(h);
	const struct vhost_vring_addr addr = {
		.index = ring,
		.desc_user_addr = (uintptr_t)r->desc,
		.avail_user_addr = (uintptr_t)r->avail,
		.used_user_addr = (uintptr_t)r->used,
	};
	int ret;

	if ((ret = state(k, VHOST_SET_VRING_NUM, ring, r->size)) ||
	    (ret = state(k, VHOST_SET_VRING_BASE, ring, r->base)) ||
	    (ret = call(k, VHOST_SET_VRING_ADDR, &addr)) ||
	    (ret = file(k, VHOST_SET_VRING_ERR, ring, r->err)) ||
	    (ret = file(k, VHOST_SET_VRING_CALL, ring, r->call)) ||
	    (ret = file(k, VHOST_SET_VRING_KICK, ring, r->kick)) ||
	    (!k->vsock && (ret = file(k, VHOST_NET_SET_BACKEND, ring, k->tap[ring]))))
		untie(k, ring);
	return ret;
}

static int ring_call(struct vhost *h, unsigned ring, int fd)
{
	return file(of(h), VHOST_SET_VRING_CALL, ring, fd);
}

static int ring_stop(struct vhost *h, unsigned ring, uint16_t *ret_base)
{
	struct vhost_kernel *k = of(h);
	struct vhost_vring_state s = {.index = ring};
	int r = 0;

	/* Waits for the packets that are on their way out of the ring's buffers. */
	if (!k->vsock)
		r = file(k, VHOST_NET_SET_BACKEND, ring, -1);
	if (r < 0)
		closed(k);
	else
		r = call(k, VHOST_GET_VRING_BASE, &s);
	untie(k, ring);
	*ret_base = (uint16_t)s.num;
	return r;
}

/* The lock of each ring, which its thread holds as long as it works there, is taken on the way. */
static int vsock_run(struct vhost *h, bool on)
{
	struct vhost_kernel *k = of(h);
	int r = call(k, VHOST_VSOCK_SET_RUNNING, &(int){on});

	if (r < 0 && !on)
		closed(k);
	return r;
}

static const struct vhost_ops net_ops = {
	.set_features = set_features,
	.set_memory = set_memory,
	.ring_start = ring_start,
	.ring_call = ring_call,
	.ring_stop = ring_stop,
};

static const struct vhost_ops vsock_ops = {
	.set_features = set_features,
	.set_memory = set_memory,
	.ring_start = ring_start,
	.ring_call = ring_call,
	.ring_stop = ring_stop,
	.run = vsock_run,
};

/* ------------------------------------------------------------- opening */

/* The node can be there without its driver: opening it loads that, if it is to be had. */
static int no_open(const char *path, const char *module, struct err *e)
{
	int why = errno;
	struct group *g = NULL;
	struct stat st;

	if (why == ENOENT || why == ENODEV || why == ENXIO)
		return err_msg(e, -why, "%s: %s; modprobe %s, as root, loads its driver", path,
			       strerror(why), module);
	if ((why != EACCES && why != EPERM) || stat(path, &st))
		return err_msg(e, -why, "%s: %s", path, strerror(why));
	if ((st.st_mode & 0060) == 0060)
		g = getgrgid(st.st_gid);
	if (!g || !st.st_gid)
		return err_msg(e, -why,
			       "%s: %s; root alone may use it: run as root, or give it to a group "
			       "(chgrp kvm %s; chmod 660 %s)",
			       path, strerror(why), path, path);
	return err_msg(e, -why, "%s: %s; members of the group %s may use it: usermod -aG %s USER",
		       path, strerror(why), g->gr_name, g->gr_name);
}

static int vhost_open(struct vhost_kernel *k, const char *path, const char *module, struct err *e)
{
	int r;

	k->fd = open(path, O_RDWR | O_CLOEXEC);
	if (k->fd < 0)
		return no_open(path, module, e);
	if ((r = call(k, VHOST_GET_FEATURES, &k->h.features)))
		return err_msg(e, r, "%s: its features: %s", path, strerror(-r));
	if (!(k->h.features & BIT(VIRTIO_F_VERSION_1)))
		return err_msg(e, -EOPNOTSUPP, "%s: it knows no devices of virtio 1.0", path);
	if ((r = call(k, VHOST_SET_OWNER, NULL)))
		return err_msg(e, r, "%s: cannot become its owner: %s", path, strerror(-r));
	return 0;
}

int vhost_net_open(struct vhost_kernel *k, int tap, const char *name, struct err *e)
{
	int r;

	*k = (struct vhost_kernel){.h = {.ops = &net_ops, .nrings = RINGS, .name = name},
				   .tap = {tap, tap}};
	r = vhost_open(k, NET_PATH, "vhost_net", e);
	k->h.features &= NET_KNOWN;
	if (r < 0)
		closed(k);
	return r;
}

int vhost_vsock_open(struct vhost_kernel *k, uint32_t cid, const char *name, struct err *e)
{
	int r;

	*k = (struct vhost_kernel){.h = {.ops = &vsock_ops, .nrings = RINGS, .name = name},
				   .vsock = true};
	r = vhost_open(k, VSOCK_PATH, "vhost_vsock", e);
	k->h.features &= VSOCK_KNOWN;
	if (r == 0) {
		r = call(k, VHOST_VSOCK_SET_GUEST_CID, &(uint64_t){cid});
		if (r == -EADDRINUSE)
			err_msg(e, r, "CID %u is in use by another VM on this host", cid);
		else if (r < 0)
			err_msg(e, r, "CID %u: %s", cid, strerror(-r));
	}
	if (r < 0)
		closed(k);
	return r;
}

void vhost_kernel_close(struct vhost_kernel *k)
{
	closed(k);
}
