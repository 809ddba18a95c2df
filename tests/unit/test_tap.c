/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TAPs of a network namespace of the test's own, alone and behind a network
 * device. Where there is no /dev/net/tun, or no namespace may be made, the tests
 * say so and are skipped; tests/boot/test_net.py has them all the same.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "tests/unit/net_rig.h"

static struct err e;
static const char *why_not;

/* ------------------------------------------------------------- the namespace */

static int enter(void **state)
{
	static char buf[128];
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	(void)state;
	log_set_level(LOG_ERROR);
	if (fd < 0)
		snprintf(buf, sizeof(buf), "/dev/net/tun: %s", strerror(errno));
	else if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
		snprintf(buf, sizeof(buf), "no network namespace: %s", strerror(errno));
	else
		close(fd);
	why_not = buf[0] ? buf : NULL;
	return 0;
}

#define NEED_TAP()                                                                                 \
	do {                                                                                       \
		(void)state;                                                                       \
		e.text[0] = '\0';                                                                  \
		if (why_not) {                                                                     \
			print_message("SKIPPED, NOT TESTED: %s\n", why_not);                       \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

static int ask_kernel(unsigned long request, struct ifreq *ifr)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0), r = ioctl(fd, request, ifr);

	close(fd);
	return r;
}

static short flags_of(const char *name)
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	return ask_kernel(SIOCGIFFLAGS, &ifr) ? 0 : ifr.ifr_flags;
}

static bool there(const char *name)
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	return ask_kernel(SIOCGIFINDEX, &ifr) == 0;
}

static void set_up_or_down(const char *name, bool up)
{
	struct ifreq ifr = {.ifr_flags = up ? IFF_UP : 0};

	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	assert_int_equal(ask_kernel(SIOCSIFFLAGS, &ifr), 0);
}

/* What a user has made before. */
static int make(const char *name, short flags, bool persist)
{
	struct ifreq ifr = {.ifr_flags = flags};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	if (persist)
		assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
	return fd;
}

static void unmake(const char *name, short flags)
{
	int fd = make(name, flags, false);

	assert_int_equal(ioctl(fd, TUNSETPERSIST, 0), 0);
	close(fd);
	assert_false(there(name));
}

/* ------------------------------------------------------------- opening */

