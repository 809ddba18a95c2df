/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "guest/fsmagic.h"

#define MAGIC_RAMFS 0x858458f6
#define MAGIC_TMPFS 0x01021994

/* How to mount what has a journal to replay on a device that takes no writes. */
static const struct {
	const char *type, *option;
} unreplayed[] = {
	{"ext4", "noload"},
	{"ext3", "noload"},
	{"xfs", "norecovery"},
	{"btrfs", "rescue=nologreplay"},
};

/* The root directory of an overlay is the upper layer's: owner and permissions as below. */
static void copy_mode(const char *from, const char *to)
{
	struct stat st;

	if (stat(from, &st) || chown(to, st.st_uid, st.st_gid) || chmod(to, st.st_mode & 07777))
		say("the root directory is not like that below: ", strerror(errno));
}

static int mount_unreplayed(const char *dev, const char *type, const char *flags)
{
	char all[512] = "";
	const char *option = NULL;

	for (size_t i = 0; i < sizeof(unreplayed) / sizeof(unreplayed[0]); i++)
		if (!strcmp(type, unreplayed[i].type))
			option = unreplayed[i].option;
	if (!option || (flags && strlen(flags) + strlen(option) + 2 > sizeof(all)))
		return -1;
	if (flags && *flags) {
		strcpy(all, flags);
		strcat(all, ",");
	}
	strcat(all, option);
	if (mount(dev, "/root", type, MS_RDONLY, all)) {
		errno = EROFS;
		return -1;
	}
	say("the root ", dev, " was not cleanly unmounted and cannot be written: mounted with ",
	    option, ", as of its last checkpoint");
	return 0;
}

static int mount_as(const char *dev, const char *type, const struct options *o)
{
	if (!mount(dev, "/root", type, o->rw ? 0 : MS_RDONLY, o->flags))
		return 0;
	if (o->rw && (errno == EACCES || errno == EROFS) &&
	    !mount(dev, "/root", type, MS_RDONLY, o->flags))
		return 0;
	return errno == EROFS ? mount_unreplayed(dev, type, o->flags) : -1;
}

static int mount_type(const char *dev, const char *type, const struct options *o)
{
	modules_load(type);
	if (!mount_as(dev, type, o))
		return 0;
	/* A kernel without ext4 may have a driver for the older forms. */
	if (errno == ENODEV && !strcmp(type, "ext4")) {
		if (!mount_as(dev, "ext3", o) || !mount_as(dev, "ext2", o))
			return 0;
		errno = ENODEV;
	}
	return -1;
}

static const char *probe(const char *dev)
{
	const struct fsmagic *m;
	char names[200];
	int fd = open(dev, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		die("cannot read the root ", dev, ": ", strerror(errno));
	m = fsmagic_probe(fd);
	close(fd);
	if (m)
		return m->name;
	disk_names(names, sizeof(names));
	die("no ext4, btrfs, xfs, erofs or squashfs on the root ", dev,
	    " (if it has partitions, name the right one with --cmdline root=DEVICE; there are",
	    *names ? names : " none", ")");
}

static void disk_mount(const struct options *o)
{
	const char *root = o->root ? o->root : "/dev/vda";
	char dev[280], types[128] = "", *next = types, *type;

	if (!o->root && access(root, F_OK) < 0)
		die("there is no root file system: give mvm --rootfs IMAGE, or --disk IMAGE and "
		    "--cmdline root=DEVICE");
	if (!disk_wait(root, dev, sizeof(dev))) {
		char names[200];

		disk_names(names, sizeof(names));
		die("the root ", root, " did not appear within " DISK_WAIT_S " s; block devices:",
		    *names ? names : " none");
	}
	strncpy(types, o->fstype ? o->fstype : probe(dev), sizeof(types) - 1);
	while ((type = strsep(&next, ","))) {
		if (!mount_type(dev, type, o))
			return;
		say("cannot mount the root ", dev, " as ", type, ": ", strerror(errno),
		    errno == ENODEV ? " (this kernel has no such file system)" : "");
	}
	die("the root ", dev, " could not be mounted");
}

/*
 * The root becomes the lower layer of an overlay, whose upper one is in memory. Renamed
 * directories are marked in the upper layer (redirect_dir): without, rename() says EXDEV for
 * what is below. The other features need file handles of the lower file system that stay good.
 */
static void overlay_mount(unsigned long flags)
{
	static const char layers[] = "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work";
	char all[128];

	strcpy(all, layers);
	strcat(all, ",redirect_dir=on,index=off,metacopy=off");
	mkdir("/lower", 0755);
	mkdir("/upper", 0755);
	if (mount("/root", "/lower", NULL, MS_MOVE, NULL) ||
	    mount("tmpfs", "/upper", "tmpfs", 0, "mode=755") || mkdir("/upper/data", 0755) ||
	    mkdir("/upper/work", 0755))
		die("cannot prepare the overlay on the root: ", strerror(errno));
	copy_mode("/lower", "/upper/data");
	/* A kernel that does not know one of the words (before 4.19) has its own choice. */
	if (mount("overlay", "/root", "overlay", flags, all) &&
	    (errno != EINVAL || mount("overlay", "/root", "overlay", flags, layers)))
		die("cannot mount an overlay on the root, which mvm.overlay asks for: ",
		    strerror(errno),
		    errno == ENODEV ? " (this kernel has no overlayfs, CONFIG_OVERLAY_FS)" : "");
	/* It holds on to both by itself. */
	umount2("/lower", MNT_DETACH);
	umount2("/upper", MNT_DETACH);
}

void root_mount(const struct options *o)
{
	struct options below = *o;

	/* No layer below an overlay is ever written. */
	below.rw = o->rw && !o->overlay;
	mkdir("/root", 0755);
	if (share_tag(o))
		share_mount(share_tag(o), &below);
	else
		disk_mount(&below);
	if (o->overlay)
		overlay_mount(o->rw ? 0 : MS_RDONLY);
}

/* Removes what is below fd on its own file system; closes fd. */
static void empty(int fd, dev_t dev)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;
	struct stat st;

	if (!d) {
		close(fd);
		return;
	}
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != dev)
			continue;
		if (S_ISDIR(st.st_mode)) {
			int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			if (sub >= 0)
				empty(sub, dev);
		}
		unlinkat(dirfd(d), e->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
	}
	closedir(d);
}

static void move(const char *from, const char *to)
{
	if (access(to, F_OK) < 0)
		mkdir(to, 0755);
	if (mount(from, to, NULL, MS_MOVE, NULL) < 0) {
		say("the root has no place for ", from, ": ", strerror(errno));
		umount2(from, MNT_DETACH);
	}
}

void root_switch(void)
{
	int old = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs;
	struct stat st;

	move("/dev", "/root/dev");
	move("/proc", "/root/proc");
	move("/sys", "/root/sys");
	/* Only ever the initramfs: this must not run over a disk. */
	if (old >= 0 && !fstatfs(old, &fs) && !fstat(old, &st) &&
	    ((uint32_t)fs.f_type == MAGIC_RAMFS || (uint32_t)fs.f_type == MAGIC_TMPFS))
		empty(old, st.st_dev);
	if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		die("cannot switch to the root: ", strerror(errno));
}
