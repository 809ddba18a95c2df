/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/assemble.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/marks.h"
#include "vmm/log.h"
#include "vmm/timeline.h"

/* Longest time that a machine is tried to be brought to a stand for: 100 ms. */
#define STILL_NS 100000000ull

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
	/* Half of a loop's look: the whole made nothing faster, and took more CPU time. */
	if (r == 0)
		vm_halt_poll(&m->vm, loop_poll_worth(m->host->loop) / 2);
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
		if (config_shares_memory(m->host->cfg))
			gmem_share(m->gm);
		else if (!config_may_use_vhost(m->host->cfg))
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

	if (m->host->cfg->transport == TRANSPORT_PCI)
		r = pci_bus_new(&m->pci, &pci, e);
	if (r == 0)
		r = platform_build(m, e);
	return r < 0 ? r : slots_build(m, e);
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
	int r = slots_start(m, e);

	/* The boot processor last: the others only wait for it. */
	for (unsigned i = m->host->cfg->cpus; r == 0 && i > 0; i--)
		r = vcpu_start(m->vcpu[i - 1], e);
	if (r == 0)
		start_copier(m);
	return r;
}

/*
 * Nobody reads or writes guest memory any more: first the vCPUs, so that nothing
 * new comes, then the devices, *ret_slots of which are locked. A disk whose host does
 * not answer may take for ever, and the main thread with it: so there is an end to it.
 */
static bool stand_still(struct machine *m, unsigned *ret_slots)
{
	const uint64_t until = loop_now() + STILL_NS;
	bool still = true;

	*ret_slots = 0;
	for (unsigned i = 0; i < m->host->cfg->cpus; i++)
		vcpu_pause(m->vcpu[i]);
	for (unsigned i = 0; still && i < m->host->cfg->cpus; i++)
		still = vcpu_wait(m->vcpu[i], until);
	return still && slots_rest(m, until, ret_slots);
}

int machine_settle(struct machine *m, struct err *e)
{
	unsigned slots;

	join_copier(m);
	if (!gmem_borrows(m->gm))
		return 0;
	int r = stand_still(m, &slots) ? gmem_settle(m->gm, e) : MACHINE_BUSY;

	/* After a failure what memory holds must not get to a disk. */
	slots_go_on(m, slots, r >= 0);
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
	slots_stop(m);
}

/* From the outside in: nobody runs, then no device is reachable, then memory and VM go. */
void machine_destroy(struct machine *m)
{
	machine_stop(m);
	slots_destroy(m);
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
