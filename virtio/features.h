/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feature bits by name, as the standard spells them (virtio 1.2 sections 5 and
 * 6) without VIRTIO_F_ or the device's own prefix: "EVENT_IDX", "MRG_RXBUF". The
 * user may write the prefix.
 *
 * No state; any thread.
 */
#ifndef VIRTIO_FEATURES_H
#define VIRTIO_FEATURES_H

#include <stddef.h>
#include <stdint.h>

#include "virtio/virtio.h"
#include "vmm/config.h"

/*
 * One --virtio-features: "disk0=-EVENT_IDX,-INDIRECT_DESC". Whether there is such
 * a device is features_apply's to say. -EINVAL, -E2BIG.
 */
int features_config(struct config *c, const char *text, struct err *e);

/*
 * Takes away from what @v offers what the user does not want; before any
 * transport. -EINVAL: it does not offer that.
 */
int features_apply(const struct config *c, struct virtio *v, struct err *e);

/* The names in @set, a blank between; what has no name as "bit N". Cut where @size ends. */
#define FEATURES_TEXT 640
void features_text(char *buf, size_t size, uint16_t id, uint64_t set);

#endif
