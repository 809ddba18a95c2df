/* SPDX-License-Identifier: Apache-2.0 */
/* A listening socket with a vu_peer behind it, guest memory to share, and a driver. */
#ifndef TESTS_UNIT_VUSER_RIG_H
#define TESTS_UNIT_VUSER_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/un.h>

#include <cmocka.h>

#include "tests/unit/shared_ram.h"
#include "tests/unit/turns.h"
#include "tests/unit/vu_peer.h"
#include "virtio/devices.h"
#include "virtio/vhost_user_conn.h"
#include "virtio/vuser.h"
#include "vmm/evfd.h"
#include "vmm/log.h"

#define RING 16

struct rig {
	char dir[32];
	struct sockaddr_un sa;
	int listener;
	struct vu_peer p;
	pthread_t door;
	bool opened;
	unsigned files;
	struct fake_ram m;
	struct fake_ring r[2];
	uint64_t buf;
	struct fake_bearer bearer;
	struct loop *loop;
	struct virtio *v;
	unsigned failed; /* the machine was told to end, so often */
};

static inline void rig_power(void *arg, enum power_event ev)
{
	assert_int_equal(ev, POWER_FAIL);
	((struct rig *)arg)->failed++;
}

static inline void *rig_door(void *arg)
{
	struct rig *r = arg;

	vu_peer_on(&r->p, accept4(r->listener, NULL, NULL, SOCK_CLOEXEC));
	return NULL;
}

static inline void rig_init(struct rig *r)
{
	*r = (struct rig){.dir = "/tmp/mvm-test-XXXXXX"};
	log_set_level(-1);
	vu_wait_ms = 5000;
	assert_int_equal(evfd_prepare(NULL), 0); /* has a file, for good */
	r->files = open_files();
	vu_peer_init(&r->p);
	assert_non_null(mkdtemp(r->dir));
	r->sa.sun_family = AF_UNIX;
	snprintf(r->sa.sun_path, sizeof(r->sa.sun_path), "%s/s", r->dir);
	r->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(r->listener, (void *)&r->sa, sizeof(r->sa)), 0);
	assert_int_equal(listen(r->listener, 4), 0);
	shared_ram_init(&r->m, FAKE_RAM);
	for (unsigned q = 0; q < 2; q++)
		fake_ring_init(&r->r[q], &r->m, RING);
	r->buf = fake_alloc(&r->m, 65536, 4096);
	assert_int_equal(loop_new(&r->loop, "test", NULL), 0);
}

/* The next one that connects is served. */
static inline void rig_open(struct rig *r)
{
	r->opened = true;
	assert_int_equal(pthread_create(&r->door, NULL, rig_door, r), 0);
}

static inline void rig_fini(struct rig *r)
{
	if (r->opened) {
		pthread_join(r->door, NULL);
		vu_peer_join(&r->p);
	}
	loop_free(r->loop);
	shared_ram_fini(&r->m);
	close(r->listener);
	unlink(r->sa.sun_path);
	rmdir(r->dir);
	assert_int_equal(open_files(), r->files);
}

static inline void rig_run(struct rig *r, uint64_t features)
{
	for (unsigned q = 0; q < 2; q++)
		fake_ring_zero(&r->r[q]);
	fake_bear(r->v, &r->bearer);
	assert_true(fake_negotiate(r->v, features));
	for (unsigned q = 0; q < 2 && q < r->v->nqueues; q++)
		fake_enable(r->v, q, &r->r[q]);
	fake_driver_ok(r->v);
	assert_int_equal(r->v->status, 15);
}

/* The back end goes away, and the device has noticed. */
static inline void rig_kill(struct rig *r)
{
	struct vuser *d = (struct vuser *)r->v;

	shutdown(r->p.fd, SHUT_RDWR);
	TURNS_UNTIL(r->loop, vhost_user_dead(d->u) && !d->link.running);
	turns(r->loop, 3);
}

/* The back end breaks the protocol, lives on, and the device has noticed. */
static inline void rig_break(struct rig *r)
{
	const struct vu_msg m = {.request = VU_GET_CONFIG, .flags = VU_VERSION | VU_REPLY};
	struct vuser *d = (struct vuser *)r->v;

	assert_int_equal(send(r->p.fd, &m, VU_HEADER, MSG_NOSIGNAL), VU_HEADER);
	TURNS_UNTIL(r->loop, vhost_user_dead(d->u) && !d->link.running);
	turns(r->loop, 3);
}

#endif
