/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host file or block device under an image: opened, checked, locked and
 * measured. What the formats have in common.
 */
#ifndef VIRTIO_IMAGE_FILE_H
#define VIRTIO_IMAGE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "vmm/config.h"
#include "vmm/err.h"

struct image_file {
	int fd;     /* O_DIRECT when that was asked for */
	int cached; /* through the page cache; the same as fd without O_DIRECT */
	bool direct, block, can_discard;
	uint64_t size;                 /* bytes, a multiple of 512 */
	uint32_t physical;             /* bytes, a power of two from 512 up */
	uint32_t io_min, io_opt;       /* bytes; 0: nothing known */
	uint32_t mem_align, off_align; /* of O_DIRECT; 1 without it */
	uint32_t whole_max;            /* of O_DIRECT: bytes the host's queue takes unsplit */
};

int image_file_open(struct image_file *f, const struct disk_config *c, struct err *e);
void image_file_close(struct image_file *f);

/*
 * image_lock.c: a lock of the open file description (F_OFD_SETLK) over the
 * whole file: many readers or one writer. It goes with the last descriptor.
 * -EBUSY names the holder where /proc tells. A file system that knows no locks
 * gets a warning.
 */
int image_lock(int fd, const char *path, bool readonly, struct err *e);

#endif
