/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images that are handed over by mistake. A look at the first bytes serves to refuse
 * them, never to choose how they are read: a guest writes what it likes there.
 */
#include "virtio/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const struct {
	unsigned off, len;
	const char *magic, *name;
} foreign[] = {
	{0, 4, "QFI\xfb", "qcow2"},
	{0, 4, "KDMV", "vmdk"},
	{0, 4, "COWD", "vmdk"},
	{0, 21, "# Disk DescriptorFile", "vmdk"},
	{0, 8, "vhdxfile", "vhdx"},
	{0, 8, "conectix", "vhd"},
	{0x40, 4, "\x7f\x10\xda\xbe", "vdi"},
	{0, 4, "QED\0", "qed"},
};

int image_looks_raw(const char *path, struct err *e)
{
	char head[0x44] = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof(head), 0);

	if (fd >= 0)
		close(fd);
	for (size_t i = 0; n == (ssize_t)sizeof(head) && i < sizeof(foreign) / sizeof(foreign[0]);
	     i++)
		if (!memcmp(head + foreign[i].off, foreign[i].magic, foreign[i].len))
			return err_msg(
				e, -EINVAL,
				"%s is a %s image, and only raw ones are supported: "
				"qemu-img convert -O raw %s NEW (or add format=raw to use it "
				"as it is)",
				path, foreign[i].name, path);
	return 0;
}
