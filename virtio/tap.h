/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TAP devices of the host: opening their queues, and what is set at them.
 *
 * A TAP is a network device of the host whose other end is a file: a read gives
 * one frame that the host sends, a write is a frame that it receives. With
 * several queues there is a file for each. With vnet_hdr frames have the 12-byte
 * header of virtio 1.2 section 5.1.6 in front, little-endian, and may be
 * segmented or checksummed by whom they reach.
 *
 * What was set once is not set again, so nobody else may set it meanwhile. One thread at a
 * time. Functions without a struct
 * err say nothing and return 0 or a negative errno.
 */
#ifndef VIRTIO_TAP_H
#define VIRTIO_TAP_H

#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/config.h"
#include "vmm/err.h"

#define TAP_HDR 12

#ifndef TUN_F_USO4 /* since Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct tap {
	char name[IFNAMSIZ];
	int fd[CONFIG_NET_PAIRS_MAX]; /* nonblocking, close-on-exec */
	unsigned queues;
	bool vnet_hdr;
	bool made;         /* by tap_open: it goes with its last descriptor */
	unsigned offloads; /* TUN_F_* bits that the host's kernel knows */
	unsigned set;      /* those of them that are on */
	bool all;          /* no filter is set */
};

/*
 * The TAP of this name, made and brought up (with @mtu, if that is not 0) when there is
 * none; one that exists is left as it is. On failure nothing stays open.
 */
int tap_open(struct tap *t, const char *name, unsigned queues, uint16_t mtu, struct err *e);
/*
 * Queues that are open already; become the tap's on success, and stay the caller's, open, after a
 * failure: then @t has none. They must have been opened with IFF_NO_PI: the kernel does not tell
 * (TUNGETIFF has another flag in that bit's place).
 */
int tap_adopt(struct tap *t, const int *fd, unsigned n, struct err *e);
void tap_close(struct tap *t);

/*
 * Which of TUN_F_* the frames that are read may need. This and the filter are set under a lock that
 * all of the host's networks share: what is so already is not set again.
 */
int tap_set_offloads(struct tap *t, unsigned bits);
/* Whether queue @i, not 0, takes part. */
int tap_attach(const struct tap *t, unsigned i, bool on);

/*
 * The frames that are read are those to one of @n addresses, and with @allmulti to any
 * group. With @n 0 all frames are. A hint: where the kernel cannot filter, all come.
 */
#define TAP_FILTER_MAX 160
int tap_set_filter(struct tap *t, uint8_t (*addr)[ETH_ALEN], unsigned n, bool allmulti);

/* Throws away what waits to be read. */
void tap_drain(int fd);

/* ---- tap_link.c: whether the device is up */

enum tap_link { TAP_UP, TAP_DOWN, TAP_GONE, TAP_ELSEWHERE /* in another network namespace */ };
/* @watch: of tap_watch_open, through which the namespace is asked. */
enum tap_link tap_link(const struct tap *t, int watch);
/* A descriptor that is readable when a network device of this namespace changed; or -errno. */
int tap_watch_open(void);
void tap_watch_drain(int fd);

#endif
