/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "vmm/log.h"

#define SECTOR 512u

/* Before it is opened: opening a FIFO or a device can block or do something. */
static int check_type(const struct stat *st, const char *path, struct err *e)
{
	const char *what = "neither a file nor a block device";

	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	if (S_ISDIR(st->st_mode))
		what = "a directory";
	else if (S_ISFIFO(st->st_mode))
		what = "a FIFO";
	else if (S_ISCHR(st->st_mode))
		what = "a character device";
	else if (S_ISSOCK(st->st_mode))
		what = "a socket";
	return err_msg(e, S_ISDIR(st->st_mode) ? -EISDIR : -EINVAL, "%s is %s, not a disk image",
		       path, what);
}

static int open_failed(const struct disk_config *c, bool direct, struct err *e)
{
	int why = errno;

	if (!c->readonly && (why == EROFS || why == EACCES || why == EPERM)) {
		int fd = open(c->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

		if (fd >= 0) {
			int ro = why == EROFS;

			/* A block device that takes no writes says EACCES, too. */
			ioctl(fd, BLKROGET, &ro);
			close(fd);
			if (!ro)
				return err_msg(e, -why,
					       "no permission to write %s (readonly=on reads only)",
					       c->path);
			return err_msg(e, -why, "%s is read-only: add readonly=on", c->path);
		}
	}
	if (direct && why == EINVAL)
		return err_msg(e, -why, "%s: its file system has no direct I/O: use direct=off",
			       c->path);
	if (why == EBUSY)
		return err_msg(e, -why, "%s is in use by the host (mounted?)", c->path);
	errno = why;
	return err_sys(e, "open %s", c->path);
}

static int open_fd(const struct disk_config *c, bool direct, const struct stat *st, struct err *e)
{
	int flags = (c->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;
	struct stat now;

	if (direct)
		flags |= O_DIRECT;
	/* A block device that is written to must not be mounted; its second descriptor knows. */
	if (S_ISBLK(st->st_mode) && !c->readonly && direct == c->direct)
		flags |= O_EXCL;
	int fd = open(c->path, flags);

	if (fd < 0)
		return open_failed(c, direct, e);
	if (fstat(fd, &now) < 0 || now.st_dev != st->st_dev || now.st_ino != st->st_ino) {
		close(fd);
		return err_msg(e, -ESTALE, "%s was replaced while it was opened", c->path);
	}
	return fd;
}

/* A limit of a block device's queue, from sysfs; a partition's queue is its disk's. */
static bool queue_limit(dev_t dev, const char *name, unsigned long long *ret)
{
	static const char *const where[] = {"queue", "../queue"};
	char path[100];

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(dev), minor(dev),
			 where[i], name);
		FILE *f = fopen(path, "re");

		if (!f)
			continue;
		bool found = fscanf(f, "%llu", ret) == 1;

		fclose(f);
		return found;
	}
	return false;
}

/*
 * A request beyond its queue's limits is split by the kernel, which refuses to do that under
 * RWF_NOWAIT. A segment is a page at least. Unknown (a network file system, a pool of several
 * devices) is no limit: then the kernel's EAGAIN tells.
 */
static uint32_t whole_max(dev_t dev)
{
	unsigned long long kib, segments, max = UINT32_MAX;

	if (queue_limit(dev, "max_sectors_kb", &kib) && kib < max / 1024)
		max = kib * 1024;
	if (queue_limit(dev, "max_segments", &segments) && segments < max / 4096)
		max = segments * 4096;
	return (uint32_t)max;
}

