/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal end to end, on a pseudo-terminal: see term_machine.h. */
#include "tests/unit/term_machine.h"

#include "vmm/chr.h"

/* ------------------------------------------------------------- keys */

static void term_is_raw_while_open_and_restored_after(void **s)
{
	(void)s;
	start(LISTEN);
	says("ready");
	assert_true(is_raw());
	quits();
}

static void term_ctrl_c_z_and_s_go_to_the_guest(void **s)
{
	(void)s;
	start(LISTEN);
	says("ready");
	type("\003\032\023\021\r\004\034");
	says("console:03");
	says("console:1a");
	says("console:13");
	says("console:11");
	says("console:0d");
	says("console:04");
	says("console:1c");
	quits();
}

static void term_escape_sequences(void **s)
{
	(void)s;
	start(LISTEN);
	says("ready");
	type("\001\001");
	says("console:01");
	type("\001a");
	says("console:01");
	type("\001z"); /* no command: as typed */
	says("console:01");
	says("console:7a");
	type("\001");
	usleep(1000);
	type("h");
	shows("send one Ctrl-A");
	type("\001?");
	shows("send one Ctrl-A");
	type("\001c");
	shows("console has the keyboard, and nothing else is here");
	type("k");
	says("console:6b");
	quits();
}

static void term_ctrl_a_c_moves_the_keyboard(void **s)
{
	(void)s;
	start(TWO_USERS);
	says("ready");
	type("1");
	says("console:31");
	type("\001c2");
	shows("[mvm: serial has the keyboard]");
	says("serial:32");
	type("\001c3");
	shows("[mvm: console has the keyboard]");
	says("console:33");
	quits();
}

static void term_keys_of_one_user_never_reach_another(void **s)
{
	(void)s;
	start(DEAF_FIRST);
	says("ready");
	type("secret\001cs");
	says("serial:73");
	quits();
}

static void term_deaf_guest_can_be_quit(void **s)
{
	char keys[1024];

	(void)s;
	start(DEAF);
	says("ready");
	memset(keys, 'k', sizeof(keys));
	/* More than is kept: what follows is seen all the same, and dropped. */
	for (int i = 0; i < 6; i++)
		assert_int_equal(write(master, keys, sizeof(keys)), sizeof(keys));
	shows("the guest takes no keys");
	quits();
}

/* ------------------------------------------------------------- ways out */

static void term_restored_at_exit(void **s)
{
	(void)s;
	start(JUST_EXIT);
	says("ready");
	ends(7 << 8);
	is_as_found();
}

static void term_restored_at_abort(void **s)
{
	(void)s;
	start(ABORT);
	says("ready");
	ends(SIGABRT);
	is_as_found();
}

static void term_restored_at_fault(void **s)
{
	int status;

	(void)s;
	start(FAULT);
	says("ready");
	assert_int_equal(waitpid(pid, &status, 0), pid);
	pid = 0;
	/* A sanitizer may turn the signal into an exit status. */
	assert_int_not_equal(status, 0);
	is_as_found();
}

