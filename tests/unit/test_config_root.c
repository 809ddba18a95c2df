/* SPDX-License-Identifier: Apache-2.0 */
/* What --rootfs becomes: a disk or a share, and which keys either takes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/cmd.h"
#include "vmm/config.h"

static struct config cfg;
static struct err err;
static char dir[40], image[64];

static int before(void **s)
{
	FILE *f;

	(void)s;
	strcpy(dir, "/tmp/mvm-root-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(image, sizeof(image), "%s/image", dir);
	f = fopen(image, "w");
	return f ? fclose(f) : -1;
}

static int after(void **s)
{
	(void)s;
	config_fini(&cfg);
	return unlink(image) | rmdir(dir);
}

/* --rootfs with @path in the place of %s in @fmt, and nothing else. */
static int root(const char *fmt, const char *path)
{
	char text[160];

	config_fini(&cfg);
	config_init(&cfg);
	err = (struct err){0};
	snprintf(text, sizeof(text), fmt, path);
	assert_int_equal(config_string(&cfg.kernel, "k", &err), 0);
	assert_int_equal(config_string(&cfg.rootfs, text, &err), 0);
	return config_check_root(&cfg, &err);
}

static void directory_is_a_share_that_is_only_read(void **s)
{
	(void)s;
	assert_int_equal(root("%s", dir), 0);
	assert_int_equal(cfg.ndisks, 0);
	assert_int_equal(cfg.nfs, 1);
	assert_string_equal(cfg.fs[0].tag, CONFIG_ROOT_TAG);
	assert_string_equal(cfg.fs[0].dir, dir);
	assert_null(cfg.fs[0].socket);
	assert_int_equal(cfg.fs[0].cache, FS_CACHE_AUTO);
	assert_true(cfg.fs[0].readonly && cfg.root_is_fs);
	assert_false(cfg.root_rw || cfg.root_is_host);
}

static void rw_writes_through(void **s)
{
	static const char *const words[] = {"%s,rw", "%s,rw=on", "path=%s,rw", "rw=on,path=%s"};

	(void)s;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		assert_int_equal(root(words[i], dir), 0);
		assert_true(cfg.root_is_fs && cfg.root_rw);
		assert_false(cfg.fs[0].readonly);
	}
	assert_int_equal(root("%s,ro=off", dir), 0);
	assert_true(cfg.root_rw);
}

static void ro_is_what_it_is_anyway(void **s)
{
	static const char *const words[] = {"%s,ro", "%s,ro=on", "%s,rw=off"};

	(void)s;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		assert_int_equal(root(words[i], dir), 0);
		assert_true(cfg.fs[0].readonly && !cfg.root_rw);
	}
}

static void keys_of_a_share_are_taken(void **s)
{
	(void)s;
	assert_int_equal(root("%s,cache=never,queues=4,queue_size=64,id=r", dir), 0);
	assert_int_equal(cfg.fs[0].cache, FS_CACHE_NEVER);
	assert_int_equal(cfg.fs[0].queues, 4);
	assert_int_equal(cfg.fs[0].queue_size, 64);
	assert_string_equal(cfg.fs[0].id, "r");
}

static void other_shares_come_behind(void **s)
{
	(void)s;
	config_init(&cfg);
	strcpy(cfg.fs[0].tag, "work");
	cfg.nfs = 1;
	assert_int_equal(config_string(&cfg.fs[0].dir, "/w", &err), 0);
	assert_int_equal(config_string(&cfg.rootfs, dir, &err), 0);
	assert_int_equal(config_check_root(&cfg, &err), 0);
	assert_int_equal(cfg.nfs, 2);
	assert_string_equal(cfg.fs[0].tag, CONFIG_ROOT_TAG);
	assert_string_equal(cfg.fs[1].tag, "work");
	assert_string_equal(cfg.fs[1].dir, "/w");
	config_fini(&cfg);
	config_init(&cfg);
	cfg.nfs = CONFIG_FS_MAX;
	assert_int_equal(config_string(&cfg.rootfs, dir, &err), 0);
	assert_int_equal(config_check_root(&cfg, &err), -E2BIG);
	assert_non_null(strstr(err.text, "at most 8 fit in all"));
	cfg.nfs = 0;
}

