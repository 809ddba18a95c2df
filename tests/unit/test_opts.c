/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/opts.h"

struct got {
	char name[64], tag[64], maybe[64];
	unsigned flags, loud, maybes;
};

static int set_name(void *t, const char *v, struct err *e)
{
	(void)e;
	snprintf(((struct got *)t)->name, 64, "%s", v);
	return 0;
}

static int set_tag(void *t, const char *v, struct err *e)
{
	if (!strcmp(v, "bad"))
		return err_msg(e, -ERANGE, "not this one");
	snprintf(((struct got *)t)->tag, 64, "%s", v);
	return 0;
}

static int set_flag(void *t, const char *v, struct err *e)
{
	(void)v, (void)e;
	((struct got *)t)->flags++;
	return 0;
}

static int set_loud(void *t, const char *v, struct err *e)
{
	(void)v, (void)e;
	((struct got *)t)->loud++;
	return 0;
}

static int set_maybe(void *t, const char *v, struct err *e)
{
	(void)e;
	((struct got *)t)->maybes++;
	if (v)
		snprintf(((struct got *)t)->maybe, 64, "%s", v);
	return 0;
}

static int stop(void *t, const char *v, struct err *e)
{
	(void)t, (void)v, (void)e;
	return OPTS_STOP;
}

static const struct opt table[] = {
	{.name = "A group:", .kind = OPT_GROUP},
	{.name = "name", .kind = OPT_VALUE, .set = set_name, .arg = "TEXT", .help = "one\ntwo"},
	{.name = "tag",
	 .kind = OPT_VALUE,
	 .set = set_tag,
	 .repeat = true,
	 .arg = "A-RATHER-LONG-ARGUMENT",
	 .help = "three"},
	{.name = "flag", .kind = OPT_FLAG, .set = set_flag, .help = "four"},
	{.name = "loud",
	 .kind = OPT_FLAG,
	 .letter = 'l',
	 .repeat = true,
	 .set = set_loud,
	 .help = "f"},
	{.name = "maybe", .kind = OPT_MAYBE, .set = set_maybe, .arg = "FILE", .help = "six"},
	{.name = "help", .kind = OPT_FLAG, .letter = 'h', .set = stop, .help = "seven"},
	{.name = "n", .kind = OPT_MEANT, .arg = "name"},
	{.name = "title", .kind = OPT_MEANT, .arg = "name"},
	{.name = "note", .kind = OPT_VALUE, .set = set_name, .empty = true, .arg = "TEXT"},
	{.name = "namely", .kind = OPT_FLAG, .set = set_flag},
	{0},
};

static struct got got;
static struct err err;

static int parse(const char *a, const char *b, const char *c)
{
	char *argv[] = {(char *)a, (char *)b, (char *)c, NULL};
	int argc = 0;

	while (argv[argc])
		argc++;
	got = (struct got){0};
	err = (struct err){0};
	return opts_parse(table, argc, argv, &got, &err);
}

static void refused(const char *a, const char *b, const char *c, const char *why)
{
	assert_true(parse(a, b, c) < 0);
	assert_string_equal(err.text, why);
	assert_true(err.code < 0);
}

static void opts_value_in_both_spellings(void **s)
{
	(void)s;
	assert_int_equal(parse("--name", "x y", NULL), 0);
	assert_string_equal(got.name, "x y");
	assert_int_equal(parse("--name=a=b", NULL, NULL), 0);
	assert_string_equal(got.name, "a=b");
	assert_int_equal(parse(NULL, NULL, NULL), 0);
}

static void opts_value_may_start_with_dashes(void **s)
{
	(void)s;
	assert_int_equal(parse("--name", "-- 3", NULL), 0);
	assert_string_equal(got.name, "-- 3");
	assert_int_equal(parse("--name", "-x", NULL), 0);
	assert_string_equal(got.name, "-x");
}

static void opts_flags_and_letters(void **s)
{
	(void)s;
	assert_int_equal(parse("--flag", "-ll", "--loud"), 0);
	assert_int_equal(got.flags, 1);
	assert_int_equal(got.loud, 3);
	assert_int_equal(parse("--maybe", NULL, NULL), 0);
	assert_int_equal(got.maybes, 1);
	assert_string_equal(got.maybe, "");
	assert_int_equal(parse("--maybe=f.json", NULL, NULL), 0);
	assert_string_equal(got.maybe, "f.json");
	refused("--maybe", "f.json", NULL,
		"f.json: unexpected argument; did you mean --maybe=f.json?");
	refused("--maybe=a", "b", NULL, "b: unexpected argument (options begin with --)");
}

static void opts_stop_ends_parsing(void **s)
{
	(void)s;
	assert_int_equal(parse("--help", "--nonsense", NULL), OPTS_STOP);
	assert_int_equal(parse("-lh", "--nonsense", NULL), OPTS_STOP);
	assert_int_equal(got.loud, 1);
}

