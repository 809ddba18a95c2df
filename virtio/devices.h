/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio devices, one file each: blk.c, rng.c, console.c. */
#ifndef VIRTIO_DEVICES_H
#define VIRTIO_DEVICES_H

#include "virtio/virtio.h"
#include "vmm/chr.h"
#include "vmm/config.h"
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
/*
 * Nothing is in flight: until the loop's lock, which is held, is let go, nobody
 * reads or writes guest memory for this device.
 */
bool blk_at_rest(const struct blk *b);

/* Section 5.4. At most RNG_MAX bytes a request from getrandom(2). */
#define RNG_MAX 4096
struct rng;
int rng_new(struct rng **ret, struct gmem *gm, struct loop *l, struct err *e);
void rng_free(struct rng *r);
struct virtio *rng_virtio(struct rng *r);

/* Section 5.3, one port, VIRTIO_CONSOLE_F_SIZE. */
struct console;
int console_new(struct console **ret, struct gmem *gm, struct loop *l, struct chr *chr,
		struct err *e);
void console_free(struct console *c);
void console_listen(
	struct console *c); /* the guest is ready for keys: console.c says why it matters */
struct virtio *console_virtio(struct console *c);

#endif
