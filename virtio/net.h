/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network device, virtio 1.2 section 5.1, shared by
 *
 *	net.c        the device: features, configuration, start and stop, polling, the link
 *	net_rx.c     frames to the guest
 *	net_tx.c     frames from the guest
 *	net_ctrl.c   the control queue: filters, addresses, offloads, queue pairs
 *	net_vhost.c  queue pairs that the host's kernel serves instead
 *	net_host.c   what it is connected to: a TAP (tap.c) or passt (passt.c), which outlives it
 *
 * Queues 2i and 2i+1 are pair i: receive and transmit. Which queue is the control
 * queue depends on what the driver took (section 5.1.2). Under the loop's lock.
 */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include "virtio/devices.h"
#include "virtio/frames.h"
#include "virtio/passt.h"
#include "virtio/tap.h"
#include "virtio/vhost.h"
#include "vmm/log.h"

/* Section 5.1.3. */
#define NET_F_CSUM 0
#define NET_F_GUEST_CSUM 1
#define NET_F_CTRL_GUEST_OFFLOADS 2
#define NET_F_MTU 3
#define NET_F_MAC 5
#define NET_F_GUEST_TSO4 7
#define NET_F_GUEST_TSO6 8
#define NET_F_GUEST_ECN 9
#define NET_F_GUEST_UFO 10
#define NET_F_HOST_TSO4 11
#define NET_F_HOST_TSO6 12
#define NET_F_HOST_ECN 13
#define NET_F_HOST_UFO 14
#define NET_F_MRG_RXBUF 15
#define NET_F_STATUS 16
#define NET_F_CTRL_VQ 17
#define NET_F_CTRL_RX 18
#define NET_F_CTRL_RX_EXTRA 20
#define NET_F_GUEST_ANNOUNCE 21
#define NET_F_MQ 22
#define NET_F_CTRL_MAC_ADDR 23
#define NET_F_GUEST_USO4 54
#define NET_F_GUEST_USO6 55
#define NET_F_HOST_USO 56
#define NET_BIT(n) (1ull << (n))

/* What the driver can be given unfinished; CTRL_GUEST_OFFLOADS_SET chooses among them. */
#define NET_GUEST_OFFLOADS                                                                         \
	(NET_BIT(NET_F_GUEST_CSUM) | NET_BIT(NET_F_GUEST_TSO4) | NET_BIT(NET_F_GUEST_TSO6) |       \
	 NET_BIT(NET_F_GUEST_ECN) | NET_BIT(NET_F_GUEST_UFO) | NET_BIT(NET_F_GUEST_USO4) |         \
	 NET_BIT(NET_F_GUEST_USO6))

/* Section 5.1.4. */
#define NET_CFG_MAC 0
#define NET_CFG_STATUS 6
#define NET_CFG_PAIRS 8
#define NET_CFG_MTU 10
#define NET_CFG_LEN 12
#define NET_S_LINK_UP 1
#define NET_S_ANNOUNCE 2

/* Section 5.1.6: struct virtio_net_hdr; num_buffers are its last two bytes. */
#define NET_HDR 12u
#define NET_HDR_NUM_BUFFERS 10

/* Packets in one call: then the other queues have their turn. */
#define NET_TURN 64

/* A frame that its sender made as large as it could: there is more where it comes from. */
#define NET_LARGE (16u << 10)

/* Iovecs of one readv or writev; also chains, of which a queue has no more. */
#define NET_IOV 1024

struct net;

/*
 * Chains that were taken for packets to come, [first, end), in arrays of twice
 * the size so that they need not be moved for each packet.
 */
struct net_rx {
	struct vq_chain *chain[2 * NET_IOV];
	uint32_t len[2 * NET_IOV];  /* bytes of each that are in iov */
	uint16_t iovs[2 * NET_IOV]; /* iovecs of each */
	struct iovec iov[2 * NET_IOV];
	unsigned first, end, iov_first, iov_end;
	uint32_t room;          /* the sum of len */
	struct vq_chain *spare; /* taken too, but its iovecs did not fit */
	uint8_t *tail;          /* where the kernel puts what the chains have no room for */
	const uint8_t *left;    /* of a packet that was begun and needs more chains */
	uint32_t left_len;
	struct loop_timer patience; /* how long such a packet is kept */
	unsigned refused;           /* chains in this turn: a driver can refill without end */
	uint32_t packet;            /* bytes of the last one, its header too */
	uint32_t untold;            /* bytes that were given since the last vq_notify */
	bool hungry; /* there are no buffers: the host's side is not read meanwhile */
};

struct net_tx {
	struct vq_chain *held; /* waits until the host's side takes frames again */
	bool large;            /* the last frame was one of NET_LARGE bytes or more */
	int niov;
	struct iovec iov[NET_IOV]; /* its bytes */
};

struct net_pair {
	struct net *n;
	unsigned i;
	int fd; /* the host's */
	struct loop_fd src;
	uint32_t events; /* that src waits for */
	bool enabled;
	struct net_rx rx;
	struct net_tx tx;
};

