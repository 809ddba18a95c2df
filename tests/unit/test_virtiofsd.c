/* SPDX-License-Identifier: Apache-2.0 */
/* How a virtiofsd is started: the command lines of the two programs, and what a script in its place
 * sees. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/turns.h"
#include "tests/unit/vu_peer.h"
#include "virtio/devices.h"
#include "virtio/virtiofsd.h"
#include "vmm/evfd.h"
#include "vmm/log.h"

#define RUST_HELP "--shared-dir <SHARED_DIR>\n--fd <FD>\n--no-announce-submounts\n--readonly\n"
#define C_HELP "-o source=PATH\n--fd=FDNUM\n"

struct fixture {
	char dir[32], share[48], program[48], said[48];
	char *path;
	struct fs_config c;
	unsigned files;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_set_level(-1);
	assert_int_equal(evfd_prepare(NULL), 0); /* has a file, for good */
	f->files = open_files();
	strcpy(f->dir, "/tmp/mvm-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->share, sizeof(f->share), "%s/a,b", f->dir);
	snprintf(f->program, sizeof(f->program), "%s/virtiofsd", f->dir);
	snprintf(f->said, sizeof(f->said), "%s/said", f->dir);
	assert_int_equal(mkdir(f->share, 0755), 0);
	f->path = strdup(getenv("PATH"));
	strcpy(f->c.tag, "share");
	f->c.dir = f->share;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	setenv("PATH", f->path, 1);
	rmdir(f->share);
	unlink(f->program);
	unlink(f->said);
	assert_int_equal(rmdir(f->dir), 0);
	assert_int_equal(open_files(), f->files);
	free(f->path);
	free(f);
	return 0;
}

/* The words with one blank between them, without the program and the sandbox's. */
static void planned(struct fixture *f, const char *help, const char *want)
{
	struct virtiofsd_plan p;
	struct err e = {0};
	char line[512] = "", *at;

	if (virtiofsd_plan(&p, &f->c, "/x/virtiofsd", help, &e))
		fail_msg("%s", e.text);
	assert_string_equal(p.argv[0], "/x/virtiofsd");
	for (unsigned i = 1; p.argv[i]; i++) {
		strcat(line, i > 1 ? " " : "");
		strcat(line, p.argv[i]);
	}
	at = strstr(line, p.sandbox);
	assert_non_null(at);
	memmove(at + 3, at + strlen(p.sandbox), strlen(at + strlen(p.sandbox)) + 1);
	memcpy(at, "BOX", 3);
	while ((at = strstr(line, f->dir)))
		memmove(at, at + strlen(f->dir), strlen(at + strlen(f->dir)) + 1);
	assert_string_equal(line, want);
	virtiofsd_plan_fini(&p);
}

static void the_one_in_rust_gets_its_words(void **state)
{
	struct fixture *f = *state;

	planned(f, RUST_HELP,
		"--fd=3 --shared-dir /a,b --cache auto --sandbox BOX --xattr --log-level warn "
		"--no-announce-submounts");
	f->c.cache = FS_CACHE_NEVER;
	f->c.readonly = true;
	planned(f, RUST_HELP,
		"--fd=3 --shared-dir /a,b --cache never --sandbox BOX --xattr --log-level warn "
		"--no-announce-submounts --readonly");
}

static void the_one_in_c_gets_a_list_with_commas_escaped(void **state)
{
	struct fixture *f = *state;

	planned(f, C_HELP,
		"-f --fd=3 -o source=/a\\,b -o cache=auto,sandbox=BOX,xattr,log_level=err");
	f->c.cache = FS_CACHE_NEVER;
	planned(f, C_HELP,
		"-f --fd=3 -o source=/a\\,b -o cache=none,sandbox=BOX,xattr,log_level=err");
}

static void read_only_is_seen_to_by_whoever_can(void **state)
{
	struct fixture *f = *state;
	struct virtiofsd_plan p;

	f->c.readonly = true;
	assert_int_equal(virtiofsd_plan(&p, &f->c, "x", RUST_HELP, NULL), 0);
	assert_false(p.mount_ro);
	virtiofsd_plan_fini(&p);
	assert_int_equal(virtiofsd_plan(&p, &f->c, "x", "--shared-dir", NULL), 0);
	assert_true(p.mount_ro);
	virtiofsd_plan_fini(&p);
	assert_int_equal(virtiofsd_plan(&p, &f->c, "x", C_HELP, NULL), 0);
	assert_true(p.mount_ro);
	virtiofsd_plan_fini(&p);
}

static void a_program_of_another_kind_is_refused(void **state)
{
	struct fixture *f = *state;
	struct virtiofsd_plan p;
	struct err e = {0};

	assert_int_equal(virtiofsd_plan(&p, &f->c, "/x/virtiofsd", "usage: nothing", &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "/x/virtiofsd"));
	virtiofsd_plan_fini(&p);
}

