/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "virtio/features.h"
#include "virtio/image.h"
#include "virtio/sizes.h"
#include "virtio/vhost.h"
#include "vmm/assemble.h"
#include "vmm/layout.h"

#define MACHINE_WORKERS 8

/* ------------------------------------------------------------- one slot */

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

/* The device becomes the slot's. */
static int attach(struct machine *m, struct virtio *v, struct err *e)
{
	struct virtio_slot *s = &m->slot[m->nslots];
	const struct vpci_env env = {.pci = m->pci, .irqs = m->irqs, .vm = &m->vm};

	s->v = v;
	m->nslots++; /* MACHINE_VIRTIO_MAX counts every device there can be */
	/* Sizes first: what a device offers may depend on them. */
	int r = sizes_apply(m->host->cfg, v, e);

	if (r == 0)
		r = features_apply(m->host->cfg, v, e);
	if (r < 0)
		return r;
	if (m->host->cfg->transport == TRANSPORT_MMIO)
		return attach_mmio(m, s, e);
	return vpci_new(&s->pci, v, &env, e);
}

/* A loop for the next slot. @fmt: its thread's name. */
static int loop_for(struct machine *m, struct loop **ret, struct err *e, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static int loop_for(struct machine *m, struct loop **ret, struct err *e, const char *fmt, ...)
{
	char name[16];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	int r = loop_new(&m->slot[m->nslots].loop, name, e);
	*ret = m->slot[m->nslots].loop;
	return r;
}

/* ------------------------------------------------------------- devices */

static int build_console(struct machine *m, struct err *e)
{
	const struct host *h = m->host;

	if (!h->console)
		return 0;
	int r = console_new(&m->console, m->gm, h->loop, h->console, e);
	return r < 0 ? r : attach(m, console_virtio(m->console), e);
}

static int build_vublk(struct machine *m, unsigned i, struct err *e)
{
	const struct config *c = m->host->cfg;
	struct vublk_env env = {
		.gm = m->gm,
		.host = m->host->ends.vublk[i],
		.index = i,
		.cpus = c->cpus,
		.power = m->host->power,
	};
	struct virtio *v = NULL;
	int r = loop_for(m, &env.loop, e, "_disk%u_q0", i);

	if (r == 0)
		r = vublk_new(&v, &c->disks[i], &env, e);
	return r < 0 ? r : attach(m, v, e);
}

static int build_disk(struct machine *m, unsigned i, struct err *e)
{
	const struct config *c = m->host->cfg;
	struct blk_env env = {.gm = m->gm, .index = i, .cpus = c->cpus};
	struct blk *b = NULL;
	int r = 0;

	if (c->disks[i].vhost_user)
		return build_vublk(m, i, e);
	if (!m->workers)
		r = workers_new(&m->workers, MACHINE_WORKERS, e);
	env.workers = m->workers;
	if (r == 0)
		r = loop_for(m, &env.loop, e, "_disk%u_q0", i);
	if (r == 0)
		r = blk_new(&b, &c->disks[i], &env, e);
	if (r < 0)
		return err_ctx(e, "%s",
			       config_disk_option(&c->disks[i])); /* the image named its file */
	r = attach(m, blk_virtio(b), e);
	if (r == 0 && !m->host->again && !c->disks[i].raw && image_looks_raw(c->disks[i].path, e))
		return err_ctx(e, "%s", config_disk_option(&c->disks[i]));
	return r;
}

static int build_net(struct machine *m, unsigned i, struct err *e)
{
	struct net_env env = {.gm = m->gm, .host = m->host->ends.net[i], .index = i};
	struct net *n = NULL;
	int r = loop_for(m, &env.loop, e, "_net%u_qp0", i);

	if (r == 0)
		r = net_new(&n, &m->host->cfg->nets[i], &env, e);
	return r < 0 ? r : attach(m, net_virtio(n), e);
}

static int build_rng(struct machine *m, struct err *e)
{
	struct rng *rng = NULL;
	int r = rng_new(&rng, m->gm, m->host->loop, e);

	return r < 0 ? r : attach(m, rng_virtio(rng), e);
}

static int build_fs(struct machine *m, unsigned i, struct err *e)
{
	struct fs_env env = {
		.gm = m->gm,
		.host = m->host->ends.fs[i],
		.index = i,
		.power = m->host->power,
	};
	struct virtio *v = NULL;
	int r = loop_for(m, &env.loop, e, "_fs%u", i);

	if (r == 0)
		r = fs_new(&v, &m->host->cfg->fs[i], &env, e);
	return r < 0 ? r : attach(m, v, e);
}

static int build_vsock(struct machine *m, struct err *e)
{
	const struct vsock_config *c = &m->host->cfg->vsock;
	struct vsock_env env = {.gm = m->gm, .host = m->host->ends.vsock};
	struct virtio *v = NULL;

	if (!c->present)
		return 0;
	int r = loop_for(m, &env.loop, e, "_vsock");
	if (r == 0)
		r = c->socket ? vsock_new(&v, c, &env, e) : vsock_kernel_new(&v, c, &env, e);
	return r < 0 ? r : attach(m, v, e);
}

static int none_of(const struct machine *m, const char *option, const char *name, struct err *e)
{
	char all[MACHINE_VIRTIO_MAX * 10] = "";
	size_t at = 0;

	for (unsigned i = 0; i < m->nslots && at < sizeof(all); i++)
		at += (size_t)snprintf(all + at, sizeof(all) - at, "%s%s", at ? ", " : "",
				       m->slot[i].v->name);
	return err_msg(e, -ENODEV, "%s %s: this machine has none; it has %s", option, name, all);
}

/* The user may have named devices that this machine does not have. */
int slots_check_named(const struct machine *m, struct err *e)
{
	const struct config *c = m->host->cfg;

	for (size_t i = 0; i < c->nfeatures; i++)
		if (!slots_find(m, c->features[i].device))
			return none_of(m, "--virtio-features", c->features[i].device, e);
	for (size_t i = 0; i < c->nsizes; i++)
		if (!slots_find(m, c->sizes[i].device))
			return none_of(m, "--virtio-queue-sizes", c->sizes[i].device, e);
	return 0;
}

int slots_build(struct machine *m, struct err *e)
{
	const struct config *c = m->host->cfg;
	int r = build_console(m, e);

	vhost_user_together(true);
	for (unsigned i = 0; r == 0 && i < c->ndisks; i++)
		r = build_disk(m, i, e);
	for (unsigned i = 0; r == 0 && i < c->nnets; i++)
		r = build_net(m, i, e);
	if (r == 0)
		r = build_rng(m, e);
	for (unsigned i = 0; r == 0 && i < c->nfs; i++)
		r = build_fs(m, i, e);
	if (r == 0)
		r = build_vsock(m, e);
	vhost_user_together(false);
	return r < 0 ? r : slots_check_named(m, e);
}

/* ------------------------------------------------------------- life */

int slots_start(struct machine *m, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < m->nslots; i++)
		if (m->slot[i].loop)
			r = loop_start(m->slot[i].loop, e);
	return r;
}

