/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root without an init: this process stays PID 1, reaps what is left behind,
 * and its one child is a shell that owns the console. Busybox' poweroff and
 * reboot speak to PID 1 with signals; those are understood.
 */
#include "guest/init.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
	const char *path, *arg0, *arg1;
} shells[] = {
	{"/bin/bash", "-bash", NULL},
	{"/bin/sh", "-sh", NULL},
	{"/bin/busybox", "busybox", "sh"},
};

#define SHELLS (sizeof(shells) / sizeof(shells[0]))

static bool shell_there(void)
{
	for (size_t i = 0; i < SHELLS; i++)
		if (!access(shells[i].path, X_OK))
			return true;
	return false;
}

/* Without O_NONBLOCK a serial line that has no carrier would keep open() waiting. */
static int tty_try(const char *path)
{
	int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);

	if (fd >= 0)
		fcntl(fd, F_SETFL, O_RDWR);
	return fd;
}

/* /dev/console cannot be a controlling terminal; the device behind it, named last, can. */
static int tty_open(void)
{
	char names[128], path[140] = "/dev/";
	char *last;
	int fd = -1;

	if (file_line("/sys/class/tty", "console", "active", names, sizeof(names)) && *names) {
		last = strrchr(names, ' ');
		strcat(path, last ? last + 1 : names);
		fd = tty_try(path);
	}
	return fd >= 0 ? fd : tty_try("/dev/console");
}

static void environment(void)
{
	struct stat st;

	setenv("HOME", !stat("/root", &st) && S_ISDIR(st.st_mode) ? "/root" : "/", 1);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
	setenv("TERM", "linux", 0);
	setenv("USER", "root", 0);
}

static _Noreturn void shell(const sigset_t *mask)
{
	int fd;

	setsid();
	fd = tty_open();
	if (fd >= 0) {
		ioctl(fd, TIOCSCTTY, 1);
		for (int i = 0; i < 3; i++)
			dup2(fd, i);
		if (fd > 2)
			close(fd);
	}
	sigprocmask(SIG_SETMASK, mask, NULL);
	environment();
	if (chdir(getenv("HOME")) < 0)
		errno = 0;
	for (size_t i = 0; i < SHELLS; i++) {
		execl(shells[i].path, shells[i].arg0, shells[i].arg1, NULL);
		if (errno != ENOENT)
			say("cannot run ", shells[i].path, ": ", strerror(errno));
	}
	_exit(127);
}

/* What an init would have mounted; where the root has no place for one, it does without. */
static void mounts(bool shared)
{
	mkdir("/dev/pts", 0755);
	mkdir("/dev/shm", 01777);
	mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666");
	mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
	if (shared || access("/tmp", W_OK) < 0)
		mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
}

/* A name and the loopback interface: what many a program takes for granted. */
static void network(void)
{
	char name[65];

	if (!gethostname(name, sizeof(name)) && (!*name || !strcmp(name, "(none)")) &&
	    sethostname("mvm", 3))
		errno = 0;
	links_up_loopback();
}

/* Reaps all that ended; the shell's end is the machine's. */
static void children(pid_t shell_pid)
{
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		if (pid == shell_pid)
			power_end(false);
}

static void signals(int fd, pid_t shell_pid)
{
	struct signalfd_siginfo s;

	while (read(fd, &s, sizeof(s)) == (ssize_t)sizeof(s)) {
		if (s.ssi_signo == SIGCHLD)
			children(shell_pid);
		else
			power_end(s.ssi_signo == SIGTERM || s.ssi_signo == SIGINT);
	}
}

/* Blocked, they are kept for the descriptor: PID 1 would drop them else. Ctrl-Alt-Del comes as
 * SIGINT. */
static int signals_open(sigset_t *ret_old)
{
	static const int wanted[] = {SIGCHLD, SIGUSR1, SIGUSR2, SIGTERM, SIGINT};
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		sigaddset(&set, wanted[i]);
	sigprocmask(SIG_BLOCK, &set, ret_old);
	reboot(RB_DISABLE_CAD);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		die("signalfd: ", strerror(errno));
	return fd;
}

/* What ends the machine, by descriptor: signals first, then the FIFO, then buttons. */
enum { SIGNALS, FIFO, BUTTONS, SOURCES = BUTTONS + BUTTON_MAX };

static void serve(struct pollfd p[SOURCES], pid_t pid)
{
	enum initctl asked = INITCTL_NOTHING;

	if (p[SIGNALS].revents)
		signals(p[SIGNALS].fd, pid);
	if (p[FIFO].revents & POLLIN)
		asked = initctl_read(p[FIFO].fd);
	if (asked != INITCTL_NOTHING)
		power_end(asked == INITCTL_RESTART);
	for (size_t i = BUTTONS; i < SOURCES; i++)
		if (p[i].revents & POLLIN && button_pressed(p[i].fd))
			power_end(false);
		else if (p[i].revents & (POLLERR | POLLHUP | POLLNVAL))
			p[i].fd = -1;
}

static void sources_open(struct pollfd p[SOURCES], sigset_t *ret_old)
{
	int buttons[BUTTON_MAX];
	size_t n = button_open(buttons);

	for (size_t i = 0; i < SOURCES; i++)
		p[i] = (struct pollfd){.fd = -1, .events = POLLIN};
	p[SIGNALS].fd = signals_open(ret_old);
	p[FIFO].fd = initctl_open();
	for (size_t i = 0; i < n; i++)
		p[BUTTONS + i].fd = buttons[i];
}

void session_run(bool shared)
{
	struct pollfd p[SOURCES];
	sigset_t old;
	pid_t pid;

	if (!shell_there())
		die_rooted("the root has neither an init (/sbin/init, /etc/init, /bin/init) nor a "
			   "shell "
			   "(/bin/bash, /bin/sh); name another program with --cmdline "
			   "init=PROGRAM");
	mounts(shared);
	network();
	sources_open(p, &old);
	mark(MARK_ROOT_INIT);
	pid = fork();
	if (pid < 0)
		die("cannot start a shell: fork: ", strerror(errno));
	if (!pid)
		shell(&old);
	for (;;)
		if (poll(p, SOURCES, -1) > 0)
			serve(p, pid);
}
