/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/virtiofsd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/unix_listen.h"

#define HELP_MAX (32u << 10)
#define HELP_MS 10000

/* ------------------------------------------------------------- what we may do */

static bool has_capability(unsigned cap)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};

	return syscall(SYS_capget, &h, d) == 0 && (d[cap / 32].effective & 1u << cap % 32);
}

/* Whether this host lets an ordinary user have namespaces of his own. */
static bool has_user_namespaces(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* A root cannot be exchanged for itself: all of the host is shared without a namespace. */
static int choose_sandbox(struct virtiofsd_plan *p, struct err *e)
{
	bool whole = !strcmp(p->dir, "/");

	if (has_capability(CAP_SYS_ADMIN) && !whole) {
		p->sandbox = "namespace";
	} else if (has_capability(CAP_SYS_CHROOT)) {
		p->sandbox = "chroot"; /* root in a container */
	} else if (p->rust) {
		p->sandbox = !whole && has_user_namespaces() ? "namespace" : "none";
	} else {
		return err_msg(e, -EPERM,
			       "%s needs root: run mvm as root, or install the virtiofsd in Rust",
			       p->program);
	}
	return 0;
}

/* ------------------------------------------------------------- the command line */

/* In a list after -o commas separate, but for those behind a backslash. */
static char *escaped(const char *dir)
{
	char *out = malloc(2 * strlen(dir) + 1), *to = out;

	for (; out && *dir; dir++) {
		if (*dir == ',' || *dir == '\\')
			*to++ = '\\';
		*to++ = *dir;
	}
	if (out)
		*to = '\0';
	return out;
}

static bool add(struct virtiofsd_plan *p, const char *word)
{
	unsigned n = 0;

	while (p->argv[n])
		n++;
	p->argv[n] = strdup(word);
	return p->argv[n];
}

static bool add_all(struct virtiofsd_plan *p, const char *const *words)
{
	for (; *words; words++)
		if (!add(p, *words))
			return false;
	return true;
}

/*
 * Locks stay the guest's own with both: neither offers them by default. Neither is told of
 * a pool of threads, which costs more than it gives where one guest reads and writes.
 */
static bool rust_words(struct virtiofsd_plan *p, const struct fs_config *c, const char *help)
{
	_Static_assert(CHILD_FD == 3, "what --fd says, here and below");
	static const char *const cache[] = {"auto", "always", "never"};
	const char *const words[] = {
		p->program,  "--fd=3",   "--shared-dir", p->dir,        "--cache", cache[c->cache],
		"--sandbox", p->sandbox, "--xattr",      "--log-level", "warn",    NULL,
	};

	if (!add_all(p, words))
		return false;
	if (strstr(help, "--no-announce-submounts") && !add(p, "--no-announce-submounts"))
		return false;
	return !c->readonly || p->mount_ro || add(p, "--readonly");
}

static bool c_words(struct virtiofsd_plan *p, const struct fs_config *c)
{
	static const char *const cache[] = {"auto", "always", "none"};
	char *dir = escaped(p->dir), *source = NULL, *rest = NULL;
	bool ok = false;

	if (dir && asprintf(&source, "source=%s", dir) >= 0 &&
	    asprintf(&rest, "cache=%s,sandbox=%s,xattr,log_level=err", cache[c->cache],
		     p->sandbox) >= 0) {
		const char *const words[] = {
			p->program, "-f", "--fd=3", "-o", source, "-o", rest, NULL,
		};

		ok = add_all(p, words);
	}
	free(dir);
	free(source);
	free(rest);
	return ok;
}

int virtiofsd_plan(struct virtiofsd_plan *p, const struct fs_config *c, const char *program,
		   const char *help, struct err *e)
{
	struct stat st;
	int r;

	*p = (struct virtiofsd_plan){
		.rust = strstr(help, "--shared-dir"),
		.program = strdup(program),
		.dir = realpath(c->dir, NULL),
	};
	if (!p->dir || stat(p->dir, &st) < 0)
		return err_sys(e, "%s", c->dir);
	if (!S_ISDIR(st.st_mode))
		return err_msg(e, -ENOTDIR, "%s: not a directory", c->dir);
	if (!p->program)
		return err_msg(e, -ENOMEM, "out of memory");
	if (!p->rust && !strstr(help, "source=PATH"))
		return err_msg(e, -ENOTSUP,
			       "%s: no virtiofsd that we know: its --help shows "
			       "neither --shared-dir nor -o source=PATH",
			       program);
	p->mount_ro = c->readonly && !(p->rust && strstr(help, "--readonly"));
	r = choose_sandbox(p, e);
	if (r < 0)
		return r;
	if (!(p->rust ? rust_words(p, c, help) : c_words(p, c)))
		return err_msg(e, -ENOMEM, "out of memory");
	return 0;
}

void virtiofsd_plan_fini(struct virtiofsd_plan *p)
{
	for (unsigned i = 0; p->argv[i]; i++)
		free(p->argv[i]);
	free(p->program);
	free(p->dir);
}

/* ------------------------------------------------------------- the program */

static int ask_help(const char *program, const char *name, char *help, struct err *e)
{
	char word[] = "--help";
	char *argv[] = {(char *)program, word, NULL};
	const struct child_spec s = {.path = program, .argv = argv, .name = name, .fd = -1};
	struct child *c;
	int r = child_start(&c, &s, e);

	if (r < 0)
		return r;
	child_output(c, help, HELP_MAX, HELP_MS);
	child_hush(c);
	child_free(c);
	return 0;
}

char *virtiofsd_find(void)
{
	static const char *const dirs[] = {"/usr/libexec", "/usr/lib/qemu", "/usr/lib", NULL};

	return child_find("virtiofsd", dirs);
}

static int plan(struct virtiofsd_plan *p, const struct fs_config *c, const char *name,
		struct err *e)
{
	char *program = virtiofsd_find(), *help = malloc(HELP_MAX + 1);
	int r;

	*p = (struct virtiofsd_plan){0};
	if (!program)
		r = err_msg(e, -ENOENT,
			    "no virtiofsd in PATH, /usr/libexec, /usr/lib/qemu or /usr/lib: "
			    "install it (Debian: virtiofsd, or qemu-system-common up to 12)");
	else if (!help)
		r = err_msg(e, -ENOMEM, "out of memory");
	else
		r = ask_help(program, name, help, e);
	if (r == 0)
		r = virtiofsd_plan(p, c, program, help, e);
	free(program);
	free(help);
	return r;
}

static int mount_readonly(const char *dir, int fd)
{
	/* struct mount_attr: some C libraries do not have it yet. */
	const uint64_t attr[4] = {1 /* MOUNT_ATTR_RDONLY */, 0, 0, 0};

	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, attr, sizeof(attr)) <
	    0)
		return -errno;
	if (syscall(SYS_move_mount, fd, "", AT_FDCWD, dir, 4 /* MOVE_MOUNT_F_EMPTY_PATH */) < 0)
		return -errno;
	/* What is mounted over its root a process sees only when it goes there. */
	if (!strcmp(dir, "/") && (fchdir(fd) < 0 || chroot(".") < 0))
		return -errno;
	return 0;
}

