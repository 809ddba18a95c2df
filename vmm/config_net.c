/* SPDX-License-Identifier: Apache-2.0 */
/* --net: network devices. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#include "vmm/config.h"
#include "vmm/opts.h"

#define MTU_MIN 68 /* virtio 1.2 section 5.1.4.1 */
#define MTU_MAX 65535

/* What was given, so that two of tap=, fd= and user are refused. */
struct net_text {
	struct net_config c;
	bool given;
};

/* ------------------------------------------------------------- what is on the host's side */

static int give(struct net_text *t, enum net_kind kind, struct err *e)
{
	if (t->given)
		return err_msg(e, -EINVAL, "the host's side is given already: a TAP, fd= or user");
	t->given = true;
	t->c.kind = kind;
	return 0;
}

/* What the kernel takes for a device's name; '%' would make it choose a number. */
static int check_name(const char *v, struct err *e)
{
	if (strlen(v) >= IFNAMSIZ)
		return err_msg(e, -EINVAL, "\"%s\" is longer than %d characters", v, IFNAMSIZ - 1);
	if (!strcmp(v, ".") || !strcmp(v, ".."))
		return err_msg(e, -EINVAL, "\"%s\" is no name of a network device", v);
	for (const char *p = v; *p; p++)
		if (*p <= ' ' || *p > '~' || strchr("/:%", *p))
			return err_msg(
				e, -EINVAL,
				"\"%s\" is no name of a network device: blanks, '/', ':' and "
				"'%%' are not allowed in one",
				v);
	return 0;
}

static int net_tap(void *d, const char *v, struct err *e)
{
	struct net_text *t = d;
	int ret = check_name(v, e);

	if (!ret)
		ret = give(t, NET_TAP, e);
	return ret ? ret : config_string(&t->c.tap, v, e);
}

static int check_fd(int fd, struct err *e)
{
	struct ifreq ifr = {0};

	if (fcntl(fd, F_GETFD) < 0)
		return err_msg(e, -EBADF, "%d is not open: who starts mvm must let it inherit it",
			       fd);
	if (ioctl(fd, TUNGETIFF, &ifr) < 0 || !(ifr.ifr_flags & IFF_TAP))
		return err_msg(e, -EINVAL, "%d is no TAP", fd);
	return 0;
}

static int add_fd(struct net_config *c, const char *word, struct err *e)
{
	unsigned long n;
	int ret = opts_number(word, 3, 1u << 20, &n, e);

	if (ret)
		return ret;
	if (c->nfds == CONFIG_NET_PAIRS_MAX)
		return err_msg(e, -E2BIG, "more than %d", CONFIG_NET_PAIRS_MAX);
	for (unsigned i = 0; i < c->nfds; i++)
		if (c->fd[i] == (int)n)
			return err_msg(e, -EEXIST, "%lu is named twice", n);
	c->fd[c->nfds++] = (int)n;
	return check_fd((int)n, e);
}

static int net_fd(void *d, const char *v, struct err *e)
{
	struct net_text *t = d;
	int ret = give(t, NET_FDS, e);
	char word[16];

	while (!ret) {
		size_t n = strcspn(v, ":");

		snprintf(word, sizeof(word), "%.*s", (int)(n < 15 ? n : 15), v);
		ret = add_fd(&t->c, word, e);
		if (!v[n])
			break;
		v += n + 1;
	}
	return ret;
}

/* ------------------------------------------------------------- the other keys */

static int hex(char c)
{
	const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;

	/* Only letters have a second case. */
	if (!at || (c < '0') || (c > '9' && c < 'A'))
		return -1;
	return (int)(at - digits);
}

static int net_mac(void *d, const char *v, struct err *e)
{
	struct net_config *c = &((struct net_text *)d)->c;
	static const uint8_t zero[6];

	if (strlen(v) != 17)
		return err_msg(e, -EINVAL, "\"%s\" is not six bytes (52:54:00:12:34:56)", v);
	for (int i = 0; i < 6; i++) {
		int hi = hex(v[3 * i]), lo = hex(v[3 * i + 1]);

		if (hi < 0 || lo < 0 || (i < 5 && v[3 * i + 2] != ':'))
			return err_msg(e, -EINVAL, "\"%s\" is not six bytes (52:54:00:12:34:56)",
				       v);
		c->mac[i] = (uint8_t)(hi << 4 | lo);
	}
	if (c->mac[0] & 1)
		return err_msg(e, -EINVAL, "%s is a multicast address: the first byte must be even",
			       v);
	if (!memcmp(c->mac, zero, 6))
		return err_msg(e, -EINVAL, "%s is nobody's address", v);
	c->has_mac = true;
	return 0;
}

static int net_mtu(void *d, const char *v, struct err *e)
{
	unsigned long n;
	int ret = opts_number(v, MTU_MIN, MTU_MAX, &n, e);

	if (!ret)
		((struct net_text *)d)->c.mtu = (uint16_t)n;
	return ret;
}

static int net_queues(void *d, const char *v, struct err *e)
{
	unsigned long n;
	int ret = opts_number(v, 1, CONFIG_NET_PAIRS_MAX, &n, e);

	if (!ret)
		((struct net_text *)d)->c.pairs = (uint16_t)n;
	return ret;
}

static int net_queue_size(void *d, const char *v, struct err *e)
{
	return config_queue_size(v, CONFIG_NET_QUEUE_MIN, &((struct net_text *)d)->c.queue_size, e);
}

static int net_vhost(void *d, const char *v, struct err *e)
{
	static const char *const words[] = {"auto", "on", "off"};

	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(v, words[i])) {
			((struct net_text *)d)->c.vhost = (enum config_choice)i;
			return 0;
		}
	return err_msg(e, -EINVAL, "\"%s\" is neither auto, on nor off", v);
}

