/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/init.h"

#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void link_set(int fd, const char *name, bool up)
{
	struct ifreq r = {0};

	strncpy(r.ifr_name, name, sizeof(r.ifr_name) - 1);
	if (ioctl(fd, SIOCGIFFLAGS, &r))
		return;
	r.ifr_flags = (short)(up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
	ioctl(fd, SIOCSIFFLAGS, &r);
}

static int control(void)
{
	return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

void links_up_loopback(void)
{
	int fd = control();

	if (fd < 0)
		return; /* a kernel without IPv4 */
	link_set(fd, "lo", true);
	close(fd);
}

void links_down(void)
{
	struct if_nameindex *all = if_nameindex();
	int fd = control();

	for (struct if_nameindex *i = all; fd >= 0 && i && i->if_index; i++)
		link_set(fd, i->if_name, false);
	if (fd >= 0)
		close(fd);
	if (all)
		if_freenameindex(all);
}
