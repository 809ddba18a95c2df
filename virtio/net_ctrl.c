/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control queue, section 5.1.6.5: class, command and data, answered with one
 * byte. A command that is unknown, was not negotiated, or has data of another
 * length than it should is answered with ERR and changes nothing.
 */
#include <endian.h>
#include <string.h>

#include "virtio/net.h"

#define CTRL_TURN 64
/* No command is longer; a chain could name 4 GiB. */
#define COMMAND_MAX (64u << 10)

/*
 * What commands may take of the host's time: a tenth in the long run, and so much at once, which is
 * more than a driver needs to set itself up.
 */
#define REST_PART 10
#define REST_PURSE 10000000ll /* ns */
#define REST_MOST 100000000ll

#define OK 0
#define ERR 1

enum { CLASS_RX, CLASS_MAC, CLASS_VLAN, CLASS_ANNOUNCE, CLASS_MQ, CLASS_OFFLOADS };
enum { RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST };
enum { MAC_TABLE_SET, MAC_ADDR_SET };

/* ------------------------------------------------------------- offloads */

static const struct {
	uint64_t features;
	unsigned tun;
} offloads[] = {
	{NET_BIT(NET_F_GUEST_CSUM), TUN_F_CSUM},
	{NET_BIT(NET_F_GUEST_TSO4), TUN_F_TSO4},
	{NET_BIT(NET_F_GUEST_TSO6), TUN_F_TSO6},
	{NET_BIT(NET_F_GUEST_ECN), TUN_F_TSO_ECN},
	{NET_BIT(NET_F_GUEST_UFO), TUN_F_UFO},
	/* The kernel takes both or none. */
	{NET_BIT(NET_F_GUEST_USO4) | NET_BIT(NET_F_GUEST_USO6), TUN_F_USO4 | TUN_F_USO6},
};
#define OFFLOADS (sizeof(offloads) / sizeof(offloads[0]))

uint64_t net_offloads_known(const struct net_host *h)
{
	uint64_t f = 0;

	for (unsigned i = 0; i < OFFLOADS; i++)
		if ((h->tap.offloads & offloads[i].tun) == offloads[i].tun)
			f |= offloads[i].features;
	return f;
}

static void use_offloads(struct net *n, uint64_t set)
{
	unsigned bits = 0;

	n->offloads = set;
	if (!net_direct(n))
		return;
	n->costly = true;
	for (unsigned i = 0; i < OFFLOADS; i++)
		if ((set & offloads[i].features) == offloads[i].features)
			bits |= offloads[i].tun;
	/* Section 5.1.3.1: all the others need CSUM, and TSO_ECN one of the TSOs. */
	if (!(bits & TUN_F_CSUM))
		bits = 0;
	if (!(bits & (TUN_F_TSO4 | TUN_F_TSO6)))
		bits &= ~TUN_F_TSO_ECN;
	/* Fewer are always right: the host does the work. More come when the rest is over. */
	if (net_ctrl_rests(n))
		bits &= n->host->tap.set;
	if (tap_set_offloads(&n->host->tap, bits))
		tap_set_offloads(&n->host->tap, 0);
}

static uint8_t ctrl_offloads(struct net *n, uint8_t command, struct vq_chain *c)
{
	uint64_t set;

	if (!virtio_has(&n->v, NET_F_CTRL_GUEST_OFFLOADS) || command ||
	    c->readable != sizeof(set) || chain_pull(c, &set, sizeof(set)))
		return ERR;
	set = le64toh(set);
	/* Section 5.1.6.5.6.1: only what was negotiated. */
	if (set & ~(n->v.acked & NET_GUEST_OFFLOADS))
		return ERR;
	use_offloads(n, set);
	return OK;
}

/* ------------------------------------------------------------- filters */

