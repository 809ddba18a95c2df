/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-net and vhost-vsock: what the kernel is asked for. The real ones cannot be made to fail, so
 * an open(), a stat() and an ioctl() stand in front of libc's; test_vhost_vsock.c has a real one.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/net_rig.h"
#include "tests/unit/vu_peer.h"
#include "virtio/vhost.h"

/* ------------------------------------------------------------- a kernel that does as it is told */

static struct {
	bool on;
	int open_errno;
	struct stat st;
	uint64_t features, set_features;
	char calls[1024];
	unsigned fails; /* this ioctl, counted from 1; 0: none */
	unsigned n;
	int fail_errno;
	struct vhost_vring_addr addr[2];
	struct vhost_vring_file kick[2], call[2], err[2];
	struct vhost_memory_region region;
	unsigned nregions;
	int backend[2];
	uint64_t cid;
	bool opened;
} sham;

static void sham_begin(void)
{
	memset(&sham, 0, sizeof(sham));
	sham.on = true;
	sham.features = ~0ull;
	sham.backend[0] = sham.backend[1] = -2;
}

static const char *calls(void)
{
	static char text[sizeof(sham.calls)];

	strcpy(text, sham.calls);
	sham.calls[0] = '\0';
	return text;
}

static void called(const char *what, unsigned ring)
{
	size_t len = strlen(sham.calls);

	snprintf(sham.calls + len, sizeof(sham.calls) - len, ring < 2 ? "%s%u " : "%s ", what,
		 ring);
}

/* Requests that all have the ring and a file. */
static bool sham_file(unsigned long req, const struct vhost_vring_file *f)
{
	static const struct {
		unsigned long req;
		const char *name;
		struct vhost_vring_file *at;
	} all[] = {
		{VHOST_SET_VRING_KICK, "kick", sham.kick},
		{VHOST_SET_VRING_CALL, "call", sham.call},
		{VHOST_SET_VRING_ERR, "err", sham.err},
	};

	for (unsigned i = 0; i < 3; i++)
		if (all[i].req == req) {
			char text[16];

			snprintf(text, sizeof(text), "%s%s", f->fd < 0 ? "no-" : "", all[i].name);
			called(text, f->index);
			all[i].at[f->index] = *f;
			return true;
		}
	if (req == VHOST_NET_SET_BACKEND) {
		called(f->fd < 0 ? "halt" : "go", f->index);
		sham.backend[f->index] = f->fd;
		return true;
	}
	return false;
}

static void sham_whole(unsigned long req, const void *arg)
{
	const struct vhost_memory *m = arg;

	switch (req) {
	case VHOST_SET_OWNER:
		called("owner", 2);
		break;
	case VHOST_GET_FEATURES:
		*(uint64_t *)(uintptr_t)arg = sham.features;
		break;
	case VHOST_SET_FEATURES:
		called("features", 2);
		sham.set_features = *(const uint64_t *)arg;
		break;
	case VHOST_SET_MEM_TABLE:
		called("memory", 2);
		sham.nregions = m->nregions;
		sham.region = m->regions[0];
		break;
	case VHOST_VSOCK_SET_GUEST_CID:
		called("cid", 2);
		sham.cid = *(const uint64_t *)arg;
		break;
	case VHOST_VSOCK_SET_RUNNING:
		called(*(const int *)arg ? "run" : "halt", 2);
		break;
	default:
		fail_msg("unknown ioctl %#lx", req);
	}
}

static void sham_ring(unsigned long req, const void *arg)
{
	const struct vhost_vring_state *s = arg;
	const struct vhost_vring_addr *a = arg;

	if (req == VHOST_SET_VRING_NUM)
		called("num", s->index);
	else if (req == VHOST_SET_VRING_BASE)
		called("base", s->index);
	else if (req == VHOST_GET_VRING_BASE)
		called("where", s->index);
	else if (req == VHOST_SET_VRING_ADDR) {
		called("addr", a->index);
		sham.addr[a->index] = *a;
	} else if (!sham_file(req, arg))
		sham_whole(req, arg);
}

int ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (!sham.on || _IOC_TYPE(req) != VHOST_VIRTIO)
		return (int)syscall(SYS_ioctl, fd, req, arg);
	if (fcntl(fd, F_GETFD) < 0)
		return -1; /* closed: EBADF */
	if (++sham.n == sham.fails) {
		errno = sham.fail_errno;
		return -1;
	}
	sham_ring(req, arg);
	return 0;
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	if (!sham.on || strncmp(path, "/dev/vhost-", 11))
		return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if (sham.open_errno) {
		errno = sham.open_errno;
		return -1;
	}
	return (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", flags, 0);
}

int stat(const char *path, struct stat *st)
{
	if (!sham.on || strncmp(path, "/dev/vhost-", 11))
		return (int)syscall(SYS_newfstatat, AT_FDCWD, path, st, 0);
	*st = sham.st;
	return 0;
}

/* ------------------------------------------------------------- what it is told */

static struct vhost_kernel k;
static struct err e;

static void refused(int open_errno, mode_t mode, gid_t group, const char *why)
{
	sham_begin();
	e.text[0] = '\0';
	sham.open_errno = open_errno;
	sham.st.st_mode = S_IFCHR | mode;
	sham.st.st_gid = group;
	assert_int_equal(vhost_net_open(&k, 1, "net0", &e), -open_errno);
	assert_int_equal(k.fd, -1);
	vhost_kernel_close(&k);
	sham.on = false;
	if (!strstr(e.text, why))
		fail_msg("\"%s\" lacks \"%s\"", e.text, why);
	assert_memory_equal(e.text, "/dev/vhost-net: ", 16);
}

static void what_is_missing_is_said_with_its_remedy(void **state)
{
	(void)state;
	refused(ENOENT, 0, 0, "modprobe vhost_net");
	refused(ENODEV, 0, 0, "modprobe vhost_net");
	refused(EACCES, 0660, 5, "members of the group tty may use it: usermod -aG tty USER");
	refused(EACCES, 0660, 0, "root alone may use it");
	refused(EACCES, 0600, 5, "root alone may use it");
	refused(EPERM, 0660, 123456789, "root alone may use it");
	refused(EMFILE, 0, 0, "Too many open files");
}

static void a_kernel_that_is_too_old_or_says_no_is_refused(void **state)
{
	(void)state;
	sham_begin();
	sham.features = ~(1ull << VIRTIO_F_VERSION_1);
	assert_int_equal(vhost_net_open(&k, 1, "net0", &e), -EOPNOTSUPP);
	assert_int_equal(k.fd, -1);
	sham.features = ~0ull;
	for (unsigned i = 1; i <= 3; i++) {
		sham.n = 0;
		sham.fails = i;
		sham.fail_errno = EBUSY;
		e.text[0] = '\0';
		assert_int_equal(vhost_vsock_open(&k, 9, "vsock", &e), -EBUSY);
		assert_int_equal(k.fd, -1);
		assert_non_null(strstr(e.text, "busy"));
	}
	sham.n = 0;
	sham.fail_errno = EADDRINUSE;
	assert_int_equal(vhost_vsock_open(&k, 9, "vsock", &e), -EADDRINUSE);
	assert_string_equal(e.text, "CID 9 is in use by another VM on this host");
	sham.on = false;
}

static void only_features_that_both_know_are_offered(void **state)
{
	const uint64_t ring = 1ull << 28 | 1ull << 29 | 1ull << 32;

	(void)state;
	sham_begin();
	assert_int_equal(vhost_net_open(&k, 1, "net0", &e), 0);
	assert_int_equal(k.h.features, ring | 1ull << 15);
	vhost_kernel_close(&k);
	assert_int_equal(vhost_vsock_open(&k, 9, "vsock", &e), 0);
	assert_int_equal(k.h.features, ring | 3);
	assert_int_equal(sham.cid, 9);
	/* Those of the negotiated ones that are the kernel's business. */
	assert_int_equal(k.h.ops->set_features(&k.h, ~0ull), 0);
	assert_int_equal(sham.set_features, ring | 3);
	vhost_kernel_close(&k);
	sham.features = 1ull << 32;
	assert_int_equal(vhost_net_open(&k, 1, "net0", &e), 0);
	assert_int_equal(k.h.features, 1ull << 32);
	vhost_kernel_close(&k);
	sham.on = false;
}

