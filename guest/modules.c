/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /modules.list, written by the host: a path a line, in load order. A line
 * "@btrfs" starts the modules that only a root of that type needs.
 */
#include "guest/init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MODULE_INIT_COMPRESSED_FILE 4 /* linux/module.h, since 5.17 */

static void module_load(const char *path)
{
	size_t len = strlen(path);
	bool packed = len < 3 || strcmp(path + len - 3, ".ko");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	long r = -1;

	if (fd >= 0)
		r = syscall(SYS_finit_module, fd, "", packed ? MODULE_INIT_COMPRESSED_FILE : 0);
	/* ENODEV is a module's way to say that this machine has nothing for it. */
	if (r < 0 && errno != EEXIST && errno != ENODEV) {
		bool cannot = packed && (errno == EINVAL || errno == EOPNOTSUPP);

		say("module ", path, ": ", strerror(errno),
		    cannot ? " (can this kernel unpack modules, CONFIG_MODULE_DECOMPRESS?)" : "");
	}
	if (fd >= 0)
		close(fd);
}

void modules_load(const char *section)
{
	char *list = file_read("/modules.list", 1 << 20, NULL), *next = list, *line;
	bool wanted = !section;

	while ((line = strsep(&next, "\n")))
		if (*line == '@')
			wanted = section && !strcmp(line + 1, section);
		else if (wanted && *line)
			module_load(line);
	free(list);
}
