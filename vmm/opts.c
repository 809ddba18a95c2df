/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/opts.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 32 /* longer words are nobody's misspelling */
#define HELP_COLUMN 26

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

/* Optimal string alignment: insert, delete, replace, swap neighbours. */
static size_t distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	size_t d[WORD_MAX + 1][WORD_MAX + 1];

	if (la > WORD_MAX || lb > WORD_MAX)
		return WORD_MAX;
	for (size_t i = 0; i <= la; i++)
		d[i][0] = i;
	for (size_t j = 0; j <= lb; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= la; i++)
		for (size_t j = 1; j <= lb; j++) {
			size_t differ = a[i - 1] != b[j - 1];

			d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + differ);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    d[i - 2][j - 2] + 1 < d[i][j])
				d[i][j] = d[i - 2][j - 2] + 1;
		}
	return d[la][lb];
}

const char *opts_nearest(const char *word, const char *const *names)
{
	size_t len = strlen(word), best = len / 3 > 1 ? len / 3 : 1;
	const char *found = NULL;

	if (len < 2 || len > WORD_MAX)
		return NULL;
	for (size_t i = 0; names[i]; i++)
		if (!strncmp(names[i], word, len))
			return names[i];
	for (size_t i = 0; names[i]; i++) {
		size_t far = distance(word, names[i]);

		if (far < best || (far == best && !found)) {
			best = far;
			found = names[i];
		}
	}
	if (found)
		return found;
	/* "disk0", "kernel-image": the right word with something behind it. */
	for (size_t i = 0; names[i]; i++)
		if (!strncmp(names[i], word, strlen(names[i])))
			return names[i];
	return NULL;
}

/* ------------------------------------------------------------- options */

static int unknown(const struct opt *table, const char *arg, struct err *e)
{
	const char *names[OPTS_MAX + 1], *near = NULL;
	char word[WORD_MAX + 1];
	size_t n = 0;

	snprintf(word, sizeof(word), "%s", arg + strspn(arg, "-"));
	word[strcspn(word, "=")] = '\0';
	for (const struct opt *o = table; o->name; o++) {
		if (o->kind == OPT_MEANT && !strcmp(word, o->name))
			near = o->arg;
		else if (o->kind != OPT_GROUP && o->help)
			names[n++] = o->name;
	}
	names[n] = NULL;
	if (!near)
		near = opts_nearest(word, names);
	if (arg[0] != '-')
		return err_msg(e, -EINVAL, "%s: unexpected argument (options begin with --)", arg);
	if (near)
		return err_msg(e, -EINVAL, "%.*s: unknown option; did you mean --%s?",
			       (int)strcspn(arg, "="), arg, near);
	return err_msg(e, -EINVAL, "%.*s: unknown option (--help lists them)",
		       (int)strcspn(arg, "="), arg);
}

static const struct opt *find(const struct opt *table, const char *name, size_t len)
{
	for (const struct opt *o = table; o->name; o++)
		if (o->kind != OPT_GROUP && o->kind != OPT_MEANT && strlen(o->name) == len &&
		    !strncmp(o->name, name, len))
			return o;
	return NULL;
}

static const struct opt *find_long(const struct opt *table, const char *arg)
{
	if (arg[0] != '-' || arg[1] != '-')
		return NULL;
	return find(table, arg + 2, strcspn(arg + 2, "="));
}

/* One line of arguments while it is read. */
struct line {
	const struct opt *table;
	void *target;
	bool seen[OPTS_MAX];
};

static int apply(struct line *l, const struct opt *o, const char *value, struct err *e)
{
	struct err why = {0};
	int ret;

	if (l->seen[o - l->table] && !o->repeat)
		return err_msg(e, -EINVAL, "--%s: given twice", o->name);
	l->seen[o - l->table] = true;
	if (value && !*value && !o->empty)
		return err_msg(e, -EINVAL, "--%s: the value (%s) is empty", o->name, o->arg);
	ret = o->set(l->target, value, &why);
	if (ret >= 0)
		return ret;
	return err_msg(e, ret, "--%s%s%s: %s", o->name, value ? " " : "", value ? value : "",
		       why.text);
}

