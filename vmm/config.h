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

/*
 * Descriptors a queue: a power of two. The least are those that a device works with: a request
 * takes several buffers, and is no longer than its queue (virtio/sizes.c says how many).
 */
#define CONFIG_QUEUE_MIN 2
#define CONFIG_QUEUE_MAX 1024
#define CONFIG_DISK_QUEUE_MIN 4
#define CONFIG_NET_QUEUE_MIN 32
#define CONFIG_VSOCK_QUEUE_MIN 4
#define CONFIG_FS_QUEUE_MIN 16

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
	uint16_t queue_size; /* 0: 512 */
	bool vhost_user;     /* path is the socket of a vhost-user-blk back end */
	bool root;           /* --rootfs gave it */
};

#define CONFIG_NETS_MAX 8
#define CONFIG_NET_PAIRS_MAX 16 /* two queues each, and one for control */

enum config_choice { CONFIG_AUTO, CONFIG_ON, CONFIG_OFF };

/* What is on the host's side of a network device. */
enum net_kind {
	NET_TAP,  /* the TAP device of this name, made when there is none */
	NET_FDS,  /* open TAP queues, inherited; the caller's program configured them */
	NET_USER, /* passt, started by mvm: no privileges needed */
};
struct net_config {
	enum net_kind kind;
	char *tap; /* TAP: its name */
	int fd[CONFIG_NET_PAIRS_MAX];
	unsigned nfds;
	char *id; /* NULL: none given */
	uint8_t mac[6];
	bool has_mac;   /* false: config_check makes up a local one */
	uint16_t mtu;   /* 0: the guest is told none */
	uint16_t pairs; /* queue pairs; 0: one, or one for each fd */
	uint16_t queue_size;
	enum config_choice vhost;
	bool no_offload; /* neither checksums nor segmentation are left to the other side */
};

struct vsock_config {
	bool present;
	uint32_t cid;
	char *socket; /* NULL: the kernel's vhost-vsock; else the path where host programs connect
		       */
	char *id;
	uint16_t queue_size;
};

#define CONFIG_FS_MAX 8
#define CONFIG_FS_TAG 36 /* bytes in the configuration space; a tag of all 36 has no NUL there */
#define CONFIG_FS_QUEUES_MAX 31
enum fs_cache { FS_CACHE_AUTO, FS_CACHE_ALWAYS, FS_CACHE_NEVER };
struct fs_config {
	char tag[CONFIG_FS_TAG + 1];
	char *dir;    /* mvm starts a virtiofsd for it; or */
	char *socket; /* one that runs, which is connected to exactly once */
	char *id;
	bool readonly;
	enum fs_cache cache;
	uint16_t queues; /* of requests; 0: one */
	uint16_t queue_size;
};
/* The tag of the share that --rootfs DIRECTORY makes; no user may take it. */
#define CONFIG_ROOT_TAG "mvm.root"

#define CONFIG_SIZES_MAX 32
#define CONFIG_QUEUES_MAX 33 /* VIRTIO_QUEUES_MAX */
struct sizes_config {
	char device[16]; /* "net0" */
	unsigned n;
	uint16_t size[CONFIG_QUEUES_MAX]; /* of its queues in order; the last stands for the rest */
};

#define CONFIG_FEATURES_MAX 32
struct features_config {
	char device[16];  /* "disk0" */
	uint64_t without; /* virtio feature bits that it shall not offer */
};

struct config {
	char *kernel;      /* path; filled with the newest /boot/vmlinuz* by config_check */
	char *initrd;      /* NULL: built by mvm when a root or nothing is given */
	char *rootfs;      /* NULL: none; a disk's spelling, which also stands as disks[0] after
			    * config_check; or that of a directory, which stands as fs[0] */
	bool root_is_fs;   /* config_check: it is a directory */
	bool root_rw;      /* and is written through; else a tmpfs takes what the guest writes */
	bool root_is_host; /* config_check: and the host's own root */
	char *modules;     /* directory that holds modules.dep; NULL: payload.c looks for one */
	char *cmdline;     /* appended to the default; NULL: nothing */
	bool no_default_cmdline;
	unsigned cpus;
	uint64_t memory; /* bytes, a multiple of 2 MiB after config_check */
	enum transport transport;
	struct char_config console, serial;
	struct disk_config disks[CONFIG_DISKS_MAX];
	size_t ndisks;
	struct net_config nets[CONFIG_NETS_MAX];
	size_t nnets;
	struct fs_config fs[CONFIG_FS_MAX];
	size_t nfs;
	struct vsock_config vsock;
	struct features_config features[CONFIG_FEATURES_MAX]; /* virtio/features.h fills them */
	size_t nfeatures;
	struct sizes_config sizes[CONFIG_SIZES_MAX]; /* virtio/sizes.h fills them */
	size_t nsizes;
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

/* The value of a queue_size=: a power of two from @min to CONFIG_QUEUE_MAX; -ERANGE. */
int config_queue_size(const char *text, unsigned min, uint16_t *ret, struct err *e);
/* The same of one that nobody parsed; 0 is the default, and fine. */
int config_check_queue_size(unsigned size, unsigned min, struct err *e);

/* Which option gave it: "--rootfs" or "--disk". */
const char *config_disk_option(const struct disk_config *d);

/* The command line's spellings. config_disk appends one disk; config_string replaces. */
int config_disk(struct config *c, const char *text, struct err *e);
int config_net(struct config *c, const char *text, struct err *e);
int config_fs(struct config *c, const char *text, struct err *e);
/* Puts the option that gave @f before what @e says; its errno. */
int config_fs_context(const struct fs_config *f, struct err *e);
int config_vsock(struct config *c, const char *text, struct err *e);

/* ---- config_net.c, config_fs.c, config_vsock.c: what config_check and config_fini do for them */
int config_check_nets(struct config *c, struct err *e);
int config_check_fs(struct config *c, struct err *e);
int config_check_vsock(struct config *c, struct err *e);
void config_nets_fini(struct config *c);
void config_fs_fini(struct config *c);
void config_vsock_fini(struct config *c);

/* ---- config_root.c: --rootfs becomes the first disk, or the first share; before their checks. */
int config_check_root(struct config *c, struct err *e);

/* ---- config_ids.c: what config_check does for them: no two devices have the same id=. */
int config_check_ids(const struct config *c, struct err *e);

int config_char(struct char_config *c, const char *text, struct err *e);
int config_string(char **at, const char *value, struct err *e);

/* The other way round, in the largest unit that divides it: "1536M". */
#define CONFIG_SIZE_TEXT 24
void config_size_text(char buf[CONFIG_SIZE_TEXT], uint64_t size);

/* Whether a device is served by another process, which needs guest memory shared with it. */
bool config_shares_memory(const struct config *c);
/* Whether the host's kernel serves a device by itself, behind our back. */
bool config_may_use_vhost(const struct config *c);

/* The newest readable @dir/vmlinuz* by version order, for the caller to free. */
int config_newest_kernel(const char *dir, char **ret, struct err *e);

#endif
