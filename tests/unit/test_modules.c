/* SPDX-License-Identifier: Apache-2.0 */
/* Modules and what they need, from index files made up here, good and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/initramfs.h"

#define WANT(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct err err;

/* What was resolved, joined by blanks, or the error's code as "-N". */
static const char *resolve(const struct modtexts *x, const char *const *want)
{
	static char text[65536];
	struct modtree *t;
	struct modlist m;
	int r = modtree_parse(&t, x, &err);

	if (r) {
		snprintf(text, sizeof(text), "%d", r);
		return text;
	}
	r = modtree_resolve(t, want, &m, &err);
	modtree_free(t);
	if (r) {
		snprintf(text, sizeof(text), "%d", r);
		return text;
	}
	*text = 0;
	for (size_t i = 0; i < m.n; i++) {
		if (i)
			strcat(text, " ");
		strcat(text, m.path[i]);
	}
	modlist_fini(&m);
	return text;
}

static const char *dep(const char *text, const char *const *want)
{
	return resolve(&(struct modtexts){.dep = text}, want);
}

static void dependencies_come_first(void **state)
{
	(void)state;
	assert_string_equal(
		dep("k/blk.ko: k/virtio.ko k/ring.ko\nk/virtio.ko: k/ring.ko\nk/ring.ko:\n",
		    WANT("blk")),
		"k/ring.ko k/virtio.ko k/blk.ko");
}

static void shared_dependency_is_listed_once(void **state)
{
	(void)state;
	assert_string_equal(dep("a.ko: c.ko\nb.ko: c.ko\nc.ko:\n", WANT("a", "b", "a")),
			    "c.ko a.ko b.ko");
}

static void hyphen_and_underscore_are_the_same(void **state)
{
	(void)state;
	assert_string_equal(
		dep("d/virtio-rng.ko.xz: d/a_b.ko\nd/a_b.ko:\n", WANT("virtio_rng", "a-b")),
		"d/a_b.ko d/virtio-rng.ko.xz");
}

static void compressed_modules_have_names_too(void **state)
{
	(void)state;
	assert_string_equal(
		dep("a.ko.xz: b.ko.zst\nb.ko.zst: c.ko.gz\nc.ko.gz:\nc.ko.lz4:\n", WANT("a")),
		"c.ko.gz b.ko.zst a.ko.xz");
}

static void built_in_is_left_out(void **state)
{
	const struct modtexts x = {.dep = "k/blk.ko: k/ring.ko\n",
				   .builtin = "k/ring.ko\nk/fs/ext4.ko\n"};

	(void)state;
	assert_string_equal(resolve(&x, WANT("!ext4", "!blk")), "k/blk.ko");
}

static void absent_is_skipped_unless_required(void **state)
{
	const struct modtexts x = {.dep = "a.ko:\n", .builtin = ""};

	(void)state;
	assert_string_equal(resolve(&x, WANT("nothere", "a")), "a.ko");
	assert_string_equal(resolve(&x, WANT("a", "!nothere")), "-2");
	assert_non_null(strstr(err.text, "nothere"));
	/* Nobody knows then. */
	assert_string_equal(dep("a.ko:\n", WANT("!nothere")), "");
}

static void softdep_comes_first(void **state)
{
	const struct modtexts x = {
		.dep = "k/btrfs.ko: "
		       "k/libcrc32c.ko\nk/libcrc32c.ko:\nk/crc32c_generic.ko:\nk/x.ko:\n",
		.softdep = "# comment\nsoftdep libcrc32c pre: crc32c-generic gone post: x\n"
			   "softdep libcrc32 pre: x\n",
	};

	(void)state;
	assert_string_equal(resolve(&x, WANT("btrfs")),
			    "k/crc32c_generic.ko k/libcrc32c.ko k/btrfs.ko");
}

static void softdep_may_be_an_alias(void **state)
{
	const struct modtexts x = {
		.dep = "a.ko:\ncrc32c-intel.ko:\ncrc32c_x.ko:\ny.ko:\n",
		.softdep = "softdep a pre: crc32c",
		.alias = "alias crc32c-y y\nalias crc32c crc32c_intel\nalias crypto-crc32c y\n"
			 "alias crc32c crc32c_x",
	};

	(void)state;
	assert_string_equal(resolve(&x, WANT("a")), "crc32c-intel.ko crc32c_x.ko a.ko");
}

