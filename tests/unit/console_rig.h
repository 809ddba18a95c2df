/* SPDX-License-Identifier: Apache-2.0 */
/* A console with a fake driver below it and a socket as the host's end, for its tests. */
#ifndef TESTS_UNIT_CONSOLE_RIG_H
#define TESTS_UNIT_CONSOLE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/turns.h"
#include "virtio/devices.h"

#define RXQ 0
#define TXQ 1
#define F_SIZE 0
#define F_EMERG_WRITE 2

static struct loop *loop;
static struct fake_ram ram;
static struct fake_ring rx, tx;
static struct fake_bearer bearer;
static struct chr *chr;
static struct console *con;
static struct virtio *v;
static char path[64];
static int peer; /* the other end of the socket the console is on */

static inline int before(void **s)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct char_config c = {CHAR_SOCKET, path};

	(void)s;
	snprintf(path, sizeof(path), "/tmp/mvm-console-%d", getpid());
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	fake_ram_init(&ram, FAKE_RAM);
	fake_ring_init(&rx, &ram, 8);
	fake_ring_init(&tx, &ram, 128);
	peer = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (loop_new(&loop, "test", NULL) || chr_new(&chr, loop, &c, "console", NULL) ||
	    console_new(&con, ram.gm, loop, chr, NULL) ||
	    connect(peer, (struct sockaddr *)&un, sizeof(un)))
		return -1;
	unlink(path); /* connected: a test that is broken off leaves nothing behind */
	v = console_virtio(con);
	fake_bear(v, &bearer);
	turns(loop, 2);
	return 0;
}

static inline int after(void **s)
{
	(void)s;
	console_free(con);
	chr_free(chr);
	loop_free(loop);
	fake_ram_fini(&ram);
	close(peer);
	return 0;
}

/* A driver that is not ready for keys yet. */
static inline void go_deaf(uint64_t features)
{
	assert_true(fake_negotiate(v, features));
	fake_enable(v, RXQ, &rx);
	fake_enable(v, TXQ, &tx);
	fake_driver_ok(v);
	assert_true(v->running);
}

static inline void go(uint64_t features)
{
	go_deaf(features);
	console_listen(con);
}

static inline uint64_t text(const char *what)
{
	uint64_t at = fake_alloc(&ram, strlen(what), 1);

	memcpy(fake_at(&ram, at), what, strlen(what));
	return at;
}

/* What the host's end received and was not looked at yet. */
static inline size_t heard(char *buf, size_t size)
{
	ssize_t n = read(peer, buf, size);

	return n > 0 ? (size_t)n : 0;
}

static inline void heard_is(const char *want)
{
	char buf[4096];
	size_t n = heard(buf, sizeof(buf) - 1);

	buf[n] = '\0';
	assert_string_equal(buf, want);
}

static inline void used_is(struct fake_ring *r, uint32_t want_id, uint32_t want_len)
{
	uint32_t id, len;

	assert_true(fake_used(r, &id, &len));
	assert_int_equal(id, want_id);
	assert_int_equal(len, want_len);
}

static inline void nothing_used(struct fake_ring *r)
{
	uint32_t id, len;

	assert_false(fake_used(r, &id, &len));
}

static inline void type(const char *keys)
{
	assert_int_equal(write(peer, keys, strlen(keys)), strlen(keys));
	turns(loop, 4);
}

#define T(f) cmocka_unit_test_setup_teardown(f, before, after)

#endif
