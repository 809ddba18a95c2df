/* SPDX-License-Identifier: Apache-2.0 */
/* Disk images on real files: opening, locks, and every operation with and without O_DIRECT. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "tests/unit/disk_file.h"
#include "virtio/image.h"

#define SIZE (8u << 20)
#define REQS 64

struct fixture {
	struct disk_file file;
	struct disk_config c;
	struct loop *loop;
	struct workers *w;
	struct image *im;
	struct err e;
	uint8_t *mem; /* SIZE bytes, page-aligned */
	struct image_req req[REQS];
	struct iovec iov[REQS][8];
	int res[REQS];
	unsigned done, batches;
	unsigned order[REQS]; /* of completion */
};

static void on_done(void *arg, struct image_req *r, int err)
{
	struct fixture *f = arg;

	f->res[r - f->req] = err;
	f->order[f->done++ % REQS] = (unsigned)(r - f->req);
}

static void on_batch(void *arg)
{
	((struct fixture *)arg)->batches++;
}

static int open_it(struct fixture *f, struct image **ret)
{
	struct image_env env = {
		.loop = f->loop,
		.workers = f->w,
		.owner = {on_done, on_batch, f},
	};

	return image_open(ret, &f->c, &env, &f->e);
}

static struct fixture *begin(uint64_t size)
{
	struct fixture *f = calloc(1, sizeof(*f));

	disk_file_init(&f->file, size);
	f->c.path = f->file.path;
	f->mem = aligned_alloc(4096, SIZE);
	memset(f->mem, 0xee, SIZE);
	assert_int_equal(loop_new(&f->loop, "test", NULL), 0);
	assert_int_equal(workers_new(&f->w, 4, NULL), 0);
	return f;
}

static struct fixture *begin_open(bool direct)
{
	struct fixture *f = begin(SIZE);

	f->c.direct = direct;
	if (open_it(f, &f->im))
		fail_msg("%s", f->e.text);
	return f;
}

static void end(struct fixture *f)
{
	image_free(f->im);
	workers_free(f->w);
	loop_free(f->loop);
	disk_file_fini(&f->file);
	free(f->mem);
	free(f);
}

/* Request @i over memory at the same offset as on the disk, in one vector. */
static struct image_req *req(struct fixture *f, unsigned i, enum image_op op, uint64_t off,
			     uint64_t len)
{
	struct image_req *r = &f->req[i];

	f->iov[i][0] = (struct iovec){f->mem + off, len};
	*r = (struct image_req){.op = op, .off = off, .len = len, .iov = f->iov[i], .niov = 1};
	f->res[i] = 1;
	return r;
}

static void drain(struct fixture *f)
{
	image_kick(f->im);
	while (image_wait(f->im))
		;
}

static void stop_loop(void *l)
{
	loop_stop(l);
}

/* The same on the loop alone, until @n are done. */
static void run(struct fixture *f, unsigned n)
{
	image_kick(f->im);
	while (f->done < n) {
		struct loop_task stop = {.fn = stop_loop, .arg = f->loop};

		loop_post(f->loop, &stop);
		loop_run(f->loop);
	}
}

static int one(struct fixture *f, enum image_op op, uint64_t off, uint64_t len)
{
	image_submit(f->im, req(f, 0, op, off, len));
	drain(f);
	return f->res[0];
}

static uint8_t on_disk(const struct fixture *f, uint64_t at)
{
	uint8_t b = 0;

	assert_int_equal(pread(f->file.fd, &b, 1, (off_t)at), 1);
	return b;
}

static void assert_disk_is(const struct fixture *f, uint64_t off, uint64_t len, uint8_t v)
{
	uint8_t *buf = malloc(len);

	assert_int_equal(pread(f->file.fd, buf, len, (off_t)off), (ssize_t)len);
	for (uint64_t i = 0; i < len; i++)
		if (buf[i] != v)
			fail_msg("byte %llu is %#x, not %#x", (unsigned long long)(off + i), buf[i],
				 v);
	free(buf);
}

