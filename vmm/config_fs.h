/* SPDX-License-Identifier: Apache-2.0 */
/* The keys that --fs and --rootfs DIRECTORY have in common. */
#ifndef VMM_CONFIG_FS_H
#define VMM_CONFIG_FS_H

#include "vmm/config.h"
#include "vmm/opts.h"

/* A share as it is read. Its strings are its own: config_fs_free_one, unless f was given on. */
struct fs_words {
	struct fs_config f;
	bool ro, rw; /* which were given: two words for one thing, one of them may be */
};

/* What opts_kv calls for each key; @words is a struct fs_words, or what begins with one. 0 or a
 * negative errno with @e saying what of @v is wrong. */
int config_fs_key_dir(void *words, const char *v, struct err *e);
int config_fs_key_ro(void *words, const char *v, struct err *e);
int config_fs_key_rw(void *words, const char *v, struct err *e);
int config_fs_key_cache(void *words, const char *v, struct err *e);
int config_fs_key_queues(void *words, const char *v, struct err *e);
int config_fs_key_queue_size(void *words, const char *v, struct err *e);
int config_fs_key_id(void *words, const char *v, struct err *e);

/* -EINVAL: both words were given. */
int config_fs_check_words(const struct fs_words *w, struct err *e);
void config_fs_free_one(struct fs_config *f);

#endif