static void a_tap_that_is_not_there_is_made_and_goes_again(void **state)
{
	struct ifreq ifr = {.ifr_name = "t0"};
	struct tap t;

	NEED_TAP();
	if (tap_open(&t, "t0", 1, 1400, &e))
		fail_msg("%s", e.text);
	assert_true(flags_of("t0") & IFF_UP);
	assert_int_equal(ask_kernel(SIOCGIFMTU, &ifr), 0);
	assert_int_equal(ifr.ifr_mtu, 1400);
	assert_true(t.vnet_hdr && t.made);
	assert_true(t.offloads & TUN_F_CSUM);
	assert_true(t.offloads & TUN_F_TSO4);
	assert_int_equal(fcntl(t.fd[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	tap_close(&t);
	assert_false(there("t0"));
}

static void a_tap_that_is_there_is_left_as_it_is(void **state)
{
	struct tap t;

	NEED_TAP();
	close(make("t1", IFF_TAP | IFF_NO_PI, true));
	assert_int_equal(tap_open(&t, "t1", 1, 1400, &e), 0);
	assert_false(t.made);
	assert_false(flags_of("t1") & IFF_UP);
	tap_close(&t);
	assert_true(there("t1"));
	unmake("t1", IFF_TAP | IFF_NO_PI);
}

static void queues_must_be_what_the_tap_was_made_for(void **state)
{
	struct tap t;

	NEED_TAP();
	close(make("t2", IFF_TAP | IFF_NO_PI, true));
	assert_int_equal(tap_open(&t, "t2", 2, 0, &e), -EINVAL);
	assert_non_null(strstr(e.text, "TAP t2: it has one queue: queues=1"));
	unmake("t2", IFF_TAP | IFF_NO_PI);
	close(make("t3", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE, true));
	for (unsigned n = 1; n <= 4; n++) {
		if (tap_open(&t, "t3", n, 0, &e))
			fail_msg("%s", e.text);
		assert_int_equal(t.queues, n);
		tap_close(&t);
	}
	unmake("t3", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE);
	close(make("t4", IFF_TUN | IFF_NO_PI, true));
	assert_int_equal(tap_open(&t, "t4", 1, 0, &e), -EINVAL);
	assert_non_null(strstr(e.text, "it is no TAP"));
	assert_int_equal(tap_open(&t, "lo", 1, 0, &e), -EINVAL);
	assert_non_null(strstr(e.text, "it is no TAP"));
	unmake("t4", IFF_TUN | IFF_NO_PI);
}

/* With one queue the kernel refuses; with several it does not, and they would share. */
static void a_tap_in_use_is_refused_with_its_holder(void **state)
{
	static const short kinds[] = {IFF_TAP | IFF_NO_PI, IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE};
	char want[64], byte;
	struct tap t;
	int p[2];

	NEED_TAP();
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(pipe(p), 0);
		pid_t pid = fork();

		if (!pid) {
			make("t5", kinds[i & 1], false);
			if (write(p[1], "x", 1) != 1)
				_exit(1);
			pause();
			_exit(0);
		}
		assert_int_equal(read(p[0], &byte, 1), 1);
		assert_true(tap_open(&t, "t5", i / 2 + 1, 0, &e) < 0);
		snprintf(want, sizeof(want), "process %d (test_tap)", pid);
		if (i == 2) /* several are asked for, and it has one */
			assert_non_null(strstr(e.text, "it has one queue"));
		else if (!strstr(e.text, want) || !strstr(e.text, "TAP t5: in use by"))
			fail_msg("%u: %s", i, e.text);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(p[0]);
		close(p[1]);
	}
}

static void descriptors_are_taken_for_what_they_are(void **state)
{
	struct tap t;
	int fd[2];

	NEED_TAP();
	fd[0] = make("t6", IFF_TAP | IFF_NO_PI, false);
	fd[1] = make("t7", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, false);
	assert_int_equal(tap_adopt(&t, fd, 1, &e), 0);
	assert_false(t.vnet_hdr);
	assert_string_equal(t.name, "t6");
	assert_true(tap_adopt(&t, fd, 2, &e) < 0);
	assert_non_null(strstr(e.text, "fd "));
	assert_non_null(strstr(e.text, "of TAP t7"));
	assert_int_equal(t.queues, 0);
	assert_int_equal(tap_adopt(&t, fd + 1, 1, &e), 0);
	assert_true(t.vnet_hdr);
	assert_true(t.offloads & TUN_F_CSUM);
	close(fd[0]);
	close(fd[1]);
}

/* However far it came: nothing of the caller's is closed, and no 0 that was never filled in. */
static void descriptors_that_are_refused_stay_the_callers(void **state)
{
	struct net_config c = {.kind = NET_FDS, .nfds = 3};
	struct net_host *h;

	(void)state;
	for (unsigned taps = 0; taps < (why_not ? 1u : 3u); taps++) {
		for (unsigned i = 0; i < 3; i++)
			c.fd[i] = i < taps
					  ? make("t8", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE, false)
					  : open("/dev/null", O_RDWR);
		assert_int_equal(net_host_open(&h, &c, 0, &e), -EINVAL);
		assert_non_null(strstr(e.text, "is no TAP"));
		assert_true(fcntl(0, F_GETFD) >= 0);
		for (unsigned i = 0; i < 3; i++) {
			assert_true(fcntl(c.fd[i], F_GETFD) >= 0);
			close(c.fd[i]);
		}
	}
}

/* ------------------------------------------------------------- behind a device */

static struct net_rig *over_tap(unsigned pairs, uint64_t features)
{
	struct net_rig *f = net_begin(END_TAP, 1);
	struct net_config c = {.kind = NET_TAP, .tap = "tx", .pairs = (uint16_t)pairs};

	close(f->far);
	f->far = -1;
	net_host_close(f->host);
	if (net_host_open(&f->host, &c, 3, &e))
		fail_msg("%s", e.text);
	f->c.pairs = (uint16_t)pairs;
	net_plug(f);
	net_drive(f, features);
	return f;
}

/* A socket that sends and hears raw frames at the host's end of the TAP. */
static int raw(void)
{
	struct ifreq ifr = {.ifr_name = "tx"};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(0x88b5)); /* for experiments */
	struct sockaddr_ll ll = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5)};

	assert_int_equal(ask_kernel(SIOCGIFINDEX, &ifr), 0);
	ll.sll_ifindex = ifr.ifr_ifindex;
	assert_int_equal(bind(fd, (struct sockaddr *)&ll, sizeof(ll)), 0);
	return fd;
}