static void disks_do_not_move_for_a_directory(void **s)
{
	(void)s;
	config_init(&cfg);
	assert_int_equal(config_disk(&cfg, "/d", &err), 0);
	assert_int_equal(config_string(&cfg.rootfs, dir, &err), 0);
	assert_int_equal(config_check_root(&cfg, &err), 0);
	assert_int_equal(cfg.ndisks, 1);
	assert_string_equal(cfg.disks[0].path, "/d");
	assert_string_equal(config_disk_option(&cfg.disks[0]), "--disk");
}

static void the_hosts_own_root_is_known_by_any_name(void **s)
{
	char link[64];

	(void)s;
	assert_int_equal(root("%s", "/"), 0);
	assert_true(cfg.root_is_host && cfg.root_is_fs);
	assert_int_equal(root("%s", "/usr/.."), 0);
	assert_true(cfg.root_is_host);
	snprintf(link, sizeof(link), "%s/link", dir);
	assert_int_equal(symlink("/", link), 0);
	assert_int_equal(root("%s", link), 0);
	assert_true(cfg.root_is_host);
	unlink(link);
	assert_int_equal(root("%s", "/usr"), 0);
	assert_false(cfg.root_is_host);
}

static void image_is_the_first_disk_as_before(void **s)
{
	(void)s;
	assert_int_equal(root("%s,readonly=on", image), 0);
	assert_false(cfg.root_is_fs || cfg.root_is_host);
	assert_int_equal(cfg.ndisks, 1);
	assert_int_equal(cfg.nfs, 0);
	assert_true(cfg.disks[0].readonly);
	/* What is not there is a disk's to complain of. */
	assert_int_equal(root("%s", "/nonexistent"), 0);
	assert_int_equal(cfg.ndisks, 1);
	assert_string_equal(config_disk_option(&cfg.disks[0]), "--rootfs");
}

static void refused(const char *fmt, const char *path, const char *why)
{
	assert_true(root(fmt, path) < 0);
	assert_int_equal(strncmp(err.text, "--rootfs ", 9), 0);
	if (!strstr(err.text, why))
		fail_msg("%s: %s", fmt, err.text);
}

static void keys_of_the_other_kind_are_refused_with_the_reason(void **s)
{
	(void)s;
	refused("%s,readonly=on", dir, "a directory is shared read-only");
	refused("readonly=off,path=%s", dir, "a directory is shared read-only");
	refused("%s,readonly", dir, "a directory is shared read-only");
	refused("%s,direct=on", dir, "direct is for images, and this is a directory");
	refused("%s,serial=X", dir, "serial is for images");
	refused("%s,format=raw", dir, "format is for images");
	refused("%s,cache=writeback", dir, "\"writeback\" is neither auto, always nor never");
	refused("%s,queues=32", dir, "queues: out of range (1 to 31)");
	refused("%s,queue_size=8", dir, "queue_size: 8 is not a power of two from 16 to 1024");
	refused("%s,queue_size=48", dir, "queue_size: 48 is not a power of two");
	refused("%s,rw=yes", dir, "\"yes\" is neither on nor off");
	refused("%s,wr", dir, "\"wr\" is not key=value");
	refused("%s,ro,rw", dir, ": ro and rw: one of them is meant");
	refused("%s,rw=off,ro", dir, ": ro and rw: one of them is meant");
	refused("dir=%s,rw", "tree", "a directory is given by itself: --rootfs tree,rw");
	refused("%s,ro", image, "did you mean readonly=on?");
	refused("%s,rw", image, "rw is for directories: an image is written to unless");
	refused("%s,rw=off", image, "rw is for directories");
	refused("%s,rw", "/nonexistent", "rw is for directories");
	assert_int_equal(cfg.nfs, 0);
	assert_int_equal(cfg.ndisks, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, before, after)
		T(directory_is_a_share_that_is_only_read),
		T(rw_writes_through),
		T(ro_is_what_it_is_anyway),
		T(keys_of_a_share_are_taken),
		T(other_shares_come_behind),
		T(disks_do_not_move_for_a_directory),
		T(the_hosts_own_root_is_known_by_any_name),
		T(image_is_the_first_disk_as_before),
		T(keys_of_the_other_kind_are_refused_with_the_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
