/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/machine.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/assemble.h"
#include "vmm/log.h"
#include "vmm/term.h"
#include "vmm/timeline.h"

/* After its panic was announced a kernel has this long to reset or load a crash kernel. */
#define PANIC_WAIT_NS 1000000000ull
/* Between two tries to bring a machine to a stand: it has to get on meanwhile. */
#define BUSY_WAIT_NS 500000000ull
/* And guest/init to power off after it failed: it drains the console and syncs. */
#define FAILED_WAIT_NS 10000000000ull

/* The process around the machines: signals, the terminal, and what ended the last one. */
struct life {
	struct host host;
	struct machine machine;
	enum power_event ended; /* atomic; POWER_NONE while it runs */
	bool panicked;          /* atomic */
	bool init_failed;       /* atomic: guest/init did not get on */
	bool no_init;           /* atomic: and that was why */
	bool stillborn;         /* the kernel reset the machine before anything else */
	bool ran;               /* a machine was started: what was made for it stays */
	struct loop_task task;
	struct loop_timer dying, timeout, grace;
	struct loop_fd signals;
	int sigfd;
	struct loop_task settle_task;
	struct loop_timer settle_later;
	bool settle;       /* machine_settle is due */
	bool asked_to_end; /* a SIGTERM was passed on as the power button */
	struct log_budget crashes, restarts;
};

/* ------------------------------------------------------------- events */

/*
 * The first report wins, but for what the user or the host decides: it must not
 * get lost behind a reset that the guest asked for at the same moment.
 */
static void life_end(struct life *l, enum power_event ev)
{
	bool ours = ev == POWER_TIMEOUT || ev == POWER_QUIT || ev == POWER_FAIL;
	int was = POWER_NONE;

	while (!__atomic_compare_exchange_n((int *)&l->ended, &was, (int)ev, false,
					    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		if (was != POWER_NONE && !(was == POWER_RESET && ours))
			return;
}

/* Any thread: notes what happened and leaves the rest to the main loop. */
static void life_power(void *arg, enum power_event ev)
{
	struct life *l = arg;

	if (ev == POWER_PANIC)
		__atomic_store_n(&l->panicked, true, __ATOMIC_RELEASE);
	else if (ev == POWER_INIT_FAILED || ev == POWER_NO_INIT) {
		__atomic_store_n(&l->no_init, ev == POWER_NO_INIT, __ATOMIC_RELEASE);
		__atomic_store_n(&l->init_failed, true, __ATOMIC_RELEASE);
	} else if (ev == POWER_CRASHLOADED)
		log_guest_at(LOG_INFO, &l->crashes,
			     "the guest panicked; its crash kernel takes over");
	else
		life_end(l, ev);
	loop_post(l->host.loop, &l->task);
}

static void life_task(void *arg)
{
	struct life *l = arg;

	if (__atomic_load_n((int *)&l->ended, __ATOMIC_ACQUIRE) != POWER_NONE)
		loop_stop(l->host.loop);
	else if (l->dying.due)
		return;
	else if (__atomic_load_n(&l->panicked, __ATOMIC_ACQUIRE))
		loop_timer_set(l->host.loop, &l->dying, loop_now() + PANIC_WAIT_NS);
	else if (__atomic_load_n(&l->init_failed, __ATOMIC_ACQUIRE))
		loop_timer_set(l->host.loop, &l->dying, loop_now() + FAILED_WAIT_NS);
}

static void life_dead(void *arg)
{
	life_power(arg, POWER_OFF); /* the flags decide the status */
}

static void life_timed_out(void *arg)
{
	life_power(arg, POWER_TIMEOUT);
}

static void life_grace_over(void *arg)
{
	log_warn("the guest did not power off within %d s", MACHINE_GRACE_S);
	life_power(arg, POWER_QUIT);
}

static void life_asked(struct life *l, int sig)
{
	if (l->asked_to_end) {
		log_warn("%s again: the guest is not waited for", strsignal(sig));
		life_power(l, POWER_QUIT);
		return;
	}
	l->asked_to_end = true;
	log_info("%s: asking the guest to power off", strsignal(sig));
	machine_power_button(&l->machine);
	loop_timer_set(l->host.loop, &l->grace, loop_now() + MACHINE_GRACE_S * 1000000000ull);
}

/* Not here: machine_settle says why. */
static void life_settle_soon(struct life *l, bool recalled)
{
	if (!machine_settle_due(&l->machine, recalled))
		return;
	l->settle = true;
	loop_stop(l->host.loop);
}

static void life_settle(void *arg)
{
	life_settle_soon(arg, false);
}

static void life_signal(void *arg, uint32_t events)
{
	struct life *l = arg;
	struct signalfd_siginfo si;

	(void)events;
	while (read(l->sigfd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGWINCH)
			term_winch();
		else if (si.ssi_signo == SIGCONT)
			term_cont();
		else if (si.ssi_signo == SIGIO)
			life_settle_soon(l, true); /* somebody waits to write a file we borrow */
		else
			life_asked(l, (int)si.ssi_signo);
	}
}

/* -------------------------------------------------------------- set-up */

static int life_signals(struct life *l, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGWINCH);
	sigaddset(&set, SIGCONT);
	sigaddset(&set, SIGIO);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);           /* a full allowance is an error of that write */
	sigprocmask(SIG_BLOCK, &set, NULL); /* threads inherit it */
	l->sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (l->sigfd < 0)
		return err_sys(e, "signalfd");
	int r = loop_fd_add(l->host.loop, &l->signals, l->sigfd, EPOLLIN);
	return r < 0 ? err_msg(e, r, "signals: %s", strerror(-r)) : 0;
}

