/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index files that depmod leaves in a module directory (modules.dep(5),
 * modprobe.d(5) for soft dependencies). Whoever packed the directory wrote
 * them, so sizes, lines, work, depth and paths are all bounded.
 */
#include "boot/initramfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/beneath.h"

#define TEXT_MAX (64u << 20) /* bytes of one index file */
#define LINES_MAX 65536      /* modules: a kernel with everything enabled has about 10,000 */
#define WORK_MAX                                                                                   \
	(256u << 20) /* entries compared and bytes scanned in one resolution: under a second */
#define DEPTH_MAX 64 /* of dependencies, each a few frames of stack */
#define PATH_LEN_MAX 512

struct module {
	const char *path; /* in the text; not terminated */
	uint32_t len;
	uint32_t hash; /* of its name */
	const char *deps;
	bool seen; /* taken, or being taken: a cycle ends here */
};

struct index {
	struct module *mod;
	size_t n;
};

struct modtree {
	char *dir;            /* where modules.alias is read from when needed; NULL */
	struct beneath files; /* with dir */
	char *dep, *builtin, *softdep, *alias;
	bool alias_read;
	struct index have, built;
	size_t work; /* done so far, see WORK_MAX */
};

static char fold(char c)
{
	return c == '-' ? '_' : c;
}

static uint32_t name_hash(const char *s, size_t n)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < n; i++)
		h = (h ^ (uint8_t)fold(s[i])) * 16777619u;
	return h;
}

static bool name_eq(const char *a, size_t an, const char *b, size_t bn)
{
	if (an != bn)
		return false;
	for (size_t i = 0; i < an; i++)
		if (fold(a[i]) != fold(b[i]))
			return false;
	return true;
}

/* "kernel/fs/btrfs/btrfs.ko.xz" → "btrfs"; NULL when it is not a module's path. */
static const char *path_name(const char *path, size_t len, size_t *ret_len)
{
	static const char *const ends[] = {".ko", ".ko.gz", ".ko.xz", ".ko.zst"};
	const char *slash = memrchr(path, '/', len);
	const char *name = slash ? slash + 1 : path;
	size_t n = (size_t)(path + len - name);

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		size_t end = strlen(ends[i]);

		if (n > end && !memcmp(name + n - end, ends[i], end)) {
			*ret_len = n - end;
			return name;
		}
	}
	return NULL;
}

