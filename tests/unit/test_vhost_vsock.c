/* SPDX-License-Identifier: Apache-2.0 */
/* The real vhost-vsock, driven through rings in plain memory, where the host has it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/devices.h"
#include "vmm/log.h"

#define CID 7001 /* of no machine that a test boots */
#define RING 8

static struct err e;

struct fixture {
	struct fake_ram m;
	struct fake_ring r[3];
	struct fake_bearer bearer;
	struct loop *loop;
	struct virtio *v;
	int host; /* a socket of a program on the host */
};

/* Rings of a driver that has put buffers of a page into the receive queue. */
static void drive(struct fixture *f)
{
	virtio_set_status(f->v, 0);
	fake_bear(f->v, &f->bearer);
	assert_true(fake_negotiate(f->v, 0));
	f->m.next = 0;
	for (unsigned i = 0; i < 3; i++) {
		fake_ring_init(&f->r[i], &f->m, RING);
		fake_ring_zero(&f->r[i]);
		fake_enable(f->v, i, &f->r[i]);
	}
	for (unsigned i = 0; i < RING; i++)
		fake_send(&f->r[0], &(struct fake_buf){fake_alloc(&f->m, 4096, 64), 4096, FAKE_W},
			  1);
	fake_driver_ok(f->v);
	assert_int_equal(f->v->status, 15);
}

static bool real(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		return true;
	}
	print_message("SKIPPED, NOT TESTED: %s: %s\n", path, strerror(errno));
	return false;
}

static int setup(void **state)
{
	const struct vsock_config c = {.present = true, .cid = CID};
	struct fixture *f;
	struct vsock_env env;

	log_set_level(LOG_ERROR);
	*state = NULL;
	if (!real("/dev/vhost-vsock"))
		return 0;
	f = calloc(1, sizeof(*f));
	fake_ram_init(&f->m, FAKE_RAM);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	env = (struct vsock_env){.gm = f->m.gm, .loop = f->loop};
	if (vsock_kernel_new(&f->v, &c, &env, &e))
		fail_msg("%s", e.text);
	f->host = -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (!f)
		return 0;
	if (f->host >= 0)
		close(f->host);
	f->v->ops->free(f->v);
	loop_free(f->loop);
	fake_ram_fini(&f->m);
	free(f);
	return 0;
}

/* A program on the host begins to connect to port @port of the guest. */
static void host_connect(struct fixture *f, unsigned port)
{
	const struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = CID, .svm_port = port};

	if (f->host >= 0)
		close(f->host);
	f->host = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(f->host >= 0);
	assert_int_equal(connect(f->host, (const struct sockaddr *)&to, sizeof(to)), -1);
	assert_int_equal(errno, EINPROGRESS);
}

/*
 * struct virtio_vsock_hdr, section 5.10.6: the operation is at 30, the port at 20. What the kernel
 * had for the ring when it was reset comes first.
 */
static void expect_request(struct fixture *f, unsigned port)
{
	uint32_t id, len;
	uint64_t at;

	for (;;) {
		TURNS_UNTIL(f->loop, fake_used(&f->r[0], &id, &len));
		assert_int_equal(len, 44);
		at = *(uint64_t *)fake_at(&f->m, f->r[0].desc + 16ull * id);
		if (fake_get32(&f->m, at + 20) == port && fake_get16(&f->m, at + 30) == 1)
			return;
		fake_avail(&f->r[0], (uint16_t)id);
		assert_int_equal(eventfd_write(f->v->queue[0].kick_fd, 1), 0);
	}
}

static void it_is_a_socket_device_with_the_cid(void **state)
{
	struct fixture *f = *state;

	if (!f)
		skip();
	assert_int_equal(f->v->ops->id, VIRTIO_ID_VSOCK);
	assert_int_equal(f->v->nqueues, 3);
	assert_int_equal(virtio_config_read(f->v, 0, 8), CID);
	assert_int_equal(f->v->config_len, 8);
	assert_int_equal(vq_max_size(f->v->queue[0].vq), 128);
	assert_true(f->v->offered & 1ull << VIRTIO_F_VERSION_1);
	assert_false(f->v->offered & 1ull << VIRTIO_F_RING_RESET);
}

static void a_connection_of_the_host_arrives_in_the_ring_with_an_interrupt(void **state)
{
	struct fixture *f = *state;

	if (!f)
		skip();
	drive(f);
	host_connect(f, 77);
	expect_request(f, 77);
	TURNS_UNTIL(f->loop, f->bearer.queue[0]);
	assert_int_equal(f->bearer.queue[1], 0);
}

