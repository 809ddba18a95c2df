/* SPDX-License-Identifier: Apache-2.0 */
/* Opening disk images: what is refused and how it is said, sizes, locks. */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "tests/unit/image_rig.h"

static void assert_refused(struct image_rig *f, int code, const char *text)
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
	struct image_rig *f = begin(4096);
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
	struct image_rig *f = begin(0);

	(void)state;
	assert_refused(f, -EINVAL, "is empty: ");
	assert_int_equal(ftruncate(f->file.fd, 511), 0);
	assert_refused(f, -EINVAL, "has only 511 bytes");
	assert_int_equal(ftruncate(f->file.fd, 512), 0);
	assert_int_equal(open_it(f, &f->im), 0);
	assert_int_equal(f->im->size, 512);
	end(f);
}

static void an_odd_size_is_rounded_down(void **state)
{
	struct image_rig *f = begin(RIG_SIZE - 1);

	(void)state;
	for (int direct = 0; direct < 2; direct++) {
		f->c.direct = direct;
		assert_int_equal(open_it(f, &f->im), 0);
		assert_int_equal(f->im->size, RIG_SIZE - 512);
		assert_int_equal(one(f, IMAGE_READ, RIG_SIZE - 4096, 4096 - 512), 0);
		assert_read(f, RIG_SIZE - 4096, 4096 - 512);
		image_free(f->im);
		f->im = NULL;
	}
	end(f);
}

/* A file that this process may read but not write. Root may write to all: be somebody else. */
static void a_read_only_file_needs_readonly(void **state)
{
	struct image_rig *f = begin(4096);
	bool root = geteuid() == 0;

	(void)state;
	assert_int_equal(fchmod(f->file.fd, 0444), 0);
	if (root)
		assert_int_equal(seteuid(65534), 0);
	assert_refused(f, -EACCES, "no permission to write ");
	f->c.readonly = true;
	int r = open_it(f, &f->im);

	if (root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(r, 0);
	assert_true(f->im->readonly);
	assert_false(f->im->can_discard);
	end(f);
}

static void an_image_of_another_format_is_recognised_and_never_opened_as_one(void **state)
{
	struct image_rig *f = begin(4096);

	(void)state;
	assert_int_equal(image_looks_raw(f->c.path, &f->e), 0);
	assert_int_equal(pwrite(f->file.fd, "QFI\xfb\0\0\0\3", 8, 0), 8);
	assert_int_equal(image_looks_raw(f->c.path, &f->e), -EINVAL);
	assert_non_null(strstr(f->e.text, "is a qcow2 image"));
	assert_int_equal(open_it(f, &f->im), 0);
	assert_int_equal(f->im->size, 4096);
	assert_int_equal(pwrite(f->file.fd, "\0\0\0\0", 4, 0), 4);
	assert_int_equal(pwrite(f->file.fd, "\x7f\x10\xda\xbe", 4, 0x40), 4);
	assert_int_equal(image_looks_raw(f->c.path, &f->e), -EINVAL);
	assert_non_null(strstr(f->e.text, "is a vdi image"));
	end(f);
}

/* ------------------------------------------------------------- locks */

static void a_second_writer_and_a_reader_beside_a_writer_are_refused(void **state)
{
	struct image_rig *f = begin_open(false);

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
	struct image_rig *f = begin(4096);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_disk_image_is_refused_by_kind),
		cmocka_unit_test(an_empty_or_tiny_file_is_refused),
		cmocka_unit_test(an_odd_size_is_rounded_down),
		cmocka_unit_test(a_read_only_file_needs_readonly),
		cmocka_unit_test(an_image_of_another_format_is_recognised_and_never_opened_as_one),
		cmocka_unit_test(a_second_writer_and_a_reader_beside_a_writer_are_refused),
		cmocka_unit_test(the_process_that_holds_a_lock_is_named),
	};

	alarm(300); /* a hang fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
