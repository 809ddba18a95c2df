/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/tap.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/log.h"

#define TUN "/dev/net/tun"

#define FLAGS (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)

/* ------------------------------------------------------------- who else has it */

/* Whether a descriptor that this says of is the TAP's: fdinfo has a line "iff:\tNAME". */
static bool is_of(int dir, const char *entry, const char *name)
{
	char buf[512], *at;
	int fd = openat(dir, entry, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	at = strstr(buf, "iff:\t");
	return at && !strncmp(at + 5, name, strlen(name)) && at[5 + strlen(name)] == '\n';
}

static bool process_has(int proc, const char *pid, const char *name)
{
	char path[64], theirs[64] = "", ours[64] = "-";
	struct dirent *d;
	bool has = false;
	DIR *dp;

	/* The same name in another network namespace is another device. */
	snprintf(path, sizeof(path), "%.16s/ns/net", pid);
	if (readlinkat(proc, path, theirs, sizeof(theirs) - 1) < 0 ||
	    readlinkat(proc, "self/ns/net", ours, sizeof(ours) - 1) < 0 || strcmp(theirs, ours))
		return false;
	snprintf(path, sizeof(path), "%.16s/fdinfo", pid);
	int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dp = fd < 0 ? NULL : fdopendir(fd);
	if (!dp) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!has && (d = readdir(dp)))
		has = isdigit((unsigned char)d->d_name[0]) && is_of(fd, d->d_name, name);
	closedir(dp);
	return has;
}

/* "process 12 (qemu)" of another process that holds a queue of the TAP; "" when none is seen. */
static void holder(const char *name, char *buf, size_t size)
{
	char path[64], comm[32] = "?";
	DIR *dp = opendir("/proc");
	struct dirent *d;

	*buf = '\0';
	while (dp && (d = readdir(dp))) {
		if (!isdigit((unsigned char)d->d_name[0]) || atoi(d->d_name) == getpid() ||
		    !process_has(dirfd(dp), d->d_name, name))
			continue;
		snprintf(path, sizeof(path), "%.16s/comm", d->d_name);
		int fd = openat(dirfd(dp), path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, comm, sizeof(comm) - 1);

		if (fd >= 0)
			close(fd);
		if (n > 0)
			comm[n - 1] = '\0'; /* a newline */
		snprintf(buf, size, "process %.16s (%s)", d->d_name, comm);
		break;
	}
	if (dp)
		closedir(dp);
}

static int busy(const char *name, struct err *e)
{
	char who[80];

	holder(name, who, sizeof(who));
	return err_msg(e, -EBUSY, "in use by %s", *who ? who : "another process");
}

/* ------------------------------------------------------------- opening */

/* An ioctl about a network device of this namespace, by name. */
static int by_name(unsigned long request, struct ifreq *ifr)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	r = ioctl(fd, request, ifr) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static struct ifreq named(const char *name)
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	return ifr;
}

static bool exists(const char *name)
{
	struct ifreq ifr = named(name);

	return by_name(SIOCGIFINDEX, &ifr) == 0;
}

