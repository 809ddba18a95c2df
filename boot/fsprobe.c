/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/initramfs.h"

#include "guest/fsmagic.h"

const char *fs_probe(int fd)
{
	const struct fsmagic *m = fsmagic_probe(fd);

	return m ? m->name : NULL;
}
