/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/opts.h"

#define MEM_STEP (2ull << 20) /* a large page */
#define BLK_QUEUES_MAX 32

void config_init(struct config *c)
{
	*c = (struct config){
		.cpus = 1,
		.memory = 512ull << 20,
		.transport = TRANSPORT_PCI,
		.console.mode = CHAR_TTY,
		.serial.mode = CHAR_OFF,
	};
}

static void disk_fini(struct disk_config *d)
{
	free(d->path);
	free(d->id);
}

void config_fini(struct config *c)
{
	for (size_t i = 0; i < c->ndisks; i++)
		disk_fini(&c->disks[i]);
	config_nets_fini(c);
	config_fs_fini(c);
	config_vsock_fini(c);
	free(c->kernel);
	free(c->initrd);
	free(c->rootfs);
	free(c->modules);
	free(c->cmdline);
	free(c->console.path);
	free(c->serial.path);
	free(c->timeline_file);
	*c = (struct config){0};
}

int config_string(char **at, const char *value, struct err *e)
{
	char *copy = strdup(value);

	if (!copy)
		return err_msg(e, -ENOMEM, "out of memory");
	free(*at);
	*at = copy;
	return 0;
}

int config_size(const char *text, uint64_t *ret)
{
	static const char units[] = "kmgt";
	size_t digits = strspn(text, "0123456789");
	const char *tail = text + digits, *unit;
	uint64_t v = 0, scale = 1;

	if (!digits)
		return -EINVAL;
	if (*tail) {
		unit = strchr(units, *tail | 0x20);
		if (!unit || (tail[1] && strcmp(tail + 1, "iB")))
			return -EINVAL;
		scale = 1ull << (10 * (unit - units + 1));
	}
	for (; text < tail; text++)
		if (__builtin_mul_overflow(v, 10ull, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
			return -ERANGE;
	if (__builtin_mul_overflow(v, scale, &v))
		return -ERANGE;
	*ret = v;
	return 0;
}

void config_size_text(char buf[CONFIG_SIZE_TEXT], uint64_t size)
{
	static const char units[][2] = {"", "K", "M", "G", "T"};
	unsigned u = 0;

	while (u < 4 && size && !(size & 1023)) {
		size >>= 10;
		u++;
	}
	snprintf(buf, CONFIG_SIZE_TEXT, "%llu%s", (unsigned long long)size, units[u]);
}

static bool is_queue_size(unsigned long n, unsigned min)
{
	return n >= min && n <= CONFIG_QUEUE_MAX && !(n & (n - 1));
}

int config_queue_size(const char *text, unsigned min, uint16_t *ret, struct err *e)
{
	unsigned long n;

	if (opts_number(text, 0, UINT16_MAX, &n, NULL) || !is_queue_size(n, min))
		return err_msg(e, -ERANGE, "%s is not a power of two from %u to %d", text, min,
			       CONFIG_QUEUE_MAX);
	*ret = (uint16_t)n;
	return 0;
}

int config_check_queue_size(unsigned size, unsigned min, struct err *e)
{
	if (!size || is_queue_size(size, min))
		return 0;
	return err_msg(e, -ERANGE, "queue_size: %u is not a power of two from %u to %d", size, min,
		       CONFIG_QUEUE_MAX);
}

/* ------------------------------------------------------------- character devices */

static int char_path(struct char_config *c, enum char_mode mode, const char *path, struct err *e)
{
	if (!*path)
		return err_msg(e, -EINVAL, "the path is empty");
	c->mode = mode;
	return config_string(&c->path, path, e);
}

int config_char(struct char_config *c, const char *text, struct err *e)
{
	static const char *const modes[] = {"off", "null", "tty", "pty", "file", "socket", NULL};
	char word[16];
	const char *near;

	if (!strncmp(text, "file=", 5))
		return char_path(c, CHAR_FILE, text + 5, e);
	if (!strncmp(text, "socket=", 7))
		return char_path(c, CHAR_SOCKET, text + 7, e);
	for (int i = 0; i <= CHAR_PTY; i++)
		if (!strcmp(text, modes[i])) {
			c->mode = (enum char_mode)i;
			return 0;
		}
	if (!strcmp(text, "none") || !strcmp(text, "stdio"))
		return err_msg(e, -EINVAL, "did you mean %s?", *text == 'n' ? "off" : "tty");
	if (!strcmp(text, "file") || !strcmp(text, "socket"))
		return err_msg(e, -EINVAL, "needs a path: %s=PATH", text);
	snprintf(word, sizeof(word), "%s", text);
	word[strcspn(word, "=")] = '\0';
	near = opts_nearest(word, modes);
	return err_msg(e, -EINVAL, "must be off, null, tty, pty, file=PATH or socket=PATH%s%s%s",
		       near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

static int check_char(const struct char_config *c, struct err *e)
{
	const struct sockaddr_un *un = NULL;

	if (c->mode != CHAR_FILE && c->mode != CHAR_SOCKET)
		return 0;
	if (!c->path || !*c->path)
		return err_msg(e, -EINVAL, "the path is missing");
	if (c->mode == CHAR_SOCKET && strlen(c->path) >= sizeof(un->sun_path))
		return err_msg(e, -ENAMETOOLONG, "socket path is %zu bytes long, at most %zu fit",
			       strlen(c->path), sizeof(un->sun_path) - 1);
	return 0;
}

static int check_chars(const struct config *c, struct err *e)
{
	if (check_char(&c->console, e))
		return err_ctx(e, "console");
	if (check_char(&c->serial, e))
		return err_ctx(e, "serial");
	if (c->console.path && c->serial.path && !strcmp(c->console.path, c->serial.path))
		return err_msg(e, -EINVAL, "console and serial cannot both use %s",
			       c->console.path);
	return 0;
}

/* ------------------------------------------------------------- disks */

static int disk_path(void *d, const char *v, struct err *e)
{
	return config_string(&((struct disk_config *)d)->path, v, e);
}

static int disk_id(void *d, const char *v, struct err *e)
{
	return config_string(&((struct disk_config *)d)->id, v, e);
}

static int disk_readonly(void *d, const char *v, struct err *e)
{
	return opts_onoff(v, &((struct disk_config *)d)->readonly, e);
}

static int disk_direct(void *d, const char *v, struct err *e)
{
	return opts_onoff(v, &((struct disk_config *)d)->direct, e);
}

static int disk_format(void *d, const char *v, struct err *e)
{
	if (strcmp(v, "raw"))
		return err_msg(e, -EINVAL, "\"%s\" is not supported: raw is the only one", v);
	((struct disk_config *)d)->raw = true;
	return 0;
}

static int disk_cache(void *d, const char *v, struct err *e)
{
	bool through = !strcmp(v, "writethrough");

	if (!strcmp(v, "none"))
		return err_msg(e, -EINVAL, "\"none\" is spelled direct=on");
	if (!through && strcmp(v, "writeback"))
		return err_msg(e, -EINVAL, "\"%s\" is neither writeback nor writethrough", v);
	((struct disk_config *)d)->writethrough = through;
	return 0;
}

static int disk_queues(void *d, const char *v, struct err *e)
{
	unsigned long n;
	int ret = opts_number(v, 1, BLK_QUEUES_MAX, &n, e);

	if (!ret)
		((struct disk_config *)d)->queues = (uint16_t)n;
	return ret;
}

static int disk_queue_size(void *d, const char *v, struct err *e)
{
	return config_queue_size(v, CONFIG_DISK_QUEUE_MIN, &((struct disk_config *)d)->queue_size,
				 e);
}

static int disk_serial(void *d, const char *v, struct err *e)
{
	struct disk_config *disk = d;

	if (strlen(v) >= sizeof(disk->serial))
		return err_msg(e, -EINVAL, "\"%s\" is longer than %zu characters", v,
			       sizeof(disk->serial) - 1);
	for (const char *p = v; *p; p++)
		if (*p <= ' ' || *p > '~')
			return err_msg(e, -EINVAL, "only printable ASCII without blanks");
	snprintf(disk->serial, sizeof(disk->serial), "%s", v);
	return 0;
}

/* What a disk may be that another process serves; the rest is for that one to say. */
struct disk_words {
	struct disk_config d;
	char *socket;
	enum config_choice vhost_user;
};

static int disk_socket(void *d, const char *v, struct err *e)
{
	return config_string(&((struct disk_words *)d)->socket, v, e);
}

static int disk_vhost_user(void *d, const char *v, struct err *e)
{
	bool on;
	int ret = opts_onoff(v, &on, e);

	if (!ret)
		((struct disk_words *)d)->vhost_user = on ? CONFIG_ON : CONFIG_OFF;
	return ret;
}

/* Where the disk is. The socket's path becomes the disk's. */
static int disk_place(struct disk_words *w, struct err *e)
{
	struct disk_config *d = &w->d;

	if (!w->socket && w->vhost_user == CONFIG_ON)
		return err_msg(e, -EINVAL, "vhost_user=on: the socket is missing (socket=PATH)");
	if (!w->socket)
		return d->path ? 0 : err_msg(e, -EINVAL, "the path is missing (path=FILE)");
	if (d->path)
		return err_msg(e, -EINVAL, "path and socket: one of them is meant");
	if (w->vhost_user == CONFIG_OFF)
		return err_msg(e, -EINVAL, "socket=%s: that is vhost-user, which is off",
			       w->socket);
	if (d->raw || d->direct || d->writethrough || d->serial[0])
		return err_msg(e, -EINVAL,
			       "%s: not together with socket: it is for the back end to say",
			       d->raw         ? "format"
			       : d->direct    ? "direct"
			       : d->serial[0] ? "serial"
					      : "cache");
	d->vhost_user = true;
	d->path = w->socket;
	w->socket = NULL;
	return 0;
}

int config_disk(struct config *c, const char *text, struct err *e)
{
	static const struct kv_key keys[] = {
		{"path", disk_path, NULL},
		{"readonly", disk_readonly, "readonly=on"},
		{"direct", disk_direct, "direct=on"},
		{"cache", disk_cache, NULL},
		{"queues", disk_queues, NULL},
		{"queue_size", disk_queue_size, NULL},
		{"serial", disk_serial, NULL},
		{"id", disk_id, NULL},
		{"format", disk_format, NULL},
		{"socket", disk_socket, NULL},
		{"vhost_user", disk_vhost_user, "vhost_user=on"},
		{"ro", NULL, "readonly=on"},
		{"read-only", NULL, "readonly=on"},
		{"file", NULL, "path=FILE"},
		{NULL, NULL, NULL},
	};
	struct disk_words w = {.vhost_user = CONFIG_AUTO};
	int ret;

	if (c->ndisks >= CONFIG_DISKS_MAX)
		return err_msg(e, -E2BIG, "at most %d disks fit", CONFIG_DISKS_MAX);
	ret = opts_kv(keys, "path", text, &w, e);
	if (!ret)
		ret = disk_place(&w, e);
	free(w.socket);
	if (ret) {
		disk_fini(&w.d);
		return ret;
	}
	c->disks[c->ndisks++] = w.d;
	return 0;
}

static int check_disk(const struct disk_config *d, struct err *e)
{
	const struct sockaddr_un *un = NULL;

	if (!d->path || !*d->path)
		return err_msg(e, -EINVAL, "the path is missing");
	if (d->vhost_user && strlen(d->path) >= sizeof(un->sun_path))
		return err_msg(e, -ENAMETOOLONG, "socket path is %zu bytes long, at most %zu fit",
			       strlen(d->path), sizeof(un->sun_path) - 1);
	if (d->queues > BLK_QUEUES_MAX)
		return err_msg(e, -ERANGE, "queues: out of range (1 to %d)", BLK_QUEUES_MAX);
	return config_check_queue_size(d->queue_size, CONFIG_DISK_QUEUE_MIN, e);
}

const char *config_disk_option(const struct disk_config *d)
{
	return d->root ? "--rootfs" : "--disk";
}

static int check_disks(const struct config *c, struct err *e)
{
	for (size_t i = 0; i < c->ndisks; i++)
		if (check_disk(&c->disks[i], e))
			return err_ctx(e, "%s %s", config_disk_option(&c->disks[i]),
				       c->disks[i].path ? c->disks[i].path : "");
	return 0;
}

/* ------------------------------------------------------------- the kernel */

static bool is_backup(const char *name)
{
	static const char *const tails[] = {".old", ".bak", ".hmac", ".sig", ".dpkg-new", "~"};
	size_t len = strlen(name);

	for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++)
		if (len > strlen(tails[i]) && !strcmp(name + len - strlen(tails[i]), tails[i]))
			return true;
	return false;
}

static bool is_kernel(const char *name)
{
	return !strncmp(name, "vmlinuz", 7) && (!name[7] || name[7] == '-') && !is_backup(name);
}

/* A dangling link or a directory is no kernel; one that may not be read is told of at the end. */
static bool usable(int dirfd, const char *name, char *forbidden, size_t size)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, 0) || !S_ISREG(st.st_mode))
		return false;
	if (!faccessat(dirfd, name, R_OK, AT_EACCESS))
		return true;
	snprintf(forbidden, size, "%s", name);
	return false;
}

