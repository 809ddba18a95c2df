/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a TAP's network device is up. The kernel says over rtnetlink that some
 * device changed; what became of ours is then asked anew, so that lost messages,
 * other names and other devices of the same name do no harm.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/tap.h"

/* The flags of the device that @name is in our namespace, if its address is @mac too. */
static enum tap_link look(int fd, const char *name, const struct sockaddr *mac)
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(fd, SIOCGIFHWADDR, &ifr) == 0 &&
	    !memcmp(ifr.ifr_hwaddr.sa_data, mac->sa_data, ETH_ALEN) &&
	    ioctl(fd, SIOCGIFFLAGS, &ifr) == 0)
		return ifr.ifr_flags & IFF_UP ? TAP_UP : TAP_DOWN;
	return TAP_ELSEWHERE;
}

enum tap_link tap_link(const struct tap *t, int watch)
{
	struct ifreq ifr = {0};
	struct sockaddr mac;

	/* -EBADFD: the device that the queue was attached to is no more. */
	if (ioctl(t->fd[0], SIOCGIFHWADDR, &ifr) < 0)
		return errno == EBADFD ? TAP_GONE : TAP_ELSEWHERE;
	mac = ifr.ifr_hwaddr;
	if (ioctl(t->fd[0], TUNGETIFF, &ifr) < 0)
		return errno == EBADFD ? TAP_GONE : TAP_ELSEWHERE;
	ifr.ifr_name[IFNAMSIZ - 1] = '\0';
	return look(watch, ifr.ifr_name, &mac);
}

int tap_watch_open(void)
{
	struct sockaddr_nl nl = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (fd >= 0 && bind(fd, (const struct sockaddr *)&nl, sizeof(nl)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd < 0 ? -errno : fd;
}

void tap_watch_drain(int fd)
{
	char buf[4096];

	/* Cut messages and lost ones (ENOBUFS) say what they shall: look. */
	for (unsigned i = 0; i < 256; i++)
		if (recv(fd, buf, sizeof(buf), 0) < 0 && errno != ENOBUFS)
			break;
}