static void say(int fd, const uint8_t *to, char what)
{
	uint8_t b[60] = {0};

	memcpy(b, to, 6);
	b[12] = 0x88;
	b[13] = 0xb5;
	b[14] = (uint8_t)what;
	assert_int_equal(send(fd, b, sizeof(b), 0), sizeof(b));
}

/* The letters of the test's frames that the guest has got. */
static const char *heard(struct net_rig *f)
{
	static char s[RING + 1];
	unsigned n = 0;
	uint32_t id, len;

	turns(f->loop, 3);
	while (fake_used(&f->r[0], &id, &len)) {
		const uint8_t *p = fake_at(&f->m, f->buf + id % RING * BUF);

		if (p[NET_HDR + 12] == 0x88)
			s[n++] = (char)p[NET_HDR + 14];
		net_give(f, f->r[0].avail_idx, 1, BUF);
	}
	s[n] = '\0';
	virtio_kick(f->v, 0);
	return s;
}

static void frames_go_both_ways(void **state)
{
	struct net_rig *f;
	uint8_t *p, b[100];
	int fd;

	NEED_TAP();
	f = over_tap(1, MRG);
	fd = raw();
	net_give(f, 0, RING / 2, BUF);
	virtio_kick(f->v, 0);
	say(fd, f->c.mac, 'a');
	assert_string_equal(heard(f), "a");
	p = fake_at(&f->m, f->out);
	memset(p, 0, NET_HDR + 60);
	memset(p + NET_HDR, 0xff, 6);
	p[NET_HDR + 12] = 0x88;
	p[NET_HDR + 13] = 0xb5;
	fake_send(&f->r[1], &(struct fake_buf){f->out, NET_HDR + 60, 0}, 1);
	/* A header that the kernel refuses costs its frame alone. */
	memset(fake_at(&f->m, f->out + 1024), 0xff, 80);
	fake_send(&f->r[1], &(struct fake_buf){f->out + 1024, 72, 0}, 1);
	fake_send(&f->r[1], &(struct fake_buf){f->out, NET_HDR + 60, 0}, 1);
	virtio_kick(f->v, 1);
	assert_int_equal(fake_get16(&f->m, f->r[1].used + 2), 3);
	assert_int_equal(recv(fd, b, sizeof(b), 0), 60);
	assert_int_equal(recv(fd, b, sizeof(b), 0), 60);
	close(fd);
	net_end(f);
}

/* Which of four frames the guest hears: its own, another's, to all and to a group. */
static void hears(struct net_rig *f, int fd, unsigned step, const char *want)
{
	static const uint8_t other[6] = {2, 7, 7, 7, 7, 7}, group[6] = {1, 0, 0x5e, 0, 0, 9},
			     all[6] = {255, 255, 255, 255, 255, 255};

	say(fd, f->c.mac, 'm');
	say(fd, other, 'o');
	say(fd, all, 'b');
	say(fd, group, 'g');
	const char *got = heard(f);

	if (strcmp(got, want))
		fail_msg("after step %u: \"%s\", not \"%s\"", step, got, want);
}