/* One queue more; *ret_fd or a negative errno. */
static int queue_open(const char *name, short flags, int *ret_fd)
{
	struct ifreq ifr = named(name);
	int fd = open(TUN, O_RDWR | O_NONBLOCK | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	ifr.ifr_flags = flags;
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

/* What the kernel's EINVAL for a device that exists means. */
static int refused(const char *name, unsigned queues, struct err *e)
{
	int fd, r = queue_open(name, FLAGS, &fd);

	if (r == 0)
		close(fd);
	if (queues > 1 && (r == 0 || r == -EBUSY))
		return err_msg(e, -EINVAL,
			       "it has one queue: queues=1, or make it anew with multi_queue (ip "
			       "tuntap add %s mode tap multi_queue)",
			       name);
	return err_msg(e, -EINVAL, "there is a network device of that name, and it is no TAP");
}

static int explain(const char *name, unsigned queues, int code, struct err *e)
{
	switch (code) {
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		return err_msg(e, code, TUN " is missing: modprobe tun");
	case -EACCES:
		return err_msg(e, code, TUN ": %s", strerror(-code));
	case -EBUSY:
		return busy(name, e);
	case -EPERM:
		if (exists(name))
			return err_msg(e, code, "it is not this user's, who lacks CAP_NET_ADMIN");
		return err_msg(
			e, code,
			"there is none, and to make it this user lacks CAP_NET_ADMIN; who has "
			"it can: ip tuntap add %s mode tap user NAME",
			name);
	case -EINVAL:
		if (exists(name))
			return refused(name, queues, e);
		break;
	case -E2BIG:
		return err_msg(e, code, "it takes no %u queues more", queues);
	}
	return err_msg(e, code, "%s", strerror(-code));
}

/*
 * A TAP that was made for several queues lets anybody have one, while others use it: the
 * frames would go now here, now there.
 */
static int not_shared(const char *name, struct err *e)
{
	char who[80];

	holder(name, who, sizeof(who));
	return *who ? err_msg(e, -EBUSY, "in use by %s", who) : 0;
}

static int open_queues(struct tap *t, unsigned queues, bool was_there, struct err *e)
{
	short flags = queues > 1 ? FLAGS | IFF_MULTI_QUEUE : FLAGS;
	int r = 0;

	while (r == 0 && t->queues < queues) {
		r = queue_open(t->name, flags, &t->fd[t->queues]);
		/* One that was made for several can be used with one. */
		if (r == -EINVAL && was_there && !(flags & IFF_MULTI_QUEUE)) {
			flags |= IFF_MULTI_QUEUE;
			r = queue_open(t->name, flags, &t->fd[t->queues]);
		}
		t->queues += r == 0;
	}
	if (r < 0)
		return explain(t->name, queues, r, e);
	return was_there && (flags & IFF_MULTI_QUEUE) ? not_shared(t->name, e) : 0;
}

/* A new one is down. */
static int bring_up(const struct tap *t, uint16_t mtu, struct err *e)
{
	struct ifreq ifr = named(t->name);
	int r = 0;

	ifr.ifr_mtu = mtu;
	if (mtu)
		r = by_name(SIOCSIFMTU, &ifr);
	if (r < 0)
		return err_msg(e, r, "mtu %u: %s", mtu, strerror(-r));
	ifr = named(t->name);
	r = by_name(SIOCGIFFLAGS, &ifr);
	ifr.ifr_flags |= IFF_UP;
	if (r == 0)
		r = by_name(SIOCSIFFLAGS, &ifr);
	return r < 0 ? err_msg(e, r, "bring it up: %s", strerror(-r)) : 0;
}

static int set_offloads(struct tap *t, unsigned bits)
{
	if (ioctl(t->fd[0], TUNSETOFFLOAD, (unsigned long)bits) < 0)
		return -errno;
	t->set = bits;
	return 0;
}

/* Headers as the devices want them, and what the kernel can leave to a guest. */
static int set_up(struct tap *t, struct err *e)
{
	int size = TAP_HDR, le = 1;

	if (!t->vnet_hdr)
		return 0;
	for (unsigned i = 0; i < t->queues; i++)
		if (ioctl(t->fd[i], TUNSETVNETHDRSZ, &size) < 0 ||
		    ioctl(t->fd[i], TUNSETVNETLE, &le) < 0)
			return err_sys(e, "frames' headers");
	static const unsigned sets[] = {TUN_F_CSUM, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
					TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN,
					TUN_F_CSUM | TUN_F_UFO,
					TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6};

	for (unsigned i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		if (!set_offloads(t, sets[i]))
			t->offloads |= sets[i];
	set_offloads(t, 0);
	return 0;
}

int tap_open(struct tap *t, const char *name, unsigned queues, uint16_t mtu, struct err *e)
{
	bool was_there = exists(name);

	*t = (struct tap){.vnet_hdr = true, .made = !was_there};
	snprintf(t->name, sizeof(t->name), "%s", name);
	int r = open_queues(t, queues, was_there, e);

	if (r == 0)
		r = set_up(t, e);
	if (r == 0 && t->made)
		r = bring_up(t, mtu, e);
	if (r < 0)
		tap_close(t);
	return r < 0 ? err_ctx(e, "TAP %s", name) : 0;
}

/* One queue more. */
static int adopt(struct tap *t, int fd, struct err *e)
{
	struct ifreq ifr = {0};
	int fl = fcntl(fd, F_GETFL);

	if (ioctl(fd, TUNGETIFF, &ifr) < 0 || !(ifr.ifr_flags & IFF_TAP))
		return err_msg(e, -EINVAL, "fd %d: is no TAP", fd);
	ifr.ifr_name[IFNAMSIZ - 1] = '\0';
	if (t->queues && strcmp(t->name, ifr.ifr_name))
		return err_msg(e, -EINVAL, "fd %d: of TAP %s, and fd %d of %s", fd, ifr.ifr_name,
			       t->fd[0], t->name);
	snprintf(t->name, sizeof(t->name), "%s", ifr.ifr_name);
	t->vnet_hdr = ifr.ifr_flags & IFF_VNET_HDR;
	if (fl < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return err_sys(e, "fd %d", fd);
	t->fd[t->queues++] = fd;
	return 0;
}

int tap_adopt(struct tap *t, const int *fd, unsigned n, struct err *e)
{
	int r = 0;

	*t = (struct tap){0};
	for (unsigned i = 0; r == 0 && i < n; i++)
		r = adopt(t, fd[i], e);
	if (r == 0 && set_up(t, e) < 0)
		r = err_ctx(e, "TAP %s", t->name);
	if (r < 0)
		*t = (struct tap){0}; /* nobody's here: they stay the caller's */
	return r;
}

void tap_close(struct tap *t)
{
	while (t->queues)
		close(t->fd[--t->queues]);
}

/* ------------------------------------------------------------- what is set at it */

int tap_set_offloads(struct tap *t, unsigned bits)
{
	return bits == t->set ? 0 : set_offloads(t, bits);
}

int tap_attach(const struct tap *t, unsigned i, bool on)
{
	struct ifreq ifr = {.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

	if (ioctl(t->fd[i], TUNSETQUEUE, &ifr) == 0)
		return 0;
	return errno == EINVAL ? -EALREADY : -errno;
}

int tap_set_filter(struct tap *t, uint8_t (*addr)[ETH_ALEN], unsigned n, bool allmulti)
{
	union {
		struct tun_filter f;
		uint8_t room[sizeof(struct tun_filter) + TAP_FILTER_MAX * ETH_ALEN];
	} s = {.f = {.flags = allmulti ? TUN_FLT_ALLMULTI : 0, .count = (uint16_t)n}};

	if (n > TAP_FILTER_MAX)
		return -E2BIG;
	if (!n && t->all)
		return 0;
	if (n)
		memcpy(s.room + offsetof(struct tun_filter, addr), addr, n * ETH_ALEN);
	if (ioctl(t->fd[0], TUNSETTXFILTER, &s) < 0)
		return -errno;
	t->all = !n;
	return 0;
}

void tap_drain(int fd)
{
	char byte;

	/* A queue holds 1000 at most unless somebody made it longer: others go on coming. */
	for (unsigned i = 0; i < 4096; i++)
		if (read(fd, &byte, 1) <= 0 && errno != EINVAL)
			break;
}