static void cycle_ends(void **state)
{
	const struct modtexts x = {.dep = "a.ko: b.ko\nb.ko: c.ko a.ko\nc.ko: c.ko b.ko\n",
				   .softdep = "softdep c pre: a c\n"};

	(void)state;
	assert_string_equal(resolve(&x, WANT("a")), "c.ko b.ko a.ko");
}

static void path_out_of_the_directory_is_refused(void **state)
{
	static const char *const bad[] = {
		"/lib/a.ko", "../a.ko", "k/../../a.ko", "k/./a.ko",
		"k//a.ko",   "./a.ko",  "k\001/a.ko",   "..//a.ko",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[100];

		snprintf(text, sizeof(text), "%s: b.ko\nb.ko:\n", bad[i]);
		assert_string_equal(dep(text, WANT("a")), "-22");
		/* Nobody asked for it. */
		assert_string_equal(dep(text, WANT("b")), "b.ko");
	}
	assert_string_equal(dep("k..x/..y.ko:\n", WANT("..y")), "k..x/..y.ko");
}

static void odd_dependency_is_an_error(void **state)
{
	(void)state;
	assert_string_equal(dep("a.ko: /etc/passwd\n", WANT("a")), "-22");
}

static void garbage_lines_are_ignored(void **state)
{
	(void)state;
	assert_string_equal(dep("\n::\n: a.ko\nnot a module\n.ko:\n \na.ko.ko2:\na.ko:\n\n",
				WANT("a", "", "ko")),
			    "a.ko");
	assert_string_equal(dep("", WANT("a")), "");
	assert_string_equal(dep("a.ko", WANT("a")), "a.ko");
}

static void huge_line_is_bounded(void **state)
{
	size_t n = 200000;
	char *text = malloc(n + 100), *p = text;

	(void)state;
	p += sprintf(p, "a.ko:");
	memset(p, 'x', n);
	strcpy(p + n, ".ko\n");
	assert_string_equal(dep(text, WANT("a")), "a.ko");
	memset(text, '/', n);
	strcpy(text + n, "a.ko:\n");
	assert_string_equal(dep(text, WANT("a")), "-22");
	free(text);
}

static void deep_nesting_is_bounded(void **state)
{
	char *text = malloc(1 << 20), *p = text;

	(void)state;
	for (int i = 0; i < 10000; i++)
		p += sprintf(p, "m%d.ko: m%d.ko\n", i, i + 1);
	assert_string_equal(dep(text, WANT("m0")), "-40");
	assert_string_equal(dep(text, WANT("m9990")),
			    "m9999.ko m9998.ko m9997.ko m9996.ko m9995.ko m9994.ko m9993.ko "
			    "m9992.ko m9991.ko m9990.ko");
	free(text);
}

static void number_needed_is_bounded(void **state)
{
	char *text = malloc(1 << 20), *p = text;

	(void)state;
	p += sprintf(p, "a.ko:");
	for (int i = 0; i < MODLIST_MAX + 1; i++)
		p += sprintf(p, " m%d.ko", i);
	*p++ = '\n';
	for (int i = 0; i < MODLIST_MAX + 1; i++)
		p += sprintf(p, "m%d.ko:\n", i);
	assert_string_equal(dep(text, WANT("a")), "-7");
	free(text);
}

/* Every module depends on every other: the work is cut short, not the patience. */
static void work_is_bounded(void **state)
{
	enum { N = 60000 };
	char *text = malloc(N * 40), *p = text;

	(void)state;
	p += sprintf(p, "a.ko:");
	for (int i = 0; i < N; i++)
		p += sprintf(p, " gone%d.ko", i);
	*p++ = '\n';
	for (int i = 0; i < N; i++)
		p += sprintf(p, "m%d.ko:\n", i);
	assert_string_equal(dep(text, WANT("a")), "-7");
	free(text);
}