static void assert_read(const struct fixture *f, uint64_t off, uint64_t len)
{
	for (uint64_t i = off; i < off + len; i++)
		if (f->mem[i] != disk_byte(i))
			fail_msg("byte %llu is %#x", (unsigned long long)i, f->mem[i]);
}

/* ------------------------------------------------------------- opening */

static void assert_refused(struct fixture *f, int code, const char *text)
{
	struct image *im;
	int r = open_it(f, &im);

	if (r != code || !strstr(f->e.text, text))
		fail_msg("%d: %s", r, f->e.text);
	/* One line that names the file. */
	assert_non_null(strstr(f->e.text, f->c.path));
	assert_null(strchr(f->e.text, '\n'));
}

static void what_is_no_disk_image_is_refused_by_kind(void **state)
{
	struct fixture *f = begin(4096);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/mvm-image-XXXXXX", path[100];

	(void)state;
	assert_non_null(mkdtemp(dir));
	f->c.path = dir;
	assert_refused(f, -EISDIR, "is a directory");
	f->c.path = path;
	snprintf(path, sizeof(path), "%s/none", dir);
	assert_refused(f, -ENOENT, "No such file");
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_refused(f, -EINVAL, "is a FIFO");
	f->c.readonly = true; /* would block in open(2) */
	assert_refused(f, -EINVAL, "is a FIFO");
	f->c.readonly = false;
	unlink(path);
	snprintf(path, sizeof(path), "%s/sock", dir);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(bind(s, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_refused(f, -EINVAL, "is a socket");
	close(s);
	unlink(path);
	f->c.path = (char *)"/dev/zero";
	assert_refused(f, -EINVAL, "is a character device");
	rmdir(dir);
	end(f);
}

static void an_empty_or_tiny_file_is_refused(void **state)
{
	struct fixture *f = begin(0);

	(void)state;
	assert_refused(f, -EINVAL, "is empty (0 bytes)");
	assert_int_equal(ftruncate(f->file.fd, 511), 0);
	assert_refused(f, -EINVAL, "(511 bytes)");
	assert_int_equal(ftruncate(f->file.fd, 512), 0);
	assert_int_equal(open_it(f, &f->im), 0);
	assert_int_equal(f->im->size, 512);
	end(f);
}

static void an_odd_size_is_rounded_down(void **state)
{
	struct fixture *f = begin(SIZE - 1);

	(void)state;
	for (int direct = 0; direct < 2; direct++) {
		f->c.direct = direct;
		assert_int_equal(open_it(f, &f->im), 0);
		assert_int_equal(f->im->size, SIZE - 512);
		assert_int_equal(one(f, IMAGE_READ, SIZE - 4096, 4096 - 512), 0);
		assert_read(f, SIZE - 4096, 4096 - 512);
		image_free(f->im);
		f->im = NULL;
	}
	end(f);
}

/* A file that this process may read but not write. Root may write to all: be somebody else. */
static void a_read_only_file_needs_readonly(void **state)
{
	struct fixture *f = begin(4096);
	bool root = geteuid() == 0;

	(void)state;
	assert_int_equal(fchmod(f->file.fd, 0444), 0);
	if (root)
		assert_int_equal(seteuid(65534), 0);
	assert_refused(f, -EACCES, "is read-only: add readonly=on");
	f->c.readonly = true;
	int r = open_it(f, &f->im);

	if (root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(r, 0);
	assert_true(f->im->readonly);
	assert_false(f->im->can_discard);
	end(f);
}

/* ------------------------------------------------------------- locks */

static void a_second_writer_and_a_reader_beside_a_writer_are_refused(void **state)
{
	struct fixture *f = begin_open(false);

	(void)state;
	assert_refused(f, -EBUSY, "already in use by this machine");
	f->c.readonly = true;
	assert_refused(f, -EBUSY, "already in use");
	image_free(f->im);
	f->im = NULL;
	/* Readers are many; a writer beside them is not. */
	struct image *second;

	assert_int_equal(open_it(f, &f->im), 0);
	assert_int_equal(open_it(f, &second), 0);
	f->c.readonly = false;
	assert_refused(f, -EBUSY, "already in use");
	image_free(second);
	image_free(f->im);
	assert_int_equal(open_it(f, &f->im), 0);
	end(f);
}

enum lock_kind { LOCK_OFD, LOCK_POSIX };

static void the_holder_is_named(enum lock_kind kind)
{
	struct fixture *f = begin(4096);
	int ready[2], quit[2], status;
	char want[100], comm[32] = "", c;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(quit), 0);
	pid_t pid = fork();

	if (!pid) {
		struct flock l = {.l_type = F_WRLCK};
		int fd = open(f->file.path, O_RDWR);

		close(quit[1]);
		if (fcntl(fd, kind == LOCK_OFD ? F_OFD_SETLK : F_SETLK, &l) ||
		    write(ready[1], "x", 1) != 1 || read(quit[0], &c, 1) != 0)
			_exit(1);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);

	assert_true(read(fd, comm, sizeof(comm) - 1) > 1);
	close(fd);
	snprintf(want, sizeof(want), "is locked by process %d (%.*s)", (int)pid,
		 (int)strcspn(comm, "\n"), comm);
	assert_refused(f, -EBUSY, want);
	close(quit[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(open_it(f, &f->im), 0);
	close(quit[0]);
	close(ready[0]);
	close(ready[1]);
	end(f);
}

static void the_process_that_holds_a_lock_is_named(void **state)
{
	(void)state;
	the_holder_is_named(LOCK_OFD);
	the_holder_is_named(LOCK_POSIX);
}

/* ------------------------------------------------------------- operations, both ways */

static const bool both[] = {false, true};
#define DIRECT(state) (*(const bool *)*(state))

static void reads_and_writes_move_the_bytes(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));

	assert_int_equal(one(f, IMAGE_READ, 0, SIZE), 0);
	assert_read(f, 0, SIZE);
	memset(f->mem + 65536, 0x5a, 8192);
	assert_int_equal(one(f, IMAGE_WRITE, 65536, 8192), 0);
	assert_disk_is(f, 65536, 8192, 0x5a);
	assert_int_equal(on_disk(f, 65535), disk_byte(65535));
	assert_int_equal(on_disk(f, 65536 + 8192), disk_byte(65536 + 8192));
	assert_int_equal(one(f, IMAGE_FLUSH, 0, 0), 0);
	end(f);
}

static void single_sectors_and_odd_addresses_work(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));
	struct image_req *r;

	for (uint64_t off = 512; off < 16384; off += 1536) {
		assert_int_equal(one(f, IMAGE_READ, off, 512), 0);
		assert_read(f, off, 512);
		memset(f->mem + off, (int)(off / 512), 512);
		assert_int_equal(one(f, IMAGE_WRITE, off, 512), 0);
		assert_disk_is(f, off, 512, (uint8_t)(off / 512));
		assert_int_equal(on_disk(f, off - 1), disk_byte(off - 1));
	}
	/* Memory that O_DIRECT would not take, in vectors of odd lengths. */
	r = req(f, 0, IMAGE_READ, 1 << 20, 4096);
	f->iov[0][0] = (struct iovec){f->mem + 1, 1};
	f->iov[0][1] = (struct iovec){f->mem + 2, 4000};
	f->iov[0][2] = (struct iovec){f->mem + 4002, 95};
	r->niov = 3;
	image_submit(f->im, r);
	drain(f);
	assert_int_equal(f->res[0], 0);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(f->mem[1 + i], disk_byte((1 << 20) + i));
	end(f);
}