int config_newest_kernel(const char *dir, char **ret, struct err *e)
{
	char best[256] = "", forbidden[256] = "";
	struct dirent *d;
	DIR *dp = opendir(dir);

	if (dp) {
		while ((d = readdir(dp)))
			if (is_kernel(d->d_name) && strverscmp(d->d_name, best) > 0 &&
			    usable(dirfd(dp), d->d_name, forbidden, sizeof(forbidden)))
				snprintf(best, sizeof(best), "%s", d->d_name);
		closedir(dp);
	}
	if (!*best && *forbidden)
		return err_msg(e, -EACCES,
			       "no kernel given, and %s/%s may not be read by this user: run as "
			       "root or give --kernel FILE",
			       dir, forbidden);
	if (!*best)
		return err_msg(e, -ENOENT,
			       "no kernel given, and no %s/vmlinuz* to take: give --kernel FILE",
			       dir);
	if (asprintf(ret, "%s/%s", dir, best) < 0)
		return err_msg(e, -ENOMEM, "out of memory");
	return 0;
}

/* ------------------------------------------------------------- all of it */

static int check_memory(struct config *c, struct err *e)
{
	uint64_t rounded;

	if (c->memory < CONFIG_MEM_MIN || c->memory > CONFIG_MEM_MAX)
		return err_msg(e, -ERANGE, "memory: %llu bytes is out of range (%lluM to %lluT)",
			       (unsigned long long)c->memory, CONFIG_MEM_MIN >> 20,
			       CONFIG_MEM_MAX >> 40);
	rounded = (c->memory + MEM_STEP - 1) & ~(MEM_STEP - 1);
	if (rounded != c->memory)
		log_info("memory: %llu bytes rounded up to %llu MiB", (unsigned long long)c->memory,
			 (unsigned long long)rounded >> 20);
	c->memory = rounded;
	return 0;
}

