/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI power button without a daemon: as a key of an input device (evdev),
 * or, in kernels without evdev, as an event on the generic netlink family
 * "acpi_event" (drivers/acpi/event.c).
 */
#include "guest/init.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* musl brings no kernel headers: these are from linux/input.h, netlink.h and genetlink.h. */
struct input_event {
	struct timeval time;
	uint16_t type, code;
	int32_t value;
};

#define EV_KEY 1
#define KEY_POWER 116
#define KEY_BYTES 96 /* of bits: KEY_MAX is 0x2ff */
#define EVIOCGBIT_KEYS _IOC(_IOC_READ, 'E', 0x20 + EV_KEY, KEY_BYTES)

#define NETLINK_GENERIC 16
#define SOL_NETLINK 270
#define NETLINK_ADD_MEMBERSHIP 1
#define NLM_F_REQUEST 1
#define GENL_ID_CTRL 16
#define CTRL_CMD_GETFAMILY 3
#define CTRL_ATTR_FAMILY_NAME 2
#define CTRL_ATTR_MCAST_GROUPS 7
#define CTRL_ATTR_MCAST_GRP_ID 2
#define ATTR_TYPE 0x3fff /* without the flags */
#define ALIGN4(n) (((n) + 3u) & ~3u)

struct netlink_address {
	uint16_t family, pad;
	uint32_t pid, groups;
};

struct attr {
	uint16_t len, type;
};

struct message {
	uint32_t len;
	uint16_t type, flags;
	uint32_t seq, pid;
	uint8_t cmd, version;
	uint16_t reserved;
	uint8_t attrs[1024];
};

#define HEADER offsetof(struct message, attrs)

static bool is_netlink;

static int evdev_open(unsigned n)
{
	uint8_t keys[KEY_BYTES] = {0};
	char path[40] = "/dev/input/event", num[24];
	int fd;

	strcat(path, number(num, n));
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (ioctl(fd, EVIOCGBIT_KEYS, keys) >= 0 && keys[KEY_POWER / 8] & 1 << KEY_POWER % 8)
		return fd;
	close(fd);
	return -1;
}

/* The attribute of this type within len bytes; its payload's length is in *ret_len. */
static const uint8_t *attr_find(const uint8_t *p, size_t len, unsigned type, size_t *ret_len)
{
	struct attr a;

	while (len >= sizeof(a)) {
		memcpy(&a, p, sizeof(a));
		if (a.len < sizeof(a) || a.len > len)
			return NULL;
		if ((a.type & ATTR_TYPE) == type) {
			*ret_len = a.len - sizeof(a);
			return p + sizeof(a);
		}
		if (ALIGN4(a.len) >= len)
			return NULL;
		len -= ALIGN4(a.len);
		p += ALIGN4(a.len);
	}
	return NULL;
}

/* The family has one multicast group: its number is in the answer's first group attribute. */
static bool acpi_group(int fd, uint32_t *ret)
{
	static const char family[] = "acpi_event";
	struct message m = {
		.type = GENL_ID_CTRL,
		.flags = NLM_F_REQUEST,
		.cmd = CTRL_CMD_GETFAMILY,
		.version = 1,
	};
	struct attr a = {sizeof(a) + sizeof(family), CTRL_ATTR_FAMILY_NAME};
	const uint8_t *p;
	ssize_t n;
	size_t len;

	memcpy(m.attrs, &a, sizeof(a));
	memcpy(m.attrs + sizeof(a), family, sizeof(family));
	m.len = (uint32_t)HEADER + ALIGN4(a.len);
	if (send(fd, &m, m.len, 0) < 0)
		return false;
	n = recv(fd, &m, sizeof(m), MSG_DONTWAIT); /* the kernel answers within send() */
	if (n <= (ssize_t)HEADER || m.type != GENL_ID_CTRL)
		return false;
	len = (size_t)n - HEADER;
	p = attr_find(m.attrs, len, CTRL_ATTR_MCAST_GROUPS, &len);
	if (p && len > sizeof(a))
		p = attr_find(p + sizeof(a), len - sizeof(a), CTRL_ATTR_MCAST_GRP_ID, &len);
	if (!p || len < sizeof(*ret))
		return false;
	memcpy(ret, p, sizeof(*ret));
	return true;
}

static int netlink_open(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	struct netlink_address me = {.family = AF_NETLINK};
	uint32_t group;

	if (fd < 0)
		return -1;
	if (!bind(fd, (struct sockaddr *)&me, sizeof(me)) && acpi_group(fd, &group) &&
	    !setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
		return fd;
	close(fd);
	return -1;
}

size_t button_open(int fds[BUTTON_MAX])
{
	size_t n = 0;

	for (unsigned i = 0; i < 32 && n < BUTTON_MAX; i++) {
		int fd = evdev_open(i);

		if (fd >= 0)
			fds[n++] = fd;
	}
	if (!n) {
		fds[0] = netlink_open();
		is_netlink = fds[0] >= 0;
		n = is_netlink;
	}
	return n;
}

bool button_pressed(int fd)
{
	struct input_event ev[16];
	struct message m;
	ssize_t n;

	if (is_netlink) {
		/* The event's first field is the device class: "button/power". */
		n = recv(fd, &m, sizeof(m), MSG_DONTWAIT);
		return n > 0 && memmem(&m, (size_t)n, "button/power", 12);
	}
	while ((n = read(fd, ev, sizeof(ev))) >= (ssize_t)sizeof(ev[0]))
		for (size_t i = 0; i < (size_t)n / sizeof(ev[0]); i++)
			if (ev[i].type == EV_KEY && ev[i].code == KEY_POWER && ev[i].value == 1)
				return true;
	return false;
}