static void a_request_of_many_pieces_is_done_whole(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));
	struct image_req *r = req(f, 0, IMAGE_READ, 0, SIZE);
	const size_t len[] = {512, (1 << 20) - 512, (1 << 20) + 4096, 3 << 20, 4096, 512};
	size_t at = 0;

	for (r->niov = 0; r->niov < 6; r->niov++) {
		f->iov[0][r->niov] = (struct iovec){f->mem + at, len[r->niov]};
		at += len[r->niov];
	}
	r->len = at;
	image_submit(f->im, r);
	drain(f);
	assert_int_equal(f->res[0], 0);
	assert_read(f, 0, at);
	assert_int_equal(f->mem[at], 0xee);
	end(f);
}

static void many_at_once_complete_on_the_loop_in_batches(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));

	for (unsigned i = 0; i < REQS; i++)
		image_submit(f->im, req(f, i, i % 4 ? IMAGE_READ : IMAGE_FLUSH, i * 65536,
					i % 4 ? 65536 : 0));
	run(f, REQS);
	for (unsigned i = 0; i < REQS; i++) {
		assert_int_equal(f->res[i], 0);
		if (i % 4)
			assert_read(f, i * 65536, 65536);
	}
	assert_in_range(f->batches, 1, REQS);
	end(f);
}