/* Section 5.1.6.5.1 and 2: what the driver wants to hear. */
#define NET_MACS_MAX 64 /* of a table; with more all are let through */
struct net_filter {
	bool set; /* the driver said something; until then it hears everything */
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	struct net_macs {
		unsigned n;
		bool overflow;
		uint8_t addr[NET_MACS_MAX][ETH_ALEN];
	} uni, multi;
};

struct net_vhost; /* net_vhost.c's, one a pair */

struct net_host {
	char label[64]; /* "net0: TAP tap0" */
	struct tap tap; /* without queues: it is passt */
	int watch;      /* tells of network devices that change; -1: none */
	struct child *passt;
	struct frames frames;
	bool dead; /* the TAP was deleted, or passt ended; said once */
};

struct net {
	struct virtio v;
	char name[16];
	struct net_host *host;
	unsigned pairs;   /* that the device has */
	unsigned enabled; /* that the driver uses; 0 while stopped */
	unsigned ctrl;    /* the control queue; NET_NO_CTRL */
	struct net_pair *pair;
	struct net_filter filter;
	uint8_t mac[ETH_ALEN];           /* after a reset */
	uint64_t large;                  /* features that take queues of some size */
	uint64_t offloads;               /* of NET_GUEST_OFFLOADS, what the driver wants */
	bool costly;                     /* what the last command asked of the host's kernel */
	struct net_rest {                /* the control queue's, from commands that cost the host */
		struct loop_timer timer; /* set: it rests */
		int64_t purse;           /* ns that commands may take; below 0: it was overdrawn */
		uint64_t at;             /* when the purse was counted */
	} rest;
	struct loop_fd watch; /* host->watch */
	struct loop_poll poll;
	bool polled;             /* between its begin() and end(): no kicks are wanted */
	struct net_vhost *vhost; /* NULL: the pairs are served here */
	struct log_budget budget;
};
#define NET_NO_CTRL UINT32_MAX

/* ---- net.c */

/* Frames are written and read with the header of section 5.1.6 in front. */
static inline bool net_direct(const struct net *n)
{
	return n->host->tap.vnet_hdr;
}
static inline bool net_is_stream(const struct net *n)
{
	return n->host->frames.in != NULL;
}
static inline struct vq *net_rxq(struct net_pair *p)
{
	return virtio_vq(&p->n->v, 2 * p->i);
}
static inline struct vq *net_txq(struct net_pair *p)
{
	return virtio_vq(&p->n->v, 2 * p->i + 1);
}
/* False while the loop looks at the ring by itself; true: buffers came, go on. */
static inline bool net_kicks_on(struct net_pair *p, struct vq *vq)
{
	return !p->n->polled && vq_kicks_on(vq);
}
/* The pair's callback is called for these: of EPOLLIN and EPOLLOUT, the bits in @mask become @on.
 */
void net_wait(struct net_pair *p, uint32_t mask, uint32_t on);
/* The first @pairs are used from here on. 0 or a negative errno, with what was before. */
int net_use_pairs(struct net *n, unsigned pairs);
/* The host's side is no more; @why NULL: its stream ended, and a passt of ours says why. */
void net_lost(struct net *n, const char *why);
void net_set_link(struct net *n, bool up);

/* ---- net_rx.c, net_tx.c */
int net_rx_init(struct net_pair *p); /* 0 or -ENOMEM */
void net_rx_fini(struct net_pair *p);
void net_rx(struct net_pair *p);      /* there are frames, or buffers */
void net_rx_stop(struct net_pair *p); /* forgets the queue's chains */
void net_tx(struct net_pair *p);      /* there are chains, or room for frames */
void net_tx_stop(struct net_pair *p);
static inline bool net_rx_wants(struct net_pair *p)
{
	return p->rx.hungry && vq_pending(net_rxq(p));
}
static inline bool net_tx_wants(struct net_pair *p)
{
	return !p->tx.held && vq_pending(net_txq(p));
}

/* ---- net_ctrl.c */
void net_ctrl(struct net *n);
bool net_ctrl_rests(const struct net *n); /* nothing of it is served for a while */
/* Nothing is filtered, and the driver is given these of NET_GUEST_OFFLOADS. */
void net_ctrl_start(struct net *n, uint64_t guest_offloads);
uint64_t net_offloads_known(const struct net_host *h); /* feature bits that the host's side has */

/* ---- net_vhost.c; a device without it does not come here */
int net_vhost_open(struct net *n, struct err *e);
int net_vhost_link(struct net *n, struct err *e); /* its queues are there */
void net_vhost_close(struct net *n);
uint64_t net_vhost_lacks(const struct net *n); /* features that cannot be offered with it */
int net_vhost_start(struct net *n, unsigned pair);
void net_vhost_stop(struct net *n, unsigned pair);
int net_vhost_queue_start(struct net *n, unsigned q);
void net_vhost_queue_stop(struct net *n, unsigned q);
void net_vhost_rewired(struct net *n, unsigned q);
void net_vhost_kick(struct net *n, unsigned q);

#endif
