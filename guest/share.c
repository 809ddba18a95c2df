/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root that the host shares by virtio-fs: root=virtiofs:TAG, or rootfstype=virtiofs
 * and root=TAG, as the kernel itself and dracut spell it.
 */
#include "guest/init.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>

const char *share_tag(const struct options *o)
{
	static const char prefix[] = "virtiofs:";

	if (!o->root)
		return NULL;
	if (!strncmp(o->root, prefix, sizeof(prefix) - 1))
		return o->root + sizeof(prefix) - 1;
	return o->fstype && !strcmp(o->fstype, "virtiofs") ? o->root : NULL;
}

void share_mount(const char *tag, const struct options *o)
{
	const char *why = "";

	/* EINVAL is "no such tag"; its device may still be on its way. 100 × 20 ms: two seconds. */
	for (unsigned i = 0; i < 100; i++) {
		if (!mount(tag, "/root", "virtiofs", o->rw ? 0 : MS_RDONLY, o->flags))
			return;
		if (errno != EINVAL)
			break;
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
	if (errno == ENODEV)
		why = " (this kernel has no virtiofs, CONFIG_VIRTIO_FS)";
	else if (errno == EINVAL)
		why = " (mvm shares no directory of this tag, or rootflags= is wrong)";
	die("cannot mount the root virtiofs:", tag, ": ", strerror(errno), why);
}
