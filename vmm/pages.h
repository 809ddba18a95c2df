/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's pages behind guest memory: anonymous ones that huge pages can
 * back, and pages of files that are borrowed at first and copied while the guest
 * already runs.
 *
 * A private mapping of a file costs next to nothing. By itself it is not safe: what
 * somebody writes to the file shows through in pages that were not written
 * here, and truncating the file takes away even those that were. So a file is
 * borrowed under a read lease (fcntl(2), F_SETLEASE) or not at all. Whoever
 * opens it for writing or truncates it then waits in the host's kernel, and this
 * process gets SIGIO. It has to settle without delay: copies take the place of
 * the borrowed pieces, the leases are given back, and the other goes on.
 *
 * It does not stay borrowed until then. The host's nested page tables hold such memory in
 * pages of 4 KiB, and the guest leaves for the host at each when it touches
 * it first, and again when it first writes to it: a Linux kernel would start with three times
 * the exits. So the copies are made right after the start, by another thread:
 * that needs nobody to stand still, because under the lease the file's content
 * stays. What the guest wrote meanwhile is added when all stands still.
 *
 * The kernel waits /proc/sys/fs/lease-break-time seconds (45) and then takes
 * the lease away. A process that was stopped for that long finds out in
 * pages_settle(): it fails, and what was in memory is not to be trusted.
 *
 * A lease keeps nobody out who changes the file past this host's file system.
 * Where that is how things are done (network file systems, FUSE and virtiofs,
 * the layers below an overlay) nothing is borrowed: only local file systems,
 * known by their magic numbers, are.
 *
 * A struct pages_lent belongs to one thread, but for pages_copy(); the leases
 * send SIGIO to the process, which blocks it and reads it from a signalfd.
 */
#ifndef VMM_PAGES_H
#define VMM_PAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "vmm/err.h"

#define PAGES_PIECES_MAX 8
#define PAGES_FILES_MAX 4
/* Below this a copy is cheaper than a mapping. */
#define PAGES_BORROW_MIN (256ull << 10)

struct pages_file { /* under a lease */
	int fd;
	dev_t dev;
	ino_t ino;
};

struct pages_part { /* of a file opened for reading */
	int fd;
	uint64_t off, len; /* bytes */
};

struct pages_piece {
	struct iovec at;
	struct pages_part from;
	void *copy; /* NULL: not made yet */
};

struct pages_lent { /* zeros: nothing */
	struct pages_piece piece[PAGES_PIECES_MAX];
	unsigned npieces;
	struct pages_file file[PAGES_FILES_MAX];
	unsigned nfiles;
};

/*
 * Zeroed private memory that no child inherits; NULL and errno. It begins on a
 * huge page or, with @like, as far into one as @like does: then it can be moved
 * there in whole huge pages.
 */
void *pages_map(uint64_t size, const void *like);
/* The same as a file that others can map too, which stays at this size; *ret_fd is the caller's. */
void *pages_map_shared(uint64_t size, int *ret_fd);

/*
 * Puts the whole pages @f in the place of those mapped at @at. False, and nothing was
 * done: they cannot be borrowed, or it would not pay. The file's descriptor may be
 * closed afterwards.
 */
bool pages_borrow(struct pages_lent *l, void *at, const struct pages_part *f);

/*
 * Makes the copies, from the files: any one thread, while the memory is in
 * use, but not during the other calls. 0 or a negative errno; pages_settle() then tries again.
 */
int pages_copy(struct pages_lent *l);

/*
 * Puts the copies, made now if there are none, in the place of all that is
 * borrowed, and gives the leases back. Nobody may use that memory meanwhile,
 * neither this program nor the host's kernel for it (a read that is in flight, say).
 * -ESTALE: a lease was lost before, so the content may be another's;
 * -ENOMEM, -EIO, -EFAULT.
 */
int pages_settle(struct pages_lent *l, struct err *e);

/* Gives the leases back; the pieces were unmapped before. */
void pages_return(struct pages_lent *l);

#endif