static int life_chr(struct life *l, struct chr **ret, const struct char_config *c,
		    const char *label, struct err *e)
{
	if (c->mode == CHAR_OFF)
		return 0;
	int r = c->mode == CHAR_TTY ? term_open(l->host.loop, &l->host.power, e) : 0;
	return r < 0 ? r : chr_new(ret, l->host.loop, c, label, e);
}

static int life_init(struct life *l, const struct config *c, struct err *e)
{
	memset(l, 0, sizeof(*l));
	l->sigfd = -1;
	l->host.cfg = c;
	l->host.power = (struct power_sink){life_power, l};
	l->task = (struct loop_task){.fn = life_task, .arg = l};
	l->settle_task = (struct loop_task){.fn = life_settle, .arg = l};
	l->settle_later = (struct loop_timer){.fn = life_settle, .arg = l};
	l->host.settle = &l->settle_task;
	l->dying = (struct loop_timer){.fn = life_dead, .arg = l};
	l->timeout = (struct loop_timer){.fn = life_timed_out, .arg = l};
	l->grace = (struct loop_timer){.fn = life_grace_over, .arg = l};
	l->signals = (struct loop_fd){.fn = life_signal, .arg = l};
	int r = loop_new(&l->host.loop, "vmm", e);
	if (r == 0)
		r = life_signals(l, e);
	if (r == 0)
		r = life_chr(l, &l->host.console, &c->console, "console", e);
	if (r == 0)
		r = life_chr(l, &l->host.serial, &c->serial, "serial", e);
	if (r == 0)
		r = ends_open(&l->host.ends, c, e);
	if (r == 0 && c->timeout_s)
		loop_timer_set(l->host.loop, &l->timeout,
			       loop_now() + c->timeout_s * 1000000000ull);
	return r;
}

static void life_fini(struct life *l)
{
	if (!l->ran) {
		chr_undo(l->host.console);
		chr_undo(l->host.serial);
	}
	ends_close(&l->host.ends);
	chr_free(l->host.console);
	chr_free(l->host.serial);
	term_close();
	if (l->sigfd >= 0)
		close(l->sigfd);
	loop_free(l->host.loop);
}

/* ----------------------------------------------------------------- run */

/* The main loop, until the machine ends. It stops in between for what needs it to stand still. */
static void life_loop(struct life *l)
{
	struct err e = {0};

	loop_run(l->host.loop);
	while (l->settle && __atomic_load_n((int *)&l->ended, __ATOMIC_ACQUIRE) == POWER_NONE) {
		l->settle = false;
		int r = machine_settle(&l->machine, &e);

		if (r < 0) {
			log_error("%s", e.text);
			life_end(l, POWER_FAIL);
			return;
		}
		if (r == MACHINE_BUSY)
			loop_timer_set(l->host.loop, &l->settle_later, loop_now() + BUSY_WAIT_NS);
		loop_run(l->host.loop);
	}
}

static int life_run(struct life *l, struct err *e)
{
	l->ended = POWER_NONE;
	l->panicked = l->init_failed = l->no_init = l->stillborn = l->settle = false;
	l->host.again = l->ran;
	log_quiet(l->ran);
	int r = machine_build(&l->machine, &l->host, e);
	log_quiet(false);
	if (r == 0)
		r = machine_start(&l->machine, e);
	if (r == 0) {
		l->ran = true;
		life_loop(l);
		timeline_mark(STAGE_END);
		machine_stop(&l->machine); /* only then does what it did stand still */
		if (l->ended == POWER_TRIPLE && machine_was_orderly(&l->machine))
			l->ended = POWER_RESET; /* how reboot=triple restarts a machine */
		l->stillborn = l->ended == POWER_RESET && machine_was_stillborn(&l->machine);
	}
	machine_destroy(&l->machine);
	loop_timer_cancel(&l->dying);
	loop_timer_cancel(&l->settle_later);
	return r;
}

