/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs in a guest, linked statically: the other end of what test_vsock.py does.
 *
 *   serve PORT             sends back what it receives, to as many as come
 *   sink PORT              receives one stream and says how much and its checksum
 *   source PORT BYTES      sends so much to the host, likewise
 *   call PORT N AT_ONCE LEN  N connections to the host, AT_ONCE at a time, each of which sends
 *                          LEN bytes and wants them back
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOST_CID 2u
#define ANY 0xffffffffu

struct address { /* linux/vm_sockets.h, which musl's headers do not have */
	unsigned short family, reserved;
	uint32_t port, cid;
	uint8_t rest[4];
};

static uint32_t port;

static int fail(const char *what)
{
	printf("FAILED %s: %s\n", what, strerror(errno));
	exit(1);
}

static int listen_at(void)
{
	struct address a = {.family = AF_VSOCK, .port = port, .cid = ANY};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 600))
		fail("listen");
	return fd;
}

static int call_host(void)
{
	struct address a = {.family = AF_VSOCK, .port = port, .cid = HOST_CID};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		fail("socket");
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	close(fd);
	return -1;
}

static int send_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t done = send(fd, p, n, 0);

		if (done <= 0)
			return -1;
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

static uint32_t crc(uint32_t sum, const uint8_t *p, size_t n)
{
	static uint32_t table[256];

	for (uint32_t i = 0; !table[255] && i < 256; i++) {
		table[i] = i;
		for (int k = 0; k < 8; k++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
	}
	for (sum = ~sum; n--; p++)
		sum = sum >> 8 ^ table[(sum ^ *p) & 255];
	return ~sum;
}

/* ------------------------------------------------------------- the other way round */

static void *echo(void *arg)
{
	int fd = (int)(intptr_t)arg;
	uint8_t buf[4096];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0 && !send_all(fd, buf, (size_t)n))
		continue;
	close(fd);
	return NULL;
}

static void start(pthread_t *t, void *(*fn)(void *), void *arg)
{
	pthread_attr_t a;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 32768);
	if (pthread_create(t, &a, fn, arg))
		fail("thread");
}

static void serve(void)
{
	int l = listen_at();

	for (;;) {
		int fd = accept(l, NULL, NULL);
		pthread_t t;

		if (fd < 0)
			fail("accept");
		start(&t, echo, (void *)(intptr_t)fd);
		pthread_detach(t);
	}
}

/* ------------------------------------------------------------- one stream */

static uint8_t block[65536];

static void sink(void)
{
	int fd = accept(listen_at(), NULL, NULL);
	uint64_t total = 0;
	uint32_t sum = 0;
	ssize_t n;

	while ((n = recv(fd, block, sizeof(block), 0)) > 0) {
		sum = crc(sum, block, (size_t)n);
		total += (uint64_t)n;
	}
	printf("SINK %llu %08x\n", (unsigned long long)total, sum);
}

static void source(uint64_t left)
{
	uint64_t x = 88172645463325252u, total = left;
	int fd = call_host();
	uint32_t sum = 0;

	if (fd < 0)
		fail("connect");
	while (left) {
		size_t n = left < sizeof(block) ? left : sizeof(block);

		for (size_t i = 0; i < n; i++) {
			if (i % 64 == 0)
				x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			block[i] = (uint8_t)(x >> (i % 8 * 8));
		}
		sum = crc(sum, block, n);
		if (send_all(fd, block, n))
			fail("send");
		left -= n;
	}
	shutdown(fd, SHUT_WR);
	/* The host program says when it has all of it. */
	if (recv(fd, block, 4, 0) != 4)
		fail("recv");
	printf("SOURCE %llu %08x\n", (unsigned long long)total, sum);
}

/* ------------------------------------------------------------- many calls */

static unsigned calls, len;
static unsigned taken, good, bad, refused; /* atomic */
static pthread_barrier_t together;

static int one(unsigned index)
{
	uint8_t out[4096], in[4096];
	size_t got = 0;
	ssize_t n = 0;
	int fd = call_host();

	if (fd < 0)
		return -1;
	for (unsigned i = 0; i < len; i++)
		out[i] = (uint8_t)(index * 7 + i * 3 + (i >> 8));
	if (!send_all(fd, out, len) && !shutdown(fd, SHUT_WR))
		while (got < sizeof(in) && (n = recv(fd, in + got, sizeof(in) - got, 0)) > 0)
			got += (size_t)n;
	close(fd);
	return n == 0 && got == len && !memcmp(in, out, len);
}

static void *caller(void *arg)
{
	unsigned i;

	(void)arg;
	pthread_barrier_wait(&together);
	while ((i = __atomic_fetch_add(&taken, 1, __ATOMIC_RELAXED)) < calls) {
		int r = one(i);

		__atomic_fetch_add(r < 0 ? &refused : r ? &good : &bad, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void call(unsigned at_once)
{
	pthread_t *t = calloc(at_once, sizeof(*t));

	pthread_barrier_init(&together, NULL, at_once);
	for (unsigned i = 0; i < at_once; i++)
		start(&t[i], caller, NULL);
	for (unsigned i = 0; i < at_once; i++)
		pthread_join(t[i], NULL);
	printf("CALL good=%u bad=%u refused=%u\n", good, bad, refused);
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	if (argc > 2)
		port = (uint32_t)strtoul(argv[2], NULL, 10);
	if (!strcmp(what, "serve"))
		serve();
	else if (!strcmp(what, "sink"))
		sink();
	else if (!strcmp(what, "source") && argc == 4)
		source(strtoull(argv[3], NULL, 10));
	else if (!strcmp(what, "call") && argc == 6) {
		calls = (unsigned)atoi(argv[3]);
		len = (unsigned)atoi(argv[5]) % 4096;
		call((unsigned)atoi(argv[4]));
	} else {
		return 2;
	}
	return 0;
}
