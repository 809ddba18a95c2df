/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/assemble.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/marks.h"
#include "virtio/features.h"
#include "virtio/image.h"
#include "vmm/layout.h"
#include "vmm/log.h"
#include "vmm/timeline.h"

#define MACHINE_WORKERS 8

/* Longest time that a machine is tried to be brought to a stand for: 100 ms. */
#define STILL_NS 100000000ull

/* ------------------------------------------------------------- virtio */

static int attach_mmio(struct machine *m, struct virtio_slot *s, struct err *e)
{
	unsigned n = (unsigned)(s - m->slot), gsi = platform_vmmio_gsi(n);
	struct irq *irq;

	if (!gsi)
		return err_msg(e, -ENOSPC, "%s: no interrupt left for another MMIO device",
			       s->v->name);
	int r = irq_line_new(&irq, m->irqs, gsi, e);
	if (r < 0)
		return r;
	const struct vmmio_env env = {
		.bus = m->mmio,
		.base = LAYOUT_VMMIO_BASE + n * LAYOUT_VMMIO_STRIDE,
		.irq = irq,
		.vm = &m->vm,
	};
	return vmmio_new(&s->mmio, s->v, &env, e);
}

static int attach(struct machine *m, struct virtio *v, struct err *e)
{
	struct virtio_slot *s = &m->slot[m->nslots];
	const struct vpci_env env = {.pci = m->pci, .irqs = m->irqs, .vm = &m->vm};

	int r = features_apply(m->host->cfg, v, e);

	if (r < 0)
		return r;
	s->v = v;
	m->nslots++; /* MACHINE_VIRTIO_MAX counts every device there can be */
	if (m->host->cfg->transport == TRANSPORT_MMIO)
		return attach_mmio(m, s, e);
	return vpci_new(&s->pci, v, &env, e);
}

static int build_disk(struct machine *m, unsigned i, struct err *e)
{
	const struct config *c = m->host->cfg;
	char name[16];

	snprintf(name, sizeof(name), "_disk%u_q0", i);
	int r = loop_new(&m->blk_loop[i], name, e);
	struct blk_env env = {
		.gm = m->gm,
		.loop = m->blk_loop[i],
		.workers = m->workers,
		.index = i,
		.cpus = c->cpus,
	};
	if (r == 0)
		r = blk_new(&m->blk[i], &c->disks[i], &env, e);
	if (r == 0 && !m->host->again && !c->disks[i].raw)
		r = image_looks_raw(c->disks[i].path, e);
	if (r < 0)
		return err_ctx(e, "%s", config_disk_option(c, i)); /* the image named its file */
	return attach(m, blk_virtio(m->blk[i]), e);
}

/* The user may have named devices that this machine does not have. */
static int check_features(const struct machine *m, struct err *e)
{
	const struct config *c = m->host->cfg;

	for (size_t i = 0; i < c->nfeatures; i++) {
		bool found = false;

		for (unsigned k = 0; k < m->nslots && !found; k++)
			found = !strcmp(m->slot[k].v->name, c->features[i].device);
		if (!found)
			return err_msg(e, -ENODEV, "--virtio-features %s: this machine has none",
				       c->features[i].device);
	}
	return 0;
}

/* The order is that of the PCI slots: console, disks, rng. */
static int build_virtio(struct machine *m, struct err *e)
{
	const struct host *h = m->host;
	int r = 0;

	if (h->console) {
		r = console_new(&m->console, m->gm, h->loop, h->console, e);
		if (r == 0)
			r = attach(m, console_virtio(m->console), e);
	}
	for (unsigned i = 0; r == 0 && i < h->cfg->ndisks; i++)
		r = build_disk(m, i, e);
	if (r == 0)
		r = rng_new(&m->rng, m->gm, h->loop, e);
	if (r == 0)
		r = attach(m, rng_virtio(m->rng), e);
	return r < 0 ? r : check_features(m, e);
}