static void opts_errors_name_what_and_why(void **s)
{
	(void)s;
	refused("--name", NULL, NULL, "--name: the value (TEXT) is missing");
	refused("--name", "--flag", NULL, "--name: the value (TEXT) is missing");
	refused("--name", "--tag=x", NULL, "--name: the value (TEXT) is missing");
	refused("--name=", NULL, NULL, "--name: the value (TEXT) is empty");
	refused("--name", "", NULL, "--name: the value (TEXT) is empty");
	refused("--flag=1", NULL, NULL, "--flag: takes no value");
	refused("--flag=", NULL, NULL, "--flag: takes no value");
	refused("--flag", "--flag", NULL, "--flag: given twice");
	refused("--name=a", "--name=b", NULL, "--name: given twice");
	refused("--tag", "bad", NULL, "--tag bad: not this one");
	refused("--maybe=", NULL, NULL, "--maybe: the value (FILE) is empty");
	refused("stray", NULL, NULL, "stray: unexpected argument (options begin with --)");
	refused("", NULL, NULL, ": unexpected argument (options begin with --)");
	refused("--", NULL, NULL, "--: unknown option (--help lists them)");
	refused("-", NULL, NULL, "-: unknown option (--help lists them)");
}

static void opts_unknown_names_the_nearest(void **s)
{
	(void)s;
	refused("--nmae=x", NULL, NULL, "--nmae: unknown option; did you mean --name?");
	refused("--na", NULL, NULL, "--na: unknown option; did you mean --name?");
	refused("--flga", NULL, NULL, "--flga: unknown option; did you mean --flag?");
	refused("-flag", NULL, NULL, "-flag: unknown option; did you mean --flag?");
	refused("--flagged", NULL, NULL, "--flagged: unknown option; did you mean --flag?");
	refused("--xyzzy-plugh", NULL, NULL, "--xyzzy-plugh: unknown option (--help lists them)");
	refused("-n", "x", NULL, "-n: unknown option; did you mean --name?");
	refused("--title=x", NULL, NULL, "--title: unknown option; did you mean --name?");
	refused("-title", NULL, NULL, "-title: unknown option; did you mean --name?");
	/* A hidden option is never suggested. */
	refused("--namel", NULL, NULL, "--namel: unknown option; did you mean --name?");
	refused("-z", NULL, NULL, "-z: unknown option (--help lists them)");
	refused("-lz", NULL, NULL, "-z: unknown option (--help lists them)");
}

static void opts_empty_value_where_it_means_something(void **s)
{
	(void)s;
	assert_int_equal(parse("--note", "", NULL), 0);
	assert_string_equal(got.name, "");
	assert_int_equal(parse("--note=", "--flag", NULL), 0);
	assert_string_equal(got.name, "");
}

static void opts_same_tag_may_repeat(void **s)
{
	(void)s;
	assert_int_equal(parse("--tag=a", "--tag=b", NULL), 0);
	assert_string_equal(got.tag, "b");
}

static void opts_nearest_bounds(void **s)
{
	static const char *const names[] = {"readonly", "direct", "id", NULL};
	char big[5000];

	(void)s;
	memset(big, 'r', sizeof(big));
	big[sizeof(big) - 1] = '\0';
	assert_null(opts_nearest(big, names));
	assert_null(opts_nearest("", names));
	assert_null(opts_nearest("x", names));
	assert_null(opts_nearest("qq", names));
	/* A short word is not at two letters' distance from what was meant. */
	assert_null(opts_nearest("foo", (const char *const[]){"fd", "-RO", "RO", NULL}));
	assert_null(opts_nearest("FOO", (const char *const[]){"MQ", "RO", NULL}));
	assert_string_equal(opts_nearest("fdd", (const char *const[]){"tap", "fd", NULL}), "fd");
	assert_string_equal(opts_nearest("readnoly", names), "readonly");
	assert_string_equal(opts_nearest("drect", names), "direct");
	assert_string_equal(opts_nearest("di", names), "direct");
}

static void opts_help_is_laid_out(void **s)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	(void)s;
	opts_help(table, f);
	fclose(f);
	assert_string_equal(text, "\nA group:\n"
				  "  --name TEXT             one\n"
				  "                          two\n"
				  "  --tag A-RATHER-LONG-ARGUMENT\n"
				  "                          three\n"
				  "  --flag                  four\n"
				  "  -l, --loud              f\n"
				  "  --maybe[=FILE]          six\n"
				  "  -h, --help              seven\n");
	free(text);
}

/* ------------------------------------------------------------- k=v */

static const struct kv_key keys[] = {{"name", set_name, NULL},
				     {"tag", set_tag, "tag=x"},
				     {"label", NULL, "tag=x"},
				     {"flag", set_tag, "flag"},
				     {NULL, NULL, NULL}};

static int kv(const char *text, const char *bare)
{
	got = (struct got){0};
	err = (struct err){0};
	return opts_kv(keys, bare, text, &got, &err);
}

static void kv_refused(const char *text, const char *why)
{
	assert_true(kv(text, "name") < 0);
	assert_string_equal(err.text, why);
}

