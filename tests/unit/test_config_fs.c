/* SPDX-License-Identifier: Apache-2.0 */
/* --fs and --disk socket=: what they take, and the one line for what they do not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/config.h"
#include "vmm/log.h"

static int setup(void **state)
{
	struct config *c = malloc(sizeof(*c));

	log_set_level(-1);
	config_init(c);
	c->kernel = strdup("/dev/null");
	*state = c;
	return 0;
}

static int teardown(void **state)
{
	config_fini(*state);
	free(*state);
	return 0;
}

static void taken(struct config *c, const char *text)
{
	struct err e = {0};

	if (config_fs(c, text, &e) || config_check_fs(c, &e))
		fail_msg("%s: %s", text, e.text);
}

/* By the parser or by the check. */
static void refused(struct config *c, const char *text, const char *why)
{
	struct err e = {0};
	int r = config_fs(c, text, &e);

	if (r == 0)
		r = config_check_fs(c, &e);
	assert_true(r < 0);
	if (!strstr(e.text, why))
		fail_msg("%s: \"%s\" instead of \"%s\"", text, e.text, why);
	config_fs_fini(c);
	memset(c->fs, 0, sizeof(c->fs));
	c->nfs = 0;
}

static void a_directory_takes_all_keys(void **state)
{
	struct config *c = *state;

	taken(c, "tag=data,dir=/tmp,ro,cache=always,queues=2,queue_size=64,id=mine");
	assert_int_equal(c->nfs, 1);
	assert_string_equal(c->fs[0].tag, "data");
	assert_string_equal(c->fs[0].dir, "/tmp");
	assert_null(c->fs[0].socket);
	assert_true(c->fs[0].readonly);
	assert_int_equal(c->fs[0].cache, FS_CACHE_ALWAYS);
	assert_int_equal(c->fs[0].queues, 2);
	assert_int_equal(c->fs[0].queue_size, 64);
	assert_string_equal(c->fs[0].id, "mine");
	assert_true(config_shares_memory(c));
}

static void ro_stands_alone_or_with_a_word_and_anywhere(void **state)
{
	struct config *c = *state;

	taken(c, "ro,tag=a,dir=/tmp");
	taken(c, "tag=b,dir=/tmp,ro");
	taken(c, "tag=c,dir=/tmp,ro=on");
	taken(c, "tag=d,dir=/tmp,ro=off");
	taken(c, "tag=ro,dir=/tmp");
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(c->fs[i].readonly, i < 3);
	refused(c, "tag=a,dir=/tmp,readonly", "did you mean ro?");
	refused(c, "tag=a,dir=/tmp,ro,ro=off", "ro: given twice");
}

static void rw_is_what_it_is_anyway(void **state)
{
	struct config *c = *state;

	taken(c, "tag=a,dir=/tmp,rw");
	taken(c, "tag=b,dir=/tmp,rw=on");
	taken(c, "tag=c,socket=/x,rw");
	taken(c, "tag=d,dir=/tmp,rw=off");
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(c->fs[i].readonly, i == 3);
	refused(c, "tag=a,dir=/tmp,ro,rw", "ro and rw: one of them is meant");
	refused(c, "tag=a,dir=/tmp,rw=off,ro", "ro and rw: one of them is meant");
}

static void a_quoted_directory_holds_commas(void **state)
{
	struct config *c = *state;
	struct err e = {0};

	assert_int_equal(config_fs(c, "tag=a,dir=\"/x,ro,y\"", &e), 0);
	assert_string_equal(c->fs[0].dir, "/x,ro,y");
	assert_false(c->fs[0].readonly);
}

static void a_socket_stands_for_a_directory(void **state)
{
	struct config *c = *state;

	taken(c, "tag=data,socket=/run/fs.sock");
	assert_string_equal(c->fs[0].socket, "/run/fs.sock");
}

static void a_tag_may_have_36_bytes(void **state)
{
	struct config *c = *state;

	taken(c, "tag=0123456789abcdef0123456789abcdef0123,dir=/tmp");
	assert_int_equal(strlen(c->fs[0].tag), 36);
	refused(c, "tag=0123456789abcdef0123456789abcdef01234,dir=/tmp",
		"01234\" is 37 bytes long, not 1 to 36");
	refused(c, "tag=,dir=/tmp", "the value is empty");
	refused(c, "tag=a b,dir=/tmp", "blank");
	refused(c, "tag=a\tb,dir=/tmp", "blank");
	refused(c, "dir=/tmp", "the tag is missing");
	refused(c, "tag=mvm.root,dir=/tmp", "--rootfs");
}

static void one_of_directory_and_socket_is_meant(void **state)
{
	struct config *c = *state;

	refused(c, "tag=a", "dir=DIR or socket=PATH");
	refused(c, "tag=a,dir=", "the value is empty");
	refused(c, "tag=a,dir=/tmp,socket=/x", "one of them");
}

