/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/passt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <netinet/if_ether.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/unix_listen.h"

#define PROGRAM "passt"
#define START_MS 3000 /* that it may take until it answers, or else nothing is made of it */

/* ------------------------------------------------------------- the process */

char *passt_find(void)
{
	static const char *const nowhere_else[] = {NULL};

	return child_find(PROGRAM, nowhere_else);
}

static int run(struct child **ret, int sock, const struct net_config *c, const char *label,
	       struct err *e)
{
	char *path = passt_find(), mtu[8];
	char *argv[7] = {PROGRAM, "--foreground", "--fd", "3"};
	const struct child_spec s = {
		.path = path,
		.argv = argv,
		.name = label,
		.fd = sock,
		.chatty = true,
		/* Without a system logger it says so of each line that it cannot send there. */
		.noise = "bytes to syslog",
	};
	int r;

	_Static_assert(CHILD_FD == 3, "what --fd says");
	if (!path)
		return err_msg(e, -ENOENT, "%s is not in PATH: install the package passt", label);
	if (c->mtu) {
		snprintf(mtu, sizeof(mtu), "%u", c->mtu);
		argv[4] = "--mtu";
		argv[5] = mtu;
	}
	r = child_start(ret, &s, e);
	free(path);
	return r < 0 ? err_ctx(e, "%s", label) : 0;
}

/* ------------------------------------------------------------- whether it works */

/* An ARP probe (RFC 5227) for an address that nobody needs: passt answers for all but one. */
static int ask(int fd, const uint8_t *mac)
{
	struct {
		uint32_t len;
		struct ether_header eth;
		struct ether_arp arp;
	} __attribute__((packed)) q = {
		.len = htonl(sizeof(q) - sizeof(q.len)),
		.eth.ether_type = htons(ETHERTYPE_ARP),
		.arp = {.arp_hrd = htons(ARPHRD_ETHER),
			.arp_pro = htons(ETHERTYPE_IP),
			.arp_hln = 6,
			.arp_pln = 4,
			.arp_op = htons(ARPOP_REQUEST),
			.arp_tpa = {192, 0, 2, 1}},
	};

	memset(q.eth.ether_dhost, 0xff, 6);
	memcpy(q.eth.ether_shost, mac, 6);
	memcpy(q.arp.arp_sha, mac, 6);
	return send(fd, &q, sizeof(q), MSG_NOSIGNAL) == sizeof(q) ? 0 : -errno;
}

/*
 * Until it is through with what can be wrong (no route, no permission) it reads
 * no frame. A host without IPv4 gives no answer: then it is enough that it lives.
 * The answer, which the guest did not ask for, is thrown away.
 */
static int await(struct frames *f, const uint8_t *mac)
{
	uint64_t now, until = loop_now() + START_MS * 1000000ull;
	const uint8_t *at;
	uint32_t len;
	int r = ask(f->fd, mac);

	while (r == 0 && (now = loop_now()) < until) {
		struct pollfd p = {.fd = f->fd, .events = POLLIN};

		poll(&p, 1, (int)((until - now) / 1000000 + 1));
		r = frames_next(f, &at, &len);
	}
	return r < 0 ? r : 0;
}

/* ------------------------------------------------------------- start and end */

int passt_start(struct child **ret, struct frames *f, const struct net_config *c, const char *label,
		struct err *e)
{
	struct child *p;
	int sock[2], r;

	/* Its end blocks, as it expects. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
		return err_sys(e, "%s: socket", label);
	fcntl(sock[0], F_SETFL, O_NONBLOCK);
	unix_refuse_fds(sock[0]);
	r = run(&p, sock[1], c, label, e);
	close(sock[1]);
	if (r < 0) {
		close(sock[0]);
		return r;
	}
	r = frames_init(f, sock[0]);
	if (r < 0)
		err_msg(e, r, "%s: out of memory", label);
	else if (await(f, c->mac) < 0)
		r = child_failed(p, e);
	if (r == 0) {
		*ret = p;
		return 0;
	}
	close(sock[0]);
	child_free(p);
	return r;
}

void passt_end(struct child *p, const struct frames *f)
{
	if (!p)
		return;
	close(f->fd);
	child_free(p);
}