static void destroy_virtio(struct machine *m)
{
	for (unsigned i = 0; i < m->nslots; i++) {
		vpci_free(m->slot[i].pci);
		vmmio_free(m->slot[i].mmio);
	}
	rng_free(m->rng);
	console_free(m->console);
	for (unsigned i = 0; i < CONFIG_DISKS_MAX; i++)
		blk_free(m->blk[i]);
	workers_free(m->workers);
	for (unsigned i = 0; i < CONFIG_DISKS_MAX; i++)
		loop_free(m->blk_loop[i]);
}

/* -------------------------------------------------------------- build */

static int build_vm(struct machine *m, struct err *e)
{
	int r = vm_open(&m->vm, e);

	/* There a stock kernel would hang in its decompressor. */
	if (r == 0 && !m->host->cfg->software_kvm && kvm_kind(NULL) == KVM_KIND_SOFTWARE)
		r = err_msg(e, -ENOTSUP,
			    "/dev/kvm: a software KVM, which cannot run stock kernels (this CPU "
			    "shows neither vmx nor svm); in the sources, tools/testhost run -- "
			    "COMMAND brings a host with a real one");
	if (r == 0 && m->host->cfg->cpus > m->vm.max_vcpus)
		r = err_msg(e, -EINVAL, "--cpus %u: this host's KVM runs at most %u",
			    m->host->cfg->cpus, m->vm.max_vcpus);
	if (r == 0)
		r = vm_arch_init(&m->vm, e);
	if (r == 0)
		r = irqs_new(&m->irqs, &m->vm, e);
	if (r == 0)
		r = bus_new(&m->pio, e);
	if (r == 0)
		r = bus_new(&m->mmio, e);
	timeline_mark(STAGE_VM);
	return r;
}

static int build_memory(struct machine *m, struct err *e)
{
	int r = gmem_new(&m->gm, e);

	if (r == 0) {
		gmem_may_borrow(m->gm); /* machine_settle is what it promises */
		r = platform_memory(m, e);
	}
	if (r == 0)
		r = vm_map(&m->vm, m->gm, e);
	if (r == 0)
		platform_window(m);
	timeline_mark(STAGE_MEMORY);
	return r;
}

static int build_devices(struct machine *m, struct err *e)
{
	const struct pci_bus_env pci = {
		.pio = m->pio,
		.mmio = m->mmio,
		.loop = m->host->loop,
		.window = m->window,
	};
	int r = 0;

	if (m->host->cfg->ndisks)
		r = workers_new(&m->workers, MACHINE_WORKERS, e);
	if (r == 0 && m->host->cfg->transport == TRANSPORT_PCI)
		r = pci_bus_new(&m->pci, &pci, e);
	if (r == 0)
		r = platform_build(m, e);
	return r < 0 ? r : build_virtio(m, e);
}

static int build_boot(struct machine *m, struct err *e)
{
	struct iovec built = {m->payload.cpio.data, m->payload.cpio.len};
	struct kernel_args a = {
		.cmdline = m->payload.cmdline,
		.initrd = &built,
		.initrd_n = built.iov_len ? 1 : 0,
		.initrd_fd = m->payload.initrd_fd,
		.initrd_size = m->payload.initrd_size,
	};
	int r = platform_tables(m, &a.rsdp, e);

	if (r == 0 && !m->host->cfg->no_default_cmdline)
		r = platform_cmdline(m, e);
	if (r < 0)
		return r;
	r = kernel_load(m->payload.kernel, m->gm, &a, &m->entry, e);
	if (r == 0)
		machine_describe(m);
	payload_close(&m->payload);
	timeline_mark(STAGE_KERNEL);
	return r;
}