static void term_restored_at_a_signal_from_outside(void **s)
{
	static const int sent[] = {SIGSEGV, SIGBUS, SIGQUIT, SIGTERM};

	for (size_t i = 0; i < sizeof(sent) / sizeof(sent[0]); i++) {
		int status;

		start(LISTEN);
		says("ready");
		assert_true(is_raw());
		kill(pid, sent[i]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		is_as_found();
		after(s);
		before(s);
	}
}

/* ------------------------------------------------------------- output */

static void stopped_output_blocks_nothing(enum job job)
{
	static char out[2 << 20];
	size_t n = 0;

	start(job);
	/* Nobody reads the master: a megabyte was taken and the machine still answers. */
	says("flooded");
	says("ready");
	type("k");
	says("console:6b");
	assert_false(fcntl(slave, F_GETFL) & O_NONBLOCK);
	while (n < 7 || memcmp(out + n - 7, "the end", 7)) {
		struct pollfd p = {.fd = master, .events = POLLIN};

		if (poll(&p, 1, 20000) != 1)
			fail_msg("the end never came; %zu bytes did", n);
		n += (size_t)read(master, out + n, sizeof(out) - n);
	}
	assert_true(n >= CHR_BUFFER && n < 1 << 20);
	quits();
}

static void term_stopped_output_blocks_nothing(void **s)
{
	(void)s;
	stopped_output_blocks_nothing(FLOOD);
}

/* Its description is shared with the shell and blocks: small pieces after poll(2). */
static void term_that_cannot_be_opened_anew_blocks_nothing(void **s)
{
	(void)s;
	if (geteuid()) {
		print_message("needs root to become somebody else\n");
		skip();
	}
	stopped_output_blocks_nothing(STRANGER);
}

static void term_close_gives_up_on_a_stopped_terminal(void **s)
{
	(void)s;
	start(FLOOD);
	says("flooded");
	says("ready");
	quits();
}

static void term_shared_pipe_stays_blocking(void **s)
{
	int p[2];
	static char out[2 << 20];
	size_t n = 0;

	(void)s;
	assert_int_equal(pipe(p), 0);
	start_on(FLOOD, slave, p[1]);
	says("flooded");
	says("ready");
	assert_false(fcntl(p[1], F_GETFL) & O_NONBLOCK);
	assert_true(is_raw());
	while (n < 7 || memcmp(out + n - 7, "the end", 7)) {
		ssize_t got = read(p[0], out + n, sizeof(out) - n);

		assert_true(got > 0);
		n += (size_t)got;
	}
	assert_true(n >= CHR_BUFFER);
	/* A reader that goes away ends nothing. */
	close(p[0]);
	quits();
	close(p[1]);
}

static void term_output_to_a_file_is_appended_whole(void **s)
{
	char name[] = "/tmp/mvm-term-XXXXXX";
	int fd = mkstemp(name);

	(void)s;
	assert_int_equal(write(fd, "before ", 7), 7);
	start_on(FLOOD, slave, fd);
	says("flooded");
	says("ready");
	quits();
	/* Through the shared description: at its offset, and the offset moved. */
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 7 + (1 << 20) + 7);
	assert_int_equal(lseek(fd, 0, SEEK_END), 7 + (1 << 20) + 7);
	close(fd);
	unlink(name);
}

static void term_tells_the_guest_of_a_new_size(void **s)
{
	struct winsize ws = {.ws_col = 132, .ws_row = 43};

	(void)s;
	start(LISTEN);
	says("ready");
	ioctl(master, TIOCSWINSZ, &ws);
	says("size 132x43");
	quits();
}

/* ------------------------------------------------------------- no terminal */

static void term_pipe_is_passed_as_it_is(void **s)
{
	int p[2];

	(void)s;
	assert_int_equal(pipe(p), 0);
	start_on(LISTEN, p[0], slave);
	says("ready");
	assert_false(is_raw());
	assert_int_equal(write(p[1], "\001xy\003", 4), 4);
	says("console:01");
	says("console:78");
	says("console:79");
	says("console:03");
	assert_false(fcntl(p[0], F_GETFL) & O_NONBLOCK);
	/* The end of the file ends the input, not the machine. */
	close(p[1]);
	usleep(1000);
	assert_int_equal(kill(pid, SIGTERM), 0);
	says("closed");
	ends(0);
	close(p[0]);
}

static void term_file_is_read_to_its_end(void **s)
{
	char name[] = "/tmp/mvm-term-XXXXXX";
	int fd = mkstemp(name);
	char text[10000];

	(void)s;
	memset(text, 'f', sizeof(text));
	assert_int_equal(write(fd, text, sizeof(text)), sizeof(text));
	lseek(fd, 0, SEEK_SET);
	start_on(LISTEN, fd, slave);
	says("ready");
	for (size_t i = 0; i < sizeof(text); i++)
		says("console:66");
	kill(pid, SIGTERM);
	says("closed");
	ends(0);
	close(fd);
	unlink(name);
}

static void term_dev_null_is_an_end(void **s)
{
	int fd = open("/dev/null", O_RDONLY);

	(void)s;
	start_on(LISTEN, fd, slave);
	says("ready");
	kill(pid, SIGTERM);
	says("closed");
	ends(0);
	close(fd);
}

/* ------------------------------------------------------------- job control */

/*
 * A little shell: session leader on the terminal, the machine as its background
 * job. It obeys one letter at a time: f puts the job in front, b itself, c
 * continues the job, t terminates it.
 */
