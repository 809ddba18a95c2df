/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/log.h"

#define LINE_SHOWN 200        /* bytes of a line that are shown */
#define READ_TURN 4096        /* bytes taken in one call */
#define END_MS 1000           /* how long the end of a killed process is waited for */
#define SAY_MS 300            /* and that of one that seems to have failed, before it is killed */
#define LAST_WORDS (1u << 20) /* bytes: more of what it prints is not waited for */

struct child {
	pid_t pid;
	int out;   /* what it prints; -1: closed */
	int pidfd; /* -1: reaped */
	char name[48];
	char line[LINE_SHOWN + 1], last[LINE_SHOWN + 1]; /* under way; the last whole one */
	size_t len;
	bool ended; /* reaped or not: it runs no more */
	bool quiet; /* lines are only kept, not logged */
	bool chatty;
	const char *noise;
	struct loop_fd src;
	struct log_budget budget;
};

/* ------------------------------------------------------------- in the new process */

struct birth {
	const struct child_spec *s;
	int out, null, report; /* pipe for what it prints; /dev/null; pipe for what fails here */
	pid_t parent;
};

/* Each: what it is called for the message, then the errno. */
enum stage { STAGE_FILES, STAGE_PREPARE, STAGE_EXEC };
struct report {
	int stage, error;
};

static void default_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The descriptor to keep may be any number, 0 to CHILD_FD too: it is moved out of the way first. */
static bool files(const struct birth *b)
{
	int fd = b->s->fd, report = fcntl(b->report, F_DUPFD_CLOEXEC, 10);

	if (fd >= 0)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 10);
	int out = fcntl(b->out, F_DUPFD_CLOEXEC, 10), null = fcntl(b->null, F_DUPFD_CLOEXEC, 10);

	return report >= 0 && (b->s->fd < 0 || fd >= 0) && dup2(null, 0) == 0 &&
	       dup2(out, 1) == 1 && dup2(out, 2) == 2 &&
	       (fd < 0 || dup2(fd, CHILD_FD) == CHILD_FD) &&
	       dup2(report, CHILD_FD + 1) == CHILD_FD + 1 &&
	       fcntl(CHILD_FD + 1, F_SETFD, FD_CLOEXEC) == 0 &&
	       syscall(SYS_close_range, CHILD_FD + 2, ~0u, 0) == 0 &&
	       (fd >= 0 || syscall(SYS_close_range, CHILD_FD, CHILD_FD, 0) == 0);
}

__attribute__((noreturn)) static void live(const struct birth *b)
{
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char locale[] = "LC_ALL=C";
	char *const env[] = {path, locale, NULL};
	struct report r = {STAGE_FILES, 0};

	default_signals();
	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != b->parent)
		_exit(127); /* it died before that */
	if (!files(b)) {
		r.error = errno;
	} else if (b->s->prepare && (r.error = -b->s->prepare(b->s->arg)) != 0) {
		r.stage = STAGE_PREPARE;
	} else {
		execve(b->s->path, b->s->argv, env);
		r = (struct report){STAGE_EXEC, errno};
	}
	/* files() may have failed before it moved the pipe. */
	if (write(r.stage == STAGE_FILES ? b->report : CHILD_FD + 1, &r, sizeof(r)) < 0)
		_exit(126);
	_exit(127);
}

/* ------------------------------------------------------------- start */

static int make_pipe(int fd[2], int flags, struct err *e)
{
	return pipe2(fd, O_CLOEXEC | flags) < 0 ? err_sys(e, "pipe") : 0;
}

static int came_up(const struct child_spec *s, int report, struct err *e)
{
	struct report r;
	ssize_t n;

	do {
		n = read(report, &r, sizeof(r));
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(r))
		return 0; /* closed by the exec */
	if (r.stage == STAGE_PREPARE)
		return err_msg(e, -r.error, "%s: %s", s->prepares, strerror(r.error));
	return err_msg(e, -r.error, "%s: %s", s->path, strerror(r.error));
}