static int build_vcpus(struct machine *m, struct err *e)
{
	struct vcpu_env env = {
		.vm = &m->vm,
		.pio = m->pio,
		.mmio = m->mmio,
		.power = m->host->power,
		.ncpus = m->host->cfg->cpus,
	};
	static const struct vcpu_entry parked = {.mode = ENTRY_NONE};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < env.ncpus; i++) {
		r = vcpu_new(&m->vcpu[i], i, &env, e);
		if (r == 0)
			r = vcpu_setup(m->vcpu[i], i == 0 ? &m->entry : &parked, e);
	}
	return r;
}

int machine_build(struct machine *m, const struct host *h, struct err *e)
{
	memset(m, 0, sizeof(*m));
	m->host = h;
	m->vm.fd = m->vm.kvm_fd = -1;
	m->payload.initrd_fd = -1;
	/* What can be wrong with the user's files comes first, before the host is asked for
	 * anything. */
	int r = payload_open(&m->payload, h->cfg, e);
	if (r == 0)
		r = build_vm(m, e);
	if (r == 0)
		r = build_memory(m, e);
	if (r == 0)
		r = build_devices(m, e);
	if (r == 0)
		r = build_boot(m, e);
	return r < 0 ? r : build_vcpus(m, e);
}

/* ---------------------------------------------------------- life cycle */

static void *copier(void *arg)
{
	struct machine *m = arg;

	int r = gmem_copy_borrowed(m->gm);

	__atomic_store_n(&m->copied, true, __ATOMIC_SEQ_CST);
	/* Without a copy things stay as they are, until somebody wants to write the file. */
	if (r == 0 || __atomic_load_n(&m->recalled, __ATOMIC_SEQ_CST))
		loop_post(m->host->loop, m->host->settle);
	return NULL;
}

bool machine_settle_due(struct machine *m, bool recalled)
{
	if (recalled)
		__atomic_store_n(&m->recalled, true, __ATOMIC_SEQ_CST);
	return !m->copying || __atomic_load_n(&m->copied, __ATOMIC_SEQ_CST);
}

/* Behind the vCPUs' back: until the copies are in place the guest works in the files' own pages. */
static void start_copier(struct machine *m)
{
	if (!gmem_borrows(m->gm) || pthread_create(&m->copier, NULL, copier, m))
		return;
	m->copying = true;
	pthread_setname_np(m->copier, "copier");
}

static void join_copier(struct machine *m)
{
	if (m->copying)
		pthread_join(m->copier, NULL);
	m->copying = false;
}

int machine_start(struct machine *m, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < m->host->cfg->ndisks; i++)
		r = loop_start(m->blk_loop[i], e);
	/* The boot processor last: the others only wait for it. */
	for (unsigned i = m->host->cfg->cpus; r == 0 && i > 0; i--)
		r = vcpu_start(m->vcpu[i - 1], e);
	if (r == 0)
		start_copier(m);
	return r;
}

/* Keeps the lock of a disk that is at rest. */
static bool disk_rests(struct machine *m, unsigned i, uint64_t until)
{
	const struct timespec turn = {.tv_nsec = 200000};

	for (;;) {
		loop_lock(m->blk_loop[i]);
		if (blk_virtio(m->blk[i])->ops->at_rest(blk_virtio(m->blk[i])))
			return true;
		loop_unlock(m->blk_loop[i]);
		if (loop_now() > until)
			return false;
		nanosleep(&turn, NULL);
	}
}

/*
 * Nobody reads or writes guest memory any more: first the vCPUs, so that nothing
 * new comes, then the disks, *ret_disks of which are locked. Console and rng work in
 * the main loop, which does not run. A disk whose host does not answer may
 * take for ever, and the main thread with it: so there is an end to it.
 */
static bool stand_still(struct machine *m, unsigned *ret_disks)
{
	const uint64_t until = loop_now() + STILL_NS;
	bool still = true;

	*ret_disks = 0;
	for (unsigned i = 0; i < m->host->cfg->cpus; i++)
		vcpu_pause(m->vcpu[i]);
	for (unsigned i = 0; still && i < m->host->cfg->cpus; i++)
		still = vcpu_wait(m->vcpu[i], until);
	for (unsigned i = 0; still && i < m->host->cfg->ndisks; i++) {
		still = disk_rests(m, i, until);
		*ret_disks += still;
	}
	return still;
}

