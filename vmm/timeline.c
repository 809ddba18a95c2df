/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/timeline.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vmm/config.h"
#include "vmm/log.h"
#include "vmm/outfile.h"
#include "vmm/stats.h"
#include "vmm/term_out.h"

static const struct {
	const char *key, *text;
} stage_name[STAGES] = {
	[STAGE_START] = {"start", "process started"},
	[STAGE_VM] = {"vm", "VM created"},
	[STAGE_MEMORY] = {"memory", "memory mapped"},
	[STAGE_KERNEL] = {"kernel", "kernel loaded"},
	[STAGE_RUN] = {"run", "first KVM_RUN"},
	[STAGE_ENTRY] = {"entry", "kernel entered"},
	[STAGE_CONSOLE] = {"console", "first console byte"},
	[STAGE_INIT] = {"init", "init started"},
	[STAGE_ROOT] = {"root", "root mounted"},
	[STAGE_ROOT_INIT] = {"root_init", "root's init"},
	[STAGE_END] = {"end", "machine ended"},
};

struct point {
	uint64_t wall_ns; /* since the process started */
	uint64_t cpu_ns;  /* user and system, all threads; guest time included */
	struct stats stats;
};

static struct {
	pthread_mutex_t lock; /* sources and counts; not taken when nobody wants a timeline */
	uint64_t zero;        /* CLOCK_MONOTONIC at the start of the process */
	bool wanted;
	struct stats_src src[CONFIG_CPUS_MAX];
	unsigned nsrc;
	struct stats past; /* of machines that ended: a reboot adds up */
	unsigned reached;  /* atomic: a bit a stage */
	struct point at[STAGES];
	struct outfile file; /* with fd: main thread */
	int fd;
} tl = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void timeline_begin(void)
{
	/* Between exec and main() there is nothing but the dynamic linker's CPU time. */
	tl.zero = clock_ns(CLOCK_MONOTONIC) - clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	tl.reached = 1u << STAGE_START;
}

void timeline_want(void)
{
	tl.wanted = true;
}

bool timeline_wanted(void)
{
	return tl.wanted;
}

void timeline_vcpu(int vcpu_fd)
{
	if (!tl.wanted)
		return;
	pthread_mutex_lock(&tl.lock);
	if (tl.nsrc < CONFIG_CPUS_MAX)
		stats_open(&tl.src[tl.nsrc++], vcpu_fd);
	pthread_mutex_unlock(&tl.lock);
}

void timeline_vcpus_gone(void)
{
	if (!tl.wanted)
		return;
	pthread_mutex_lock(&tl.lock);
	for (unsigned i = 0; i < tl.nsrc; i++) {
		stats_add(&tl.src[i], &tl.past);
		stats_close(&tl.src[i]);
	}
	tl.nsrc = 0;
	pthread_mutex_unlock(&tl.lock);
}

void timeline_mark(enum stage s)
{
	struct point p = {
		.wall_ns = clock_ns(CLOCK_MONOTONIC) - tl.zero,
	};

	if (timeline_reached(s))
		return;
	if (!tl.wanted) {
		__atomic_fetch_or(&tl.reached, 1u << s, __ATOMIC_RELEASE);
		return;
	}
	p.cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	pthread_mutex_lock(&tl.lock);
	p.stats = tl.past;
	for (unsigned i = 0; i < tl.nsrc; i++)
		stats_add(&tl.src[i], &p.stats);
	if (!timeline_reached(s))
		tl.at[s] = p;
	__atomic_fetch_or(&tl.reached, 1u << s, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&tl.lock);
}

bool timeline_reached(enum stage s)
{
	return __atomic_load_n(&tl.reached, __ATOMIC_ACQUIRE) & (1u << s);
}

/*
 * The user asked for this, so it waits for its reader; the signals that ask us to end,
 * which the machine had blocked, end a wait that is in vain.
 */
static int write_patiently(int fd, const char *text)
{
	struct term_out out;
	size_t left = strlen(text);
	ssize_t n;
	sigset_t set;

	pthread_sigmask(SIG_BLOCK, NULL, &set);
	sigdelset(&set, SIGTERM);
	sigdelset(&set, SIGINT);
	sigdelset(&set, SIGHUP);
	term_out_init(&out, fd);
	n = out.fd < 0 ? -EBADF : 0;
	while (left && n >= 0) {
		struct pollfd p = {.fd = out.fd, .events = POLLOUT};

		ppoll(&p, 1, NULL, &set);
		n = term_out_write(&out, (const uint8_t *)text, left);
		if (n > 0)
			text += n, left -= (size_t)n;
	}
	term_out_fini(&out);
	errno = n < 0 ? (int)-n : 0;
	return n < 0 ? -1 : 0;
}

