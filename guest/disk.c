/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what root= says to a device: /dev/NAME, NAME, MAJOR:MINOR, UUID=, LABEL=,
 * PARTUUID=, PARTLABEL= and the /dev/disk/by-* paths that stand for those.
 */
#include "guest/init.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "guest/fsmagic.h"

#define BLOCK "/sys/class/block"

static bool dev_path(const char *name, char *path, size_t size)
{
	if (strlen(name) + 6 > size)
		return false;
	strcpy(path, "/dev/");
	strcat(path, name);
	return true;
}

static bool uuid_is(const char *name, const char *want)
{
	const struct fsmagic *m;
	char path[270], text[37];
	uint8_t raw[16];
	int fd;

	if (!dev_path(name, path, sizeof(path)))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	m = fsmagic_probe(fd);
	if (!m || !m->uuid || pread(fd, raw, sizeof(raw), m->uuid) != (ssize_t)sizeof(raw))
		memset(raw, 0, sizeof(raw));
	close(fd);
	uuid_text(text, raw);
	return !strcasecmp(text, want);
}

static bool label_is(const char *name, const char *want)
{
	const struct fsmagic *m;
	char path[270], text[257] = "";
	int fd;

	if (!dev_path(name, path, sizeof(path)))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	m = fsmagic_probe(fd);
	if (m && m->label && pread(fd, text, m->label_len, m->label) < 0)
		*text = 0;
	close(fd);
	return *text && !strcmp(text, want);
}

/* The value of KEY= in a device's uevent file. */
static bool uevent_is(const char *name, const char *key, const char *want)
{
	char path[300] = BLOCK "/";
	char *text, *next, *line;
	size_t n = strlen(key);
	bool found = false;

	if (strlen(name) > 200)
		return false;
	strcat(path, name);
	strcat(path, "/uevent");
	next = text = file_read(path, 8192, NULL);
	while (!found && (line = strsep(&next, "\n")))
		found = !strncmp(line, key, n) && !strcasecmp(line + n, want);
	free(text);
	return found;
}

static bool partlabel_is(const char *name, const char *want)
{
	return uevent_is(name, "PARTNAME=", want);
}

/* Kernels before 6.13 do not put PARTUUID into the uevent: the table itself has it. */
static bool partuuid_is(const char *name, const char *want)
{
	char text[24], link[512], path[270], uuid[37];
	char *disk, *end;
	ssize_t n;
	unsigned part, sector = 512;

	if (uevent_is(name, "PARTUUID=", want))
		return true;
	if (!file_line(BLOCK, name, "partition", text, sizeof(text)))
		return false;
	part = (unsigned)strtoul(text, NULL, 10);
	if (!part || strlen(name) > 200)
		return false;
	/* The link ends in …/block/DISK/PARTITION. */
	strcpy(path, BLOCK "/");
	strcat(path, name);
	n = readlink(path, link, sizeof(link) - 1);
	if (n <= 0)
		return false;
	link[n] = 0;
	end = strrchr(link, '/');
	if (!end)
		return false;
	*end = 0;
	disk = strrchr(link, '/');
	if (!disk || !dev_path(disk + 1, path, sizeof(path)))
		return false;
	if (file_line(BLOCK, disk + 1, "queue/logical_block_size", text, sizeof(text)))
		sector = (unsigned)strtoul(text, NULL, 10);
	return partition_uuid(path, part, sector, uuid) && !strcasecmp(uuid, want);
}

static bool number_is(const char *name, const char *want)
{
	char text[24];

	return file_line(BLOCK, name, "dev", text, sizeof(text)) && !strcmp(text, want);
}

static const struct kind {
	const char *prefix;
	const char *link;
	bool (*is)(const char *name, const char *want);
} kinds[] = {
	{"UUID=", "/dev/disk/by-uuid/", uuid_is},
	{"LABEL=", "/dev/disk/by-label/", label_is},
	{"PARTUUID=", "/dev/disk/by-partuuid/", partuuid_is},
	{"PARTLABEL=", "/dev/disk/by-partlabel/", partlabel_is},
};

static bool scan(bool (*is)(const char *, const char *), const char *want, char *path, size_t size)
{
	DIR *d = opendir(BLOCK);
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d)))
		found = *e->d_name != '.' && is(e->d_name, want) && dev_path(e->d_name, path, size);
	if (d)
		closedir(d);
	return found;
}

static bool find(const char *root, char *path, size_t size)
{
	struct stat st;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const struct kind *k = &kinds[i];

		if (!strncmp(root, k->prefix, strlen(k->prefix)))
			return scan(k->is, root + strlen(k->prefix), path, size);
		if (!strncmp(root, k->link, strlen(k->link)))
			return scan(k->is, root + strlen(k->link), path, size);
	}
	if (*root == '/') {
		if (strlen(root) >= size)
			return false;
		strcpy(path, root);
	} else if (strchr(root, ':')) {
		if (!scan(number_is, root, path, size))
			return false;
	} else if (!dev_path(root, path, size)) {
		return false;
	}
	return !stat(path, &st) && S_ISBLK(st.st_mode);
}

bool disk_wait(const char *root, char *path, size_t size)
{
	/* 100 × 2 ms, then 490 × 20 ms: ten seconds. */
	for (unsigned i = 0; i < 590; i++) {
		if (find(root, path, size))
			return true;
		nanosleep(&(struct timespec){.tv_nsec = i < 100 ? 2000000 : 20000000}, NULL);
	}
	return false;
}

/* The first name after @last in the order of the alphabet. Nobody's root is on a loop or RAM disk.
 */
static bool name_after(const char *last, char *next, size_t size)
{
	DIR *d = opendir(BLOCK);
	struct dirent *e;
	bool found = false;

	while (d && (e = readdir(d))) {
		const char *name = e->d_name;

		if (*name == '.' || !strncmp(name, "loop", 4) || !strncmp(name, "ram", 3) ||
		    strlen(name) >= size || strcmp(name, last) <= 0 ||
		    (found && strcmp(name, next) >= 0))
			continue;
		strcpy(next, name);
		found = true;
	}
	if (d)
		closedir(d);
	return found;
}

void disk_names(char *buf, size_t size)
{
	char last[64] = "", next[64];
	size_t n = 0;

	while (name_after(last, next, sizeof(next)) && n + strlen(next) + 2 <= size) {
		buf[n++] = ' ';
		strcpy(buf + n, next);
		n += strlen(next);
		strcpy(last, next);
	}
	buf[n] = 0;
}
