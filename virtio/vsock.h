/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket device of virtio 1.2 section 5.10, inside: vsock*.c share this, and
 * tests look at it. Stream sockets between programs in the guest (AF_VSOCK) and
 * programs on the host, for which each connection is one of a Unix socket:
 *
 *   host to guest   a program connects to PATH, writes "CONNECT <port>\n", and reads
 *                   "OK <its own port>\n" when the guest has accepted
 *   guest to host   a connection to CID 2, port P, becomes one to PATH_P
 *
 *   vsock.c       the device: start, stop, kicks, polling
 *   vsock_tx.c    packets of the guest's
 *   vsock_rx.c    packets to the guest
 *   vsock_conn.c  connections: table, ends, deadlines
 *   vsock_unix.c  connections: their Unix sockets
 *   vsock_host.c  the socket at PATH, and who comes there
 *
 * What a guest can make us keep is bounded: connections (conns_max, fds with them),
 * bytes that a host program does not read (what each connection's buf_alloc says, all of
 * them together VSOCK_ROOM), and RSTs for connections that there are not (VSOCK_RSTS; when
 * they are full, the transmit queue waits). What is to be said of a connection that there is
 * are bits in it, so no list of packets can grow.
 *
 * Threading: under the device's loop lock.
 */
#ifndef VIRTIO_VSOCK_H
#define VIRTIO_VSOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtio/devices.h"
#include "virtio/virtio.h"
#include "vmm/bytes.h"
#include "vmm/loop.h"
#include "vmm/unix_listen.h"

#define VSOCK_RXQ 0
#define VSOCK_TXQ 1
#define VSOCK_EVENTQ 2

#define VSOCK_HOST_CID 2u
#define VSOCK_HDR 44u              /* section 5.10.6 */
#define VSOCK_DATA_MAX (64u << 10) /* of one packet */
#define VSOCK_TYPE_STREAM 1

enum vsock_op { /* section 5.10.6 */
		VSOCK_OP_INVALID,
		VSOCK_OP_REQUEST,
		VSOCK_OP_RESPONSE,
		VSOCK_OP_RST,
		VSOCK_OP_SHUTDOWN,
		VSOCK_OP_RW,
		VSOCK_OP_CREDIT_UPDATE,
		VSOCK_OP_CREDIT_REQUEST,
};

/* Flags of SHUTDOWN: who sends it will not receive, not send, any more. */
#define VSOCK_SHUT_RCV 1u
#define VSOCK_SHUT_SEND 2u
#define VSOCK_SHUT_BOTH 3u

struct vsock_hdr { /* on the ring, little-endian */
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

#define VSOCK_CONNS_MAX 4096
#define VSOCK_HASH 1024 /* a power of two */
#define VSOCK_RSTS 256
#define VSOCK_ROOM (64u << 20)
#define VSOCK_BUF_MAX (256u << 10)  /* buf_alloc of the first connections */
#define VSOCK_BUF_MIN (8u << 10)    /* of the last */
#define VSOCK_BATCH 16              /* chains moved by one system call */
#define VSOCK_IOVS VQ_SIZE_MAX      /* as many as the buffers of the longest chain */
#define VSOCK_PORT_FIRST (1u << 30) /* host's ports for connections from here */
#define VSOCK_LINE_MAX 24           /* "CONNECT 4294967295\n" is 19 */

enum vsock_state {
	VSOCK_LINE,     /* a host program that has not said yet which port it wants */
	VSOCK_WAITING,  /* it has, and there is no driver to ask */
	VSOCK_ASKED,    /* REQUEST was sent, or is about to be */
	VSOCK_RETRYING, /* the guest's connect meets a host program that is behind with accept */
	VSOCK_OPEN,
	VSOCK_CLOSING,  /* the host's end is gone, the guest knows it, and has not said RST */
	VSOCK_DYING,    /* nothing is left but to send a RST */
	VSOCK_DRAINING, /* gone for the guest; what it sent goes on to the host program */
};

/* What is to be sent to the guest, in this order. */
#define VSOCK_DO_RST 1u
#define VSOCK_DO_REQUEST 2u
#define VSOCK_DO_RESPONSE 4u
#define VSOCK_DO_CREDIT 8u
#define VSOCK_DO_ASK 16u /* for credit */
#define VSOCK_DO_SHUTDOWN 32u

/* What a connection may wait for, each for a time of its own. */
enum vsock_wait {
	VSOCK_WAIT_LINE,   /* LINE */
	VSOCK_WAIT_DRIVER, /* WAITING */
	VSOCK_WAIT_ANSWER, /* ASKED */
	VSOCK_WAIT_RETRY,  /* RETRYING, again and again */
	VSOCK_WAIT_RST,    /* CLOSING */
	VSOCK_WAITS,
};

struct vsock_link { /* of a circular list; to itself while in none */
	struct vsock_link *prev, *next;
};

struct vsock_conn {
	struct vsock *s;
	struct vsock_link all, ready, wait;
	struct vsock_conn *hash_next;
	bool hashed; /* packets of the guest's find it */
	enum vsock_state state;
	uint32_t host_port, guest_port;
	uint64_t due;     /* of wait: loop_now's clock */
	uint64_t give_up; /* when no retry follows */

