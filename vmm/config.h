/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole configuration of one machine. The command line (and later JSON)
 * fills it, config_check() checks it once, and from then on it is const; below
 * it nobody parses a string.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/err.h"

#define CONFIG_CPUS_MAX 32
#define CONFIG_DISKS_MAX 24
#define CONFIG_MEM_MIN (64ull << 20)
#define CONFIG_MEM_MAX (1ull << 40)
#define CONFIG_QUEUE_MAX 1024 /* descriptors a queue */

enum transport { TRANSPORT_PCI, TRANSPORT_MMIO };

enum char_mode { CHAR_OFF, CHAR_NULL, CHAR_TTY, CHAR_PTY, CHAR_FILE, CHAR_SOCKET };
struct char_config {
	enum char_mode mode;
	char *path; /* FILE and SOCKET */
};

struct disk_config {
	char *path;
	char *id;        /* NULL: none given */
	char serial[21]; /* VIRTIO_BLK_ID_BYTES and a NUL; "" = derived from the order */
	bool readonly;
	bool raw;            /* the user said so: what the content looks like is no matter */
	bool direct;         /* O_DIRECT */
	bool writethrough;   /* start without a volatile write cache */
	uint16_t queues;     /* 0: one a vCPU, at most 8 */
	uint16_t queue_size; /* 0: 512; a power of two, 2 to CONFIG_QUEUE_MAX */
};

#define CONFIG_FEATURES_MAX 32
struct features_config {
	char device[16];  /* "disk0" */
	uint64_t without; /* virtio feature bits that it shall not offer */
};

struct config {
	char *kernel;  /* path; filled with the newest /boot/vmlinuz* by config_check */
	char *initrd;  /* NULL: built by mvm when a root or nothing is given */
	char *rootfs;  /* NULL: none; a disk's spelling; also stands as disks[0] after config_check
			*/
	char *modules; /* directory that holds modules.dep; NULL: payload.c looks for one */
	char *cmdline; /* appended to the default; NULL: nothing */
	bool no_default_cmdline;
	unsigned cpus;
	uint64_t memory; /* bytes, a multiple of 2 MiB after config_check */
	enum transport transport;
	struct char_config console, serial;
	struct disk_config disks[CONFIG_DISKS_MAX];
	size_t ndisks;
	struct features_config features[CONFIG_FEATURES_MAX]; /* virtio/features.h fills them */
	size_t nfeatures;
	unsigned timeout_s; /* 0: none */
	bool no_reboot;
	bool software_kvm;   /* run on a software KVM too (freestanding test guests) */
	bool timeline;       /* print it */
	char *timeline_file; /* JSON */
	unsigned verbose;
};

void config_init(struct config *c); /* the defaults: 1 CPU, 512 MiB, PCI, console tty, serial off */
int config_check(struct config *c, struct err *e); /* once */
void config_fini(struct config *c);

/* SIZE: decimal with an optional K, M, G or T (and "iB"); -EINVAL, -ERANGE. */
int config_size(const char *text, uint64_t *ret);

/* Which option gave disk @i: "--rootfs" or "--disk". */
const char *config_disk_option(const struct config *c, size_t i);

/* The command line's spellings. config_disk appends one disk; config_string replaces. */
int config_disk(struct config *c, const char *text, struct err *e);
int config_char(struct char_config *c, const char *text, struct err *e);
int config_string(char **at, const char *value, struct err *e);

/* The other way round, in the largest unit that divides it: "1536M". */
#define CONFIG_SIZE_TEXT 24
void config_size_text(char buf[CONFIG_SIZE_TEXT], uint64_t size);

/* The newest readable @dir/vmlinuz* by version order, for the caller to free. */
int config_newest_kernel(const char *dir, char **ret, struct err *e);

#endif
