/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio devices: blk.c, rng.c, console.c, net.c and vsock.c with what begins with their
 * names; those that somebody else serves are vsock_kernel.c, fs.c and vublk.c.
 *
 * What a device has on the host and must not lose when the guest reboots (a TAP, a
 * listening socket, a connection to another process) is opened before the first machine is
 * built, outlives every machine, and is lent to the device: struct NAME_host.
 */
#ifndef VIRTIO_DEVICES_H
#define VIRTIO_DEVICES_H

#include "virtio/virtio.h"
#include "vmm/chr.h"
#include "vmm/config.h"
#include "vmm/power.h"
#include "vmm/workers.h"

/* Section 5.2. Opens and locks the image: see virtio/image.h. */
struct blk_env { /* all outlive the device */
	struct gmem *gm;
	struct loop *loop;
	struct workers *workers;
	unsigned index; /* position, for names and the default serial */
	unsigned cpus;  /* the guest's: as many queues, unless the user says how many */
};
struct blk;
int blk_new(struct blk **ret, const struct disk_config *c, const struct blk_env *env,
	    struct err *e);
void blk_free(struct blk *b);
struct virtio *blk_virtio(struct blk *b);

/* As many as the user says, or one a CPU up to eight. 1 to VIRTIO_QUEUES_MAX. */
unsigned blk_queue_count(const struct disk_config *c, unsigned cpus);

/* Section 5.4. At most RNG_MAX bytes a request from getrandom(2). */
#define RNG_MAX 4096
struct rng;
int rng_new(struct rng **ret, struct gmem *gm, struct loop *l, struct err *e);
void rng_free(struct rng *r);
struct virtio *rng_virtio(struct rng *r);

/* Section 5.1. virtio/net.h says how it is built. */
struct net_host; /* TAP queues, or passt and a connection to it */
int net_host_open(struct net_host **ret, const struct net_config *c, unsigned index, struct err *e);
void net_host_close(struct net_host *h); /* accepts NULL; a TAP that was made here goes */

struct net_env { /* all outlive the device */
	struct gmem *gm;
	struct loop *loop;
	struct net_host *host;
	unsigned index; /* for the name: "net0" */
};
struct net;
int net_new(struct net **ret, const struct net_config *c, const struct net_env *env, struct err *e);
struct virtio *net_virtio(struct net *n);

/*
 * Section 5.10. Two devices: vsock.c serves the guest's connections itself, to and
 * from Unix sockets; vsock_kernel.c leaves the data to the kernel's vhost-vsock.
 */
struct vsock_host; /* the listening socket; NULL with vhost-vsock */
int vsock_host_open(struct vsock_host **ret, const struct vsock_config *c, struct err *e);
void vsock_host_close(struct vsock_host *h); /* accepts NULL; the socket's path goes */

struct vsock_env {
	struct gmem *gm;
	struct loop *loop;
	struct vsock_host *host;
};
/* Both give a device whose ops->free frees it. */
int vsock_new(struct virtio **ret, const struct vsock_config *c, const struct vsock_env *env,
	      struct err *e);
int vsock_kernel_new(struct virtio **ret, const struct vsock_config *c, const struct vsock_env *env,
		     struct err *e);

/* Section 5.11. A vhost-user front end; virtiofsd does the work. */
struct fs_host; /* the connection, and the virtiofsd that mvm started for it */
int fs_host_open(struct fs_host **ret, const struct fs_config *c, unsigned index, struct err *e);
void fs_host_close(struct fs_host *h); /* accepts NULL; ends its virtiofsd */

struct fs_env {
	struct gmem *gm; /* shared */
	struct loop *loop;
	struct fs_host *host;
	unsigned index; /* for the name: "fs0" */
	struct power_sink power;
};
int fs_new(struct virtio **ret, const struct fs_config *c, const struct fs_env *env, struct err *e);

/* A block device (section 5.2) that another process serves: vhost-user-blk. */
struct vublk_host; /* the connection */
int vublk_host_open(struct vublk_host **ret, const struct disk_config *c, struct err *e);
void vublk_host_close(struct vublk_host *h);

struct vublk_env {
	struct gmem *gm; /* shared */
	struct loop *loop;
	struct vublk_host *host;
	unsigned index, cpus; /* as for blk_env */
	struct power_sink power;
};
int vublk_new(struct virtio **ret, const struct disk_config *c, const struct vublk_env *env,
	      struct err *e);

/* Section 5.3, one port, VIRTIO_CONSOLE_F_SIZE. */
struct console;
int console_new(struct console **ret, struct gmem *gm, struct loop *l, struct chr *chr,
		struct err *e);
void console_free(struct console *c);
void console_listen(
	struct console *c); /* the guest is ready for keys: console.c says why it matters */
struct virtio *console_virtio(struct console *c);

#endif