bool config_shares_memory(const struct config *c)
{
	bool shares = c->nfs > 0;

	for (size_t i = 0; i < c->ndisks; i++)
		shares |= c->disks[i].vhost_user;
	return shares;
}

bool config_may_use_vhost(const struct config *c)
{
	bool may = c->vsock.present && !c->vsock.socket;

	for (size_t i = 0; i < c->nnets; i++)
		may |= c->nets[i].kind != NET_USER && c->nets[i].vhost != CONFIG_OFF;
	return may;
}

int config_check(struct config *c, struct err *e)
{
	int ret;

	if (c->cpus < 1 || c->cpus > CONFIG_CPUS_MAX)
		return err_msg(e, -ERANGE, "cpus: %u is out of range (1 to %d)", c->cpus,
			       CONFIG_CPUS_MAX);
	if (c->modules && c->initrd)
		return err_msg(e, -EINVAL,
			       "--modules %s: not together with --initrd, which is taken as it is",
			       c->modules);
	ret = check_memory(c, e);
	if (!ret)
		ret = check_chars(c, e);
	if (!ret)
		ret = config_check_root(c, e);
	if (!ret)
		ret = check_disks(c, e);
	if (!ret)
		ret = config_check_nets(c, e);
	if (!ret)
		ret = config_check_fs(c, e);
	if (!ret)
		ret = config_check_vsock(c, e);
	if (!ret)
		ret = config_check_ids(c, e);
	if (!ret && !c->kernel)
		ret = config_newest_kernel("/boot", &c->kernel, e);
	return ret;
}
