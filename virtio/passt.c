/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/passt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <net/ethernet.h>
#include <netinet/if_ether.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/loop.h"

#define PROGRAM "passt"
#define CHILD_FD 3
#define START_MS 3000 /* that it may take until it answers, or else nothing is made of it */
#define END_MS 1000   /* that it may take to end */

struct passt {
	const char *label;
	pid_t pid; /* 0: it has ended and been waited for */
	int fd, log_fd;
	char line[256]; /* of what it says, begun */
	size_t len;
	char last[256]; /* the last whole line */
	struct log_budget budget;
};

/* ------------------------------------------------------------- the process */

static bool find(char *buf, size_t size)
{
	const char *path = getenv("PATH");

	for (const char *p = path ? path : "/usr/bin:/bin"; *p;) {
		size_t n = strcspn(p, ":");

		if (n && n + sizeof("/" PROGRAM) <= size) {
			snprintf(buf, size, "%.*s/" PROGRAM, (int)n, p);
			if (!access(buf, X_OK))
				return true;
		}
		p += n + (p[n] == ':');
	}
	return false;
}

/*
 * In the child, between fork and exec. Nothing of ours gets there: the socket
 * is its descriptor 3, standard error our pipe, all others are closed.
 */
static void child(const char *path, char *const argv[], int sock, int say)
{
	static char *const env[] = {"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C", NULL};
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	setsid();
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Out of the way first: any of them may be one of 0 to 3. */
	if (fcntl(sock, F_SETFL, 0) < 0) /* which the other end does not share */
		_exit(127);
	sock = fcntl(sock, F_DUPFD, CHILD_FD + 1);
	say = fcntl(say, F_DUPFD, CHILD_FD + 1);
	if (null < 0 || sock < 0 || say < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
	    dup2(say, 2) < 0 || dup2(sock, CHILD_FD) < 0 || close_range(CHILD_FD + 1, ~0u, 0) < 0)
		_exit(127);
	execve(path, argv, env);
	_exit(127);
}

static int run(struct passt *p, const struct net_config *c, int sock, int say)
{
	char path[4096], mtu[8];
	char *argv[8] = {PROGRAM, "--foreground", "--fd", "3"};

	if (!find(path, sizeof(path)))
		return -ENOENT;
	if (c->mtu) {
		snprintf(mtu, sizeof(mtu), "%u", c->mtu);
		argv[4] = "--mtu";
		argv[5] = mtu;
	}
	p->pid = fork();
	if (p->pid == 0)
		child(path, argv, sock, say);
	return p->pid < 0 ? -errno : 0;
}

/* Waits at most @ms for its end. */
static bool ended(struct passt *p, int ms)
{
	const struct timespec turn = {.tv_nsec = 2000000};
	uint64_t until = loop_now() + (uint64_t)ms * 1000000;

	while (p->pid && waitpid(p->pid, NULL, WNOHANG) == 0) {
		if (loop_now() >= until)
			return false;
		nanosleep(&turn, NULL);
	}
	p->pid = 0;
	return true;
}

/* ------------------------------------------------------------- what it says */

/* Without a system logger it complains of each line that it cannot send there. */
static void said(struct passt *p)
{
	p->line[p->len] = '\0';
	p->len = 0;
	for (char *at = p->line; *at; at++)
		if (*at < ' ' || *at > '~')
			*at = '?';
	if (!p->line[0] || strstr(p->line, "bytes to syslog"))
		return;
	snprintf(p->last, sizeof(p->last), "%s", p->line);
	log_guest_at(LOG_INFO, &p->budget, "%s: %s", p->label, p->line);
}

int passt_log(struct passt *p)
{
	char buf[1024];
	ssize_t n = read(p->log_fd, buf, sizeof(buf));

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -ECONNRESET;
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] == '\n' || p->len == sizeof(p->line) - 1)
			said(p);
		else
			p->line[p->len++] = buf[i];
	return 0;
}

/* ------------------------------------------------------------- whether it works */

/* An ARP probe (RFC 5227) for an address that nobody needs: passt answers for all but one. */
static int ask(struct passt *p, const uint8_t *mac)
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
	return send(p->fd, &q, sizeof(q), MSG_NOSIGNAL) == sizeof(q) ? 0 : -errno;
}

/*
 * Until it is through with what can be wrong (no route, no permission) it reads
 * no frame. A host without IPv4 gives no answer: then it is enough that it lives.
 * The answer, which the guest did not ask for, is thrown away.
 */
static int await(struct passt *p, struct frames *f, const uint8_t *mac)
{
	uint64_t until = loop_now() + START_MS * 1000000ull;
	const uint8_t *at;
	uint32_t len;
	int r = ask(p, mac);

	while (r == 0 && loop_now() < until) {
		struct pollfd w[] = {{.fd = p->fd, .events = POLLIN},
				     {.fd = p->log_fd, .events = POLLIN}};

		poll(w, 2, 50);
		r = frames_next(f, &at, &len);
		if (w[1].revents)
			passt_log(p);
	}
	return r < 0 ? r : 0;
}

/* ------------------------------------------------------------- start and end */

static int explain(struct passt *p, int r, struct err *e)
{
	if (r == -ENOENT)
		return err_msg(e, r, PROGRAM " is not in PATH: install the package passt");
	if (!p->pid)
		return err_msg(e, r, PROGRAM ": %s", strerror(-r));
	ended(p, END_MS);
	for (unsigned i = 0; i < 16 && passt_log(p) == 0; i++)
		;
	return err_msg(e, r, PROGRAM " ended at once: %s",
		       p->last[0] ? p->last : "it said nothing");
}

static int start(struct passt *p, struct frames *f, const struct net_config *c)
{
	int sock[2], say[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sock) < 0)
		return -errno;
	p->fd = sock[0];
	if (pipe2(say, O_CLOEXEC | O_NONBLOCK) < 0) {
		r = -errno;
		close(sock[1]);
		return r;
	}
	p->log_fd = say[0];
	r = run(p, c, sock[1], say[1]);
	close(sock[1]);
	close(say[1]);
	if (r == 0)
		r = frames_init(f, p->fd);
	return r < 0 ? r : await(p, f, c->mac);
}

int passt_start(struct passt **ret, struct frames *f, const struct net_config *c, const char *label,
		struct err *e)
{
	struct passt *p = calloc(1, sizeof(*p));

	if (!p)
		return err_msg(e, -ENOMEM, "out of memory");
	p->label = label;
	p->fd = p->log_fd = -1;
	int r = start(p, f, c);
	if (r < 0) {
		explain(p, r, e);
		passt_end(p);
		return r;
	}
	*ret = p;
	return 0;
}

void passt_end(struct passt *p)
{
	if (!p)
		return;
	if (p->fd >= 0)
		close(p->fd);
	if (p->log_fd >= 0)
		close(p->log_fd);
	if (p->pid) {
		kill(p->pid, SIGTERM);
		if (!ended(p, END_MS)) {
			kill(p->pid, SIGKILL);
			waitpid(p->pid, NULL, 0);
		}
	}
	free(p);
}

int passt_log_fd(const struct passt *p)
{
	return p->log_fd;
}