/* What is to be let through, unicast first: the kernel hashes groups alone. */
static unsigned wanted(const struct net *n, uint8_t (*addr)[ETH_ALEN])
{
	const struct net_filter *f = &n->filter;
	unsigned k = 0;

	if (!f->nouni) {
		memcpy(addr[k++], n->v.config + NET_CFG_MAC, ETH_ALEN);
		memcpy(addr[k], f->uni.addr, f->uni.n * ETH_ALEN);
		k += f->uni.n;
	}
	if (!f->nobcast)
		memset(addr[k++], 0xff, ETH_ALEN);
	if (!f->nomulti) {
		memcpy(addr[k], f->multi.addr, f->multi.n * ETH_ALEN);
		k += f->multi.n;
	}
	/* An empty list would let all through: this is nobody's address. */
	if (!k)
		memset(addr[k++], 0, ETH_ALEN);
	return k;
}

/* The host's kernel filters, whoever serves the queues. */
static void use_filter(struct net *n)
{
	const struct net_filter *f = &n->filter;
	uint8_t addr[2 * NET_MACS_MAX + 2][ETH_ALEN];
	bool all = !f->set || f->promisc || (!f->nouni && (f->alluni || f->uni.overflow));

	_Static_assert(2 * NET_MACS_MAX + 2 <= TAP_FILTER_MAX, "a filter holds both tables");
	if (!n->host->tap.queues)
		return;
	n->costly = true;
	tap_set_filter(&n->host->tap, addr, all ? 0 : wanted(n, addr),
		       !f->nomulti && (f->allmulti || f->multi.overflow));
}

static uint8_t ctrl_rx(struct net *n, uint8_t command, struct vq_chain *c)
{
	struct net_filter *f = &n->filter;
	bool *const flag[] = {&f->promisc, &f->allmulti, &f->alluni,
			      &f->nomulti, &f->nouni,    &f->nobcast};
	unsigned bit = command <= RX_ALLMULTI ? NET_F_CTRL_RX : NET_F_CTRL_RX_EXTRA;
	uint8_t on;

	if (command > RX_NOBCAST || !virtio_has(&n->v, bit) || c->readable != 1 ||
	    chain_pull(c, &on, 1) || on > 1)
		return ERR;
	*flag[command] = on;
	f->set = true;
	use_filter(n);
	return OK;
}

/* Section 5.1.6.5.2: a count and as many addresses. */
static bool pull_table(struct vq_chain *c, struct net_macs *m)
{
	uint8_t addr[ETH_ALEN];
	uint32_t entries;

	if (chain_pull(c, &entries, sizeof(entries)))
		return false;
	entries = le32toh(entries);
	if (entries > c->readable / ETH_ALEN)
		return false;
	*m = (struct net_macs){.overflow = entries > NET_MACS_MAX};
	for (uint32_t i = 0; i < entries; i++) {
		if (chain_pull(c, addr, sizeof(addr)))
			return false;
		if (!m->overflow)
			memcpy(m->addr[m->n++], addr, ETH_ALEN);
	}
	return true;
}

static uint8_t ctrl_mac(struct net *n, uint8_t command, struct vq_chain *c)
{
	struct net_macs uni, multi;
	uint8_t addr[ETH_ALEN];

	if (command == MAC_TABLE_SET && virtio_has(&n->v, NET_F_CTRL_RX)) {
		if (!pull_table(c, &uni) || !pull_table(c, &multi) || c->readable)
			return ERR;
		n->filter.uni = uni;
		n->filter.multi = multi;
		n->filter.set = true;
	} else if (command == MAC_ADDR_SET && virtio_has(&n->v, NET_F_CTRL_MAC_ADDR)) {
		if (c->readable != ETH_ALEN || chain_pull(c, addr, ETH_ALEN) || (addr[0] & 1))
			return ERR;
		memcpy(n->v.config + NET_CFG_MAC, addr, ETH_ALEN);
	} else {
		return ERR;
	}
	use_filter(n);
	return OK;
}

/* ------------------------------------------------------------- the rest */

static uint8_t ctrl_announce(struct net *n, uint8_t command, struct vq_chain *c)
{
	if (!virtio_has(&n->v, NET_F_GUEST_ANNOUNCE) || command || c->readable)
		return ERR;
	n->v.config[NET_CFG_STATUS] &= (uint8_t)~NET_S_ANNOUNCE;
	return OK;
}

