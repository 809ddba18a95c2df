/* SPDX-License-Identifier: Apache-2.0 */
/* The file of --timeline: there before the machine starts, whole or not there at the end. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/timeline.h"

static char dir[64], path[96];
static struct err err;

static int before(void **s)
{
	(void)s;
	strcpy(dir, "/tmp/mvm-timeline-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/t.json", dir);
	err = (struct err){0};
	return 0;
}

static int after(void **s)
{
	(void)s;
	unlink(path);
	return rmdir(dir); /* nothing else is in it */
}

static void put(const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void holds(const char *want)
{
	char got[64] = "";
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	got[fread(got, 1, sizeof(got) - 1, f)] = '\0';
	fclose(f);
	assert_string_equal(got, want);
}

static void holds_stages(void)
{
	json_error_t why;
	json_t *doc = json_load_file(path, 0, &why);

	assert_non_null(doc);
	assert_int_equal(json_array_size(json_object_get(doc, "stages")), 2);
	json_decref(doc);
}

static void timeline_file_is_made_and_filled(void **s)
{
	(void)s;
	assert_int_equal(timeline_open(path, &err), 0);
	holds("");
	assert_int_equal(timeline_write(&err), 0);
	holds_stages();
}

static void timeline_replaces_what_was_longer(void **s)
{
	char old[4096];

	(void)s;
	memset(old, 'x', sizeof(old) - 1);
	old[sizeof(old) - 1] = '\0';
	put(old);
	assert_int_equal(timeline_open(path, &err), 0);
	assert_int_equal(timeline_write(&err), 0);
	holds_stages();
}

static void timeline_undo_leaves_things_as_they_were(void **s)
{
	(void)s;
	timeline_undo(); /* nothing was opened */
	assert_int_equal(timeline_open(path, &err), 0);
	timeline_undo();
	assert_int_equal(access(path, F_OK), -1);
	put("old");
	assert_int_equal(timeline_open(path, &err), 0);
	timeline_undo();
	holds("old");
	/* What somebody else put there meanwhile is not ours. */
	unlink(path);
	assert_int_equal(timeline_open(path, &err), 0);
	unlink(path);
	put("");
	timeline_undo();
	assert_int_equal(access(path, F_OK), 0);
}

static void refused(const char *at, int code, const char *why)
{
	char want[256];

	assert_int_equal(timeline_open(at, &err), code);
	snprintf(want, sizeof(want), "timeline: open %s: %s", at, why);
	assert_string_equal(err.text, want);
	timeline_undo();
}

static void timeline_open_says_why_not(void **s)
{
	(void)s;
	refused("/nonexistent/t.json", -ENOENT, "No such file or directory");
	refused(dir, -EISDIR, "Is a directory");
	assert_int_equal(mkfifo(path, 0600), 0);
	refused(path, -ENXIO, "a FIFO or device without a reader");
	assert_int_equal(access(path, F_OK), 0);
}

static void timeline_that_does_not_fit_is_told_and_goes(void **s)
{
	struct rlimit old, small;

	(void)s;
	assert_int_equal(timeline_open("/dev/full", &err), 0);
	assert_int_equal(timeline_write(&err), -ENOSPC);
	assert_string_equal(err.text, "timeline: write /dev/full: No space left on device");

	signal(SIGXFSZ, SIG_IGN); /* as the machine does */
	getrlimit(RLIMIT_FSIZE, &old);
	small = (struct rlimit){.rlim_cur = 50, .rlim_max = old.rlim_max};
	setrlimit(RLIMIT_FSIZE, &small);
	assert_int_equal(timeline_open(path, &err), 0);
	assert_int_equal(timeline_write(&err), -EFBIG);
	assert_int_equal(access(path, F_OK), -1);
	/* One that was there is left empty, not cut in the middle. */
	put("old");
	assert_int_equal(timeline_open(path, &err), 0);
	assert_int_equal(timeline_write(&err), -EFBIG);
	setrlimit(RLIMIT_FSIZE, &old);
	holds("");
}

static void timeline_goes_into_a_pipe(void **s)
{
	char at[32], got[4096] = "";
	int fd[2];

	(void)s;
	assert_int_equal(pipe(fd), 0);
	snprintf(at, sizeof(at), "/dev/fd/%d", fd[1]);
	assert_int_equal(timeline_open(at, &err), 0);
	assert_int_equal(timeline_write(&err), 0);
	assert_true(read(fd[0], got, sizeof(got) - 1) > 0);
	assert_non_null(strstr(got, "\"stage\": \"start\""));
	close(fd[0]);
	close(fd[1]);
}

/* Last: what was reached stays. */
static void timeline_tells_stages_by_their_time(void **s)
{
	static const char *const want[] = {"start", "vm", "init", "console"};
	json_error_t why;
	json_t *doc, *list;

	(void)s;
	timeline_mark(STAGE_INIT);
	timeline_mark(STAGE_CONSOLE);
	assert_int_equal(timeline_open(path, &err), 0);
	assert_int_equal(timeline_write(&err), 0);
	doc = json_load_file(path, 0, &why);
	list = json_object_get(doc, "stages");
	assert_int_equal(json_array_size(list), 4);
	for (size_t i = 0; i < 4; i++)
		assert_string_equal(
			json_string_value(json_object_get(json_array_get(list, i), "stage")),
			want[i]);
	json_decref(doc);
}

#define T(f) cmocka_unit_test_setup_teardown(f, before, after)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(timeline_file_is_made_and_filled),
		T(timeline_replaces_what_was_longer),
		T(timeline_undo_leaves_things_as_they_were),
		T(timeline_open_says_why_not),
		T(timeline_that_does_not_fit_is_told_and_goes),
		T(timeline_goes_into_a_pipe),
		T(timeline_tells_stages_by_their_time),
	};

	timeline_begin();
	timeline_want();
	timeline_mark(STAGE_VM);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