static void a_directory_that_is_none_is_refused(void **state)
{
	struct fixture *f = *state;
	struct virtiofsd_plan p;
	struct err e = {0};

	f->c.dir = f->said;
	assert_int_equal(virtiofsd_plan(&p, &f->c, "x", RUST_HELP, &e), -ENOENT);
	virtiofsd_plan_fini(&p);
	close(open(f->said, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(virtiofsd_plan(&p, &f->c, "x", RUST_HELP, &e), -ENOTDIR);
	assert_non_null(strstr(e.text, f->said));
	virtiofsd_plan_fini(&p);
}

/* ------------------------------------------------------------- a script in its place */

/* In a directory that comes first in PATH; with --help it is the one in Rust. */
static void script(struct fixture *f, const char *text)
{
	FILE *s = fopen(f->program, "we");
	char path[512];

	fprintf(s, "#!/bin/sh\n[ \"$1\" = --help ] && echo '--shared-dir' && exit\n%s\n", text);
	fclose(s);
	assert_int_equal(chmod(f->program, 0755), 0);
	snprintf(path, sizeof(path), "%s:%s", f->dir, f->path);
	setenv("PATH", path, 1);
}

/* What the script wrote into its file, once it did. */
static void said(struct fixture *f, char *buf, size_t size)
{
	for (unsigned i = 0; i < 5000; i++) {
		int fd = open(f->said, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? 0 : read(fd, buf, size - 1);

		close(fd);
		buf[n > 0 ? n : 0] = '\0';
		if (n > 0 && buf[n - 1] == '.')
			return;
		usleep(1000);
	}
	fail_msg("the script said nothing");
}

static void it_gets_a_listening_socket_and_nothing_else(void **state)
{
	struct fixture *f = *state;
	char buf[2048], text[300];
	struct child *c;
	int fd, leak = fcntl(0, F_DUPFD, 20); /* not close-on-exec */

	snprintf(text, sizeof(text),
		 "(ls -l /proc/$$/fd | sed 's/.* \\([0-9]* ->\\)/\\1/'; echo \"$@\"; env; "
		 "cut -d' ' -f5,6 /proc/$$/stat; echo pid $$; printf .) > %s; sleep 100",
		 f->said);
	script(f, text);
	assert_int_equal(virtiofsd_start(&c, &fd, &f->c, "fs0", NULL), 0);
	said(f, buf, sizeof(buf));
	assert_non_null(strstr(buf, "0 -> /dev/null\n"));
	assert_non_null(strstr(buf, "2 -> pipe:"));
	assert_non_null(strstr(buf, "3 -> socket:"));
	assert_null(strstr(buf, "\n20 ->"));
	assert_non_null(strstr(buf, "--fd=3 --shared-dir"));
	assert_null(strstr(buf, "HOME="));
	/* Process group and session are its own. */
	int pid = atoi(strstr(buf, "\npid ") + 5);

	snprintf(text, sizeof(text), "%d %d\npid %d", pid, pid, pid);
	assert_non_null(strstr(buf, text));
	child_free(c);
	assert_int_equal(kill(pid, 0), -1);
	close(fd);
	close(leak);
}

static void its_failure_at_the_start_is_ours_with_its_last_words(void **state)
{
	struct fixture *f = *state;
	struct fs_host *h;
	struct err e = {0};

	script(f, "echo first >&2; echo 'Error: no such thing' >&2; exit 3");
	assert_int_equal(fs_host_open(&h, &f->c, 0, &e), -EIO);
	assert_string_equal(e.text, "--fs tag=share: fs0: virtiofsd ended with status 3: "
				    "Error: no such thing");
}

/* One that knows no --readonly: whatever it tries. */
static void a_read_only_share_cannot_be_written(void **state)
{
	struct fixture *f = *state;
	char text[200], beside[48], whole[] = "/";
	char *const dirs[] = {f->share, whole};

	if (geteuid())
		skip();
	snprintf(text, sizeof(text),
		 "for d in %s %s; do mkdir $d/x 2>/dev/null && echo $d; done >&2; exit 3", f->share,
		 f->dir);
	snprintf(beside, sizeof(beside), "%s/x", f->dir);
	script(f, text);
	f->c.readonly = true;
	for (unsigned i = 0; i < 2; i++) {
		struct fs_host *h;
		struct err e = {0};

		f->c.dir = dirs[i];
		assert_int_equal(fs_host_open(&h, &f->c, 0, &e), -EIO);
		/* All of the host; or what lies beside the share, which is not shared. */
		assert_true(!strstr(e.text, f->dir) == (i == 1));
		assert_int_equal(rmdir(beside), i == 0 ? 0 : -1);
	}
}

static void one_that_only_waits_is_given_up_and_killed(void **state)
{
	struct fixture *f = *state;
	struct fs_host *h;
	struct err e = {0};

	script(f, "exec 3<&-; echo 'waiting' >&2; sleep 1000");
	assert_int_equal(fs_host_open(&h, &f->c, 0, &e), -EIO);
	assert_string_equal(e.text, "--fs tag=share: fs0: virtiofsd did not answer: waiting");
}

static void a_program_that_is_nowhere_is_not_found(void **state)
{
	struct fixture *f = *state;
	static const char *const nowhere[] = {"/nonexistent", NULL};

	setenv("PATH", f->dir, 1);
	assert_null(child_find("virtiofsd", nowhere));
	setenv("PATH", f->path, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_one_in_rust_gets_its_words),
		T(the_one_in_c_gets_a_list_with_commas_escaped),
		T(read_only_is_seen_to_by_whoever_can),
		T(a_program_of_another_kind_is_refused),
		T(a_directory_that_is_none_is_refused),
		T(it_gets_a_listening_socket_and_nothing_else),
		T(its_failure_at_the_start_is_ours_with_its_last_words),
		T(a_read_only_share_cannot_be_written),
		T(one_that_only_waits_is_given_up_and_killed),
		T(a_program_that_is_nowhere_is_not_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
