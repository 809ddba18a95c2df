/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/assemble.h"

int ends_open(struct ends *n, const struct config *c, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < c->ndisks; i++)
		if (c->disks[i].vhost_user)
			r = vublk_host_open(&n->vublk[i], &c->disks[i], e);
	for (unsigned i = 0; r == 0 && i < c->nnets; i++)
		r = net_host_open(&n->net[i], &c->nets[i], i, e);
	if (r == 0 && c->vsock.present && c->vsock.socket)
		r = vsock_host_open(&n->vsock, &c->vsock, e);
	/* Last: each may be a process to start. */
	for (unsigned i = 0; r == 0 && i < c->nfs; i++)
		r = fs_host_open(&n->fs[i], &c->fs[i], i, e);
	return r;
}

void ends_close(struct ends *n)
{
	for (unsigned i = 0; i < CONFIG_FS_MAX; i++)
		fs_host_close(n->fs[i]);
	vsock_host_close(n->vsock);
	for (unsigned i = 0; i < CONFIG_NETS_MAX; i++)
		net_host_close(n->net[i]);
	for (unsigned i = 0; i < CONFIG_DISKS_MAX; i++)
		vublk_host_close(n->vublk[i]);
}