static int net_offload(void *d, const char *v, struct err *e)
{
	bool on;
	int ret = opts_onoff(v, &on, e);

	if (!ret)
		((struct net_text *)d)->c.no_offload = !on;
	return ret;
}

static int net_id(void *d, const char *v, struct err *e)
{
	return config_string(&((struct net_text *)d)->c.id, v, e);
}

/* ------------------------------------------------------------- one device */

static void net_fini(struct net_config *c)
{
	free(c->tap);
	free(c->id);
}

void config_nets_fini(struct config *c)
{
	for (size_t i = 0; i < c->nnets; i++)
		net_fini(&c->nets[i]);
}

/* What fits together; each value alone was checked by its setter. */
static int check_net(const struct net_text *t, struct err *e)
{
	const struct net_config *c = &t->c;

	if (!t->given)
		return err_msg(e, -EINVAL,
			       "the host's side is missing: a TAP's name, fd=N or user");
	if (c->kind == NET_FDS && c->pairs && c->pairs != c->nfds)
		return err_msg(e, -EINVAL, "queues=%u and %u descriptors: one for each is needed",
			       c->pairs, c->nfds);
	if (c->kind == NET_USER && c->pairs > 1)
		return err_msg(e, -EINVAL, "queues=%u: with user there is one", c->pairs);
	if (c->kind == NET_USER && c->vhost == CONFIG_ON)
		return err_msg(e, -EINVAL, "vhost=on: needs a TAP, not user");
	return 0;
}

int config_net(struct config *c, const char *text, struct err *e)
{
	static const struct kv_key keys[] = {
		{"tap", net_tap, NULL},
		{"fd", net_fd, NULL},
		{"mac", net_mac, NULL},
		{"mtu", net_mtu, NULL},
		{"queues", net_queues, NULL},
		{"queue_size", net_queue_size, NULL},
		{"vhost", net_vhost, "vhost=on"},
		{"offload", net_offload, "offload=off"},
		{"id", net_id, NULL},
		{"ifname", NULL, "tap=NAME"},
		{NULL, NULL, NULL},
	};
	struct net_text t = {0};
	/* A TAP of that name is tap=user. */
	bool user = !strncmp(text, "user", 4) && (!text[4] || text[4] == ',');
	int ret = 0;

	if (c->nnets == CONFIG_NETS_MAX)
		return err_msg(e, -E2BIG, "at most %d fit", CONFIG_NETS_MAX);
	if (user)
		give(&t, NET_USER, e);
	if (!user || text[4])
		ret = opts_kv(keys, user ? NULL : "tap", user ? text + 5 : text, &t, e);
	if (!ret)
		ret = check_net(&t, e);
	if (ret) {
		net_fini(&t.c);
		return ret;
	}
	if (t.c.kind == NET_FDS)
		t.c.pairs = (uint16_t)t.c.nfds;
	if (!t.c.pairs)
		t.c.pairs = 1;
	c->nets[c->nnets++] = t.c;
	return 0;
}

/* ------------------------------------------------------------- all of them */

static bool same_fd(const struct net_config *a, const struct net_config *b)
{
	for (unsigned i = 0; i < a->nfds; i++)
		for (unsigned j = 0; j < b->nfds; j++)
			if (a->fd[i] == b->fd[j])
				return true;
	return false;
}

static int check_pair(const struct net_config *a, const struct net_config *b, struct err *e)
{
	if (a->tap && b->tap && !strcmp(a->tap, b->tap))
		return err_msg(e, -EEXIST, "TAP %s is that of two devices", a->tap);
	if (same_fd(a, b))
		return err_msg(e, -EEXIST, "fd: two devices have a descriptor in common");
	return 0;
}

static void name_of(const struct config *c, size_t i, char *buf, size_t size)
{
	if (c->nets[i].id)
		snprintf(buf, size, "net%zu (id %s)", i, c->nets[i].id);
	else
		snprintf(buf, size, "net%zu", i);
}

static int check_macs(const struct config *c, size_t i, size_t j, struct err *e)
{
	const uint8_t *mac = c->nets[i].mac;
	char a[64], b[64];

	if (!c->nets[i].has_mac || memcmp(mac, c->nets[j].mac, 6))
		return 0;
	name_of(c, i, a, sizeof(a));
	name_of(c, j, b, sizeof(b));
	return err_msg(e, -EEXIST, "mac=%02x:%02x:%02x:%02x:%02x:%02x is that of %s and of %s",
		       mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], b, a);
}

/* Locally administered and unicast: IEEE 802, the first byte's lower two bits. */
static int make_mac(struct net_config *c, struct err *e)
{
	if (getrandom(c->mac, sizeof(c->mac), 0) != sizeof(c->mac))
		return err_sys(e, "a random address");
	c->mac[0] = (uint8_t)((c->mac[0] & ~1u) | 2);
	c->has_mac = true;
	return 0;
}

int config_check_nets(struct config *c, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; !ret && i < c->nnets; i++) {
		ret = config_check_queue_size(c->nets[i].queue_size, CONFIG_NET_QUEUE_MIN, e);
		for (size_t j = 0; !ret && j < i; j++) {
			ret = check_pair(&c->nets[i], &c->nets[j], e);
			if (!ret)
				ret = check_macs(c, i, j, e);
		}
		if (!ret && !c->nets[i].has_mac)
			ret = make_mac(&c->nets[i], e);
	}
	return ret ? err_ctx(e, "--net") : 0;
}