/* Relative, below the directory, and nothing that the guest's list or a message could trip over. */
static bool path_ok(const char *path, size_t len)
{
	if (!len || len > PATH_LEN_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (path[i] <= ' ' || path[i] == 0x7f)
			return false;
	for (size_t i = 0; i <= len;) {
		const char *slash = memchr(path + i, '/', len - i);
		size_t n = slash ? (size_t)(slash - path) - i : len - i;

		if (!n || (n <= 2 && !memcmp(path + i, "..", n)))
			return false;
		i += n + 1;
	}
	return true;
}

/* One module a line: "PATH: DEPENDENCY…", or the path alone in modules.builtin. */
static int index_build(struct index *x, const char *text, const char *what, struct err *e)
{
	size_t cap = 0;

	for (const char *p = text, *end; p && *p; p = *end ? end + 1 : end) {
		struct module m = {.path = p, .len = (uint32_t)strcspn(p, ": \t\n")};
		size_t name_len;
		const char *name = path_name(p, m.len, &name_len);

		end = p + m.len;
		m.deps = *end == ':' ? end + 1 : end;
		end += strcspn(end, "\n");
		if (!name)
			continue;
		if (x->n == cap) {
			struct module *more;

			if (cap >= LINES_MAX)
				return err_msg(e, -E2BIG, "%s: more than %d modules", what,
					       LINES_MAX);
			cap = cap ? 2 * cap : 1024;
			more = realloc(x->mod, cap * sizeof(*more));
			if (!more)
				return err_msg(e, -ENOMEM, "%s: out of memory", what);
			x->mod = more;
		}
		m.hash = name_hash(name, name_len);
		x->mod[x->n++] = m;
	}
	return 0;
}

static struct module *index_find(const struct index *x, const char *name, size_t len)
{
	uint32_t hash = name_hash(name, len);

	for (size_t i = 0; i < x->n; i++) {
		struct module *m = &x->mod[i];
		const char *own;
		size_t own_len;

		if (m->hash != hash)
			continue;
		own = path_name(m->path, m->len, &own_len);
		if (name_eq(own, own_len, name, len))
			return m;
	}
	return NULL;
}

/* ------------------------------------------------------------ resolving */

struct walk {
	struct modtree *t;
	struct modlist *out;
	struct err *e;
	unsigned depth;
};

static int visit(struct walk *w, struct module *m);

static int spend(struct walk *w, size_t work)
{
	w->t->work += work;
	if (w->t->work <= WORK_MAX)
		return 0;
	return err_msg(w->e, -E2BIG, "modules.dep: too many dependencies to follow");
}

static int visit_name(struct walk *w, const char *name, size_t len, bool *ret_found)
{
	struct module *m;
	int r;

	r = spend(w, w->t->built.n + w->t->have.n);
	if (r)
		return r;
	*ret_found = true;
	if (index_find(&w->t->built, name, len))
		return 0;
	m = index_find(&w->t->have, name, len);
	if (m)
		return visit(w, m);
	*ret_found = false;
	return 0;
}

static int text_read(struct modtree *t, const char *name, char **ret, struct err *e);

/* Everything in "alias NAME MODULE" lines for exactly this name: crypto algorithms are named so. */
static int visit_alias(struct walk *w, const char *name, size_t len)
{
	struct modtree *t = w->t;
	bool found;
	int r = 0;

	if (!t->alias_read && t->dir)
		r = text_read(t, "modules.alias", &t->alias, w->e);
	t->alias_read = true;
	if (!r && t->alias)
		r = spend(w, strlen(t->alias));
	for (const char *p = t->alias; p && *p && !r; p += *p == '\n') {
		size_t line = strcspn(p, "\n");
		size_t head = 6 + len + 1; /* "alias ", the name, a blank */

		if (line > head && !memcmp(p, "alias ", 6) && p[head - 1] == ' ' &&
		    name_eq(p + 6, len, name, len))
			r = visit_name(w, p + head, line - head, &found);
		p += line;
	}
	return r;
}

/* One "softdep NAME pre: A B post: C" line's A and B. */
static int visit_softdep_line(struct walk *w, const char *p, const char *end)
{
	bool pre = false, found;
	int r;

	while (p < end) {
		size_t n;

		p += strspn(p, " \t");
		n = strcspn(p, " \t\n");
		if (!n)
			break;
		if (p[n - 1] == ':') {
			pre = n == 4 && !memcmp(p, "pre:", 4);
		} else if (pre) {
			r = visit_name(w, p, n, &found);
			if (!r && !found)
				r = visit_alias(w, p, n);
			if (r)
				return r;
		}
		p += n;
	}
	return 0;
}

static int visit_softdeps(struct walk *w, const struct module *m)
{
	size_t len;
	const char *name = path_name(m->path, m->len, &len);
	int r = w->t->softdep ? spend(w, strlen(w->t->softdep)) : 0;

	for (const char *p = w->t->softdep; p && *p && !r; p += *p == '\n') {
		size_t line = strcspn(p, "\n"), n;

		if (line > 8 && !memcmp(p, "softdep ", 8)) {
			n = strcspn(p + 8, " \t\n");
			if (name_eq(p + 8, n, name, len))
				r = visit_softdep_line(w, p + 8 + n, p + line);
		}
		p += line;
	}
	return r;
}

/* modules.dep lists what to load from the last to the first. */
static int visit_deps(struct walk *w, const struct module *m)
{
	const char *end = m->deps + strcspn(m->deps, "\n");
	int r = 0;

	while (end > m->deps && !r) {
		const char *start, *name;
		size_t len;
		bool found;

		if (end[-1] == ' ' || end[-1] == '\t') {
			end--;
			continue;
		}
		for (start = end; start > m->deps && start[-1] != ' ' && start[-1] != '\t';)
			start--;
		name = path_name(start, (size_t)(end - start), &len);
		if (!name)
			return err_msg(w->e, -EINVAL, "modules.dep: %.*s depends on something odd",
				       (int)(m->len < 100 ? m->len : 100), m->path);
		r = visit_name(w, name, len, &found);
		end = start;
	}
	return r;
}

static int visit(struct walk *w, struct module *m)
{
	char **path;
	int r;

	if (m->seen)
		return 0;
	if (!path_ok(m->path, m->len))
		return err_msg(w->e, -EINVAL, "modules.dep: not a path below the directory: %.*s",
			       (int)(m->len < 100 ? m->len : 100), m->path);
	if (++w->depth > DEPTH_MAX)
		return err_msg(w->e, -ELOOP, "modules.dep: dependencies nested deeper than %d",
			       DEPTH_MAX);
	m->seen = true;
	r = visit_softdeps(w, m);
	if (!r)
		r = visit_deps(w, m);
	w->depth--;
	if (r)
		return r;
	if (w->out->n >= MODLIST_MAX)
		return err_msg(w->e, -E2BIG, "modules.dep: more than %d modules needed",
			       MODLIST_MAX);
	path = reallocarray(w->out->path, w->out->n + 1, sizeof(*path));
	if (path)
		w->out->path = path;
	if (!path || !(path[w->out->n] = strndup(m->path, m->len)))
		return err_msg(w->e, -ENOMEM, "out of memory");
	w->out->n++;
	return 0;
}

int modtree_resolve(struct modtree *t, const char *const *want, struct modlist *ret, struct err *e)
{
	struct modlist out = {0};
	struct walk w = {.t = t, .out = &out, .e = e};
	int r = 0;

	t->work = 0;
	for (size_t i = 0; i < t->have.n; i++)
		t->have.mod[i].seen = false;
	for (; *want && !r; want++) {
		bool must = **want == '!', found;
		const char *name = *want + must;

		r = visit_name(&w, name, strlen(name), &found);
		/* Without modules.builtin nobody knows whether the kernel has it. */
		if (!r && !found && must && t->builtin)
			r = err_msg(e, -ENOENT,
				    "the kernel has no %s, neither as a module nor built in", name);
	}
	if (r) {
		modlist_fini(&out);
		return r;
	}
	*ret = out;
	return 0;
}

void modlist_fini(struct modlist *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->path[i]);
	free(m->path);
	*m = (struct modlist){0};
}