/* Keeps the lock of a device that is at rest. */
static bool slot_rests(const struct virtio_slot *s, uint64_t until)
{
	const struct timespec turn = {.tv_nsec = 200000};

	for (;;) {
		if (s->loop)
			loop_lock(s->loop);
		if (!s->v->ops->at_rest || s->v->ops->at_rest(s->v))
			return true;
		if (s->loop)
			loop_unlock(s->loop);
		if (loop_now() > until)
			return false;
		nanosleep(&turn, NULL);
	}
}

bool slots_rest(struct machine *m, uint64_t until, unsigned *ret_n)
{
	for (*ret_n = 0; *ret_n < m->nslots; ++*ret_n)
		if (!slot_rests(&m->slot[*ret_n], until))
			return false;
	return true;
}

void slots_go_on(struct machine *m, unsigned n, bool on)
{
	for (unsigned i = 0; i < n; i++) {
		if (!m->slot[i].loop)
			continue;
		if (!on)
			loop_stop(m->slot[i].loop);
		loop_unlock(m->slot[i].loop);
	}
}

void slots_stop(struct machine *m)
{
	for (unsigned i = 0; i < MACHINE_VIRTIO_MAX; i++)
		if (m->slot[i].loop)
			loop_join(m->slot[i].loop);
}

void slots_destroy(struct machine *m)
{
	for (unsigned i = 0; i < MACHINE_VIRTIO_MAX; i++)
		if (m->slot[i].v)
			m->slot[i].v->ending = true;
	vhost_user_together(true);
	for (unsigned i = 0; i < MACHINE_VIRTIO_MAX; i++) {
		struct virtio_slot *s = &m->slot[i];

		vpci_free(s->pci);
		vmmio_free(s->mmio);
		if (s->v)
			s->v->ops->free(s->v);
	}
	vhost_user_together(false);
	workers_free(m->workers);
	/* A device whose building failed left its loop in the slot behind the last. */
	for (unsigned i = 0; i < MACHINE_VIRTIO_MAX; i++)
		loop_free(m->slot[i].loop);
}

struct virtio *slots_find(const struct machine *m, const char *name)
{
	for (unsigned i = 0; i < m->nslots; i++)
		if (!strcmp(m->slot[i].v->name, name))
			return m->slot[i].v;
	return NULL;
}