static void what_the_driver_sends_is_taken_at_its_kick(void **state)
{
	struct fixture *f = *state;
	uint64_t hdr;
	uint32_t id, len;

	if (!f)
		skip();
	drive(f);
	/* A reset of a connection that does not exist: the host has no answer to it. */
	hdr = fake_alloc(&f->m, 64, 64);
	memset(fake_at(&f->m, hdr), 0, 64);
	fake_put64(&f->m, hdr, CID);
	fake_put64(&f->m, hdr + 8, 2);
	fake_put16(&f->m, hdr + 28, 1);
	fake_put16(&f->m, hdr + 30, 3);
	fake_send(&f->r[1], &(struct fake_buf){hdr, 44, 0}, 1);
	assert_int_equal(eventfd_write(f->v->queue[1].kick_fd, 1), 0);
	TURNS_UNTIL(f->loop, fake_used(&f->r[1], &id, &len));
	TURNS_UNTIL(f->loop, f->bearer.queue[1]);
	/* And where the kick is a write to a register. */
	fake_send(&f->r[1], &(struct fake_buf){hdr, 44, 0}, 1);
	virtio_kick(f->v, 1);
	TURNS_UNTIL(f->loop, fake_used(&f->r[1], &id, &len));
}

static void a_kick_before_the_start_is_not_lost(void **state)
{
	struct fixture *f = *state;
	uint32_t id, len;
	uint64_t hdr;

	if (!f)
		skip();
	drive(f);
	virtio_set_status(f->v, 0);
	assert_true(fake_negotiate(f->v, 0));
	for (unsigned i = 0; i < 3; i++) {
		fake_ring_zero(&f->r[i]);
		fake_enable(f->v, i, &f->r[i]);
	}
	hdr = fake_alloc(&f->m, 64, 64);
	memset(fake_at(&f->m, hdr), 0, 64);
	fake_send(&f->r[1], &(struct fake_buf){hdr, 44, 0}, 1);
	fake_driver_ok(f->v);
	TURNS_UNTIL(f->loop, fake_used(&f->r[1], &id, &len));
}

static void a_broken_ring_needs_reset_and_works_again_after_it(void **state)
{
	struct fixture *f = *state;

	if (!f)
		skip();
	drive(f);
	fake_avail(&f->r[1], RING + 5);
	assert_int_equal(eventfd_write(f->v->queue[1].kick_fd, 1), 0);
	TURNS_UNTIL(f->loop, f->v->status & VIRTIO_S_NEEDS_RESET);
	assert_int_equal(f->bearer.config, 1);
	drive(f);
	host_connect(f, 78);
	expect_request(f, 78);
}

static void a_queue_left_out_needs_reset(void **state)
{
	struct fixture *f = *state;

	if (!f)
		skip();
	assert_true(fake_negotiate(f->v, 0));
	fake_ring_init(&f->r[0], &f->m, RING);
	fake_enable(f->v, 0, &f->r[0]);
	fake_driver_ok(f->v);
	assert_true(f->v->status & VIRTIO_S_NEEDS_RESET);
	assert_false(f->v->running);
}

static void resets_with_packets_on_their_way_leave_memory_alone(void **state)
{
	struct fixture *f = *state;

	if (!f)
		skip();
	for (unsigned i = 0; i < 200; i++) {
		drive(f);
		host_connect(f, 100 + i);
		if (i % 3 == 0)
			expect_request(f, 100 + i);
		virtio_set_status(f->v, 0);
		/* From here on this memory is the driver's alone. */
		memset(f->m.host, 0xa5, f->m.size);
		if (i % 20 == 0)
			usleep(2000);
		if (f->m.host[0] != 0xa5 || memcmp(f->m.host, f->m.host + 1, f->m.size - 1))
			fail_msg("reset %u: memory was written to", i);
	}
	drive(f);
	host_connect(f, 99);
	expect_request(f, 99);
}

static void a_cid_is_one_machines_until_it_is_freed(void **state)
{
	const struct vsock_config c = {.present = true, .cid = CID};
	struct fixture *f = *state;
	struct vsock_env env;
	struct virtio *v;

	if (!f)
		skip();
	env = (struct vsock_env){.gm = f->m.gm, .loop = f->loop};
	assert_int_equal(vsock_kernel_new(&v, &c, &env, &e), -EADDRINUSE);
	assert_string_equal(e.text, "--vsock: CID 7001 is in use by another VM on this host");
	/* A reboot of the guest: the next device follows the last at once. */
	f->v->ops->free(f->v);
	if (vsock_kernel_new(&f->v, &c, &env, &e))
		fail_msg("%s", e.text);
	drive(f);
	host_connect(f, 79);
	expect_request(f, 79);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(it_is_a_socket_device_with_the_cid),
		T(a_connection_of_the_host_arrives_in_the_ring_with_an_interrupt),
		T(what_the_driver_sends_is_taken_at_its_kick),
		T(a_kick_before_the_start_is_not_lost),
		T(a_broken_ring_needs_reset_and_works_again_after_it),
		T(a_queue_left_out_needs_reset),
		T(resets_with_packets_on_their_way_leave_memory_alone),
		T(a_cid_is_one_machines_until_it_is_freed),
	};

	return cmocka_run_group_tests_name("vhost_vsock", tests, NULL, NULL);
}