static int measure_block(struct image_file *f, const struct stat *st)
{
	unsigned physical = SECTOR, io_min = 0, io_opt = 0;
	unsigned long long discard;
	int logical = SECTOR;
	uint64_t size;

	if (ioctl(f->fd, BLKGETSIZE64, &size) < 0)
		return -errno;
	ioctl(f->fd, BLKPBSZGET, &physical);
	ioctl(f->fd, BLKSSZGET, &logical);
	ioctl(f->fd, BLKIOMIN, &io_min);
	ioctl(f->fd, BLKIOOPT, &io_opt);
	f->block = true;
	f->size = size;
	f->physical = physical;
	f->io_min = io_min;
	f->io_opt = io_opt;
	if (f->direct) {
		f->mem_align = f->off_align = (uint32_t)logical;
		f->whole_max = whole_max(st->st_rdev);
	}
	f->can_discard = queue_limit(st->st_rdev, "discard_max_bytes", &discard) && discard;
	return 0;
}

/* Punching behind the end changes nothing and tells whether the file system can. */
static bool file_discards(const struct image_file *f)
{
	uint64_t at = (f->size + (1 << 20)) & ~(uint64_t)0xfffff;

	return !fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, 4096);
}

static void measure_file(struct image_file *f, const struct stat *st, bool readonly)
{
	f->size = (uint64_t)st->st_size;
	f->physical = (uint32_t)st->st_blksize;
	if (f->direct) {
		struct statx sx;

		/* Where the kernel cannot say, a page satisfies every file system. */
		f->mem_align = f->off_align = 4096;
		f->whole_max = whole_max(st->st_dev);
		if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) &&
		    (sx.stx_mask & STATX_DIOALIGN) && sx.stx_dio_offset_align) {
			f->mem_align = sx.stx_dio_mem_align;
			f->off_align = sx.stx_dio_offset_align;
		}
	}
	f->can_discard = !readonly && file_discards(f);
}

static int measure(struct image_file *f, const struct disk_config *c, struct err *e)
{
	struct stat st;
	int r = 0;

	if (fstat(f->fd, &st) < 0)
		return err_sys(e, "%s", c->path);
	if (S_ISBLK(st.st_mode))
		r = measure_block(f, &st);
	else
		measure_file(f, &st, c->readonly);
	if (r < 0) {
		errno = -r;
		return err_sys(e, "size of %s", c->path);
	}
	if (!f->size)
		return err_msg(e, -EINVAL, "%s is empty: a disk needs at least 512 bytes", c->path);
	if (f->size < SECTOR)
		return err_msg(e, -EINVAL, "%s has only %llu bytes: a disk needs at least 512",
			       c->path, (unsigned long long)f->size);
	if (f->size % SECTOR)
		log_warn("%s %s: its size, %llu bytes, is not a multiple of 512: the guest does "
			 "not see the last %u byte%s",
			 config_disk_option(c), c->path, (unsigned long long)f->size,
			 (unsigned)(f->size % SECTOR), f->size % SECTOR == 1 ? "" : "s");
	f->size -= f->size % SECTOR;
	/* What does not fit virtio's exponent of 512 (section 5.2.4) is no use to a guest. */
	if (f->physical < SECTOR || f->physical > (1u << 20) || (f->physical & (f->physical - 1)))
		f->physical = 4096;
	return 0;
}

int image_file_open(struct image_file *f, const struct disk_config *c, struct err *e)
{
	struct stat st;
	int r;

	*f = (struct image_file){.fd = -1, .cached = -1, .direct = c->direct};
	f->mem_align = f->off_align = 1;
	if (stat(c->path, &st) < 0)
		return err_sys(e, "open %s", c->path);
	if ((r = check_type(&st, c->path, e)) < 0)
		return r;
	r = f->fd = open_fd(c, c->direct, &st, e);
	if (r >= 0)
		r = f->cached = c->direct ? open_fd(c, false, &st, e) : f->fd;
	if (r >= 0)
		r = image_lock(f->fd, c->path, c->readonly, e);
	if (r >= 0)
		r = measure(f, c, e);
	if (r < 0)
		image_file_close(f);
	return r < 0 ? r : 0;
}

void image_file_close(struct image_file *f)
{
	if (f->cached >= 0 && f->cached != f->fd)
		close(f->cached);
	if (f->fd >= 0)
		close(f->fd);
	f->fd = f->cached = -1;
}