/* Section 5.1.6.5.1: the host's kernel filters, and stops when the driver is reset. */
static void filters_are_the_drivers(void **state)
{
	static const uint8_t none[8], one[] = {1, 0, 0, 0, 2, 7, 7, 7, 7, 7, 0, 0, 0, 0}, on = 1,
				      off = 0;
	static const struct {
		unsigned what;
		const void *data;
		uint32_t len;
		const char *heard;
	} steps[] = {
		{0x0000, &off, 1, "mb"},  {0x0001, &on, 1, "mbg"}, {0x0003, &on, 1, "mb"},
		{0x0003, &off, 1, "mbg"}, {0x0001, &off, 1, "mb"}, {0x0100, one, 14, "mob"},
		{0x0005, &on, 1, "mo"},   {0x0004, &on, 1, ""},    {0x0000, &on, 1, "mobg"},
		{0x0000, &off, 1, ""},    {0x0004, &off, 1, "mo"}, {0x0100, none, 8, "m"},
	};
	const unsigned n = sizeof(steps) / sizeof(steps[0]);
	struct net_rig *f;
	int fd;

	NEED_TAP();
	f = over_tap(1, MRG | CVQ | BITF(NET_F_CTRL_RX) | BITF(NET_F_CTRL_RX_EXTRA));
	fd = raw();
	net_give(f, 0, RING / 2, BUF);
	virtio_kick(f->v, 0);
	hears(f, fd, 0, "mobg");
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(net_command(f, steps[i].what, steps[i].data, steps[i].len), 0);
		hears(f, fd, i + 1, steps[i].heard);
	}
	net_drive(f, MRG);
	net_give(f, 0, RING / 2, BUF);
	virtio_kick(f->v, 0);
	hears(f, fd, n + 1, "mobg");
	close(fd);
	net_end(f);
}

/* What was queued while nobody drove the device is not for the next driver. */
static void frames_for_another_driver_are_thrown_away(void **state)
{
	struct net_rig *f;
	int fd;

	NEED_TAP();
	f = over_tap(1, MRG);
	fd = raw();
	virtio_set_status(f->v, 0);
	for (unsigned i = 0; i < 20; i++)
		say(fd, f->c.mac, 'x');
	net_drive(f, MRG);
	net_give(f, 0, RING / 2, BUF);
	virtio_kick(f->v, 0);
	say(fd, f->c.mac, 'y');
	assert_string_equal(heard(f), "y");
	close(fd);
	net_end(f);
}

static void pairs_are_used_as_the_driver_says(void **state)
{
	uint16_t n[] = {htole16(2), htole16(1), htole16(3)};
	struct net_rig *f;

	NEED_TAP();
	f = over_tap(2, MRG | CVQ | BITF(NET_F_MQ));
	assert_int_equal(tap_attach(&f->host->tap, 1, false), -EALREADY);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(net_command(f, 0x0400, &n[2], 2), 1);
		assert_int_equal(net_command(f, 0x0400, &n[0], 2), 0);
		assert_int_equal(f->n->enabled, 2);
		assert_int_equal(tap_attach(&f->host->tap, 1, true), -EALREADY);
		fake_send(&f->r[3], &(struct fake_buf){f->out, 72, 0}, 1);
		turn(f->loop);
		virtio_kick(f->v, 3);
		assert_int_equal(fake_get16(&f->m, f->r[3].used + 2), i + 1);
		assert_int_equal(net_command(f, 0x0400, &n[1], 2), 0);
		assert_int_equal(f->n->enabled, 1);
		assert_int_equal(tap_attach(&f->host->tap, 1, false), -EALREADY);
		turns(f->loop, 2);
	}
	assert_int_equal(net_command(f, 0x0400, &n[0], 2), 0);
	virtio_set_status(f->v, 0);
	assert_int_equal(tap_attach(&f->host->tap, 1, false), -EALREADY);
	assert_false(f->host->dead);
	net_end(f);
}

