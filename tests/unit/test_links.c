/* SPDX-License-Identifier: Apache-2.0 */
/* What guest/init does to network interfaces, to those of a namespace of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <linux/if_tun.h>
#include <sched.h>

#include "guest/links.c"

static bool up(const char *name)
{
	struct ifreq r = {0};
	int fd = control();

	strcpy(r.ifr_name, name);
	assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &r), 0);
	close(fd);
	return r.ifr_flags & IFF_UP;
}

static void loopback_comes_up_and_all_go_down(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET)) {
		print_message("SKIPPED, NOT TESTED: no network namespace\n");
		skip();
	}
	struct ifreq other = {.ifr_name = "t0", .ifr_flags = IFF_TAP | IFF_NO_PI};
	int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC), fd = control();
	bool two = tun >= 0 && !ioctl(tun, TUNSETIFF, &other);

	assert_false(up("lo"));
	links_up_loopback();
	assert_true(up("lo"));
	if (two) {
		assert_false(up("t0"));
		link_set(fd, "t0", true);
		assert_true(up("t0"));
	}
	links_down();
	assert_false(up("lo"));
	assert_false(two && up("t0"));
	close(fd);
	close(tun);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loopback_comes_up_and_all_go_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
