/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One machine from power-on to power-off: what machine.c runs and, after a
 * reboot of the guest, builds again. Built, started and taken apart on the
 * main thread; the main loop does not run meanwhile.
 */
#ifndef VMM_ASSEMBLE_H
#define VMM_ASSEMBLE_H

#include <pthread.h>

#include "devices/devices.h"
#include "devices/pci.h"
#include "virtio/devices.h"
#include "virtio/transport.h"
#include "vmm/config.h"
#include "vmm/payload.h"
#include "vmm/power.h"
#include "vmm/vcpu.h"

#define MACHINE_VIRTIO_MAX (CONFIG_DISKS_MAX + CONFIG_NETS_MAX + CONFIG_FS_MAX + 3)

/* What the devices have on the host and keep when the guest reboots. ends.c; main thread. */
struct ends {
	struct net_host *net[CONFIG_NETS_MAX];
	struct vublk_host *vublk[CONFIG_DISKS_MAX];
	struct fs_host *fs[CONFIG_FS_MAX];
	struct vsock_host *vsock;
};
int ends_open(struct ends *n, const struct config *c, struct err *e); /* @n zeroed */
void ends_close(struct ends *n);                                      /* after a failure too */

/* What outlives a machine, lent to it. */
struct host {
	const struct config *cfg;
	struct loop *loop;            /* the main one */
	struct chr *console, *serial; /* NULL: off */
	struct ends ends;
	struct power_sink power;
	struct loop_task *settle; /* for the main loop: machine_settle is due */
	bool again;               /* a guest of this process ran before */
};

struct platform; /* the architecture's small devices */

struct virtio_slot {
	struct virtio *v;
	struct vpci *pci;
	struct vmmio *mmio;
	struct loop *loop; /* of its own; NULL: it belongs to the main one */
};

struct machine {
	const struct host *host;
	struct vm vm;
	struct gmem *gm;
	struct bus *pio, *mmio;
	struct irqs *irqs;
	struct pci_bus *pci;
	struct pci_window window;
	struct platform *platform;
	struct workers *workers;
	struct console *console;                     /* a slot's; NULL: off */
	struct virtio_slot slot[MACHINE_VIRTIO_MAX]; /* in the order of PCI slots and MMIO pages */
	unsigned nslots;
	bool init_started; /* atomic: guest/init said so */
	bool root_mounted; /* atomic: likewise */
	struct vcpu *vcpu[CONFIG_CPUS_MAX];
	pthread_t copier; /* of borrowed files, while the guest starts */
	bool copying;     /* there is that thread */
	bool copied;      /* atomic: and it is through */
	bool recalled;    /* atomic: somebody wants to write one of the files */
	struct payload payload;
	struct vcpu_entry entry;
};

int machine_build(struct machine *m, const struct host *h, struct err *e);
int machine_start(struct machine *m, struct err *e);
/*
 * Guest memory gives up what it borrows of files: soon after the start, when
 * host->settle is posted, or at a SIGIO (@recalled), because somebody waits to write one.
 * False: the copies are not made yet; host->settle will be posted.
 */
bool machine_settle_due(struct machine *m, bool recalled);
/*
 * Then this does it. The guest stands still for a moment. The main loop must not
 * run meanwhile: vCPUs may be waiting for its lock. MACHINE_BUSY: a disk did not
 * come to rest soon; the guest runs on, and it is to be tried again. After an
 * error the guest stays where it is, for machine_stop.
 */
#define MACHINE_BUSY 1
int machine_settle(struct machine *m, struct err *e);
void machine_stop(struct machine *m);    /* vCPUs and loops have ended; again does nothing */
void machine_destroy(struct machine *m); /* at any stage; stops what runs */

/* The guest's power button; main loop. */
void machine_power_button(struct machine *m);

/* Whether the guest had taken its devices and let go of its interrupts again: an orderly restart.
 */
bool machine_was_orderly(const struct machine *m);
/* Whether a kernel that was to run guest/init neither did nor took a device: it never came up. */
bool machine_was_stillborn(const struct machine *m);
/* What else to say of an end: why guest/init may not have found its root. Empty: nothing. */
const char *machine_hint(const struct machine *m);
/* guest/init's stages, MARK_*: what struct marker_user wants. */
void machine_marked(void *arg, uint8_t mark);

/*
 * ---- slots.c: the virtio devices, each with its transport and, most of them, a
 * loop of its own, in the order of PCI slots and MMIO pages.
 */
int slots_build(struct machine *m, struct err *e);
/* -ENODEV: the user named a device for its features or queues that is not among those built. */
int slots_check_named(const struct machine *m, struct err *e);
int slots_start(struct machine *m, struct err *e); /* the loops */
/*
 * Waits until no device reads or writes guest memory any more, and keeps it so: the first
 * *ret_n slots' loops are locked, at a failure too. False: not all came to rest by @until. The
 * main loop does not run.
 */
bool slots_rest(struct machine *m, uint64_t until, unsigned *ret_n);
void slots_go_on(struct machine *m, unsigned n, bool on); /* unlocks; !@on: and stops them */
void slots_stop(struct machine *m);                       /* the loops; again does nothing */
void slots_destroy(struct machine *m);
struct virtio *slots_find(const struct machine *m, const char *name); /* "disk0"; or NULL */

/* ---- describe.c: for -v, all that was decided; once it is built and before it starts */
void machine_describe(const struct machine *m);

/* ---- platform_ARCH.c */
void platform_window(struct machine *m); /* fills m->window once the VM and memory are known */
int platform_build(struct machine *m, struct err *e);                   /* devices; before virtio */
int platform_tables(struct machine *m, gpa_t *ret_rsdp, struct err *e); /* after virtio */
void platform_free(struct platform *p);
void platform_power_button(struct platform *p);
void platform_listen(struct platform *p); /* the guest reads its serial line from now on */
unsigned platform_vmmio_gsi(unsigned n);  /* of the nth MMIO device; 0: no more */
bool platform_irqs_masked(const struct machine *m);
int platform_cmdline(struct machine *m, struct err *e); /* words for the payload's command line */
int platform_memory(struct machine *m, struct err *e);  /* adds RAM as the architecture lays it */

#endif
