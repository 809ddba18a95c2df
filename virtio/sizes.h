/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sizes of a device's queues as the user wants them: --virtio-queue-sizes.
 *
 * No state; any thread.
 */
#ifndef VIRTIO_SIZES_H
#define VIRTIO_SIZES_H

#include <stddef.h>

#include "virtio/virtio.h"
#include "vmm/config.h"

/*
 * One --virtio-queue-sizes: "net0=256:1024". Whether there is such a device, and
 * whether these sizes are enough for it, is sizes_apply's to say. -EINVAL, -ERANGE, -E2BIG,
 * -EEXIST: that device was given before.
 */
int sizes_config(struct config *c, const char *text, struct err *e);

/*
 * Gives @v's queues their sizes; before any transport. -EINVAL: more sizes than it
 * has queues; -ERANGE: too small for such a device; -ENOMEM.
 */
int sizes_apply(const struct config *c, struct virtio *v, struct err *e);

/* The smallest of @v's queues, which has at least one: what all of them can take. */
uint16_t sizes_least(const struct virtio *v);

/* Of each queue, in the option's own spelling: "256:1024:64", or "128" for all. */
#define SIZES_TEXT (5 * VIRTIO_QUEUES_MAX)
void sizes_text(char *buf, size_t size, const struct virtio *v);

#endif