static void kv_pairs_and_bare_value(void **s)
{
	(void)s;
	assert_int_equal(kv("name=a,tag=b", NULL), 0);
	assert_string_equal(got.name, "a");
	assert_string_equal(got.tag, "b");
	assert_int_equal(kv("/x/y.img,tag=b", "name"), 0);
	assert_string_equal(got.name, "/x/y.img");
	assert_int_equal(kv("name=a,flag", NULL), 0);
	assert_string_equal(got.tag, "on");
	/* A path that cannot be a key is one, whatever it holds. */
	assert_int_equal(kv("./name=x", "name"), 0);
	assert_string_equal(got.name, "./name=x");
	assert_true(kv("x", NULL) < 0);
}

static void kv_quotes_hold_commas(void **s)
{
	(void)s;
	assert_int_equal(kv("name=\"a,b\",tag=c", NULL), 0);
	assert_string_equal(got.name, "a,b");
	assert_string_equal(got.tag, "c");
	assert_int_equal(kv("name=x\"a,b\"y", NULL), 0);
	assert_string_equal(got.name, "xa,by");
	assert_int_equal(kv("name=\"say \"\"hi\"\"\"", NULL), 0);
	assert_string_equal(got.name, "say \"hi\"");
	assert_int_equal(kv("\"tag=x\"", "name"), 0);
	assert_string_equal(got.name, "tag=x");
}

static void kv_errors_name_what_and_why(void **s)
{
	(void)s;
	kv_refused("", "name: the value is empty");
	kv_refused("name=", "name: the value is empty");
	kv_refused("name=\"\"", "name: the value is empty");
	kv_refused("a,name=b", "name: given twice");
	kv_refused("tag=a,tag=b", "tag: given twice");
	kv_refused("tga=a", "unknown key \"tga\"; did you mean tag?");
	kv_refused("colour=a", "unknown key \"colour\" (there are name, tag, flag)");
	kv_refused("label=a", "unknown key \"label\"; did you mean tag=x?");
	kv_refused("a,label", "\"label\" is not key=value; did you mean tag=x?");
	kv_refused("a,tag", "\"tag\" is not key=value; did you mean tag=x?");
	kv_refused("a,", "nothing stands between two commas or at the end");
	kv_refused("a,,tag=b", "nothing stands between two commas or at the end");
	kv_refused("a,tga", "\"tga\" is not key=value; did you mean tag=x?");
	kv_refused("a,falg", "\"falg\" is not key=value; did you mean flag?");
	kv_refused("a,b", "\"b\" is not key=value");
	kv_refused("name=\"a", "a quote is not closed");
	kv_refused("tag=bad", "tag: not this one");
	kv_refused("a,=b", "\"=b\" is not key=value");
}

static void opts_number_grammar(void **s)
{
	unsigned long n = 7;

	(void)s;
	assert_int_equal(opts_number("1", 1, 32, &n, &err), 0);
	assert_int_equal(n, 1);
	assert_int_equal(opts_number("032", 1, 32, &n, &err), 0);
	assert_int_equal(n, 32);
	assert_int_equal(opts_number("33", 1, 32, &n, &err), -ERANGE);
	assert_string_equal(err.text, "out of range (1 to 32)");
	assert_int_equal(opts_number("0", 1, 32, &n, &err), -ERANGE);
	assert_int_equal(opts_number("18446744073709551617", 1, 32, &n, &err), -ERANGE);
	assert_int_equal(opts_number("", 1, 32, &n, &err), -EINVAL);
	assert_int_equal(opts_number("-1", 1, 32, &n, &err), -EINVAL);
	assert_int_equal(opts_number("+1", 1, 32, &n, &err), -EINVAL);
	assert_int_equal(opts_number(" 1", 1, 32, &n, &err), -EINVAL);
	assert_int_equal(opts_number("1x", 1, 32, &n, &err), -EINVAL);
	assert_int_equal(opts_number("0x1", 1, 32, &n, &err), -EINVAL);
	assert_int_equal(n, 32);
}

static void opts_onoff_grammar(void **s)
{
	bool b = false;

	(void)s;
	assert_int_equal(opts_onoff("on", &b, &err), 0);
	assert_true(b);
	assert_int_equal(opts_onoff("off", &b, &err), 0);
	assert_false(b);
	assert_int_equal(opts_onoff("yes", &b, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opts_value_in_both_spellings),
		cmocka_unit_test(opts_value_may_start_with_dashes),
		cmocka_unit_test(opts_flags_and_letters),
		cmocka_unit_test(opts_stop_ends_parsing),
		cmocka_unit_test(opts_errors_name_what_and_why),
		cmocka_unit_test(opts_unknown_names_the_nearest),
		cmocka_unit_test(opts_empty_value_where_it_means_something),
		cmocka_unit_test(opts_same_tag_may_repeat),
		cmocka_unit_test(opts_nearest_bounds),
		cmocka_unit_test(opts_help_is_laid_out),
		cmocka_unit_test(kv_pairs_and_bare_value),
		cmocka_unit_test(kv_quotes_hold_commas),
		cmocka_unit_test(kv_errors_name_what_and_why),
		cmocka_unit_test(opts_number_grammar),
		cmocka_unit_test(opts_onoff_grammar),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