/*
 * In a mount namespace of its own the tree is read-only, whatever is asked of the program and
 * whatever is mounted below; what anybody else mounts or remounts does not matter there.
 */
static int make_readonly(const void *arg)
{
	const struct virtiofsd_plan *p = arg;
	int fd, r;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	fd = (int)syscall(SYS_open_tree, AT_FDCWD, p->dir, 1 /* OPEN_TREE_CLONE */ | AT_RECURSIVE);
	if (fd < 0)
		return -errno;
	r = mount_readonly(p->dir, fd);
	close(fd);
	return r;
}

/* ------------------------------------------------------------- the socket */

static int listen_at(const char *dir, int fd[2], struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int r = 0;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/s", dir);
	fd[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fd[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd[0] < 0 || fd[1] < 0)
		r = err_sys(e, "socket");
	else if (unix_refuse_fds(fd[1]),
		 bind(fd[0], (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd[0], 1) < 0 ||
			 connect(fd[1], (struct sockaddr *)&sa, sizeof(sa)) < 0)
		r = err_sys(e, "%s", sa.sun_path);
	unlink(sa.sun_path);
	for (unsigned i = 0; r < 0 && i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	return r;
}

/*
 * A listening socket for it, and the connection to it that is first in line: both programs
 * take the former alone. Nobody else gets at the name, which is gone before they start.
 */
static int rendezvous(int fd[2], struct err *e)
{
	char dirs[][24] = {"/tmp/mvm-XXXXXX", "/dev/shm/mvm-XXXXXX", "/run/mvm-XXXXXX"};
	int r = -ENOENT;

	for (unsigned i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		if (!mkdtemp(dirs[i])) {
			r = err_sys(e, "%s", dirs[i]);
			continue;
		}
		r = listen_at(dirs[i], fd, e);
		rmdir(dirs[i]);
		if (r == 0)
			break;
	}
	return r;
}

int virtiofsd_start(struct child **ret, int *ret_socket, const struct fs_config *c,
		    const char *name, struct err *e)
{
	struct virtiofsd_plan p;
	char label[40];
	int fd[2], r;

	snprintf(label, sizeof(label), "%s: virtiofsd", name);
	r = plan(&p, c, label, e);
	if (r == 0 && !strcmp(p.sandbox, "none") && strcmp(p.dir, "/"))
		log_warn("%s: without a sandbox: it is confined to %s by its own care alone "
			 "(run as root, or allow users to make namespaces)",
			 name, p.dir);
	if (r == 0)
		r = rendezvous(fd, e);
	if (r == 0) {
		const struct child_spec s = {
			.path = p.program,
			.argv = p.argv,
			.name = label,
			.fd = fd[0],
			.prepare = p.mount_ro ? make_readonly : NULL,
			.arg = &p,
			.prepares = "ro: a read-only view of the directory",
		};

		r = child_start(ret, &s, e);
		close(fd[0]);
		if (r < 0)
			close(fd[1]);
		else
			*ret_socket = fd[1];
	}
	virtiofsd_plan_fini(&p);
	return r;
}