/*
 * Those reached, by their time: the console of a kernel that has its driver as a
 * module speaks after init has started.
 */
static unsigned stages_in_order(enum stage order[STAGES])
{
	unsigned n = 0;

	for (unsigned s = 0; s < STAGES; s++) {
		unsigned at = n;

		if (!timeline_reached((enum stage)s))
			continue;
		for (; at && tl.at[order[at - 1]].wall_ns > tl.at[s].wall_ns; at--)
			order[at] = order[at - 1];
		order[at] = (enum stage)s;
		n++;
	}
	return n;
}

static void stages_print(FILE *f)
{
	enum stage order[STAGES];
	unsigned n = stages_in_order(order);
	uint64_t last = 0;

	fprintf(f, "%-20s %10s %8s %10s %9s %8s %8s %8s %8s\n", "stage", "ms", "+ms", "CPU ms",
		"exits", "io", "mmio", "halt", "irq");
	for (unsigned i = 0; i < n; i++) {
		enum stage s = order[i];
		const struct point *p = &tl.at[s];

		fprintf(f, "%-20s %10.3f %8.3f %10.3f %9llu %8llu %8llu %8llu %8llu\n",
			stage_name[s].text, (double)p->wall_ns / 1e6,
			((double)p->wall_ns - (double)last) / 1e6, (double)p->cpu_ns / 1e6,
			(unsigned long long)p->stats.n[0], (unsigned long long)p->stats.n[1],
			(unsigned long long)p->stats.n[2], (unsigned long long)p->stats.n[3],
			(unsigned long long)p->stats.n[4]);
		last = p->wall_ns;
	}
}

void timeline_print(void)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return;
	stages_print(f);
	if (!fclose(f) && write_patiently(STDERR_FILENO, text))
		log_error("timeline: write: %s", strerror(errno));
	free(text);
}

static json_t *point_json(enum stage s)
{
	const struct point *p = &tl.at[s];
	json_t *exits = json_object();

	for (int k = 0; k < STATS_KINDS; k++)
		json_object_set_new(exits, stats_name[k], json_integer((json_int_t)p->stats.n[k]));
	return json_pack("{s:s, s:I, s:I, s:o}", "stage", stage_name[s].key, "wall_ns",
			 (json_int_t)p->wall_ns, "cpu_ns", (json_int_t)p->cpu_ns, "exits", exits);
}

int timeline_open(const char *path, struct err *e)
{
	int fd = outfile_open(&tl.file, path, 0, 0600, e);

	tl.fd = fd;
	return fd < 0 ? err_ctx(e, "timeline") : 0;
}

static int write_whole(int fd, const char *text)
{
	struct stat st;

	/* What an earlier run left; other things than files have no length. */
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && ftruncate(fd, 0))
		return -1;
	return write_patiently(fd, text);
}

static char *stages_text(void)
{
	json_t *list = json_array(), *doc;
	enum stage order[STAGES];
	unsigned n = stages_in_order(order);
	char *text, *line = NULL;

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(list, point_json(order[i]));
	doc = json_pack("{s:o}", "stages", list);
	text = doc ? json_dumps(doc, JSON_INDENT(2)) : NULL;
	json_decref(doc);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

int timeline_write(struct err *e)
{
	char *text = stages_text();
	int r = 0;

	if (!text)
		r = err_msg(e, -ENOMEM, "timeline: out of memory");
	else if (write_whole(tl.fd, text))
		r = err_sys(e, "timeline: write %s", tl.file.path);
	free(text);
	/* Half of it is of no use to anybody. EINVAL: this is no file. */
	if (r < 0 && ftruncate(tl.fd, 0) && errno != EINVAL)
		log_error("timeline: truncate %s: %s", tl.file.path, strerror(errno));
	/* A network file system may only say now that it has no room. */
	if (close(tl.fd) && r == 0)
		r = err_sys(e, "timeline: write %s", tl.file.path);
	if (r < 0)
		outfile_undo(&tl.file);
	outfile_fini(&tl.file);
	return r;
}

void timeline_undo(void)
{
	if (!tl.file.path)
		return;
	close(tl.fd);
	outfile_undo(&tl.file);
	outfile_fini(&tl.file);
}
