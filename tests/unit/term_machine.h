/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small "machine" in a process of its own whose standard input and output are
 * a pseudo-terminal (or a pipe, or a file), for test_term.c: it types at it from
 * the master's side, and looks at the terminal's settings from outside.
 */
#ifndef TESTS_UNIT_TERM_MACHINE_H
#define TESTS_UNIT_TERM_MACHINE_H

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/loop.h"
#include "vmm/term.h"

/* ------------------------------------------------------------- the machine */

/* It reports what happens to it on fd REPORT: "<label>:<bytes>", "quit", "size CxR", one a line. */
static int report = -1;

enum job {
	LISTEN,     /* until Ctrl-A x */
	TWO_USERS,  /* the same, with a serial line too */
	DEAF,       /* room for nothing */
	DEAF_FIRST, /* the console; and a serial line that listens */
	FLOOD,      /* prints 1 MiB first */
	STRANGER,   /* the same, as a user who may not open the terminal anew */
	JUST_EXIT,  /* exit(3) without closing */
	ABORT,
	FAULT
};

struct guest {
	struct term_user user;
	size_t left;
};

static struct loop *loop;

static void tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vdprintf(report, fmt, ap);
	va_end(ap);
}

static size_t guest_room(void *arg)
{
	return ((struct guest *)arg)->left;
}

static void guest_input(void *arg, const uint8_t *buf, size_t n)
{
	struct guest *g = arg;

	for (size_t i = 0; i < n; i++)
		tell("%s:%02x\n", g->user.label, buf[i]);
}

static void guest_resize(void *arg, uint16_t cols, uint16_t rows)
{
	(void)arg;
	tell("size %ux%u\n", cols, rows);
}

static void quit(void *arg, enum power_event ev)
{
	(void)arg;
	tell(ev == POWER_QUIT ? "quit\n" : "?\n");
	loop_stop(loop);
}

static void on_signal(void *arg, uint32_t events)
{
	struct signalfd_siginfo si;

	(void)events;
	while (read(*(int *)arg, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGWINCH)
			term_winch();
		else if (si.ssi_signo == SIGCONT)
			term_cont();
		else
			loop_stop(loop);
	}
}

static struct guest guest_new(const char *label, size_t room)
{
	struct guest g = {.left = room};

	g.user = (struct term_user){
		.label = label, .room = guest_room, .input = guest_input, .resize = guest_resize};
	return g;
}

static void flood(void)
{
	static uint8_t buf[4096];

	for (unsigned i = 0; i < 256; i++) {
		for (size_t j = 0; j < sizeof(buf); j++)
			buf[j] = (uint8_t)('0' + (i + j) % 10);
		term_write(buf, sizeof(buf));
	}
	term_write((const uint8_t *)"the end", 7);
	tell("flooded\n");
}