static void the_link_follows_the_hosts_device(void **state)
{
	struct net_rig *f;
	uint8_t *status;

	NEED_TAP();
	f = over_tap(1, MRG | CVQ | BITF(NET_F_STATUS) | BITF(NET_F_GUEST_ANNOUNCE));
	status = f->v->config + NET_CFG_STATUS;
	assert_int_equal(*status, NET_S_LINK_UP);
	set_up_or_down("tx", false);
	turns(f->loop, 3);
	assert_int_equal(*status, 0);
	set_up_or_down("tx", true);
	turns(f->loop, 3);
	assert_int_equal(*status, NET_S_LINK_UP | NET_S_ANNOUNCE);
	/* Another device's changes are not ours. */
	unsigned before = f->bearer.config;

	set_up_or_down("lo", true);
	set_up_or_down("lo", false);
	turns(f->loop, 3);
	assert_int_equal(f->bearer.config, before);
	net_end(f);
}

static void a_tap_that_is_deleted_takes_the_link_down(void **state)
{
	NEED_TAP();
	for (unsigned how = 0; how < 3; how++) {
		struct net_rig *f = over_tap(1, MRG | BITF(NET_F_STATUS));

		net_give(f, 0, how == 1 ? 0 : 8, BUF);
		virtio_kick(f->v, 0);
		if (how == 2) /* only the descriptor tells */
			loop_fd_del(&f->n->watch);
		char command[] = "ip link delete dev tx";

		if (system(command)) {
			print_message("SKIPPED, NOT TESTED: the program ip is missing\n");
			net_end(f);
			skip();
		}
		turns(f->loop, 4);
		assert_true(f->host->dead);
		assert_int_equal(f->v->config[NET_CFG_STATUS], 0);
		assert_int_equal(f->bearer.config, 1);
		assert_null(f->n->pair[0].src.loop);
		fake_send(&f->r[1], &(struct fake_buf){f->out, 72, 0}, 1);
		virtio_kick(f->v, 1);
		assert_int_equal(fake_get16(&f->m, f->r[1].used + 2), 1);
		net_end(f);
	}
}

static bool checksums_left(const char *name)
{
	struct ethtool_value v = {.cmd = ETHTOOL_GTXCSUM};
	struct ifreq ifr = {.ifr_data = (void *)&v};

	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	assert_int_equal(ask_kernel(SIOCETHTOOL, &ifr), 0);
	return v.data;
}

/* Seen by what somebody else has set meanwhile. */
static void what_is_so_already_is_not_set_again(void **state)
{
	struct tap t;

	NEED_TAP();
	assert_int_equal(tap_open(&t, "once0", 1, 0, &e), 0);
	assert_int_equal(tap_set_offloads(&t, TUN_F_CSUM), 0);
	assert_true(checksums_left("once0"));
	assert_int_equal(ioctl(t.fd[0], TUNSETOFFLOAD, 0ul), 0);
	assert_int_equal(tap_set_offloads(&t, TUN_F_CSUM), 0);
	assert_false(checksums_left("once0"));
	assert_int_equal(tap_set_offloads(&t, 0), 0);
	assert_int_equal(tap_set_offloads(&t, TUN_F_CSUM), 0);
	assert_true(checksums_left("once0"));
	tap_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tap_that_is_not_there_is_made_and_goes_again),
		cmocka_unit_test(a_tap_that_is_there_is_left_as_it_is),
		cmocka_unit_test(queues_must_be_what_the_tap_was_made_for),
		cmocka_unit_test(a_tap_in_use_is_refused_with_its_holder),
		cmocka_unit_test(descriptors_are_taken_for_what_they_are),
		cmocka_unit_test(descriptors_that_are_refused_stay_the_callers),
		cmocka_unit_test(frames_go_both_ways),
		cmocka_unit_test(filters_are_the_drivers),
		cmocka_unit_test(frames_for_another_driver_are_thrown_away),
		cmocka_unit_test(pairs_are_used_as_the_driver_says),
		cmocka_unit_test(the_link_follows_the_hosts_device),
		cmocka_unit_test(a_tap_that_is_deleted_takes_the_link_down),
		cmocka_unit_test(what_is_so_already_is_not_set_again),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests_name("tap", tests, enter, NULL);
}