	int fd; /* -1: closed */
	struct loop_fd src;
	uint32_t watched;   /* epoll's events */
	bool readable;      /* there may be something to read: no need to be told */
	bool told_readable; /* and epoll said so all the same: ask it no more */
	bool eof;           /* the host program sends no more, or the guest takes no more */
	bool hup;           /* the host program is gone; there may be bytes left to read */
	bool wr_shut;       /* shutdown(SHUT_WR) was done */
	char line[VSOCK_LINE_MAX];
	unsigned line_len;

	unsigned todo;                  /* VSOCK_DO_ */
	unsigned host_shut, guest_shut; /* VSOCK_SHUT_, of SHUTDOWNs to and from the guest */
	unsigned burst;                 /* chains offered to the next read */

	/* Section 5.10.6.3. All of it is arithmetic modulo 2^32. */
	struct bytes out;                   /* what the host program does not take yet */
	uint32_t buf_alloc;                 /* our promise, out.cap */
	uint32_t rx_cnt, fwd_cnt, fwd_told; /* bytes from the guest: all, passed on, as it knows */
	uint32_t peer_buf_alloc, peer_fwd_cnt, tx_cnt; /* bytes to the guest */
	bool asked;                                    /* for credit, since there was some */
};

struct vsock_rst { /* to somebody whom we do not know */
	uint64_t src_cid;
	uint32_t src_port, dst_port;
	uint16_t type;
};

struct vsock_batch { /* data of one connection, from consecutive chains */
	struct vsock_conn *c;
	struct vq_chain *chain[VSOCK_BATCH];
	uint32_t len[VSOCK_BATCH];
	unsigned n;
	int iovs;
};

struct vsock {
	struct virtio v;
	struct vsock_host *host;
	uint32_t cid;
	struct loop_poll poll;
	bool polled;           /* the loop looks at the rings by itself */
	struct loop_fd listen; /* on the host's socket */
	uint64_t accept_due;   /* when accept is tried again; 0: it works */
	bool accept_said;
	struct loop_timer timer;
	uint64_t wait_ns[VSOCK_WAITS];
	struct vsock_link waits[VSOCK_WAITS]; /* by due, since each wait of a kind is as long */
	struct vsock_link conns, ready;       /* ready: something to send to the guest */
	struct vsock_conn *hash[VSOCK_HASH];
	unsigned nconns, conns_max;
	uint32_t room; /* left of VSOCK_ROOM */
	uint32_t next_port;
	struct vsock_rst rst[VSOCK_RSTS]; /* a ring of nrst from rst_first */
	unsigned rst_first, nrst;
	bool held;                           /* the transmit queue waits for room there */
	struct vq_chain *spare[VSOCK_BATCH]; /* taken from the receive queue, not used yet */
	unsigned nspare;
	struct vsock_batch batch;
	struct iovec iov[VSOCK_IOVS];
};

struct vsock_host {
	struct unix_listen at;
	unsigned conns_max; /* so many descriptors are to be had */
};

#define VSOCK_OF(link, member)                                                                     \
	((struct vsock_conn *)((char *)(link)-offsetof(struct vsock_conn, member)))

static inline void vsock_link_init(struct vsock_link *l)
{
	l->prev = l->next = l;
}

static inline bool vsock_linked(const struct vsock_link *l)
{
	return l->next != l;
}

static inline void vsock_unlink(struct vsock_link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	vsock_link_init(l);
}

static inline void vsock_append(struct vsock_link *list, struct vsock_link *l)
{
	l->prev = list->prev;
	l->next = list;
	list->prev->next = l;
	list->prev = l;
}

/* ---- vsock_tx.c, vsock_rx.c: one turn each, bounded */
#define VSOCK_TURN 64 /* packets of the guest's: at the most 4 MiB */
void vsock_tx(struct vsock *s);
void vsock_rx(struct vsock *s);              /* after whatever may have made a connection ready */
bool vsock_rx_wanted(const struct vsock *s); /* something waits for the guest's buffers */
void vsock_rx_drop(struct vsock *s);         /* the receive queue was reset */

/* ---- vsock_conn.c */
/* NULL: there are too many, or no memory. @fd becomes the connection's only if there is one. */
struct vsock_conn *vsock_conn_new(struct vsock *s, int fd, enum vsock_state state);
void vsock_conn_free(struct vsock_conn *c);
/* The same, and the guest is told by a RST if it knows of the connection. */
void vsock_conn_reset(struct vsock_conn *c);
/* The guest said RST. */
void vsock_conn_gone(struct vsock_conn *c);
struct vsock_conn *vsock_conn_find(struct vsock *s, uint32_t host_port, uint32_t guest_port);
void vsock_conn_hash(struct vsock_conn *c); /* its ports are set, and nobody else has both */
/* The host program wants guest_port: a port of its own, and REQUEST. */
void vsock_conn_ask(struct vsock_conn *c);
/* Both directions are at their end on the host's side, and the guest is told. */
void vsock_conn_closing(struct vsock_conn *c);
void vsock_conn_do(struct vsock_conn *c, unsigned todo);
void vsock_conn_ready(struct vsock_conn *c); /* look at it when there are buffers */
void vsock_conn_wait(struct vsock_conn *c, enum vsock_wait w);
void vsock_conn_wait_over(struct vsock_conn *c);
void vsock_timer(struct vsock *s, uint64_t due); /* at the latest then */
void vsock_due(void *s);                         /* the timer's */
/* How many bytes the guest takes. */
uint32_t vsock_conn_credit(const struct vsock_conn *c);
/* After fwd_cnt went on: the guest is told when it believes that there is little room. */
void vsock_conn_forwarded(struct vsock_conn *c, uint32_t n);

/* ---- vsock_unix.c */
/* For the guest, which asked for it: the connection to PATH_<host_port>. 0; -EAGAIN, try again;
 * or another negative errno. */
int vsock_unix_connect(struct vsock_conn *c);
void vsock_unix_event(void *c, uint32_t events);
int vsock_unix_begin(struct vsock_conn *c);  /* its fd is heard from. 0 or a negative errno */
void vsock_unix_watch(struct vsock_conn *c); /* after any change of what is of interest */
/* Passes on what was kept, as far as the host program takes it at once. False: it takes nothing
 * any more. */
bool vsock_unix_flush(struct vsock_conn *c);
/* Passes the batch on to its host program, whose chains go back to the guest. */
void vsock_unix_send(struct vsock *s);
/* Reads into iov[0..n). As readv, but a negative errno. */
ssize_t vsock_unix_read(struct vsock_conn *c, int n);
void vsock_unix_accepted(struct vsock_conn *c);     /* the guest did: OK */
void vsock_unix_stop_reading(struct vsock_conn *c); /* the guest takes no more */
/* What follows when one direction or both are at their end. May free @c. */
void vsock_unix_settle(struct vsock_conn *c);

/* ---- vsock_host.c */
void vsock_host_watch(struct vsock *s); /* accept host programs */
void vsock_host_accept(void *s, uint32_t events);
void vsock_host_line(struct vsock_conn *c); /* reads some of it. May free @c */

#endif