static int machine(enum job job)
{
	struct guest console = guest_new("console", job == DEAF || job == DEAF_FIRST ? 0 : 65536);
	struct guest serial = guest_new("serial", 65536);
	struct loop_fd sig = {.fn = on_signal};
	struct power_sink sink = {.fn = quit};
	struct err e;
	sigset_t set;
	int fd;

	/* cmocka's handlers would go on with the next test in this process. */
	for (int sig_no = SIGQUIT; sig_no <= SIGSEGV; sig_no++)
		signal(sig_no, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	sigaddset(&set, SIGCONT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_NONBLOCK);
	sig.arg = &fd;
	/* Dumpable again, so that /proc/self and LeakSanitizer work. */
	if (job == STRANGER && (setresuid(65534, 65534, 65534) || prctl(PR_SET_DUMPABLE, 1)))
		return 98;
	console.user.arg = &console;
	serial.user.arg = &serial;
	if (loop_new(&loop, "test", &e) || loop_fd_add(loop, &sig, fd, EPOLLIN) ||
	    term_open(loop, &sink, &e) || term_open(loop, NULL, &e))
		return 99;
	term_attach(&console.user);
	if (job == TWO_USERS || job == DEAF_FIRST)
		term_attach(&serial.user);
	if (job == FLOOD || job == STRANGER)
		flood();
	tell("ready\n");
	if (job == JUST_EXIT)
		exit(7);
	if (job == ABORT)
		abort();
	if (job == FAULT)
		__builtin_trap();
	loop_run(loop);
	term_detach(&console.user);
	if (job == TWO_USERS || job == DEAF_FIRST)
		term_detach(&serial.user);
	loop_fd_del(&sig);
	loop_free(loop);
	tell("closed\n");
	return 0;
}

/* ------------------------------------------------------------- the outside */

static int master = -1, slave = -1, from = -1; /* from: the machine's reports */
static pid_t pid;
static struct termios found; /* settings before */
static FILE *reports;

static void start_on(enum job job, int in, int out)
{
	int p[2];

	assert_int_equal(pipe(p), 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(p[0]);
		report = p[1];
		setsid();
		if (in == slave)
			ioctl(slave, TIOCSCTTY, 0);
		dup2(in, 0);
		dup2(out, 1);
		exit(machine(job));
	}
	close(p[1]);
	from = p[0];
	reports = fdopen(from, "r");
}

static void start(enum job job)
{
	start_on(job, slave, slave);
}

static int before(void **s)
{
	struct winsize ws = {.ws_col = 80, .ws_row = 24};

	(void)s;
	master = posix_openpt(O_RDWR | O_NOCTTY);
	if (grantpt(master) || unlockpt(master))
		return -1;
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	ioctl(master, TIOCSWINSZ, &ws);
	return tcgetattr(slave, &found);
}

static int after(void **s)
{
	(void)s;
	if (pid > 0) { /* a test that failed */
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	pid = 0;
	if (reports)
		fclose(reports);
	reports = NULL;
	close(master);
	close(slave);
	return 0;
}

static void says(const char *want)
{
	char line[128] = "";

	if (!fgets(line, sizeof(line), reports))
		fail_msg("ended instead of \"%s\"", want);
	line[strcspn(line, "\n")] = '\0';
	assert_string_equal(line, want);
}

static void type(const char *keys)
{
	assert_int_equal(write(master, keys, strlen(keys)), strlen(keys));
}

/* Reads the terminal's screen until @want is there. */
static void shows(const char *want)
{
	static char screen[8192];
	size_t n = 0;

	while (n < sizeof(screen) - 1) {
		struct pollfd p = {.fd = master, .events = POLLIN};

		if (poll(&p, 1, 20000) != 1)
			break;
		ssize_t got = read(master, screen + n, sizeof(screen) - 1 - n);

		if (got <= 0)
			break;
		n += (size_t)got;
		screen[n] = '\0';
		if (strstr(screen, want))
			return;
	}
	fail_msg("never on the screen: %s; but: %s", want, screen);
}

static bool is_raw(void)
{
	struct termios t;

	tcgetattr(slave, &t);
	return !(t.c_lflag & (ICANON | ECHO | ISIG)) && !(t.c_oflag & OPOST) &&
	       !(t.c_iflag & (ICRNL | IXON));
}

static void is_as_found(void)
{
	struct termios t;

	tcgetattr(slave, &t);
	assert_int_equal(t.c_lflag, found.c_lflag);
	assert_int_equal(t.c_iflag, found.c_iflag);
	assert_int_equal(t.c_oflag, found.c_oflag);
	assert_int_equal(t.c_cflag, found.c_cflag);
	assert_memory_equal(t.c_cc, found.c_cc, sizeof(t.c_cc));
}

static void ends(int want)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	pid = 0;
	assert_int_equal(status, want);
}

static void quits(void)
{
	type("\001x");
	says("quit");
	says("closed");
	ends(0);
	is_as_found();
}

#endif
