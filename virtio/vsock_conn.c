/* SPDX-License-Identifier: Apache-2.0 */
/* The connections of the socket device: their table, how they end, what they wait for. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "virtio/vsock.h"

/* ------------------------------------------------------------- the table */

static unsigned slot(uint32_t host_port, uint32_t guest_port)
{
	/* A guest that chooses its ports so that all meet in one slot searches among 4096. */
	return ((host_port * 0x9e3779b1u) ^ (guest_port * 0x85ebca6bu)) >> 22 & (VSOCK_HASH - 1);
}

struct vsock_conn *vsock_conn_find(struct vsock *s, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_conn *c = s->hash[slot(host_port, guest_port)];

	while (c && (c->host_port != host_port || c->guest_port != guest_port))
		c = c->hash_next;
	return c;
}

void vsock_conn_hash(struct vsock_conn *c)
{
	struct vsock_conn **at = &c->s->hash[slot(c->host_port, c->guest_port)];

	c->hash_next = *at;
	*at = c;
	c->hashed = true;
}

static void unhash(struct vsock_conn *c)
{
	struct vsock_conn **at = &c->s->hash[slot(c->host_port, c->guest_port)];

	if (!c->hashed)
		return;
	while (*at != c)
		at = &(*at)->hash_next;
	*at = c->hash_next;
	c->hashed = false;
}

/* There are fewer connections than ports, so this ends. */
static void number(struct vsock_conn *c)
{
	struct vsock *s = c->s;

	do {
		if (s->next_port < VSOCK_PORT_FIRST || s->next_port == UINT32_MAX)
			s->next_port = VSOCK_PORT_FIRST;
		c->host_port = s->next_port++;
	} while (vsock_conn_find(s, c->host_port, c->guest_port));
	vsock_conn_hash(c);
}

/* ------------------------------------------------------------- life */

/*
 * A connection's part of all the room there is: the first get what Linux gives
 * itself, the more there are the less the next ones get. So the sum stays within
 * VSOCK_ROOM and VSOCK_BUF_MIN for each.
 */
static uint32_t share(struct vsock *s)
{
	uint32_t n = s->room / 32;

	if (n > VSOCK_BUF_MAX)
		n = VSOCK_BUF_MAX;
	if (n <= VSOCK_BUF_MIN)
		return VSOCK_BUF_MIN;
	s->room -= n;
	return n;
}

/* At the limit the program that is mute for longest makes room: such ones keep nobody out. */
static bool make_room(struct vsock *s)
{
	struct vsock_link *mute = &s->waits[VSOCK_WAIT_LINE];

	if (s->nconns < s->conns_max)
		return true;
	if (!vsock_linked(mute))
		return false;
	vsock_conn_free(VSOCK_OF(mute->next, wait));
	return true;
}

struct vsock_conn *vsock_conn_new(struct vsock *s, int fd, enum vsock_state state)
{
	struct vsock_conn *c = make_room(s) ? calloc(1, sizeof(*c)) : NULL;

	if (!c)
		return NULL;
	c->s = s;
	c->state = state;
	c->fd = fd;
	c->src = (struct loop_fd){.fn = vsock_unix_event, .arg = c};
	c->burst = 1;
	c->buf_alloc = share(s);
	c->out.cap = c->buf_alloc;
	vsock_link_init(&c->ready);
	vsock_link_init(&c->wait);
	vsock_append(&s->conns, &c->all);
	s->nconns++;
	return c;
}

