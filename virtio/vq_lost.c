/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vq_lost.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Chains without a trace that are reckoned with. Bounds the time, too: some 10 ms for the worst. */
#define HIDDEN_MAX 8

enum state { OPEN, OUT, BACK };

/*
 * Ring positions here are those of the used ring's last elements up to size, and of the available
 * ring's up to size + n. For each element of the available ring: between lo and hi
 * elements of the used ring were there when it came. Both only grow from one to the next.
 */
struct lost {
	const struct vq_history *h;
	unsigned n, heads; /* in use: seen in either ring */
	int *lo, *hi;
	int *prev_avail, *prev_used; /* index of the same head's element before; -1: none */
	int *last_avail, *last_used; /* by head */
	enum state *state;           /* by head */
};

static int avail_at(const struct lost *l, int i)
{
	return l->h->size + (int)l->n - (int)l->h->navail + i;
}

static int used_at(const struct lost *l, int j)
{
	return l->h->size - (int)l->h->nused + j; /* -1: before all that is seen */
}

/* ------------------------------------------------------------- bounds */

/* @hidden: chains that are out without a trace. */
static void bounds_begin(struct lost *l, unsigned hidden)
{
	int depth = (int)(l->heads + hidden);

	for (int i = 0; i < (int)l->h->navail; i++) {
		int at = avail_at(l, i);

		l->lo[i] = at + 1 - (depth < l->h->size ? depth : l->h->size);
		if (l->h->whole && l->lo[i] < used_at(l, 0))
			l->lo[i] = used_at(l, 0);
		l->hi[i] = at < l->h->size ? at : l->h->size;
	}
}

static void bounds_spread(struct lost *l)
{
	for (int i = 1; i < (int)l->h->navail; i++)
		if (l->lo[i] < l->lo[i - 1])
			l->lo[i] = l->lo[i - 1];
	for (int i = (int)l->h->navail - 2; i >= 0; i--)
		if (l->hi[i] > l->hi[i + 1])
			l->hi[i] = l->hi[i + 1];
}

/* Whether the bounds allow it; with @set they are narrowed to it. */
static bool at_least(struct lost *l, int i, int used, bool set)
{
	if (set && l->lo[i] < used)
		l->lo[i] = used;
	return used <= l->hi[i];
}

static bool at_most(struct lost *l, int i, int used, bool set)
{
	if (set && l->hi[i] > used)
		l->hi[i] = used;
	return used >= l->lo[i];
}

/* Goes back through a head's life, from the reading that it is @out at the end. */
static bool reading(struct lost *l, uint16_t head, bool out, bool set)
{
	int j = l->last_used[head];

	for (int i = l->last_avail[head]; i >= 0; i = l->prev_avail[i]) {
		/* It was available before it was returned. */
		if (!out) {
			if (!at_most(l, i, j < 0 ? used_at(l, 0) - 1 : used_at(l, j), set))
				return false;
			j = j < 0 ? j : l->prev_used[j];
		}
		out = false;
		/* And returned before it was available again. */
		if (j >= 0 && !at_least(l, i, used_at(l, j) + 1, set))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------- deciding */

static void decide(struct lost *l, uint16_t head, bool out)
{
	l->state[head] = out ? OUT : BACK;
	reading(l, head, out, true);
	bounds_spread(l);
}

struct tally {
	unsigned open, out;
	bool some, wrong; /* something was decided; no reading is left for a head */
};

/* Decides what can be told for sure. */
static struct tally decide_sure(struct lost *l)
{
	struct tally t = {0};

	for (unsigned head = 0; head < l->h->size; head++) {
		bool can_be_out, can_be_back;

		t.out += l->state[head] == OUT;
		if (l->state[head] != OPEN)
			continue;
		can_be_out = reading(l, (uint16_t)head, true, false);
		can_be_back = reading(l, (uint16_t)head, false, false);
		if (can_be_out && can_be_back) {
			t.open++;
			continue;
		}
		t.wrong |= !can_be_out && !can_be_back;
		t.some = true;
		t.out += can_be_out;
		decide(l, (uint16_t)head, can_be_out);
	}
	return t;
}

/* Of those that are open the one that was made available last. */
static uint16_t best_guess(const struct lost *l)
{
	int i = (int)l->h->navail - 1;

	while (l->state[l->h->avail[i]] != OPEN)
		i--;
	return l->h->avail[i];
}

/* Whether the rings can be read so that @want chains, which they show, are out. */
static bool solve(struct lost *l, unsigned want, unsigned hidden)
{
	for (unsigned head = 0; head < l->h->size; head++)
		l->state[head] = l->last_avail[head] < 0 ? BACK : OPEN;
	bounds_begin(l, hidden);
	bounds_spread(l);
	for (;;) {
		struct tally t = decide_sure(l);

		if (t.wrong || t.out > want || t.out + t.open < want)
			return false;
		if (t.out == want || !t.open)
			return t.out == want;
		if (!t.some)
			decide(l, best_guess(l), true);
	}
}

/* ------------------------------------------------------------- */

static void index_heads(struct lost *l)
{
	const struct vq_history *h = l->h;

	for (unsigned head = 0; head < h->size; head++)
		l->last_avail[head] = l->last_used[head] = -1;
	for (int i = 0; i < (int)h->navail; i++) {
		l->prev_avail[i] = l->last_avail[h->avail[i]];
		l->last_avail[h->avail[i]] = i;
	}
	for (int j = 0; j < (int)h->nused; j++) {
		l->prev_used[j] = l->last_used[h->used[j]];
		l->last_used[h->used[j]] = j;
	}
	for (unsigned head = 0; head < h->size; head++)
		l->heads += l->last_avail[head] >= 0 || l->last_used[head] >= 0;
}

static int collect(const struct lost *l, uint16_t *ret)
{
	int n = 0;

	for (int i = 0; i < (int)l->h->navail; i++) {
		uint16_t head = l->h->avail[i];

		if (l->state[head] == OUT && l->last_avail[head] == i)
			ret[n++] = head;
	}
	return n;
}

/* @l->n of @l->h. */
static int search(struct lost *l, uint16_t *ret)
{
	unsigned most = l->n < HIDDEN_MAX ? l->n : HIDDEN_MAX;

	index_heads(l);
	for (unsigned hidden = 0; hidden <= most; hidden++)
		if (solve(l, l->n - hidden, hidden))
			return collect(l, ret);
	return 0;
}

int vq_lost(const struct vq_history *h, unsigned n, uint16_t *ret)
{
	const size_t size = h->size;
	struct lost l = {.h = h, .n = n};
	int *room = calloc(6 * size, sizeof(*room));
	int r = -ENOMEM;

	l.state = calloc(size, sizeof(*l.state));
	if (room && l.state) {
		l.lo = room;
		l.hi = room + size;
		l.prev_avail = room + 2 * size;
		l.prev_used = room + 3 * size;
		l.last_avail = room + 4 * size;
		l.last_used = room + 5 * size;
		r = search(&l, ret);
	}
	free(l.state);
	free(room);
	return r;
}