static int letters(struct line *l, const char *arg, struct err *e)
{
	for (const char *p = arg + 1; *p; p++) {
		const char one[] = {'-', *p, '\0'};
		const struct opt *o = l->table;
		int ret;

		while (o->name && o->letter != *p)
			o++;
		if (!o->name)
			return unknown(l->table, p == arg + 1 ? arg : one, e);
		ret = apply(l, o, NULL, e);
		if (ret)
			return ret;
	}
	return 0;
}

/* One option and its value; *@i moves on to the last argument that was used. */
static int option(struct line *l, int argc, char **argv, int *i, struct err *e)
{
	const struct opt *o = find_long(l->table, argv[*i]);
	const struct opt *last = *i ? find_long(l->table, argv[*i - 1]) : NULL;
	const char *value;

	if (!o && last && last->kind == OPT_MAYBE && !strchr(argv[*i - 1], '=') &&
	    argv[*i][0] != '-')
		return err_msg(e, -EINVAL, "%s: unexpected argument; did you mean --%s=%s?",
			       argv[*i], last->name, argv[*i]);
	if (!o)
		return unknown(l->table, argv[*i], e);
	value = strchr(argv[*i], '=');
	value = value ? value + 1 : NULL;
	if (value && o->kind == OPT_FLAG)
		return err_msg(e, -EINVAL, "--%s: takes no value", o->name);
	if (!value && o->kind == OPT_VALUE) {
		/* `--kernel --initrd x` forgot a value; `--cmdline "-- 3"` did not. */
		if (*i + 1 >= argc || find_long(l->table, argv[*i + 1]))
			return err_msg(e, -EINVAL, "--%s: the value (%s) is missing", o->name,
				       o->arg);
		value = argv[++*i];
	}
	return apply(l, o, value, e);
}

int opts_parse(const struct opt *table, int argc, char **argv, void *target, struct err *e)
{
	struct line l = {.table = table, .target = target};
	int ret = 0;

	for (size_t n = 0; table[n].name; n++)
		assert(n < OPTS_MAX);
	for (int i = 0; !ret && i < argc; i++) {
		if (argv[i][0] == '-' && argv[i][1] && argv[i][1] != '-')
			ret = letters(&l, argv[i], e);
		else
			ret = option(&l, argc, argv, &i, e);
	}
	return ret;
}

static void help_one(const struct opt *o, FILE *out)
{
	char left[80];
	const char *p = o->help;
	int n = 0;

	if (o->letter)
		n = snprintf(left, sizeof(left), "  -%c, --%s", o->letter, o->name);
	else
		n = snprintf(left, sizeof(left), "  --%s", o->name);
	if (o->arg)
		snprintf(left + n, sizeof(left) - (size_t)n, o->kind == OPT_MAYBE ? "[=%s]" : " %s",
			 o->arg);
	if (strlen(left) > HELP_COLUMN - 2) {
		fprintf(out, "%s\n", left);
		left[0] = '\0';
	}
	while (*p) {
		int len = (int)strcspn(p, "\n");

		fprintf(out, "%-*s%.*s\n", HELP_COLUMN, left, len, p);
		left[0] = '\0';
		p += len + (p[len] == '\n');
	}
}

void opts_help(const struct opt *table, FILE *out)
{
	for (const struct opt *o = table; o->name; o++) {
		if (o->kind == OPT_GROUP)
			fprintf(out, "\n%s\n", o->name);
		else if (o->help)
			help_one(o, out);
	}
}

/* ------------------------------------------------------------- k=v */

/* Copies one item up to a comma outside quotes, quotes taken out; -EINVAL when one stays open. */
static int item(const char **p, char *out)
{
	bool quoted = false;

	for (; **p && (quoted || **p != ','); (*p)++) {
		if (**p != '"') {
			*out++ = **p;
		} else if (quoted && (*p)[1] == '"') {
			*out++ = '"';
			(*p)++;
		} else {
			quoted = !quoted;
		}
	}
	*out = '\0';
	return quoted ? -EINVAL : 0;
}

/* One list while it is read. */
struct list {
	const struct kv_key *keys;
	void *target;
	bool seen[OPTS_MAX];
};

/* What the bare word @word stands for, or NULL. */
static const char *kv_example(const struct kv_key *keys, const char *word)
{
	for (; keys->name; keys++)
		if (!strcmp(keys->name, word))
			return keys->example;
	return NULL;
}

static const char *kv_nearest(const struct kv_key *keys, const char *key)
{
	const char *names[OPTS_MAX + 1];
	size_t n = 0;

	for (; keys->name; keys++) {
		if (!keys->set)
			continue;
		assert(n < OPTS_MAX);
		names[n++] = keys->name;
	}
	names[n] = NULL;
	return opts_nearest(key, names);
}