static int give_birth(struct child *c, const struct child_spec *s, struct birth *b, struct err *e)
{
	int report[2];
	int r = make_pipe(report, 0, e);

	if (r < 0)
		return r;
	b->report = report[1];
	b->parent = getpid();
	c->pid = fork();
	if (c->pid == 0)
		live(b);
	close(report[1]);
	if (c->pid < 0) {
		r = err_sys(e, "fork");
	} else {
		c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
		r = c->pidfd < 0 ? err_sys(e, "pidfd_open") : came_up(s, report[0], e);
		if (c->pidfd < 0) {
			kill(c->pid, SIGKILL);
			waitpid(c->pid, NULL, 0);
		}
	}
	close(report[0]);
	return r;
}

int child_start(struct child **ret, const struct child_spec *s, struct err *e)
{
	struct child *c = calloc(1, sizeof(*c));
	struct birth b = {.s = s};
	int out[2], r;

	if (!c)
		return err_msg(e, -ENOMEM, "out of memory");
	c->pidfd = c->out = -1;
	c->chatty = s->chatty;
	c->noise = s->noise;
	snprintf(c->name, sizeof(c->name), "%s", s->name);
	r = make_pipe(out, 0, e);
	if (r < 0) {
		free(c);
		return r;
	}
	c->out = out[0];
	b.out = out[1];
	fcntl(c->out, F_SETFL, O_NONBLOCK);
	b.null = open("/dev/null", O_RDWR | O_CLOEXEC);
	r = b.null < 0 ? err_sys(e, "/dev/null") : give_birth(c, s, &b, e);
	close(b.null);
	close(b.out);
	if (r < 0) {
		c->quiet = true;
		child_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

char *child_find(const char *name, const char *const *dirs)
{
	const char *path = getenv("PATH");
	char *try;

	for (size_t len; path && *path; path += len + (path[len] == ':')) {
		len = strcspn(path, ":");
		/* Relative entries depend on where we happen to be. */
		if (*path != '/')
			continue;
		if (asprintf(&try, "%.*s/%s", (int)len, path, name) < 0)
			return NULL;
		if (!access(try, X_OK))
			return try;
		free(try);
	}
	for (; *dirs; dirs++) {
		if (asprintf(&try, "%s/%s", *dirs, name) < 0)
			return NULL;
		if (!access(try, X_OK))
			return try;
		free(try);
	}
	return NULL;
}

/* ------------------------------------------------------------- what it prints */

static void line_ends(struct child *c)
{
	c->line[c->len] = '\0';
	if (c->len && !(c->noise && strstr(c->line, c->noise))) {
		memcpy(c->last, c->line, sizeof(c->last));
		if (!c->quiet)
			log_guest_at(c->chatty ? LOG_INFO : LOG_WARN, &c->budget, "%s: %s", c->name,
				     c->line);
	}
	c->len = 0;
}

static void add(struct child *c, char ch)
{
	if (ch == '\n') {
		line_ends(c);
		return;
	}
	/* It may have got some of this from a guest: nothing for a terminal to obey. */
	if ((unsigned char)ch < ' ' || ch == 0x7f)
		ch = ch == '\t' ? ' ' : '?';
	if (c->len < LINE_SHOWN)
		c->line[c->len++] = ch;
}

/* False at the end. */
static bool read_some(struct child *c, size_t budget)
{
	char buf[512];

	while (budget >= sizeof(buf)) {
		ssize_t n = read(c->out, buf, sizeof(buf));

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		if (n == 0)
			return false;
		for (ssize_t i = 0; i < n; i++)
			add(c, buf[i]);
		budget -= (size_t)n;
	}
	return true;
}

static void out_close(struct child *c)
{
	loop_fd_del(&c->src);
	if (c->out >= 0)
		close(c->out);
	c->out = -1;
}

static void on_output(void *arg, uint32_t events)
{
	struct child *c = arg;

	(void)events;
	if (read_some(c, READ_TURN))
		return;
	line_ends(c);
	out_close(c);
}

void child_hush(struct child *c)
{
	c->quiet = true;
}

int child_watch(struct child *c, struct loop *l)
{
	loop_fd_del(&c->src);
	if (!l || c->out < 0)
		return 0;
	c->src = (struct loop_fd){.fn = on_output, .arg = c};
	return loop_fd_add(l, &c->src, c->out, EPOLLIN);
}

void child_output(struct child *c, char *buf, size_t size, unsigned ms)
{
	uint64_t now, until = loop_now() + ms * 1000000ull;
	size_t n = 0;

	while (n < size && (now = loop_now()) < until) {
		struct pollfd p = {.fd = c->out, .events = POLLIN};
		ssize_t got = 0;

		if (poll(&p, 1, (int)((until - now) / 1000000 + 1)) > 0)
			got = read(c->out, buf + n, size - n);
		if (p.revents && got == 0)
			break;
		n += got > 0 ? (size_t)got : 0;
	}
	buf[n] = '\0';
}

/* ------------------------------------------------------------- its end */

static bool ended_within(const struct child *c, int ms)
{
	struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
	int r;

	do {
		r = poll(&p, 1, ms);
	} while (r < 0 && errno == EINTR);
	return r > 0;
}

static void say_end(int status, char *buf, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(buf, size, "was killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(buf, size, "ended with status %d", WEXITSTATUS(status));
}

/*
 * Its descendants too, of which we hear only that they closed what all of them print to. One that
 * has closed that before is not waited for.
 */
static bool all_ended_within(struct child *c, int ms)
{
	uint64_t now = loop_now(), until = now + (uint64_t)ms * 1000000;

	if (!ended_within(c, ms))
		return false;
	for (size_t left = LAST_WORDS; c->out >= 0; now = loop_now()) {
		struct pollfd p = {.fd = c->out, .events = POLLIN};

		if (now >= until || left < READ_TURN)
			return false;
		if (poll(&p, 1, (int)((until - now) / 1000000 + 1)) <= 0)
			continue;
		if (!read_some(c, READ_TURN)) {
			line_ends(c);
			out_close(c);
		}
		left -= READ_TURN;
	}
	return true;
}

/* Kills what is left of it; @ret: how it ended, -1 when it had to be killed or is not gone yet. */
static void reap(struct child *c, int *ret)
{
	bool alone = c->pidfd >= 0 && ended_within(c, 0);
	int status = 0;

	*ret = -1;
	if (c->pidfd < 0)
		return;
	/* The group: a sandbox may have made it two processes. Not reaped, so the number is its. */
	kill(-c->pid, SIGKILL);
	kill(c->pid, SIGKILL);
	c->ended = all_ended_within(c, END_MS);
	if (ended_within(c, 0) && waitpid(c->pid, &status, WNOHANG) == c->pid && alone)
		*ret = status;
	close(c->pidfd);
	c->pidfd = -1;
}

bool child_end(struct child *c)
{
	char how[80];
	int status;

	reap(c, &status);
	if (status != -1 && !c->quiet) {
		say_end(status, how, sizeof(how));
		log_info("%s %s", c->name, how);
	}
	return c->ended;
}

int child_failed(struct child *c, struct err *e)
{
	char how[80] = "did not answer";
	int status;

	c->quiet = true;
	ended_within(c, SAY_MS);
	reap(c, &status);
	line_ends(c);
	if (status != -1)
		say_end(status, how, sizeof(how));
	return err_msg(e, -EIO, "%s %s%s%s", c->name, how, *c->last ? ": " : "", c->last);
}

void child_free(struct child *c)
{
	if (!c)
		return;
	child_end(c);
	out_close(c);
	free(c);
}
