/* SPDX-License-Identifier: Apache-2.0 */
/* The keys that --fs and --rootfs DIRECTORY have in common. */
#ifndef VMM_CONFIG_FS_H
#define VMM_CONFIG_FS_H

#include "vmm/config.h"
#include "vmm/opts.h"

/* A share as it is read; first in whatever the keys below write to. */
struct fs_words {
	struct fs_config f;
	bool ro, rw; /* which were given: two words for one thing, one of them may be */
};

int fs_key_dir(void *words, const char *v, struct err *e);
int fs_key_ro(void *words, const char *v, struct err *e);
int fs_key_rw(void *words, const char *v, struct err *e);
int fs_key_cache(void *words, const char *v, struct err *e);
int fs_key_queues(void *words, const char *v, struct err *e);
int fs_key_queue_size(void *words, const char *v, struct err *e);
int fs_key_id(void *words, const char *v, struct err *e);

int fs_words_check(const struct fs_words *w, struct err *e);
void fs_config_fini(struct fs_config *f);

#endif