static void a_directory_has_to_be_there(void **state)
{
	struct config *c = *state;

	refused(c, "tag=a,dir=/nonexistent", "--fs tag=a: dir=/nonexistent: No such file");
	refused(c, "tag=a,dir=/dev/null", "not a directory");
}

static void what_the_other_virtiofsd_decides_is_refused(void **state)
{
	struct config *c = *state;
	char text[256];

	refused(c, "tag=a,socket=/x,ro", "ro: not together with socket");
	refused(c, "tag=a,socket=/x,cache=never", "cache: not together with socket");
	snprintf(text, sizeof(text), "tag=a,socket=/%0120d", 0);
	refused(c, text, "at most 107 fit");
}

static void tags_are_unique(void **state)
{
	struct config *c = *state;
	struct err e = {0};

	taken(c, "tag=a,dir=/tmp");
	assert_int_equal(config_fs(c, "tag=a,dir=/", &e), 0);
	assert_int_equal(config_check_fs(c, &e), -EEXIST);
	assert_string_equal(e.text, "--fs tag=a: given twice");
}

static void values_out_of_range_are_refused(void **state)
{
	struct config *c = *state;

	refused(c, "tag=a,dir=/tmp,queues=0", "queues");
	refused(c, "tag=a,dir=/tmp,queues=32", "1 to 31");
	refused(c, "tag=a,dir=/tmp,queue_size=100", "power of two");
	refused(c, "tag=a,dir=/tmp,queue_size=8", "8 is not a power of two from 16 to 1024");
	refused(c, "tag=a,dir=/tmp,cache=none", "did you mean never?");
	refused(c, "tag=a,path=/tmp", "dir=");
	refused(c, "tag=a,dir=/tmp,", "between two commas or at the end");
}

static void so_many_fit(void **state)
{
	struct config *c = *state;
	struct err e = {0};
	char text[32];

	for (unsigned i = 0; i < CONFIG_FS_MAX; i++) {
		snprintf(text, sizeof(text), "tag=t%u,dir=/tmp", i);
		taken(c, text);
	}
	assert_int_equal(config_fs(c, "tag=more,dir=/tmp", &e), -E2BIG);
}

/* ------------------------------------------------------------- --disk socket= */

static void disk_refused(struct config *c, const char *text, const char *why)
{
	struct err e = {0};

	assert_true(config_disk(c, text, &e) < 0);
	if (!strstr(e.text, why))
		fail_msg("%s: \"%s\" instead of \"%s\"", text, e.text, why);
	assert_int_equal(c->ndisks, 0);
}

static void a_disk_may_be_a_socket(void **state)
{
	struct config *c = *state;

	assert_int_equal(config_disk(c, "socket=/run/b.sock,queues=2,readonly=on", NULL), 0);
	assert_int_equal(config_disk(c, "vhost_user=on,socket=/run/c.sock", NULL), 0);
	assert_string_equal(c->disks[0].path, "/run/b.sock");
	assert_true(c->disks[0].vhost_user && c->disks[0].readonly);
	assert_true(c->disks[1].vhost_user);
	assert_true(config_shares_memory(c));
}

static void a_disk_is_a_file_or_a_socket(void **state)
{
	struct config *c = *state;

	disk_refused(c, "a.img,socket=/x", "one of them");
	disk_refused(c, "socket=/x,path=a.img", "one of them");
	disk_refused(c, "vhost_user=on", "the socket is missing");
	disk_refused(c, "a.img,vhost_user=on", "the socket is missing");
	disk_refused(c, "vhost_user=off,socket=/x", "which is off");
	disk_refused(c, "readonly=on", "the path is missing");
}

static void what_the_back_end_decides_is_refused(void **state)
{
	struct config *c = *state;

	disk_refused(c, "socket=/x,direct=on", "direct: not together with socket");
	disk_refused(c, "socket=/x,cache=writethrough", "cache: not together with socket");
	disk_refused(c, "socket=/x,serial=ABC", "serial: not together with socket");
	disk_refused(c, "socket=/x,format=raw", "format: not together with socket");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_directory_takes_all_keys),
		T(ro_stands_alone_or_with_a_word_and_anywhere),
		T(rw_is_what_it_is_anyway),
		T(a_quoted_directory_holds_commas),
		T(a_socket_stands_for_a_directory),
		T(a_tag_may_have_36_bytes),
		T(one_of_directory_and_socket_is_meant),
		T(a_directory_has_to_be_there),
		T(what_the_other_virtiofsd_decides_is_refused),
		T(tags_are_unique),
		T(values_out_of_range_are_refused),
		T(so_many_fit),
		T(a_disk_may_be_a_socket),
		T(a_disk_is_a_file_or_a_socket),
		T(what_the_back_end_decides_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