int machine_settle(struct machine *m, struct err *e)
{
	unsigned disks;

	join_copier(m);
	if (!gmem_borrows(m->gm))
		return 0;
	int r = stand_still(m, &disks) ? gmem_settle(m->gm, e) : MACHINE_BUSY;

	for (unsigned i = 0; i < disks; i++) {
		if (r < 0)
			loop_stop(m->blk_loop[i]); /* what memory holds must not get to a disk */
		loop_unlock(m->blk_loop[i]);
	}
	for (unsigned i = 0; r >= 0 && i < m->host->cfg->cpus; i++)
		vcpu_resume(m->vcpu[i]);
	return r;
}

static void stop_vcpus(struct machine *m)
{
	for (unsigned i = 0; i < CONFIG_CPUS_MAX; i++)
		if (m->vcpu[i])
			vcpu_kick(m->vcpu[i]);
	for (unsigned i = 0; i < CONFIG_CPUS_MAX; i++)
		if (m->vcpu[i])
			vcpu_join(m->vcpu[i]);
	timeline_vcpus_gone();
}

void machine_stop(struct machine *m)
{
	stop_vcpus(m);
	join_copier(m);
	for (unsigned i = 0; i < CONFIG_DISKS_MAX; i++)
		if (m->blk_loop[i])
			loop_join(m->blk_loop[i]);
}

/* From the outside in: nobody runs, then no device is reachable, then memory and VM go. */
void machine_destroy(struct machine *m)
{
	machine_stop(m);
	destroy_virtio(m);
	platform_free(m->platform);
	pci_bus_free(m->pci);
	for (unsigned i = 0; i < CONFIG_CPUS_MAX; i++)
		vcpu_free(m->vcpu[i]);
	irqs_free(m->irqs);
	bus_free(m->pio);
	bus_free(m->mmio);
	vm_close(&m->vm);
	gmem_free(m->gm);
	payload_close(&m->payload);
}

void machine_power_button(struct machine *m)
{
	platform_power_button(m->platform);
}

static bool was_driven(const struct machine *m)
{
	bool driven = false;

	/* Not the status: Linux resets its virtio devices before it restarts. */
	for (unsigned i = 0; i < m->nslots; i++)
		driven |= m->slot[i].v->driven;
	return driven;
}

bool machine_was_orderly(const struct machine *m)
{
	return was_driven(m) && platform_irqs_masked(m);
}

bool machine_was_stillborn(const struct machine *m)
{
	const struct config *c = m->host->cfg;

	return !c->initrd && !c->software_kvm && !was_driven(m) &&
	       !__atomic_load_n(&m->init_started, __ATOMIC_ACQUIRE);
}

const char *machine_hint(const struct machine *m)
{
	return __atomic_load_n(&m->root_mounted, __ATOMIC_ACQUIRE) ? "" : m->payload.no_modules;
}

void machine_marked(void *arg, uint8_t mark)
{
	struct machine *m = arg;

	switch (mark) {
	case MARK_INIT_STARTED:
		__atomic_store_n(&m->init_started, true, __ATOMIC_RELEASE);
		break;
	case MARK_ROOT_MOUNTED:
		__atomic_store_n(&m->root_mounted, true, __ATOMIC_RELEASE);
		break;
	case MARK_ROOT_INIT:
		if (m->console)
			console_listen(m->console);
		platform_listen(m->platform);
		break;
	case MARK_FAILED:
		power_report(&m->host->power, POWER_INIT_FAILED);
		break;
	case MARK_NO_INIT:
		power_report(&m->host->power, POWER_NO_INIT);
		break;
	}
}