static const struct vhost_ring one = {
	.size = 64,
	.desc = (void *)0x1000,
	.avail = (void *)0x2000,
	.used = (void *)0x3000,
	.kick = 11,
	.call = 12,
	.err = 13,
};

static void a_ring_of_a_network_device_starts_and_stops_by_itself(void **state)
{
	uint16_t base;

	(void)state;
	sham_begin();
	assert_int_equal(vhost_net_open(&k, 42, "net0", &e), 0);
	assert_string_equal(calls(), "owner ");
	assert_int_equal(k.h.ops->ring_start(&k.h, 1, &one), 0);
	assert_string_equal(calls(), "num1 base1 addr1 err1 call1 kick1 go1 ");
	assert_int_equal(sham.backend[1], 42);
	assert_int_equal(sham.addr[1].desc_user_addr, 0x1000);
	assert_int_equal(sham.addr[1].avail_user_addr, 0x2000);
	assert_int_equal(sham.addr[1].used_user_addr, 0x3000);
	assert_int_equal(sham.addr[1].flags, 0);
	assert_int_equal(sham.kick[1].fd, 11);
	assert_int_equal(sham.call[1].fd, 12);
	assert_int_equal(sham.err[1].fd, 13);
	assert_int_equal(k.h.ops->ring_call(&k.h, 1, 14), 0);
	assert_int_equal(sham.call[1].fd, 14);
	calls();
	assert_int_equal(k.h.ops->ring_stop(&k.h, 1, &base), 0);
	assert_string_equal(calls(), "halt1 where1 no-kick1 no-call1 no-err1 ");
	vhost_kernel_close(&k);
	sham.on = false;
}

static void a_start_that_fails_at_any_step_leaves_nothing_tied(void **state)
{
	(void)state;
	sham_begin();
	assert_int_equal(vhost_net_open(&k, 42, "net0", &e), 0);
	sham.fail_errno = EFAULT;
	for (unsigned i = 1; i <= 7; i++) {
		sham.n = 0;
		sham.fails = i;
		assert_int_equal(k.h.ops->ring_start(&k.h, 0, &one), -EFAULT);
		assert_int_equal(sham.kick[0].fd, -1);
		assert_int_equal(sham.call[0].fd, -1);
		assert_int_equal(sham.err[0].fd, -1);
		assert_true(sham.backend[0] < 0);
	}
	vhost_kernel_close(&k);
	sham.on = false;
}

/* The promise of a stop is that nobody touches guest memory any more. */
static void a_stop_that_the_kernel_refuses_closes_the_file(void **state)
{
	uint16_t base;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		sham_begin();
		assert_int_equal(i ? vhost_vsock_open(&k, 9, "vsock", &e)
				   : vhost_net_open(&k, 42, "net0", &e),
				 0);
		sham.n = 0;
		sham.fails = 1;
		sham.fail_errno = EPERM;
		assert_int_equal(i ? k.h.ops->run(&k.h, false) : k.h.ops->ring_stop(&k.h, 0, &base),
				 -EPERM);
		assert_int_equal(k.fd, -1);
		assert_int_equal(k.h.ops->ring_start(&k.h, 0, &one), -EBADF);
	}
	sham.on = false;
}

/* ------------------------------------------------------------- a network device in front of it */

static void set_files(rlim_t most)
{
	struct rlimit l;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
	l.rlim_cur = most < l.rlim_max ? most : l.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
}

/* Without descriptors at any step, a link that is half made among them. */
static void a_device_that_cannot_be_made_leaves_nothing_open(void **state)
{
	struct net_rig *f = net_begin(END_TAP, 2);
	struct net_env env = {f->m.gm, f->loop, f->host, .index = 3};
	unsigned before = open_files(), failed = 0;
	struct net *n;

	(void)state;
	sham_begin();
	f->c.vhost = CONFIG_ON;
	for (rlim_t most = 3; most < before + 100; most++) {
		set_files(most);
		int r = net_new(&n, &f->c, &env, &e);

		set_files(1024);
		if (r == 0) {
			net_virtio(n)->ops->free(net_virtio(n));
			break;
		}
		failed++;
		assert_int_equal(open_files(), before);
	}
	/* Two files, five queues' kicks, and two eventfds for each of four rings. */
	assert_true(failed >= 15);
	assert_int_equal(open_files(), before);
	net_end(f);
	sham.on = false;
}

