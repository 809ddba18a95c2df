/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/gmem.h"

#define LOW 0x10000ull
#define HIGH 0x100000000ull
#define SIZE 0x4000ull

static int setup(void **state)
{
	struct gmem *gm;

	assert_int_equal(gmem_new(&gm, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(LOW), SIZE, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(HIGH), SIZE, NULL), 0);
	*state = gm;
	return 0;
}

static int teardown(void **state)
{
	gmem_free(*state);
	return 0;
}

static void what_is_written_is_read_back(void **state)
{
	struct gmem *gm = *state;
	char got[6];

	assert_int_equal(gmem_write(gm, gpa(HIGH + SIZE - 6), "hello", 6), 0);
	assert_int_equal(gmem_read(gm, gpa(HIGH + SIZE - 6), got, 6), 0);
	assert_string_equal(got, "hello");
}

static void an_access_outside_ram_fails_and_moves_nothing(void **state)
{
	struct gmem *gm = *state;
	char buf[8] = "keep";
	const struct {
		uint64_t at;
		size_t len;
	} bad[] = {
		{0, 1},
		{LOW - 1, 1},
		{LOW - 1, 2},
		{LOW + SIZE, 1},
		{LOW + SIZE - 1, 2},
		{HIGH + SIZE - 7, 8},
		{~0ull, 1},
		{~0ull - 3, 8},
		{HIGH, SIZE + 1},
		{LOW, (size_t)-1},
		{HIGH, ~0ull},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(gmem_ok(gm, gpa(bad[i].at), bad[i].len));
		assert_int_equal(gmem_read(gm, gpa(bad[i].at), buf, bad[i].len), -EFAULT);
		assert_int_equal(gmem_write(gm, gpa(bad[i].at), buf, bad[i].len), -EFAULT);
	}
	assert_string_equal(buf, "keep");
}

static void nothing_at_all_can_be_read_anywhere(void **state)
{
	char c = 'x';

	assert_int_equal(gmem_read(*state, gpa(~0ull), &c, 0), 0);
	assert_int_equal(gmem_write(*state, gpa(5), &c, 0), 0);
}

static void a_window_is_aligned_and_inside_ram(void **state)
{
	struct gmem *gm = *state;
	struct gwin w;

	assert_int_equal(gmem_window(gm, gpa(LOW + 2), 16, 4, &w), -EINVAL);
	assert_int_equal(gmem_window(gm, gpa(LOW + SIZE - 8), 16, 4, &w), -EFAULT);
	assert_int_equal(gmem_window(gm, gpa(LOW + 4), 16, 4, &w), 0);
	gwin_store16_release(&w, 6, 0x1234);
	gwin_store32(&w, 8, 0xdeadbeef);
	assert_int_equal(gwin_load16_acquire(&w, 6), 0x1234);
	assert_int_equal(gwin_load64(&w, 8) & UINT32_MAX, 0xdeadbeef);
	uint8_t raw[2];
	assert_int_equal(gmem_read(gm, gpa(LOW + 10), raw, 2), 0);
	assert_int_equal(raw[0], 0x34); /* little-endian */
}

static void regions_do_not_overlap(void **state)
{
	struct gmem *gm = *state;
	struct err e = {0};

	assert_int_equal(gmem_add(gm, gpa(LOW + SIZE - 4096), 8192, &e), -EEXIST);
	assert_int_equal(gmem_add(gm, gpa(LOW + 1), 4096, &e), -EINVAL);
	assert_int_equal(gmem_add(gm, gpa(0x40000), 0, &e), -EINVAL);
	assert_int_equal(gmem_add(gm, gpa(~0xfffull), 8192, &e), -EINVAL);
}

static void a_file_that_ends_early_is_an_error(void **state)
{
	struct gmem *gm = *state;
	struct err e = {0};
	FILE *f = tmpfile();
	char got[4];

	fputs("0123456789", f);
	fflush(f);
	assert_int_equal(gmem_load_file(gm, gpa(LOW + 3), &(struct gmem_file){fileno(f), 4, 4}, &e),
			 0);
	gmem_read(gm, gpa(LOW + 3), got, 4);
	assert_memory_equal(got, "4567", 4);
	assert_int_equal(gmem_load_file(gm, gpa(LOW), &(struct gmem_file){fileno(f), 4, 7}, &e),
			 -EIO);
	assert_non_null(strstr(e.text, "1 bytes early"));
	assert_int_equal(
		gmem_load_file(gm, gpa(LOW + SIZE), &(struct gmem_file){fileno(f), 0, 1}, &e),
		-EFAULT);
	fclose(f);
}

