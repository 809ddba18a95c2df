/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes and round trips over a stream, the same program at both ends.
 *
 *   load serve ADDRESS            answers any number of clients at once
 *   load send|recv|ping ADDRESS SECONDS, load send4|recv4|ping4 …: so many streams at once
 *   load files DIRECTORY SECONDS  makes, writes, looks up and removes small files there
 *
 * ADDRESS: tcp:IP:PORT, vsock:CID:PORT, unix:PATH. The client's first byte says
 * what it does. What arrived is counted by who receives it. Prints
 * "LOAD what units-a-second units", units being bytes, round trips or files.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static uint8_t buf[256 << 10];

struct address {
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_vm vm;
		struct sockaddr_un un;
	};
	socklen_t len;
};

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static struct address parse(const char *text)
{
	struct address a = {0};
	const char *rest = strchr(text, ':'), *port = strrchr(text, ':');
	char host[64] = "";

	if (!rest)
		die(text);
	rest++;
	if (port > rest)
		snprintf(host, sizeof(host), "%.*s", (int)(port - rest), rest);
	if (*text == 't') {
		a.in.sin_family = AF_INET;
		a.in.sin_port = htons((uint16_t)atoi(port + 1));
		if (inet_pton(AF_INET, host, &a.in.sin_addr) != 1)
			die(text);
		a.len = sizeof(a.in);
	} else if (*text == 'v') {
		a.vm.svm_family = AF_VSOCK;
		a.vm.svm_cid = (unsigned)atoi(host);
		a.vm.svm_port = (unsigned)atoi(port + 1);
		a.len = sizeof(a.vm);
	} else {
		a.un.sun_family = AF_UNIX;
		snprintf(a.un.sun_path, sizeof(a.un.sun_path), "%s", rest);
		a.len = sizeof(a.un);
	}
	return a;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t drain(int fd)
{
	uint64_t total = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		total += (uint64_t)n;
	return total;
}

static uint64_t fill(int fd, double until)
{
	uint64_t total = 0;
	ssize_t n;

	while (now() < until && (n = write(fd, buf, sizeof(buf))) > 0)
		total += (uint64_t)n;
	shutdown(fd, SHUT_WR);
	return total;
}

static void answer(int fd)
{
	uint64_t total;
	uint8_t what, seconds;

	if (read(fd, &what, 1) != 1 || read(fd, &seconds, 1) != 1)
		return;
	if (what == 's') {
		total = drain(fd);
		if (write(fd, &total, sizeof(total)) < 0)
			perror("answer");
	} else if (what == 'r') {
		fill(fd, now() + seconds);
		drain(fd); /* until the client has all */
	} else {
		while (read(fd, buf, 1) == 1 && write(fd, buf, 1) == 1)
			;
	}
}

/*
 * CUBIC ends its slow start where delays grow (HyStart), which is chance here: windows of 40 to
 * 3400 segments were seen, each kept for a whole load, and the kernel remembers it for the next.
 */
static void tune(int fd, const struct address *a)
{
	static const char reno[] = "reno";
	int one = 1;

	if (a->any.sa_family != AF_INET)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, reno, sizeof(reno) - 1))
		die("reno");
}

static int serve(const struct address *a)
{
	int one = 1, fd, s = socket(a->any.sa_family, SOCK_STREAM, 0);

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (s < 0 || bind(s, &a->any, a->len) || listen(s, 16))
		die("serve");
	puts("SERVING");
	fflush(stdout);
	signal(SIGCHLD, SIG_IGN);
	while ((fd = accept(s, NULL, NULL)) >= 0) {
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			tune(fd, a);
			answer(fd);
			_exit(0);
		}
		close(fd);
	}
	die("accept");
}

static uint64_t ping(int fd, double until)
{
	uint64_t n = 0;

	while (now() < until && write(fd, buf, 1) == 1 && read(fd, buf, 1) == 1)
		n++;
	return n;
}

static uint64_t files(const char *dir, double until)
{
	char path[256];
	struct stat st;
	uint64_t n = 0;

	for (; now() < until; n++) {
		snprintf(path, sizeof(path), "%s/f%llu", dir, (unsigned long long)n % 64);
		int fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);
		if (fd < 0 || write(fd, buf, 512) != 512 || close(fd) || stat(path, &st) ||
		    unlink(path))
			die(path);
	}
	return n;
}

static void report(const char *what, double begun, uint64_t n)
{
	printf("LOAD %s %.0f %llu\n", what, (double)n / (now() - begun), (unsigned long long)n);
}

static uint64_t stream(const struct address *a, char what, int seconds)
{
	int fd = socket(a->any.sa_family, SOCK_STREAM, 0);
	uint8_t head[2] = {(uint8_t)what, (uint8_t)seconds};
	double until = now() + seconds;
	uint64_t n = 0;

	if (fd < 0 || connect(fd, &a->any, a->len))
		die("connect");
	tune(fd, a);
	if (write(fd, head, 2) != 2)
		die("write");
	if (what == 'r')
		return drain(fd);
	if (what == 'p')
		return ping(fd, until);
	fill(fd, until);
	if (read(fd, &n, sizeof(n)) != sizeof(n))
		die("count");
	return n;
}

/* Of all of them, each in a process of its own. */
static uint64_t streams(const struct address *a, char what, int seconds, int count)
{
	uint64_t total = 0, n;
	int p[2];

	if (count <= 1)
		return stream(a, what, seconds);
	if (pipe(p))
		die("pipe");
	for (int i = 0; i < count; i++)
		if (!fork()) {
			n = stream(a, what, seconds);
			_exit(write(p[1], &n, sizeof(n)) != sizeof(n));
		}
	close(p[1]);
	for (int i = 0; i < count; i++) {
		if (read(p[0], &n, sizeof(n)) != sizeof(n))
			die("a stream");
		total += n;
	}
	return total;
}

int main(int argc, char **argv)
{
	bool is_files = argc == 4 && !strcmp(argv[1], "files");
	struct address a = argc > 2 && !is_files ? parse(argv[2]) : (struct address){0};
	uint64_t n = 0;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(&a);
	if (argc != 4) {
		fputs("usage: load serve ADDRESS | load send|recv|ping[STREAMS] ADDRESS SECONDS | "
		      "load files DIRECTORY SECONDS\n",
		      stderr);
		return 2;
	}
	double begun = now(), until = begun + atoi(argv[3]);
	if (is_files) {
		n = files(argv[2], until);
		report(argv[1], begun, n);
		return 0;
	}
	n = streams(&a, argv[1][0], atoi(argv[3]), strlen(argv[1]) > 4 ? atoi(argv[1] + 4) : 1);
	report(argv[1], begun, n);
	return 0;
}