/* A kernel that panics, with or without a word, is not run again and again. */
static bool life_goes_on(const struct life *l)
{
	return l->ended == POWER_RESET && !l->panicked && !l->init_failed && !l->stillborn &&
	       !l->host.cfg->no_reboot && !l->asked_to_end;
}

static int life_status(const struct life *l)
{
	if (l->ended == POWER_FAIL)
		return EXIT_VMM;
	if (l->ended == POWER_TIMEOUT)
		return EXIT_TIMED_OUT;
	if (l->panicked || l->stillborn)
		return EXIT_GUEST_PANIC;
	if (l->ended == POWER_TRIPLE)
		return EXIT_GUEST_TRIPLE;
	if (l->ended == POWER_QUIT)
		return l->asked_to_end ? EXIT_TERMINATED : EXIT_USER_QUIT;
	return l->init_failed ? EXIT_VMM : EXIT_GUEST_OFF;
}

static const char *life_reason(const struct life *l)
{
	switch (life_status(l)) {
	case EXIT_GUEST_PANIC:
		return l->panicked ? "the guest's kernel panicked"
				   : "the guest's kernel reset the machine before it ran an init";
	case EXIT_GUEST_TRIPLE:
		return "the guest triple-faulted";
	case EXIT_TIMED_OUT:
		return "time limit reached";
	case EXIT_VMM:
		/* What failed in the host was logged when it happened. */
		if (l->ended == POWER_FAIL)
			return NULL;
		return l->no_init ? "the root has no init that runs"
				  : "mvm's init could not reach the root";
	default:
		return NULL;
	}
}

/* Where to read on. */
static const char *life_where(const struct life *l)
{
	const struct config *c = l->host.cfg;

	if (l->stillborn && c->serial.mode == CHAR_OFF && !l->panicked)
		return "; --serial tty shows what it said";
	if (life_status(l) != EXIT_VMM)
		return "";
	if (c->console.mode <= CHAR_NULL && c->serial.mode <= CHAR_NULL)
		return ": --console tty shows its line that says why";
	return ": its line on the guest's console says why";
}

static void life_say(const struct life *l)
{
	const char *reason = life_reason(l), *hint = machine_hint(&l->machine);
	char limit[128];

	if (!reason)
		return;
	if (life_status(l) == EXIT_TIMED_OUT) {
		snprintf(limit, sizeof(limit), "--timeout %u: %s", l->host.cfg->timeout_s, reason);
		reason = limit;
	}
	bool root = life_status(l) == EXIT_VMM && l->host.cfg->rootfs;
	log_error("%s%s%s%s%s%s%s", root ? "--rootfs " : "", root ? l->host.cfg->rootfs : "",
		  root ? ": " : "", reason, life_where(l), *hint ? "; " : "", hint);
}

static int life_whole(struct life *l, const struct config *c, struct err *e)
{
	int r = life_init(l, c, e);

	while (r == 0) {
		r = life_run(l, e);
		if (r < 0 || !life_goes_on(l))
			break;
		log_guest_at(LOG_INFO, &l->restarts, "the guest restarts");
	}
	life_fini(l);
	return r;
}

/* Whether it could be told. */
static bool life_timeline(const struct config *c)
{
	struct err e = {0};

	if (c->timeline)
		timeline_print();
	if (!c->timeline_file || timeline_write(&e) == 0)
		return true;
	log_error("%s", e.text);
	return false;
}

int machine_main(const struct config *c)
{
	static struct life life;
	struct err e = {0};
	int r = 0;

	if (c->timeline || c->timeline_file)
		timeline_want();
	if (c->timeline_file)
		r = timeline_open(c->timeline_file, &e);
	if (r == 0)
		r = life_whole(&life, c, &e);
	if (r < 0) {
		timeline_undo();
		log_error("%s", e.text);
		return EXIT_VMM;
	}
	life_say(&life);
	int status = life_status(&life);
	/* How the guest ended says more than that a file could not be written. */
	return life_timeline(c) || status != EXIT_GUEST_OFF ? status : EXIT_VMM;
}