/* ------------------------------------------------------------ files */

static int fd_read(int fd, char *buf, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = read(fd, buf + at, len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		at += (size_t)n;
	}
	return 0;
}

static int text_copy_fd(int fd, size_t size, char **ret, struct err *e)
{
	char *text;
	int r;

	if (size > TEXT_MAX)
		return err_msg(e, -EFBIG, "larger than %u MiB", TEXT_MAX >> 20);
	text = malloc(size + 1);
	if (!text)
		return err_msg(e, -ENOMEM, "out of memory");
	r = fd_read(fd, text, size);
	if (r) {
		free(text);
		return err_msg(e, r, "read: %s", strerror(-r));
	}
	text[size] = 0;
	*ret = text;
	return 0;
}

/* NUL-terminated; a NUL inside ends it earlier, which harms nobody. No file: nothing in *ret. */
static int text_read(struct modtree *t, const char *name, char **ret, struct err *e)
{
	struct stat st;
	struct err why = {0};
	int fd = beneath_open(&t->files, name, &st, &why), r;

	if (fd == -ENOENT && strcmp(name, "modules.dep"))
		return 0;
	if (fd < 0)
		return err_msg(e, fd, "%s", why.text);
	r = text_copy_fd(fd, (size_t)st.st_size, ret, e);
	close(fd);
	if (r)
		err_ctx(e, "%s/%s", t->dir, name);
	return r;
}

static int index_all(struct modtree *t, struct err *e)
{
	int r = index_build(&t->have, t->dep, "modules.dep", e);

	return r ? r : index_build(&t->built, t->builtin, "modules.builtin", e);
}

int modtree_open(struct modtree **ret, const char *dir, struct err *e)
{
	struct modtree *t = calloc(1, sizeof(*t));
	int r;

	if (!t || !(t->dir = strdup(dir))) {
		free(t);
		return err_msg(e, -ENOMEM, "out of memory");
	}
	r = beneath_init(&t->files, t->dir, e);
	if (!r)
		r = text_read(t, "modules.dep", &t->dep, e);
	if (!r)
		r = text_read(t, "modules.builtin", &t->builtin, e);
	if (!r)
		r = text_read(t, "modules.softdep", &t->softdep, e);
	if (!r)
		r = index_all(t, e);
	if (r) {
		modtree_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

static bool text_copy(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return *to || !from;
}

int modtree_parse(struct modtree **ret, const struct modtexts *x, struct err *e)
{
	struct modtree *t = calloc(1, sizeof(*t));
	int r = -ENOMEM;

	if (!t)
		return err_msg(e, r, "out of memory");
	if (text_copy(&t->dep, x->dep) && text_copy(&t->builtin, x->builtin) &&
	    text_copy(&t->softdep, x->softdep) && text_copy(&t->alias, x->alias))
		r = index_all(t, e);
	else
		err_msg(e, r, "out of memory");
	if (r) {
		modtree_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void modtree_free(struct modtree *t)
{
	if (!t)
		return;
	free(t->have.mod);
	free(t->built.mod);
	free(t->dep);
	free(t->builtin);
	free(t->softdep);
	free(t->alias);
	if (t->dir)
		beneath_fini(&t->files);
	free(t->dir);
	free(t);
}

int modlist_resolve(struct modlist *ret, const char *dir, const char *const *want, struct err *e)
{
	struct modtree *t;
	int r = modtree_open(&t, dir, e);

	if (r)
		return r;
	r = modtree_resolve(t, want, ret, e);
	modtree_free(t);
	return r;
}
