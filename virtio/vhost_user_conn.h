/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between vhost_user.c (what is asked of a back end) and vhost_user_conn.c (how): one
 * connection. virtio/vhost.h says who calls and when; messages are those of vhost_user_msg.h.
 */
#ifndef VIRTIO_VHOST_USER_CONN_H
#define VIRTIO_VHOST_USER_CONN_H

#include "virtio/vhost.h"
#include "virtio/vhost_user_msg.h"

struct vhost_user {
	struct vhost h;
	int fd;            /* -1: dead */
	int back_fd;       /* our end of the back end's channel; -1: none */
	uint64_t protocol; /* features both sides have */
	bool has_protocol; /* F_PROTOCOL_FEATURES: rings begin disabled, too */
	bool gone;         /* dead, and the peer closed the connection, not we */
	uint64_t rings;    /* those that it may work on: started, and not heard to have stopped */
	uint64_t deadline; /* of the operation under way: vu_begin */
	uint64_t begun;    /* when that was */
	uint64_t patience; /* ns that may be waited from then on */
	uint64_t calm;     /* until when a changed configuration is not asked for again */
	struct log_budget budget; /* a guest may start it, and find it dead, for ever */
	char reason[160];         /* why it is dead */
	char name[144];           /* "fs0 (tag src): vhost-user" */
	struct loop *loop;        /* between bind and unbind */
	struct vhost_user_owner owner;
	struct loop_fd src, back_src;
	struct loop_timer died, changed; /* due at once: owners are told from the loop alone */
	struct vu_reader back;
	struct vu_region region[VU_REGIONS_MAX]; /* guest memory, by our addresses: of set_memory */
	unsigned nregions;
};

/* Ends the connection; says why, once, when it has an owner. @what: the request, or NULL when none
 * was under way. Always -ENOTCONN. */
int vu_fail(struct vhost_user *u, const char *what, const char *why);

/* An operation begins: all its requests together have VHOST_WAIT_MS, or what the ones before have
 * left of it: what a request takes beyond 20 ms is taken off, and comes back at a tenth of the
 * time. */
void vu_begin(struct vhost_user *u);
/* A request with an answer of @size bytes, which replaces it. 0 or -ENOTCONN; an empty answer to
 * GET_CONFIG is the peer's no, and taken. */
int vu_ask(struct vhost_user *u, struct vu_msg *m, uint32_t size);
/* One without an answer of its own. 0, -EREMOTEIO (it refused: with REPLY_ACK alone) or -ENOTCONN.
 */
int vu_tell(struct vhost_user *u, struct vu_msg *m, const struct vu_fds *fds);
/* The same where a refusal is the end. 0 or -ENOTCONN. */
int vu_must(struct vhost_user *u, struct vu_msg *m, const struct vu_fds *fds);
int vu_refused(struct vhost_user *u, uint32_t request); /* what vu_must makes of a no */

void vu_back_close(struct vhost_user *u);

extern unsigned vu_wait_ms; /* VHOST_WAIT_MS; tests have less time */

#endif
