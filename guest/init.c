/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of the initramfs that mvm builds: loads the modules that lead to the
 * root, mounts it, and becomes the root's init, or the keeper of a shell.
 */
#include "guest/init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void mount_api(const char *type, const char *dir)
{
	mkdir(dir, 0755);
	if (mount(type, dir, type, MS_NOSUID | (strcmp(type, "devtmpfs") ? MS_NOEXEC : 0), NULL) <
		    0 &&
	    errno != EBUSY)
		say("cannot mount ", type, " on ", dir, ": ", strerror(errno));
}

/* The next word; double quotes hold blanks together, as the kernel reads its parameters. */
static char *word(char **next)
{
	char *p = *next + strspn(*next, " \t\n"), *start = p, *to = p;
	bool quoted = false;

	if (!*p)
		return NULL;
	for (; *p && (quoted || !strchr(" \t\n", *p)); p++) {
		if (*p == '"')
			quoted = !quoted;
		else
			*to++ = *p;
	}
	*next = *p ? p + 1 : p;
	*to = 0;
	return start;
}

/* KEY and KEY=1, or KEY=0; the last one counts. */
static void flag_read(const char *w, const char *key, bool *flag)
{
	size_t n = strlen(key);

	if (strncmp(w, key, n))
		return;
	if (!w[n] || !strcmp(w + n, "=1"))
		*flag = true;
	else if (!strcmp(w + n, "=0"))
		*flag = false;
}

static void options_read(struct options *o, char *text)
{
	const struct {
		const char *key;
		const char **value;
	} keys[] = {
		{"root=", &o->root},
		{"rootfstype=", &o->fstype},
		{"rootflags=", &o->flags},
		{"init=", &o->init},
	};
	char *w;

	while ((w = word(&text)) && strcmp(w, "--")) {
		if (!strcmp(w, "ro") || !strcmp(w, "rw"))
			o->rw = w[1] == 'w';
		flag_read(w, "mvm.shell", &o->shell);
		flag_read(w, "mvm.overlay", &o->overlay);
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			if (!strncmp(w, keys[i].key, strlen(keys[i].key)))
				*keys[i].value = w + strlen(keys[i].key);
	}
}

/* The kernel opened no console if its driver is one of our modules: 0 to 2 must not become
 * something else. */
static void stdio_reserve(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < 3);
	if (fd >= 3)
		close(fd);
}

static void stdio_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return;
	fcntl(fd, F_SETFL, O_RDWR);
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

/* Comes back when it is not there or cannot be run. */
static void run(const char *path, char **argv, bool asked)
{
	if (access(path, X_OK) < 0 && !asked)
		return;
	mark(MARK_ROOT_INIT);
	argv[0] = (char *)(uintptr_t)path;
	execv(path, argv);
	say("cannot run ", path, ": ", strerror(errno));
}

int main(int argc, char **argv)
{
	struct options o = {0};
	char *cmdline;

	(void)argc;
	mark(MARK_INIT_STARTED);
	mount_api("devtmpfs", "/dev");
	stdio_reserve();
	mount_api("proc", "/proc");
	mount_api("sysfs", "/sys");
	cmdline = file_read("/proc/cmdline", 1 << 16, NULL);
	if (cmdline)
		options_read(&o, cmdline);
	modules_load(NULL);
	say_console();
	root_mount(&o);
	mark(MARK_ROOT_MOUNTED);
	stdio_console(); /* before: a root without /dev would hide it */
	root_switch();
	if (o.init) {
		run(o.init, argv, true);
		die_rooted("the init that init= names cannot be run");
	}
	if (!o.shell) {
		run("/sbin/init", argv, false);
		run("/etc/init", argv, false);
		run("/bin/init", argv, false);
	}
	session_run(share_tag(&o) != NULL);
}
