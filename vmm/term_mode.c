/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/term_mode.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/term.h"

/* SIGTERM, SIGINT and SIGHUP are the machine's, which ends in order. */
static const int fatal[] = {
	SIGSEGV, SIGABRT, SIGBUS,  SIGILL,    SIGFPE,  SIGSYS,  SIGTRAP, SIGQUIT,
	SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU, SIGIO,   SIGPWR,
};
/* Stops of a background process; with these ignored, reading gives EIO and writing works. */
static const int stops[] = {SIGTTIN, SIGTTOU};

#define FATALS (sizeof(fatal) / sizeof(fatal[0]))
#define STOPS (sizeof(stops) / sizeof(stops[0]))

static struct {
	int fd;
	struct termios saved;
	volatile sig_atomic_t guarded, raw;
	struct sigaction old_fatal[FATALS], old_stops[STOPS];
	bool at_exit;
} mode = {.fd = -1};

bool term_mode_front(void)
{
	pid_t group = tcgetpgrp(mode.fd);

	/* ENOTTY: not the terminal of our session, so there is no job control over it. */
	return group < 0 || group == getpgrp();
}

void term_restore(void)
{
	int err = errno;

	/* In the background the terminal is somebody else's, and the shell has set it. */
	if (mode.guarded && mode.raw && term_mode_front()) {
		mode.raw = 0;
		tcsetattr(mode.fd, TCSANOW, &mode.saved);
		log_raw(false);
	}
	errno = err;
}

void term_mode_raw(void)
{
	struct termios t = mode.saved;

	if (!mode.guarded || !term_mode_front())
		return;
	cfmakeraw(&t);
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	/* First the flag: a signal in between restores what need not be. */
	mode.raw = 1;
	tcsetattr(mode.fd, TCSANOW, &t);
	log_raw(isatty(STDERR_FILENO));
}

static void on_fatal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	term_restore();
	for (size_t i = 0; i < FATALS; i++)
		if (fatal[i] == sig)
			sigaction(sig, &mode.old_fatal[i], NULL);
	/* A fault happens again on return, at its own place; what was sent is sent again. */
	if (info->si_code <= 0)
		raise(sig);
}

int term_mode_guard(int fd)
{
	struct sigaction act = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	if (mode.guarded)
		return 0;
	if (tcgetattr(fd, &mode.saved))
		return -errno;
	mode.fd = fd;
	sigemptyset(&act.sa_mask);
	sigemptyset(&ignore.sa_mask);
	for (size_t i = 0; i < FATALS; i++)
		sigaction(fatal[i], &act, &mode.old_fatal[i]);
	for (size_t i = 0; i < STOPS; i++)
		sigaction(stops[i], &ignore, &mode.old_stops[i]);
	if (!mode.at_exit)
		mode.at_exit = !atexit(term_restore);
	mode.guarded = 1;
	return 0;
}

void term_mode_unguard(void)
{
	if (!mode.guarded)
		return;
	term_restore();
	mode.guarded = 0;
	for (size_t i = 0; i < FATALS; i++)
		sigaction(fatal[i], &mode.old_fatal[i], NULL);
	for (size_t i = 0; i < STOPS; i++)
		sigaction(stops[i], &mode.old_stops[i], NULL);
	mode.fd = -1;
	mode.raw = 0;
}
