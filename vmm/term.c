/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/term.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/bytes.h"
#include "vmm/chr.h"
#include "vmm/log.h"
#include "vmm/term_mode.h"
#include "vmm/term_out.h"

#define CTRL_A 0x01
#define INPUT_MAX 4096         /* keys that the guest has not taken yet */
#define STUCK_NS 1000000000ull /* full for so long: the guest does not read */
#define FRONT_NS 500000000ull  /* how often the background looks whether it is in front */
#define FLUSH_MS 100           /* term_close gives up after so long without progress */

static struct term {
	struct loop *loop; /* NULL: closed */
	struct power_sink quit;
	struct term_user *users, *front;
	int in_fd;
	bool in_own, in_tty;
	bool background; /* a terminal that another process group has */
	bool eof, escape, delivering;
	bool stuck;           /* keys are looked at for escapes and dropped */
	bool blocked, failed; /* output: wait for EPOLLOUT; an error was reported */
	struct term_out out;
	struct bytes keys, pending;
	struct loop_fd in_src, out_src;
	struct loop_timer read_timer, stuck_timer, front_timer;
} term;

/* ------------------------------------------------------------- output */

static void term_flush(void);

static void term_writable(void *arg, uint32_t events)
{
	(void)arg, (void)events;
	term.blocked = false;
	term_flush();
}

static void watch_out(void)
{
	/* Only while something waits: a pipe without a reader would report EPOLLERR for ever. */
	if (!term.blocked) {
		loop_fd_del(&term.out_src);
		return;
	}
	term.out_src.fn = term_writable;
	if (!term.out_src.loop && loop_fd_add(term.loop, &term.out_src, term.out.fd, EPOLLOUT))
		term.blocked = false;
}

static size_t push(const uint8_t *buf, size_t n)
{
	ssize_t done = term.out.fd < 0 ? -EBADF : term_out_write(&term.out, buf, n);

	if (done < 0) {
		if (!term.failed)
			log_warn("standard output: %s: what the guest prints is lost",
				 strerror((int)-done));
		term.failed = true;
		term.blocked = false;
		return n;
	}
	/* A short write may only mean a small piece at a time: no progress at all means wait. */
	term.blocked = !done;
	return (size_t)done;
}

static void term_flush(void)
{
	const uint8_t *p;
	size_t n;

	while (!term.blocked && (n = bytes_peek(&term.pending, &p)))
		bytes_drop(&term.pending, push(p, n));
	watch_out();
}

void term_write(const uint8_t *buf, size_t n)
{
	if (!term.loop)
		return;
	while (n && !term.blocked && !term.pending.len) {
		size_t done = push(buf, n);

		buf += done;
		n -= done;
	}
	bytes_put(&term.pending, buf, n);
	watch_out();
}

/* To the user, never into a file that collects the guest's output. */
static void say(const char *text)
{
	if (term.out.tty)
		term_write((const uint8_t *)text, strlen(text));
	else
		log_text(text);
}

static void announce(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void announce(const char *fmt, ...)
{
	char text[160], line[176];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "\r\n[mvm: %s]\r\n", text);
	say(line);
}

/* ------------------------------------------------------------- input */

static void watch_in(void);

static void deliver(void)
{
	struct term_user *u;
	uint8_t piece[512];
	const uint8_t *p;
	size_t n, room;

	/* A user that says term_room() out of input() must not come in here twice. */
	if (term.delivering)
		return;
	term.delivering = true;
	while ((u = term.front) && (n = bytes_peek(&term.keys, &p)) && (room = u->room(u->arg))) {
		if (n > room)
			n = room;
		if (n > sizeof(piece))
			n = sizeof(piece);
		memcpy(piece, p, n);
		bytes_drop(&term.keys, n);
		term.stuck = false;
		loop_timer_cancel(&term.stuck_timer);
		u->input(u->arg, piece, n);
	}
	term.delivering = false;
}