/* ------------------------------------------------------------- borrowed files */

#define PAGE 4096ull
#define LEN ((1ull << 20) + 100) /* of the file: not whole pages */
#define RAM (16ull << 20)

/* A file on tmpfs, which leases work on wherever the tests run, and memory it is loaded into. */
struct lent {
	char path[32];
	uint32_t want[LEN / 4];
	uint32_t got[LEN / 4];
	struct gmem *gm;
};

static int lent_setup(void **state)
{
	struct lent *l = calloc(1, sizeof(*l));
	sigset_t io;

	/* As gmem_may_borrow wants it; nobody reads it where no test waits for it. */
	sigemptyset(&io);
	sigaddset(&io, SIGIO);
	sigprocmask(SIG_BLOCK, &io, NULL);
	strcpy(l->path, "/dev/shm/mvm-gmem-XXXXXX");
	for (size_t i = 0; i < LEN / 4; i++)
		l->want[i] = (uint32_t)i * 2654435761u + 1;
	int fd = mkstemp(l->path);
	if (fd < 0 || write(fd, l->want, LEN) != (ssize_t)LEN)
		return -1;
	close(fd);
	*state = l;
	return 0;
}

static int lent_teardown(void **state)
{
	struct lent *l = *state;

	gmem_free(l->gm);
	unlink(l->path);
	free(l);
	return 0;
}

static struct gmem *memory(bool may_borrow)
{
	struct gmem *gm;

	assert_int_equal(gmem_new(&gm, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(0), RAM, NULL), 0);
	if (may_borrow)
		gmem_may_borrow(gm);
	return gm;
}

