/* SPDX-License-Identifier: Apache-2.0 */
/* id=: a name that the user gives to a device, whatever kind it is, so one of all of them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/config.h"

struct named {
	const char *id;
	char option[160]; /* "--disk x.img"; a longer path is cut */
};

#define NAME(n, ...) snprintf((n)->option, sizeof((n)->option), __VA_ARGS__)

static void name_net(const struct net_config *c, struct named *n)
{
	n->id = c->id;
	if (c->kind == NET_TAP)
		NAME(n, "--net %s", c->tap);
	else if (c->kind == NET_FDS)
		NAME(n, "--net fd=%d", c->fd[0]);
	else
		NAME(n, "--net user");
}

/* Device @k of all, counted in the order of their options in the help; false: there are fewer. */
static bool device(const struct config *c, size_t k, struct named *n)
{
	if (k < c->ndisks) {
		n->id = c->disks[k].id;
		NAME(n, "%s %s", config_disk_option(&c->disks[k]), c->disks[k].path);
		return true;
	}
	k -= c->ndisks;
	if (k < c->nnets) {
		name_net(&c->nets[k], n);
		return true;
	}
	k -= c->nnets;
	if (k == 0 && c->vsock.present) {
		n->id = c->vsock.id;
		NAME(n, "--vsock %u", c->vsock.cid);
		return true;
	}
	k -= c->vsock.present;
	if (k >= c->nfs)
		return false;
	n->id = c->fs[k].id;
	if (c->root_is_fs && k == 0)
		NAME(n, "--rootfs %s", c->fs[k].dir);
	else
		NAME(n, "--fs tag=%s", c->fs[k].tag);
	return true;
}

int config_check_ids(const struct config *c, struct err *e)
{
	struct named a, b;

	for (size_t i = 0; device(c, i, &a); i++)
		for (size_t k = 0; a.id && k < i; k++)
			if (device(c, k, &b) && b.id && !strcmp(a.id, b.id))
				return err_msg(e, -EEXIST, "%s: id %s is that of %s already",
					       a.option, a.id, b.option);
	return 0;
}