static void cycle(void)
{
	struct term_user *next;

	if (!term.front)
		return;
	next = term.front->next ? term.front->next : term.users;
	if (next == term.front) {
		announce("%s has the keyboard, and nothing else is here; Ctrl-A h helps",
			 next->label);
		return;
	}
	/* What was typed for one is not for the other. */
	bytes_drop(&term.keys, term.keys.len);
	term.front = next;
	announce("%s has the keyboard", next->label);
}

static void help(void)
{
	say("\r\n[mvm: Ctrl-A x       quit\r\n"
	    "      Ctrl-A c       move the keyboard between console and serial line\r\n"
	    "      Ctrl-A Ctrl-A  send one Ctrl-A (also Ctrl-A a)\r\n"
	    "      Ctrl-A OTHER   send both\r\n"
	    "      Ctrl-A h       this help]\r\n");
}

static void keep(uint8_t key)
{
	if (!term.stuck)
		bytes_put(&term.keys, &key, 1);
}

static void key(uint8_t k)
{
	if (!term.escape) {
		term.escape = k == CTRL_A;
		if (k != CTRL_A)
			keep(k);
		return;
	}
	term.escape = false;
	switch (k) {
	case 'x':
		announce("quit");
		power_report(&term.quit, POWER_QUIT);
		return;
	case 'c':
		cycle();
		return;
	case 'h':
	case '?':
		help();
		return;
	case 'a':
	case CTRL_A:
		keep(CTRL_A);
		return;
	default:
		keep(CTRL_A);
		keep(k);
	}
}

static void went_back(void *arg);

static void input_failed(int err)
{
	if (err == EAGAIN || err == EINTR)
		return;
	if (term.in_tty && !term_mode_front()) {
		went_back(NULL);
		return;
	}
	term.eof = true;
}

/* At most one read(2) a call: the loop's other sources have their turn. */
static void term_read(void)
{
	/* A key may become two: Ctrl-A kept from before, and itself. */
	size_t room = bytes_room(&term.keys) - (term.in_tty ? 1 : 0);
	uint8_t buf[512];
	ssize_t n;

	if (term.stuck || room > sizeof(buf))
		room = sizeof(buf);
	n = read(term.in_fd, buf, room);
	if (n > 0 && term.in_tty)
		for (ssize_t i = 0; i < n; i++)
			key(buf[i]);
	else if (n > 0)
		bytes_put(&term.keys, buf, (size_t)n);
	else if (!n)
		term.eof = true;
	else
		input_failed(errno);
	deliver();
	watch_in();
}

static void term_readable(void *arg, uint32_t events)
{
	(void)arg, (void)events;
	term_read();
}

static void term_read_late(void *arg)
{
	(void)arg;
	term_read();
}

static void term_stuck(void *arg)
{
	(void)arg;
	term.stuck = true;
	announce("the guest takes no keys; further ones are dropped; Ctrl-A h helps");
	watch_in();
}

/* With the keyboard unread, Ctrl-A x could not be seen: it is read on after a while. */
static bool full(void)
{
	if (bytes_room(&term.keys) > 1 || term.stuck)
		return false;
	if (term.in_tty && !term.stuck_timer.due)
		loop_timer_set(term.loop, &term.stuck_timer, loop_now() + STUCK_NS);
	return term.in_tty || !bytes_room(&term.keys);
}

static void watch_in(void)
{
	if (!term.loop)
		return;
	if (term.eof || term.background || full()) {
		loop_fd_del(&term.in_src);
		return;
	}
	term.in_src.fn = term_readable;
	if (!term.in_src.loop && loop_fd_add(term.loop, &term.in_src, term.in_fd, EPOLLIN))
		/* EPERM: a file, or /dev/null: it is always ready. */
		loop_timer_set(term.loop, &term.read_timer, loop_now());
}

/* ------------------------------------------------------------- job control */

static void front_check(void *arg)
{
	(void)arg;
	if (!term_mode_front()) {
		went_back(NULL);
		return;
	}
	term.background = false;
	term_mode_raw();
	term_winch();
	watch_in();
}

