/* SPDX-License-Identifier: Apache-2.0 */
/* What a network device is connected to on the host, and what outlives it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtio/net.h"

static int open_tap(struct net_host *h, const struct net_config *c, struct err *e)
{
	unsigned n = c->pairs ? c->pairs : 1;
	int r = c->kind == NET_TAP ? tap_open(&h->tap, c->tap, n, c->mtu, e)
				   : tap_adopt(&h->tap, c->fd, c->nfds, e);

	if (r < 0)
		return r;
	/* The others take part when a driver says so. */
	for (unsigned i = 1; i < h->tap.queues; i++)
		tap_attach(&h->tap, i, false);
	tap_set_filter(&h->tap, NULL, 0, false);
	h->watch = tap_watch_open();
	if (h->watch < 0)
		log_info("TAP %s: that it goes down will not be noticed: %s", h->tap.name,
			 strerror(-h->watch));
	return 0;
}

int net_host_open(struct net_host **ret, const struct net_config *c, unsigned index, struct err *e)
{
	struct net_host *h = calloc(1, sizeof(*h));

	if (!h)
		return err_msg(e, -ENOMEM, "net%u: out of memory", index);
	h->watch = -1;
	snprintf(h->label, sizeof(h->label), "net%u: passt", index);
	int r = c->kind == NET_USER ? passt_start(&h->passt, &h->frames, c, h->label, e)
				    : open_tap(h, c, e);
	if (r < 0) {
		net_host_close(h);
		return c->kind == NET_USER ? r : err_ctx(e, "net%u", index);
	}
	if (h->tap.queues) {
		snprintf(h->label, sizeof(h->label), "net%u: TAP %s", index, h->tap.name);
		log_info("%s: %s, %u queue pair%s, %s", h->label,
			 c->kind == NET_FDS ? "inherited"
			 : h->tap.made      ? "made"
					    : "was there",
			 h->tap.queues, h->tap.queues == 1 ? "" : "s",
			 h->tap.vnet_hdr ? "frames with headers" : "frames without headers");
	}
	*ret = h;
	return 0;
}

void net_host_close(struct net_host *h)
{
	if (!h)
		return;
	/* Others may use the TAP after us. */
	if (h->tap.queues) {
		tap_set_filter(&h->tap, NULL, 0, false);
		tap_set_offloads(&h->tap, 0);
	}
	tap_close(&h->tap);
	if (h->watch >= 0)
		close(h->watch);
	passt_end(h->passt, &h->frames);
	frames_fini(&h->frames);
	free(h);
}