/* A device with one pair's queues enabled, before the driver says that it is ready. */
static void one_pair(struct net_rig *f)
{
	sham_begin();
	f->c.vhost = CONFIG_ON;
	net_plug(f);
	assert_true(fake_negotiate(f->v, MRG));
	for (unsigned q = 0; q < 2; q++)
		fake_enable(f->v, q, &f->r[q]);
}

static void a_pair_that_cannot_start_is_said_once(void **state)
{
	struct net_rig *f = net_begin(END_TAP, 1);
	int out[2], err = dup(2);
	char buf[500];

	(void)state;
	one_pair(f);
	sham.n = 0;
	sham.fails = 3; /* after features and memory */
	sham.fail_errno = EFAULT;
	assert_int_equal(pipe(out), 0);
	dup2(out[1], 2);
	fake_driver_ok(f->v);
	dup2(err, 2);
	close(err);
	close(out[1]);
	buf[read(out[0], buf, sizeof(buf) - 1)] = '\0';
	close(out[0]);
	assert_string_equal(buf, "mvm: net3: a ring does not start: Bad address\n"
				 "mvm: net3: the device cannot start: Bad address\n");
	net_end(f);
	sham.on = false;
}

/* A kick that came as a write to a register. */
static void a_pairs_kicks_reach_the_kernel_either_way(void **state)
{
	struct net_rig *f = net_begin(END_TAP, 1);
	uint64_t kicks;

	(void)state;
	one_pair(f);
	fake_driver_ok(f->v);
	assert_true(f->v->running);
	for (unsigned q = 0; q < 2; q++) {
		/* The one at the start. */
		assert_int_equal(read(f->v->queue[q].kick_fd, &kicks, sizeof(kicks)), 8);
		virtio_kick(f->v, q);
		assert_int_equal(read(f->v->queue[q].kick_fd, &kicks, sizeof(kicks)), 8);
		assert_int_equal(kicks, 1);
	}
	net_end(f);
	sham.on = false;
}

/*
 * A driver that took neither MQ nor the control queue may enable the last queue on a running device
 * all the same: no pair's kernel end is asked for it, and least of all that of a pair which is
 * none.
 */
static void a_queue_of_no_pair_that_comes_live_later_is_no_rings(void **state)
{
	struct net_rig *f = net_begin(END_TAP, 1);
	uint64_t kicks = 0;

	(void)state;
	one_pair(f);
	fake_driver_ok(f->v);
	assert_true(f->v->running);
	calls();
	fake_enable(f->v, 2, &f->r[2]); /* ASan: not beyond n->vhost[] */
	assert_string_equal(calls(), "");
	assert_true(vq_live(virtio_vq(f->v, 2)));
	assert_false(f->v->status & VIRTIO_S_NEEDS_RESET);
	/* It is ours to look at, as each queue is that nobody else serves. */
	assert_int_equal(read(f->v->queue[2].kick_fd, &kicks, sizeof(kicks)), sizeof(kicks));
	net_end(f);
	sham.on = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_missing_is_said_with_its_remedy),
		cmocka_unit_test(a_kernel_that_is_too_old_or_says_no_is_refused),
		cmocka_unit_test(only_features_that_both_know_are_offered),
		cmocka_unit_test(a_ring_of_a_network_device_starts_and_stops_by_itself),
		cmocka_unit_test(a_start_that_fails_at_any_step_leaves_nothing_tied),
		cmocka_unit_test(a_stop_that_the_kernel_refuses_closes_the_file),
		cmocka_unit_test(a_device_that_cannot_be_made_leaves_nothing_open),
		cmocka_unit_test(a_pair_that_cannot_start_is_said_once),
		cmocka_unit_test(a_pairs_kicks_reach_the_kernel_either_way),
		cmocka_unit_test(a_queue_of_no_pair_that_comes_live_later_is_no_rings),
	};

	return cmocka_run_group_tests_name("vhost_kernel", tests, NULL, NULL);
}