static uint8_t ctrl_mq(struct net *n, uint8_t command, struct vq_chain *c)
{
	uint16_t pairs;
	int r;

	if (!virtio_has(&n->v, NET_F_MQ) || command || c->readable != sizeof(pairs) ||
	    chain_pull(c, &pairs, sizeof(pairs)))
		return ERR;
	/* The driver's number: from here on at most as many as there are. */
	pairs = le16toh(pairs);
	if (pairs < 1 || pairs > n->pairs)
		return ERR;
	n->costly = true;
	r = net_use_pairs(n, pairs);
	if (r < 0)
		log_guest(&n->v.budget, "%s: %u queue pairs cannot be used: %s", n->v.name, pairs,
			  strerror(-r));
	return r < 0 ? ERR : OK;
}

static uint8_t command(struct net *n, struct vq_chain *c)
{
	static uint8_t (*const class[])(struct net *, uint8_t, struct vq_chain *) = {
		[CLASS_RX] = ctrl_rx,
		[CLASS_MAC] = ctrl_mac,
		[CLASS_ANNOUNCE] = ctrl_announce,
		[CLASS_MQ] = ctrl_mq,
		[CLASS_OFFLOADS] = ctrl_offloads,
	};
	uint8_t what[2];

	if (c->readable > COMMAND_MAX || chain_pull(c, what, sizeof(what)))
		return ERR;
	if (what[0] >= sizeof(class) / sizeof(class[0]) || !class[what[0]])
		return ERR;
	return class[what[0]](n, what[1], c);
}

/* True: it was costly: filters, offloads and pairs are set under a lock that all networks of the
 * host share. */
static bool serve(struct net *n, struct vq_chain *c)
{
	n->costly = false;
	/* Without room for the answer there is none, and nothing is done. */
	if (c->writable) {
		uint8_t ack = command(n, c);

		chain_push(c, &ack, sizeof(ack));
	}
	vq_return(c);
	return n->costly;
}

/* The purse pays for what was begun at @since. */
static void charge(struct net *n, uint64_t since)
{
	struct net_rest *r = &n->rest;
	const int64_t more = (int64_t)((since - r->at) / REST_PART);

	r->at = loop_now();
	r->purse = (r->purse + more < REST_PURSE ? r->purse + more : REST_PURSE) -
		   (int64_t)(r->at - since);
}

static void rest_over(void *arg)
{
	struct net *n = arg;
	const uint64_t since = loop_now();

	if (!n->v.running)
		return;
	use_offloads(n, n->offloads);
	charge(n, since);
	virtio_kick(&n->v, n->ctrl);
}

/* Something costly was begun at @since. True: the queue rests now. */
static bool rest_now(struct net *n, uint64_t since)
{
	struct net_rest *r = &n->rest;
	int64_t ns;

	charge(n, since);
	if (r->purse >= 0)
		return false;
	ns = -r->purse * REST_PART;
	r->timer.fn = rest_over;
	r->timer.arg = n;
	loop_timer_set(n->v.loop, &r->timer, r->at + (uint64_t)(ns < REST_MOST ? ns : REST_MOST));
	return true;
}

bool net_ctrl_rests(const struct net *n)
{
	return n->rest.timer.loop;
}

void net_ctrl(struct net *n)
{
	struct vq *vq = virtio_vq(&n->v, n->ctrl);
	const uint64_t since = loop_now();
	unsigned budget = CTRL_TURN;
	bool rests = false;
	struct vq_chain *c;

	if (net_ctrl_rests(n))
		return;
	vq_kicks_off(vq);
	do {
		for (; budget && vq_next(vq, &c) == VQ_CHAIN; budget--)
			if (serve(n, c)) {
				rests = rest_now(n, since);
				budget = 1; /* the last of this turn */
			}
	} while (budget && !n->polled && vq_kicks_on(vq));
	if (!budget && !rests)
		virtio_rekick(&n->v, n->ctrl);
	vq_notify(vq);
}

/* Section 5.1.6.5.1: nothing is filtered until the driver says what. A new driver does not end the
 * old one's rest, and what is set here counts as well. */
void net_ctrl_start(struct net *n, uint64_t guest_offloads)
{
	const uint64_t since = loop_now();

	n->costly = false;
	n->filter = (struct net_filter){0};
	use_filter(n);
	use_offloads(n, guest_offloads);
	if (n->costly)
		rest_now(n, since);
}
