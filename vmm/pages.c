/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define HUGE (2ull << 20)

/* Address space of @size bytes that lies within a huge page as @like does. */
static uint8_t *reserve(uint64_t size, const void *like)
{
	uint64_t span = size + HUGE;
	uint8_t *p = mmap(NULL, span, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	uint8_t *at = p + (((uintptr_t)like - (uintptr_t)p) & (HUGE - 1));
	if (at > p)
		munmap(p, (size_t)(at - p));
	if (p + span > at + size)
		munmap(at + size, (size_t)(p + span - (at + size)));
	return at;
}

static void advise(void *at, uint64_t size)
{
	madvise(at, size, MADV_HUGEPAGE); /* a hint: refused where THP is not built in */
	madvise(at, size, MADV_DONTFORK);
}

void *pages_map(uint64_t size, const void *like)
{
	void *at = reserve(size, like);

	if (at)
		advise(at, size);
	return at;
}

static int shared_file(uint64_t size)
{
	int fd = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -1;
	/* Whoever has the file could cut it, and what we then touch would be a SIGBUS. */
	if (ftruncate(fd, (off_t)size) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		return fd;
	close(fd);
	return -1;
}

void *pages_map_shared(uint64_t size, int *ret_fd)
{
	int fd = shared_file(size);
	void *at = fd < 0 ? NULL : reserve(size, NULL);

	if (at && mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd,
		       0) == MAP_FAILED) {
		munmap(at, size);
		at = NULL;
	}
	if (!at) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	advise(at, size);
	*ret_fd = fd;
	return at;
}

/* -------------------------------------------------------------- leases */

/* File systems whose files nobody changes but through this host's kernel, which asks the lease. */
static bool is_local(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	switch ((unsigned long)fs.f_type) {
	case EXT4_SUPER_MAGIC: /* ext2 and ext3, too */
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
	case EROFS_SUPER_MAGIC_V1:
	case SQUASHFS_MAGIC:
		return true;
	default:
		return false;
	}
}

/*
 * One lease a file is enough, whichever descriptor it is on. It belongs to what
 * the descriptor stands for and ends when the last one for it is closed: so
 * one is kept, and returned. -1: refused, as it is while somebody has the file open for writing
 * (EAGAIN), to those who do not own it (EACCES, but for CAP_LEASE), and where there are none
 * (EINVAL).
 */
static int lease_take(struct pages_lent *l, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	for (unsigned i = 0; i < l->nfiles; i++)
		if (l->file[i].dev == st.st_dev && l->file[i].ino == st.st_ino)
			return l->file[i].fd;
	if (l->nfiles == PAGES_FILES_MAX)
		return -1;
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return -1;
	if (fcntl(own, F_SETLEASE, F_RDLCK) < 0) {
		close(own);
		return -1;
	}
	l->file[l->nfiles++] = (struct pages_file){own, st.st_dev, st.st_ino};
	return own;
}

/* False: the kernel had taken it away. */
static bool lease_give_back(const struct pages_file *f)
{
	bool held = fcntl(f->fd, F_SETLEASE, F_UNLCK) == 0;

	close(f->fd);
	return held;
}

/* -------------------------------------------------------------- pieces */

static bool may_borrow(const struct pages_lent *l, const void *at, const struct pages_part *f)
{
	uint64_t page = (uint64_t)getpagesize();

	return f->len >= PAGES_BORROW_MIN && l->npieces < PAGES_PIECES_MAX &&
	       ((uintptr_t)at | f->off | f->len) % page == 0 && is_local(f->fd);
}

/* Through the kernel: where a file was cut after its lease was lost that is EFAULT, no SIGBUS. */
static int move(struct iovec to, struct iovec from)
{
	while (to.iov_len) {
		ssize_t n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);

		if (n <= 0)
			return n < 0 ? -errno : -EFAULT;
		to = (struct iovec){(char *)to.iov_base + n, to.iov_len - (size_t)n};
		from = (struct iovec){(char *)from.iov_base + n, from.iov_len - (size_t)n};
	}
	return 0;
}

/* Settling needs it; a host may refuse it (no CROSS_MEMORY_ATTACH, a filter on system calls). */
static bool can_move(void)
{
	char from = 1, to = 0;

	return move((struct iovec){&to, 1}, (struct iovec){&from, 1}) == 0;
}