static int kv_unknown(const struct kv_key *keys, const char *key, struct err *e)
{
	const char *near = kv_example(keys, key);
	char all[256] = "";
	size_t len = 0;

	if (!near)
		near = kv_nearest(keys, key);
	if (near)
		return err_msg(e, -EINVAL, "unknown key \"%s\"; did you mean %s?", key, near);
	for (; keys->name; keys++)
		if (keys->set && len < sizeof(all))
			len += (size_t)snprintf(all + len, sizeof(all) - len, "%s%s",
						len ? ", " : "", keys->name);
	return err_msg(e, -EINVAL, "unknown key \"%s\" (there are %s)", key, all);
}

static int kv_apply(struct list *l, const char *key, const char *value, struct err *e)
{
	size_t at = 0;
	int ret;

	while (l->keys[at].name && (!l->keys[at].set || strcmp(key, l->keys[at].name)))
		at++;
	assert(at < OPTS_MAX);
	if (!l->keys[at].name)
		return kv_unknown(l->keys, key, e);
	if (l->seen[at])
		return err_msg(e, -EINVAL, "%s: given twice", key);
	l->seen[at] = true;
	if (!*value)
		return err_msg(e, -EINVAL, "%s: the value is empty", key);
	ret = l->keys[at].set(l->target, value, e);
	return ret ? err_ctx(e, "%s", key) : 0;
}

static int kv_bare(struct list *l, const char *word, struct err *e)
{
	const char *example = kv_example(l->keys, word), *near;

	if (example && !strcmp(example, word))
		return kv_apply(l, word, "on", e);
	near = example ? NULL : kv_nearest(l->keys, word);
	if (near)
		example = kv_example(l->keys, near);
	if (near && !example)
		example = near;
	return err_msg(e, -EINVAL, "\"%s\" is not key=value%s%s%s", word,
		       example ? "; did you mean " : "", example ? example : "",
		       example ? "?" : "");
}

/* Keys are letters, digits, '_' and '-': what starts otherwise, or has no '=', is a bare value. */
static bool is_keyed(const char *p)
{
	size_t n = 0;

	while (isalnum((unsigned char)p[n]) || p[n] == '_' || p[n] == '-')
		n++;
	return n && p[n] == '=';
}

int opts_kv(const struct kv_key *keys, const char *bare, const char *text, void *target,
	    struct err *e)
{
	struct list l = {.keys = keys, .target = target};
	char *buf = malloc(strlen(text) + 1);
	const char *p = text;
	int ret = 0;

	if (!buf)
		return err_msg(e, -ENOMEM, "out of memory");
	while (!ret) {
		bool keyed = is_keyed(p), first = p == text;

		if (item(&p, buf))
			ret = err_msg(e, -EINVAL, "a quote is not closed");
		else if (keyed) {
			char *eq = strchr(buf, '=');

			*eq = '\0';
			ret = kv_apply(&l, buf, eq + 1, e);
		} else if (first && bare)
			ret = kv_apply(&l, bare, buf, e);
		else if (!*buf)
			ret = err_msg(e, -EINVAL,
				      "nothing stands between two commas or at the end");
		else
			ret = kv_bare(&l, buf, e);
		if (!*p)
			break;
		p++;
	}
	free(buf);
	return ret;
}

int opts_number(const char *text, unsigned long min, unsigned long max, unsigned long *ret,
		struct err *e)
{
	unsigned long v = 0;
	bool over = false;

	if (!*text || text[strspn(text, "0123456789")])
		return err_msg(e, -EINVAL, "not a whole number (%lu to %lu)", min, max);
	for (; *text; text++) {
		over |= __builtin_mul_overflow(v, 10ul, &v);
		over |= __builtin_add_overflow(v, (unsigned long)(*text - '0'), &v);
	}
	if (over || v < min || v > max)
		return err_msg(e, -ERANGE, "out of range (%lu to %lu)", min, max);
	*ret = v;
	return 0;
}

int opts_onoff(const char *text, bool *ret, struct err *e)
{
	if (strcmp(text, "on") && strcmp(text, "off"))
		return err_msg(e, -EINVAL, "\"%s\" is neither on nor off", text);
	*ret = !strcmp(text, "on");
	return 0;
}