static int shell(int orders, int answers)
{
	pid_t job;
	char order;

	setsid();
	ioctl(slave, TIOCSCTTY, 0);
	signal(SIGTTOU, SIG_IGN);
	job = fork();
	if (!job) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, 0);
		signal(SIGTTOU, SIG_DFL);
		dup2(slave, 0);
		dup2(slave, 1);
		exit(machine(LISTEN));
	}
	setpgid(job, job);
	while (read(orders, &order, 1) == 1) {
		int status = 0;
		char state = 'r';

		if (order == 'f')
			tcsetpgrp(slave, job);
		else if (order == 'b')
			tcsetpgrp(slave, getpgrp());
		else if (order == 'c')
			kill(job, SIGCONT);
		else if (order == 's')
			kill(job, SIGSTOP);
		else if (order == 't')
			kill(job, SIGTERM);
		if (order == 'w' || order == 's') /* wait for its end, for its stop */
			waitpid(job, &status, order == 'w' ? 0 : WUNTRACED);
		else
			waitpid(job, &status, WNOHANG | WUNTRACED);
		if (WIFSTOPPED(status))
			state = 's';
		if (order == 'w')
			state = status ? 'e' : '0';
		if (write(answers, &state, 1) != 1)
			break;
	}
	return 0;
}

static int orders[2], answers[2];

static char order(char what)
{
	char state = '?';

	assert_int_equal(write(orders[1], &what, 1), 1);
	assert_int_equal(read(answers[0], &state, 1), 1);
	return state;
}

static void wait_for_raw(bool raw)
{
	for (int i = 0; i < 20000 && is_raw() != raw; i++)
		usleep(1000);
	assert_int_equal(is_raw(), raw);
}

static void term_background_job_neither_stops_nor_sets_the_terminal(void **s)
{
	int p[2];

	(void)s;
	assert_int_equal(pipe(p) | pipe(orders) | pipe(answers), 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		close(p[0]);
		close(orders[1]);
		close(answers[0]);
		report = p[1];
		exit(shell(orders[0], answers[1]));
	}
	close(p[1]);
	close(orders[0]);
	close(answers[1]);
	from = p[0];
	reports = fdopen(from, "r");

	says("ready");
	is_as_found();
	type("for the shell\n");
	assert_int_equal(order('?'), 'r');
	/* fg: found out without a signal. */
	assert_int_equal(order('f'), 'r');
	wait_for_raw(true);
	says("size 80x24");
	/* The line was in the terminal's queue, for whoever is in front. */
	for (size_t i = 0; i < strlen("for the shell\n"); i++)
		fscanf(reports, "%*s");
	fgetc(reports);
	type("k");
	says("console:6b");
	/* Stopped, the shell takes the terminal and sets it; continued in the background. */
	assert_int_equal(order('s'), 's');
	assert_int_equal(order('b'), 'r');
	tcsetattr(slave, TCSANOW, &found);
	assert_int_equal(order('c'), 'r');
	usleep(20000);
	is_as_found();
	/* In front again and told so. */
	assert_int_equal(order('f'), 'r');
	assert_int_equal(order('c'), 'r');
	wait_for_raw(true);
	/* In the background again, it ends without touching what the shell set. */
	assert_int_equal(order('b'), 'r');
	tcsetattr(slave, TCSANOW, &found);
	assert_int_equal(order('t'), 'r');
	assert_int_equal(order('w'), '0');
	is_as_found();
	close(orders[1]);
	close(answers[0]);
	ends(0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, before, after)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(term_is_raw_while_open_and_restored_after),
		T(term_ctrl_c_z_and_s_go_to_the_guest),
		T(term_escape_sequences),
		T(term_ctrl_a_c_moves_the_keyboard),
		T(term_keys_of_one_user_never_reach_another),
		T(term_deaf_guest_can_be_quit),
		T(term_restored_at_exit),
		T(term_restored_at_abort),
		T(term_restored_at_fault),
		T(term_restored_at_a_signal_from_outside),
		T(term_stopped_output_blocks_nothing),
		T(term_that_cannot_be_opened_anew_blocks_nothing),
		T(term_close_gives_up_on_a_stopped_terminal),
		T(term_shared_pipe_stays_blocking),
		T(term_output_to_a_file_is_appended_whole),
		T(term_tells_the_guest_of_a_new_size),
		T(term_pipe_is_passed_as_it_is),
		T(term_file_is_read_to_its_end),
		T(term_dev_null_is_an_end),
		T(term_background_job_neither_stops_nor_sets_the_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