bool pages_borrow(struct pages_lent *l, void *at, const struct pages_part *f)
{
	struct stat st;
	int fd = may_borrow(l, at, f) && can_move() ? lease_take(l, f->fd) : -1;

	/* Under the lease its size stays. Pages beyond the end would fault. */
	if (fd < 0 || fstat(fd, &st) < 0 || f->off > (uint64_t)st.st_size ||
	    f->len > (uint64_t)st.st_size - f->off)
		return false;
	const int how = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
	if (mmap(at, f->len, PROT_READ | PROT_WRITE, how, fd, (off_t)f->off) == MAP_FAILED) {
		/* What was there may be gone. */
		mmap(at, f->len, PROT_READ | PROT_WRITE, how | MAP_ANONYMOUS, -1, 0);
		madvise(at, f->len, MADV_DONTFORK);
		return false;
	}
	madvise(at, f->len, MADV_DONTFORK);
	l->piece[l->npieces++] =
		(struct pages_piece){.at = {at, f->len}, .from = {fd, f->off, f->len}};
	return true;
}

static int read_all(void *to, const struct pages_part *f)
{
	for (uint64_t done = 0; done < f->len;) {
		ssize_t n = pread(f->fd, (char *)to + done, f->len - done, (off_t)(f->off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (uint64_t)n;
	}
	return 0;
}

static int piece_copy(struct pages_piece *p)
{
	if (p->copy)
		return 0;

	void *own = pages_map(p->at.iov_len, p->at.iov_base);
	if (!own)
		return -errno;
	int r = read_all(own, &p->from);
	if (r < 0)
		munmap(own, p->at.iov_len);
	else
		p->copy = own;
	return r;
}

int pages_copy(struct pages_lent *l)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < l->npieces; i++)
		r = piece_copy(&l->piece[i]);
	return r;
}

/*
 * Documentation/admin-guide/mm/pagemap.rst. What a private mapping has of its
 * file is not writable: a page that is the file's, or not there, was not written.
 */
#define PM_FILE (1ull << 61)
#define PM_SWAPPED (1ull << 62)
#define PM_PRESENT (1ull << 63)
#define PM_BATCH 512

static bool was_written(uint64_t entry)
{
	return entry & PM_SWAPPED || (entry & (PM_PRESENT | PM_FILE)) == PM_PRESENT;
}

/* The entries of the @n pages from @at on; without /proc each counts as written. */
static void look_up(int pagemap, const char *at, size_t n, uint64_t *entry)
{
	off_t off = (off_t)((uintptr_t)at / (size_t)getpagesize() * sizeof(*entry));
	ssize_t want = (ssize_t)(n * sizeof(*entry));

	if (pread(pagemap, entry, (size_t)want, off) == want)
		return;
	for (size_t i = 0; i < n; i++)
		entry[i] = PM_PRESENT;
}

/* Brings into the copy what was written since the file was borrowed. */
static int piece_update(const struct pages_piece *p, int pagemap)
{
	const size_t page = (size_t)getpagesize(), n = p->at.iov_len / page;
	uint64_t entry[PM_BATCH];
	int r = 0;

	for (size_t i = 0, end; r == 0 && i < n; i = end) {
		size_t first = i - i % PM_BATCH;

		if (i == first)
			look_up(pagemap, (char *)p->at.iov_base + i * page,
				n - i < PM_BATCH ? n - i : PM_BATCH, entry);
		for (end = i; end < n && end < first + PM_BATCH && was_written(entry[end - first]);)
			end++;
		if (end > i)
			r = move((struct iovec){(char *)p->copy + i * page, (end - i) * page},
				 (struct iovec){(char *)p->at.iov_base + i * page,
						(end - i) * page});
		else
			end++;
	}
	return r;
}

static int piece_settle(struct pages_piece *p, int pagemap)
{
	int r = piece_copy(p);

	if (r == 0)
		r = piece_update(p, pagemap);
	if (r == 0 && mremap(p->copy, p->at.iov_len, p->at.iov_len, MREMAP_MAYMOVE | MREMAP_FIXED,
			     p->at.iov_base) == MAP_FAILED)
		r = -errno;
	if (r == 0)
		p->copy = NULL;
	return r;
}

static bool give_all_back(struct pages_lent *l)
{
	bool held = true;

	for (unsigned i = 0; i < l->npieces; i++)
		if (l->piece[i].copy)
			munmap(l->piece[i].copy, l->piece[i].at.iov_len);
	for (unsigned i = 0; i < l->nfiles; i++)
		held &= lease_give_back(&l->file[i]);
	l->npieces = l->nfiles = 0;
	return held;
}

int pages_settle(struct pages_lent *l, struct err *e)
{
	int r = 0, pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	for (unsigned i = 0; r == 0 && i < l->npieces; i++)
		r = piece_settle(&l->piece[i], pagemap);
	if (pagemap >= 0)
		close(pagemap);
	/* What was copied before a lease is given back was copied under it. */
	bool held = give_all_back(l);
	if (r < 0)
		return err_msg(e, r, "copy of a borrowed file: %s", strerror(-r));
	return held ? 0
		    : err_msg(e, -ESTALE,
			      "a borrowed file was changed before it was copied: its lease had "
			      "run out");
}

void pages_return(struct pages_lent *l)
{
	give_all_back(l);
}