static void load(struct lent *l, uint64_t at, uint64_t off, uint64_t len)
{
	struct err e = {0};
	int fd = open(l->path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(gmem_load_file(l->gm, gpa(at), &(struct gmem_file){fd, off, len}, &e), 0);
	close(fd);
}

/* What is in memory from @at on is the file as it was, from @off on. */
static void assert_loaded(struct lent *l, uint64_t at, uint64_t off, uint64_t len)
{
	assert_int_equal(gmem_read(l->gm, gpa(at), l->got, len), 0);
	assert_memory_equal(l->got, (const uint8_t *)l->want + off, len);
}

/* Zeros around it: nothing of the file beyond what was asked for. */
static void assert_nothing_around(struct lent *l, uint64_t at, uint64_t len)
{
	uint8_t around[2 * PAGE], zero[2 * PAGE] = {0};

	assert_int_equal(gmem_read(l->gm, gpa(at - sizeof(around)), around, sizeof(around)), 0);
	assert_memory_equal(around, zero, sizeof(zero));
	assert_int_equal(gmem_read(l->gm, gpa(at + len), around, sizeof(around)), 0);
	assert_memory_equal(around, zero, sizeof(zero));
}

/* Every byte becomes another, and then there is none left. Waits for a lease. */
static void rewrite(struct lent *l)
{
	int fd = open(l->path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	memset(l->got, 0x5a, sizeof(l->got));
	assert_int_equal(write(fd, l->got, LEN), LEN);
	assert_int_equal(ftruncate(fd, 0), 0);
	close(fd);
}

/* Whether somebody could write to it without waiting. */
static bool is_free(const struct lent *l)
{
	int fd = open(l->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void a_loaded_file_that_is_rewritten_leaves_the_guest_alone(void **state)
{
	struct lent *l = *state;
	char got[5] = "";

	l->gm = memory(false);
	load(l, 4 * PAGE, 0, LEN);
	assert_false(gmem_borrows(l->gm));
	rewrite(l);
	assert_int_equal(gmem_read(l->gm, gpa(4 * PAGE + LEN - 4), got, 4), 0);
	assert_memory_equal(got, (const uint8_t *)l->want + LEN - 4, 4);
}

static void a_borrowed_file_is_as_good_as_a_copy(void **state)
{
	struct lent *l = *state;
	const struct {
		uint64_t off, len;
	} part[] = {
		{0, LEN},
		{0, 256 * PAGE}, /* whole pages */
		{100, LEN - 100},
		{4 * PAGE - 4, LEN - 5 * PAGE},
	};

	for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
		uint64_t at = (4 << 20) + part[i].off % PAGE;

		l->gm = memory(true);
		load(l, at, part[i].off, part[i].len);
		assert_true(gmem_borrows(l->gm));
		assert_loaded(l, at, part[i].off, part[i].len);
		assert_nothing_around(l, at, part[i].len);
		gmem_free(l->gm);
	}
	l->gm = NULL;
	assert_true(is_free(l));
}

static void two_parts_of_a_file_are_borrowed_together(void **state)
{
	struct lent *l = *state;

	l->gm = memory(true);
	load(l, 4 << 20, 0, 128 * PAGE);
	load(l, 8 << 20, 128 * PAGE, LEN - 128 * PAGE);
	assert_false(is_free(l));
	assert_int_equal(gmem_settle(l->gm, NULL), 0);
	assert_true(is_free(l));
	rewrite(l);
	assert_loaded(l, 4 << 20, 0, 128 * PAGE);
	assert_loaded(l, 8 << 20, 128 * PAGE, LEN - 128 * PAGE);
}

static void what_cannot_be_borrowed_is_copied(void **state)
{
	struct lent *l = *state;

	l->gm = memory(true);
	load(l, (4 << 20) + 1, 0, LEN); /* not on the same byte of a page */
	load(l, 8 << 20, 0, 16 * PAGE); /* too little */
	assert_false(gmem_borrows(l->gm));
	int fd = open(l->path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	load(l, 12 << 20, 0, LEN); /* somebody could be writing to it */
	close(fd);
	assert_false(gmem_borrows(l->gm));
	rewrite(l);
	assert_loaded(l, (4 << 20) + 1, 0, LEN);
	assert_loaded(l, 8 << 20, 0, 16 * PAGE);
	assert_loaded(l, 12 << 20, 0, LEN);
}

static void a_callers_own_buffer_is_copied_into(void **state)
{
	struct lent *l = *state;
	void *host = aligned_alloc(PAGE, 4 << 20);

	assert_int_equal(gmem_new(&l->gm, NULL), 0);
	gmem_may_borrow(l->gm);
	assert_int_equal(gmem_add_fixed(l->gm, gpa(0), 4 << 20, host, NULL), 0);
	load(l, 0, 0, LEN);
	assert_false(gmem_borrows(l->gm));
	assert_memory_equal(host, l->want, LEN);
	free(host);
}

static void a_borrowed_file_that_is_too_short_is_an_error(void **state)
{
	struct lent *l = *state;
	struct err e = {0};
	int fd = open(l->path, O_RDONLY | O_CLOEXEC);

	l->gm = memory(true);
	assert_int_equal(gmem_load_file(l->gm, gpa(0), &(struct gmem_file){fd, 0, LEN + 1}, &e),
			 -EIO);
	assert_int_equal(gmem_load_file(l->gm, gpa(0), &(struct gmem_file){fd, 0, LEN + PAGE}, &e),
			 -EIO);
	assert_int_equal(
		gmem_load_file(l->gm, gpa(0), &(struct gmem_file){fd, 1ull << 40, LEN}, &e), -EIO);
	close(fd);
}

static void what_the_guest_writes_does_not_reach_the_file(void **state)
{
	struct lent *l = *state;

	l->gm = memory(true);
	load(l, 4 << 20, 0, LEN);
	assert_int_equal(gmem_write(l->gm, gpa(4 << 20), l->got, LEN), 0); /* zeros */
	int fd = open(l->path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, l->got, LEN), LEN);
	assert_memory_equal(l->got, l->want, LEN);
	close(fd);
}

/* Pages the guest has written, pages it has only read, and pages it has not touched. */
static void settled_memory_outlives_the_file(void **state)
{
	struct lent *l = *state;
	const uint64_t at = 4 << 20;

	l->gm = memory(true);
	load(l, at, 0, LEN);
	for (uint64_t off = 0; off < LEN; off += 3 * PAGE) {
		l->want[off / 4] = 0xdeadbeef;
		assert_int_equal(gmem_write(l->gm, gpa(at + off), &l->want[off / 4], 4), 0);
	}
	for (uint64_t off = PAGE; off < LEN; off += 3 * PAGE)
		assert_int_equal(gmem_read(l->gm, gpa(at + off), l->got, 4), 0);
	assert_int_equal(gmem_settle(l->gm, NULL), 0);
	assert_false(gmem_borrows(l->gm));
	rewrite(l);
	assert_loaded(l, at, 0, LEN);
	assert_nothing_around(l, at, LEN);
	assert_int_equal(gmem_settle(l->gm, NULL), 0); /* nothing left to do */
}

/* The usual way: copied while the guest runs on, and writes. */
static void what_was_written_after_the_copy_was_made_stays(void **state)
{
	struct lent *l = *state;
	const uint64_t at = 4 << 20;
	const unsigned pages = LEN / PAGE;

	l->gm = memory(true);
	load(l, at, 0, LEN);
	for (unsigned round = 0; round < 2; round++) {
		/* Single pages and runs of them, the first and the last. */
		for (unsigned p = 0; p < pages; p++) {
			uint64_t off = p * PAGE + 8 * round;
			if (p % 5 == 0 || p == pages - 1 || (p > 100 && p < 110 + 80 * round)) {
				l->want[off / 4] = ~p;
				assert_int_equal(
					gmem_write(l->gm, gpa(at + off), &l->want[off / 4], 4), 0);
			}
		}
		if (!round)
			assert_int_equal(gmem_copy_borrowed(l->gm), 0);
		assert_loaded(l, at, 0, LEN);
	}
	assert_false(is_free(l));
	assert_int_equal(gmem_settle(l->gm, NULL), 0);
	assert_loaded(l, at, 0, LEN);
	rewrite(l);
	assert_loaded(l, at, 0, LEN);
	assert_nothing_around(l, at, LEN);
}

static void a_copy_that_is_not_used_goes_with_the_rest(void **state)
{
	struct lent *l = *state;

	l->gm = memory(true);
	load(l, 4 << 20, 0, LEN);
	assert_int_equal(gmem_copy_borrowed(l->gm), 0);
	assert_int_equal(gmem_copy_borrowed(l->gm), 0);
	gmem_free(l->gm);
	l->gm = NULL;
	assert_true(is_free(l));
}

static void a_writer_waits_until_memory_is_settled(void **state)
{
	struct lent *l = *state;
	sigset_t io;
	int status;

	l->gm = memory(true);
	load(l, 4 << 20, 0, LEN);
	pid_t child = fork();
	if (!child)
		_exit(open(l->path, O_WRONLY | O_TRUNC) < 0);
	sigemptyset(&io);
	sigaddset(&io, SIGIO);
	assert_int_equal(sigwaitinfo(&io, NULL), SIGIO);
	assert_int_equal(waitpid(child, &status, WNOHANG), 0);
	assert_loaded(l, 4 << 20, 0, LEN);
	assert_int_equal(gmem_settle(l->gm, NULL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_loaded(l, 4 << 20, 0, LEN);
}

/* What the kernel does to a process that was stopped for too long, and then the worst happens. */
static void a_lease_that_was_lost_is_an_error(void **state)
{
	struct lent *l = *state;
	struct err e = {0};

	for (int cut = 0; cut < 2; cut++) {
		int fd = open(l->path, O_RDONLY | O_CLOEXEC);

		l->gm = memory(true);
		assert_int_equal(gmem_load_file(l->gm, gpa(0), &(struct gmem_file){fd, 0, LEN}, &e),
				 0);
		assert_int_equal(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
		close(fd);
		if (cut)
			rewrite(l);
		assert_int_equal(gmem_settle(l->gm, &e), cut ? -EIO : -ESTALE);
		assert_non_null(strstr(e.text, "a borrowed file"));
		gmem_free(l->gm);
	}
	l->gm = NULL;
}

/* -------------------------------------------------------------- shared memory */

static void shared_memory_is_a_sealed_file_others_can_map(void **state)
{
	struct gmem *gm;
	const struct gmem_region *r;
	size_t n;
	char *other;

	(void)state;
	assert_int_equal(gmem_new(&gm, NULL), 0);
	gmem_share(gm);
	assert_int_equal(gmem_add(gm, gpa(LOW), SIZE, NULL), 0);
	assert_int_equal(gmem_add(gm, gpa(HIGH), SIZE, NULL), 0);
	r = gmem_regions(gm, &n);
	assert_int_equal(n, 2);
	assert_int_not_equal(r[0].fd, r[1].fd);
	/* Nobody who has the file can take pages away, grow it, or lift that. */
	assert_int_equal(fcntl(r[1].fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
			 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	assert_int_equal(ftruncate(r[1].fd, 0), -1);
	assert_int_equal(fcntl(r[1].fd, F_GETFD), FD_CLOEXEC);
	other = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, r[1].fd, 0);
	assert_ptr_not_equal(other, MAP_FAILED);
	assert_int_equal(gmem_write(gm, gpa(HIGH + 8), "hello", 6), 0);
	assert_string_equal(other + 8, "hello");
	memcpy(other, "back", 5);
	char got[5];
	assert_int_equal(gmem_read(gm, gpa(HIGH), got, 5), 0);
	assert_string_equal(got, "back");
	/* The file is open no more once the memory is gone. */
	int fd = r[1].fd;
	gmem_free(gm);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	munmap(other, SIZE);
}

static void shared_memory_that_goes_leaves_its_holders_nothing(void **state)
{
	const struct gmem_region *r;
	struct gmem *gm;
	struct stat st;
	size_t n;
	int fd;

	(void)state;
	assert_int_equal(gmem_new(&gm, NULL), 0);
	gmem_share(gm);
	assert_int_equal(gmem_add(gm, gpa(0), 4 << 20, NULL), 0);
	r = gmem_regions(gm, &n);
	fd = dup(r->fd);
	uint8_t *theirs = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	assert_ptr_not_equal(theirs, MAP_FAILED);
	memset(r->host, 0x5a, r->size);
	assert_int_equal(theirs[r->size - 1], 0x5a);
	gmem_free(gm);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(st.st_size, 4 << 20); /* and none of them gets a SIGBUS */
	assert_int_equal(theirs[(4 << 20) - 1], 0);
	munmap(theirs, 4 << 20);
	close(fd);
}

static void memory_that_is_not_shared_has_no_file(void **state)
{
	struct gmem *gm = *state;
	char buf[4096] __attribute__((aligned(4096)));
	const struct gmem_region *r;
	size_t n;

	assert_int_equal(gmem_add_fixed(gm, gpa(0x100000), 4096, buf, NULL), 0);
	r = gmem_regions(gm, &n);
	assert_int_equal(n, 3);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(r[i].fd, -1);
}

static void shared_memory_borrows_nothing(void **state)
{
	struct lent *l = *state;

	assert_int_equal(gmem_new(&l->gm, NULL), 0);
	gmem_share(l->gm);
	gmem_may_borrow(l->gm);
	assert_int_equal(gmem_add(l->gm, gpa(0), 16 << 20, NULL), 0);
	load(l, 4 << 20, 0, LEN);
	assert_false(gmem_borrows(l->gm));
	rewrite(l);
	assert_loaded(l, 4 << 20, 0, LEN);
}

#define LENT(test) cmocka_unit_test_setup_teardown(test, lent_setup, lent_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_written_is_read_back, setup, teardown),
		cmocka_unit_test_setup_teardown(an_access_outside_ram_fails_and_moves_nothing,
						setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_at_all_can_be_read_anywhere, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_window_is_aligned_and_inside_ram, setup,
						teardown),
		cmocka_unit_test_setup_teardown(regions_do_not_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_ends_early_is_an_error, setup,
						teardown),
		LENT(a_loaded_file_that_is_rewritten_leaves_the_guest_alone),
		LENT(a_borrowed_file_is_as_good_as_a_copy),
		LENT(two_parts_of_a_file_are_borrowed_together),
		LENT(what_cannot_be_borrowed_is_copied),
		LENT(a_callers_own_buffer_is_copied_into),
		LENT(a_borrowed_file_that_is_too_short_is_an_error),
		LENT(what_the_guest_writes_does_not_reach_the_file),
		LENT(settled_memory_outlives_the_file),
		LENT(what_was_written_after_the_copy_was_made_stays),
		LENT(a_copy_that_is_not_used_goes_with_the_rest),
		LENT(a_writer_waits_until_memory_is_settled),
		LENT(a_lease_that_was_lost_is_an_error),
		cmocka_unit_test(shared_memory_is_a_sealed_file_others_can_map),
		cmocka_unit_test(shared_memory_that_goes_leaves_its_holders_nothing),
		cmocka_unit_test_setup_teardown(memory_that_is_not_shared_has_no_file, setup,
						teardown),
		LENT(shared_memory_borrows_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