static void close_fd(struct vsock_conn *c)
{
	loop_fd_del(&c->src);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

void vsock_conn_free(struct vsock_conn *c)
{
	struct vsock *s = c->s;

	close_fd(c);
	unhash(c);
	vsock_unlink(&c->all);
	vsock_unlink(&c->ready);
	vsock_unlink(&c->wait);
	if (c->buf_alloc > VSOCK_BUF_MIN) /* else it was none of the room's */
		s->room += c->buf_alloc;
	s->nconns--;
	bytes_fini(&c->out);
	free(c);
}

/* The guest heard of it: it asked for it itself, or REQUEST went out. */
static bool known(const struct vsock_conn *c)
{
	return c->hashed && c->s->v.running && !(c->todo & VSOCK_DO_REQUEST);
}

void vsock_conn_reset(struct vsock_conn *c)
{
	if (!known(c)) {
		vsock_conn_free(c);
		return;
	}
	close_fd(c);
	bytes_fini(&c->out);
	vsock_conn_wait_over(c);
	c->state = VSOCK_DYING;
	c->todo = VSOCK_DO_RST;
	vsock_conn_ready(c);
}

/*
 * A guest that closes in good order has said SHUTDOWN, waits for our RST, and loses
 * patience with a host program that reads slowly. What it had sent is not lost for that.
 */
void vsock_conn_gone(struct vsock_conn *c)
{
	if (c->state != VSOCK_OPEN || !c->out.len || !(c->guest_shut & VSOCK_SHUT_SEND)) {
		vsock_conn_free(c);
		return;
	}
	unhash(c);
	vsock_unlink(&c->ready);
	vsock_conn_wait_over(c);
	c->state = VSOCK_DRAINING;
	c->todo = 0;
	vsock_unix_watch(c);
}

void vsock_conn_closing(struct vsock_conn *c)
{
	close_fd(c);
	bytes_fini(&c->out);
	c->state = VSOCK_CLOSING;
	vsock_conn_wait(c, VSOCK_WAIT_RST);
}

void vsock_conn_ready(struct vsock_conn *c)
{
	if (!vsock_linked(&c->ready))
		vsock_append(&c->s->ready, &c->ready);
}

void vsock_conn_do(struct vsock_conn *c, unsigned todo)
{
	c->todo |= todo;
	vsock_conn_ready(c);
}

void vsock_conn_ask(struct vsock_conn *c)
{
	number(c);
	c->state = VSOCK_ASKED;
	vsock_conn_do(c, VSOCK_DO_REQUEST);
	vsock_conn_wait(c, VSOCK_WAIT_ANSWER);
	vsock_unix_watch(c);
}

/* ------------------------------------------------------------- credit, section 5.10.6.3 */

uint32_t vsock_conn_credit(const struct vsock_conn *c)
{
	/* Both are the guest's; the difference wraps as the counters do. What makes no sense means
	 * no credit, and harms nobody else. */
	uint32_t out = c->tx_cnt - c->peer_fwd_cnt;

	return out < c->peer_buf_alloc ? c->peer_buf_alloc - out : 0;
}

void vsock_conn_forwarded(struct vsock_conn *c, uint32_t n)
{
	uint32_t believed;

	c->fwd_cnt += n;
	believed = c->buf_alloc - (c->rx_cnt - c->fwd_told);
	if (c->fwd_cnt != c->fwd_told && believed < c->buf_alloc / 2)
		vsock_conn_do(c, VSOCK_DO_CREDIT);
}

/* ------------------------------------------------------------- waiting */

void vsock_timer(struct vsock *s, uint64_t due)
{
	if (!s->timer.due || due < s->timer.due)
		loop_timer_set(s->v.loop, &s->timer, due);
}

void vsock_conn_wait(struct vsock_conn *c, enum vsock_wait w)
{
	vsock_unlink(&c->wait);
	vsock_append(&c->s->waits[w], &c->wait);
	c->due = loop_now() + c->s->wait_ns[w];
	vsock_timer(c->s, c->due);
}

void vsock_conn_wait_over(struct vsock_conn *c)
{
	vsock_unlink(&c->wait);
}

static void retry(struct vsock_conn *c, uint64_t now)
{
	int r = vsock_unix_connect(c);

	if (r == -EAGAIN && now < c->give_up)
		vsock_conn_wait(c, VSOCK_WAIT_RETRY);
	else if (r < 0)
		vsock_conn_reset(c);
}

static void overdue(struct vsock_conn *c, enum vsock_wait w, uint64_t now)
{
	vsock_conn_wait_over(c);
	if (w == VSOCK_WAIT_RETRY)
		retry(c, now);
	else
		vsock_conn_reset(c);
}

void vsock_due(void *arg)
{
	struct vsock *s = arg;
	uint64_t now = loop_now();
	unsigned turn = VSOCK_TURN; /* a retry is three system calls */

	if (s->accept_due && s->accept_due <= now)
		vsock_host_watch(s);
	for (unsigned w = 0; w < VSOCK_WAITS; w++) {
		struct vsock_link *l = &s->waits[w];

		/* One that waits again does so at the end, later than now. */
		for (; turn && vsock_linked(l) && VSOCK_OF(l->next, wait)->due <= now; turn--)
			overdue(VSOCK_OF(l->next, wait), (enum vsock_wait)w, now);
		if (vsock_linked(l))
			vsock_timer(s, VSOCK_OF(l->next, wait)->due);
	}
	if (s->accept_due)
		vsock_timer(s, s->accept_due);
	vsock_rx(s);
}