/*
 * Eight sectors of a page, each written by a request of its own, half of them
 * from memory that forces the page cache: none may be lost to another's
 * read-modify-write.
 */
static void neighbouring_small_writes_do_not_undo_each_other(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));

	for (unsigned round = 1; round < 100; round++) {
		for (unsigned i = 0; i < REQS; i++) {
			uint8_t *from = f->mem + i * 1024 + i % 2;
			struct image_req *r = req(f, i, IMAGE_WRITE, i * 512, 512);

			memset(from, (int)(round + i), 512);
			r->iov->iov_base = from;
			image_submit(f->im, r);
		}
		drain(f);
		for (unsigned i = 0; i < REQS; i++) {
			assert_int_equal(f->res[i], 0);
			assert_disk_is(f, i * 512, 512, (uint8_t)(round + i));
		}
	}
	end(f);
}

static void seven(struct fixture *f)
{
	for (unsigned i = 0; i < 6; i++) {
		struct image_req *r = req(f, i, IMAGE_WRITE, i * 4096, 4096);

		if (i % 3 == 1)
			r->iov->iov_base = f->mem + 1;
		image_submit(f->im, r);
	}
	image_submit(f->im, req(f, 6, IMAGE_READ, 1 << 20, 512)); /* waits for nobody */
}

/* The same as an order: what needs the page cache is alone, and later ones stay behind it. */
static void a_direct_write_through_the_page_cache_is_alone(void **state)
{
	struct fixture *f = begin_open(true);

	(void)state;
	seven(f);
	run(f, 7);
	f->done = 0;
	seven(f);
	drain(f);
	assert_int_equal(f->done, 7);
	unsigned at[7];

	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(f->res[i], 0);
		at[f->order[i]] = i;
	}
	assert_true(at[0] < at[1] && at[1] < at[2] && at[1] < at[3]);
	assert_true(at[2] < at[4] && at[3] < at[4] && at[4] < at[5]);
	end(f);
}

static uint64_t blocks_of(const struct fixture *f)
{
	struct stat st;

	assert_int_equal(fstat(f->file.fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void discard_frees_and_zeroes_keep_or_free(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));
	uint64_t before = blocks_of(f);

	assert_true(f->im->can_discard);
	assert_int_equal(one(f, IMAGE_DISCARD, 1 << 20, 1 << 20), 0);
	assert_in_range(blocks_of(f), 0, before - (1 << 20));
	assert_disk_is(f, 1 << 20, 1 << 20, 0);
	before = blocks_of(f);
	struct image_req *r = req(f, 0, IMAGE_ZEROES, 4 << 20, 1 << 20);

	r->unmap = true;
	image_submit(f->im, r);
	drain(f);
	assert_int_equal(f->res[0], 0);
	assert_in_range(blocks_of(f), 0, before - (1 << 20));
	assert_disk_is(f, 4 << 20, 1 << 20, 0);
	before = blocks_of(f);
	assert_int_equal(one(f, IMAGE_ZEROES, 6 << 20, 1 << 20), 0);
	assert_in_range(blocks_of(f), before, SIZE);
	assert_disk_is(f, 6 << 20, 1 << 20, 0);
	end(f);
}

static void zeroes_of_odd_sectors_touch_nothing_else(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));
	struct image_req *r;

	for (int unmap = 0; unmap < 2; unmap++) {
		uint64_t off = (2u << 20) + 512 + (uint64_t)unmap * 65536;

		r = req(f, 0, IMAGE_ZEROES, off, 512 * 21);
		r->unmap = unmap;
		r->through = true;
		image_submit(f->im, r);
		drain(f);
		assert_int_equal(f->res[0], 0);
		assert_disk_is(f, off, 512 * 21, 0);
		assert_int_equal(on_disk(f, off - 1), disk_byte(off - 1));
		assert_int_equal(on_disk(f, off + 512 * 21), disk_byte(off + 512 * 21));
	}
	end(f);
}