/* The shell tells nobody that it put a running job in front: look from time to time. */
static void went_back(void *arg)
{
	(void)arg;
	term.background = true;
	loop_fd_del(&term.in_src);
	loop_timer_set(term.loop, &term.front_timer, loop_now() + FRONT_NS);
}

void term_cont(void)
{
	if (term.loop && term.in_tty)
		front_check(NULL);
}

bool term_size(uint16_t *cols, uint16_t *rows)
{
	struct winsize ws;

	if (!term.loop ||
	    (ioctl(term.out.fd, TIOCGWINSZ, &ws) && ioctl(term.in_fd, TIOCGWINSZ, &ws)))
		return false;
	if (!ws.ws_col || !ws.ws_row)
		return false;
	*cols = ws.ws_col;
	*rows = ws.ws_row;
	return true;
}

void term_winch(void)
{
	uint16_t cols, rows;

	if (!term_size(&cols, &rows))
		return;
	for (struct term_user *u = term.users; u; u = u->next)
		if (u->resize)
			u->resize(u->arg, cols, rows);
}

/* ------------------------------------------------------------- open, close, users */

int term_open(struct loop *l, const struct power_sink *quit, struct err *e)
{
	int own, ret;

	if (quit)
		term.quit = *quit;
	if (term.loop)
		return 0;
	term.in_tty = isatty(STDIN_FILENO);
	if (term.in_tty) {
		ret = term_mode_guard(STDIN_FILENO);
		if (ret)
			return err_msg(e, ret, "terminal: %s", strerror(-ret));
	}
	term.loop = l;
	own = term_out_reopen(STDIN_FILENO, O_RDONLY);
	term.in_own = own >= 0;
	term.in_fd = term.in_own ? own : STDIN_FILENO;
	term_out_init(&term.out, STDOUT_FILENO);
	term.keys.cap = INPUT_MAX;
	term.pending.cap = CHR_BUFFER;
	term.eof = term.escape = term.stuck = term.blocked = term.failed = term.background = false;
	term.read_timer.fn = term_read_late;
	term.stuck_timer.fn = term_stuck;
	term.front_timer.fn = front_check;
	if (term.in_tty)
		front_check(NULL);
	watch_in();
	return 0;
}

void term_attach(struct term_user *u)
{
	struct term_user **p = &term.users;

	while (*p)
		p = &(*p)->next;
	u->next = NULL;
	*p = u;
	if (!term.front)
		term.front = u;
	deliver();
	watch_in();
}

void term_detach(struct term_user *u)
{
	struct term_user **p = &term.users;

	while (*p && *p != u)
		p = &(*p)->next;
	if (!*p)
		return;
	*p = u->next;
	if (term.front == u)
		term.front = term.users;
	if (!term.users)
		term_close();
}

void term_room(void)
{
	if (!term.loop)
		return;
	deliver();
	watch_in();
}

static void last_flush(void)
{
	struct pollfd p = {.fd = term.out.fd, .events = POLLOUT};

	term.blocked = false;
	term_flush();
	while (term.blocked && poll(&p, 1, FLUSH_MS) == 1) {
		size_t before = term.pending.len;

		term.blocked = false;
		term_flush();
		if (term.pending.len == before)
			break;
	}
}

void term_close(void)
{
	if (!term.loop)
		return;
	last_flush();
	loop_fd_del(&term.in_src);
	loop_fd_del(&term.out_src);
	loop_timer_cancel(&term.read_timer);
	loop_timer_cancel(&term.stuck_timer);
	loop_timer_cancel(&term.front_timer);
	term_mode_unguard();
	if (term.in_own)
		close(term.in_fd);
	term_out_fini(&term.out);
	bytes_fini(&term.keys);
	bytes_fini(&term.pending);
	term.loop = NULL;
	term.quit = (struct power_sink){0};
}