static void number_of_lines_is_bounded(void **state)
{
	enum { N = 70000 };
	char *text = malloc(N * 16), *p = text;

	(void)state;
	for (int i = 0; i < N; i++)
		p += sprintf(p, "m%d.ko:\n", i);
	assert_string_equal(dep(text, WANT("m1")), "-7");
	free(text);
}

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void directory_is_read(void **state)
{
	char dir[] = "/tmp/test_modules-XXXXXX", cmd[100];
	struct modlist m;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(modlist_resolve(&m, dir, WANT("a"), &err), -ENOENT);
	assert_non_null(strstr(err.text, "modules.dep: No such file"));
	write_file(dir, "modules.dep", "a.ko:\nc.ko:\n");
	assert_int_equal(modlist_resolve(&m, dir, WANT("a", "!b"), &err), 0);
	assert_int_equal(m.n, 1);
	assert_string_equal(m.path[0], "a.ko");
	modlist_fini(&m);
	write_file(dir, "modules.builtin", "k/b.ko\n");
	write_file(dir, "modules.softdep", "softdep a pre: see\n");
	write_file(dir, "modules.alias", "alias see c\n");
	assert_int_equal(modlist_resolve(&m, dir, WANT("a", "!b"), &err), 0);
	assert_int_equal(m.n, 2);
	assert_string_equal(m.path[0], "c.ko");
	modlist_fini(&m);
	assert_int_equal(modlist_resolve(&m, dir, WANT("!d"), &err), -ENOENT);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

/* A FIFO without a writer must not stop us, and a directory is no index. */
static void index_that_is_no_file_is_an_error(void **state)
{
	char dir[] = "/tmp/test_modules-XXXXXX", path[100];
	struct modlist m;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/modules.dep", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(modlist_resolve(&m, dir, WANT("a"), &err), -EINVAL);
	assert_int_equal(modlist_resolve(&m, dir, WANT("a"), NULL), -EINVAL);
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(modlist_resolve(&m, dir, WANT("a"), &err), -EINVAL);
	rmdir(path);
	rmdir(dir);
}

/* Each of them: the directory's author may not choose which of the host's files is read. */
static void index_that_is_a_link_out_is_an_error(void **state)
{
	static const char *const names[] = {"modules.dep", "modules.builtin", "modules.softdep",
					    "modules.alias"};
	char dir[] = "/tmp/test_modules-XXXXXX", path[100], cmd[100];
	struct modlist m;

	(void)state;
	assert_non_null(mkdtemp(dir));
	write_file(dir, "modules.dep", "a.ko:\n");
	write_file(dir, "modules.softdep", "softdep a pre: see\n");
	for (size_t i = 4; i--;) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
		assert_int_equal(symlink("/etc/passwd", path), 0);
		assert_int_equal(modlist_resolve(&m, dir, WANT("a"), &err), -EXDEV);
		assert_non_null(strstr(err.text, names[i]));
		assert_non_null(strstr(err.text, "leads out of the directory"));
		unlink(path);
		if (i == 2)
			write_file(dir, "modules.softdep", "");
	}
	write_file(dir, "dep", "a.ko:\n");
	assert_int_equal(symlink("./dep", path), 0);
	assert_int_equal(modlist_resolve(&m, dir, WANT("a"), &err), 0);
	modlist_fini(&m);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dependencies_come_first),
		cmocka_unit_test(shared_dependency_is_listed_once),
		cmocka_unit_test(hyphen_and_underscore_are_the_same),
		cmocka_unit_test(compressed_modules_have_names_too),
		cmocka_unit_test(built_in_is_left_out),
		cmocka_unit_test(absent_is_skipped_unless_required),
		cmocka_unit_test(softdep_comes_first),
		cmocka_unit_test(softdep_may_be_an_alias),
		cmocka_unit_test(cycle_ends),
		cmocka_unit_test(path_out_of_the_directory_is_refused),
		cmocka_unit_test(odd_dependency_is_an_error),
		cmocka_unit_test(garbage_lines_are_ignored),
		cmocka_unit_test(huge_line_is_bounded),
		cmocka_unit_test(deep_nesting_is_bounded),
		cmocka_unit_test(number_needed_is_bounded),
		cmocka_unit_test(work_is_bounded),
		cmocka_unit_test(number_of_lines_is_bounded),
		cmocka_unit_test(directory_is_read),
		cmocka_unit_test(index_that_is_no_file_is_an_error),
		cmocka_unit_test(index_that_is_a_link_out_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
