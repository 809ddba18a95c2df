/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What boot/ reads besides kernels: the start of a disk image (first byte even),
 * or the index files of a module directory (odd), separated by form feeds.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot/initramfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void image(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, data, size) == (ssize_t)size)
		fs_probe(fd);
	close(fd);
}

static void modules(const uint8_t *data, size_t size)
{
	static const char *const want[] = {"a", "!b", "virtio_blk", "btrfs", NULL};
	char *text = strndup((const char *)data, size), *next = text;
	struct modtexts x;
	struct modtree *t;
	struct modlist m;

	x.dep = strsep(&next, "\f");
	x.builtin = strsep(&next, "\f");
	x.softdep = strsep(&next, "\f");
	x.alias = strsep(&next, "\f");
	if (!modtree_parse(&t, &x, NULL)) {
		if (!modtree_resolve(t, want, &m, NULL)) {
			for (size_t i = 0; i < m.n; i++)
				if (*m.path[i] == '/' || strstr(m.path[i], "/../") ||
				    !strncmp(m.path[i], "../", 3) || strchr(m.path[i], '\n'))
					abort();
			modlist_fini(&m);
		}
		modtree_free(t);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] & 1)
		modules(data + 1, size - 1);
	else
		image(data + 1, size - 1);
	return 0;
}