static void a_write_through_is_written(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));
	struct image_req *r = req(f, 0, IMAGE_WRITE, 4096, 4096);

	memset(f->mem + 4096, 0x77, 4096);
	r->through = true;
	image_submit(f->im, r);
	drain(f);
	assert_int_equal(f->res[0], 0);
	assert_disk_is(f, 4096, 4096, 0x77);
	end(f);
}

static void a_file_that_shrank_is_an_error_for_the_request(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));

	assert_int_equal(ftruncate(f->file.fd, 1 << 20), 0);
	assert_int_equal(one(f, IMAGE_READ, (1 << 20) - 4096, 8192), -EIO);
	assert_int_equal(one(f, IMAGE_READ, 2 << 20, 4096), -EIO);
	assert_int_equal(one(f, IMAGE_READ, 0, 4096), 0);
	end(f);
}

static void cancelled_requests_still_come_back(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));

	for (unsigned i = 0; i < REQS; i++) {
		enum image_op op = i % 3 == 0   ? IMAGE_ZEROES
				   : i % 3 == 1 ? IMAGE_READ
						: IMAGE_WRITE;

		image_submit(f->im, req(f, i, op, i * 512, 4u << 20));
		if (i == REQS / 2)
			image_kick(f->im);
	}
	for (unsigned i = 0; i < REQS; i++)
		if (f->res[i] == 1)
			image_cancel(f->im, &f->req[i]);
	drain(f);
	assert_int_equal(f->done, REQS);
	for (unsigned i = 0; i < REQS; i++)
		assert_true(!f->res[i] || f->res[i] == -ECANCELED);
	/* Nothing of it is left: the image works on. */
	memset(f->mem, 0x21, 4096);
	assert_int_equal(one(f, IMAGE_WRITE, 0, 4096), 0);
	assert_disk_is(f, 0, 4096, 0x21);
	end(f);
}

static void an_empty_request_succeeds(void **state)
{
	struct fixture *f = begin_open(DIRECT(state));

	assert_int_equal(one(f, IMAGE_READ, SIZE, 0), 0);
	assert_int_equal(one(f, IMAGE_WRITE, 0, 0), 0);
	assert_int_equal(one(f, IMAGE_DISCARD, 0, 0), 0);
	end(f);
}

#define BOTH(t)                                                                                    \
	{#t ", page cache", t, NULL, NULL, (void *)&both[0]},                                      \
	{                                                                                          \
#t ", direct", t, NULL, NULL, (void *)&both[1]                                     \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_disk_image_is_refused_by_kind),
		cmocka_unit_test(an_empty_or_tiny_file_is_refused),
		cmocka_unit_test(an_odd_size_is_rounded_down),
		cmocka_unit_test(a_read_only_file_needs_readonly),
		cmocka_unit_test(a_second_writer_and_a_reader_beside_a_writer_are_refused),
		cmocka_unit_test(the_process_that_holds_a_lock_is_named),
		BOTH(reads_and_writes_move_the_bytes),
		BOTH(single_sectors_and_odd_addresses_work),
		BOTH(a_request_of_many_pieces_is_done_whole),
		BOTH(many_at_once_complete_on_the_loop_in_batches),
		BOTH(neighbouring_small_writes_do_not_undo_each_other),
		cmocka_unit_test(a_direct_write_through_the_page_cache_is_alone),
		BOTH(discard_frees_and_zeroes_keep_or_free),
		BOTH(zeroes_of_odd_sectors_touch_nothing_else),
		BOTH(a_write_through_is_written),
		BOTH(a_file_that_shrank_is_an_error_for_the_request),
		BOTH(cancelled_requests_still_come_back),
		BOTH(an_empty_request_succeeds),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
