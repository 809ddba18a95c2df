/* SPDX-License-Identifier: Apache-2.0 */
/* Raw images: the guest's sectors are the file's bytes. */
#ifndef VIRTIO_RAW_H
#define VIRTIO_RAW_H

#include "virtio/image.h"
#include "virtio/image_file.h"

int raw_open(struct image **ret, const struct disk_config *c, const struct image_env *env,
	     struct err *e);

/*
 * raw_io.c: the calls that block, made on a worker. They use the request and
 * these fields alone; the flags are learned there and only ever fall.
 */
struct raw_io {
	struct image_file file;
	bool no_zero_range, no_punch; /* atomic */
};

/* Does the whole of @r with system calls that may sleep; 0 or a negative errno. */
int raw_io_run(struct raw_io *io, struct image_req *r);

/* Most bytes of one system call: what a reset waits for stays short, whatever the guest asked. */
#define RAW_PIECE (1u << 20)

/* Cuts the request's vector to at most RAW_PIECE bytes; returns the number of vectors. */
int raw_io_cut(struct image_req *r);
void raw_io_uncut(struct image_req *r, int n);

/* Whether O_DIRECT takes the rest of @r as it is. Always without O_DIRECT. */
bool raw_io_aligned(const struct raw_io *io, const struct image_req *r);

#endif
