/* SPDX-License-Identifier: Apache-2.0 */
/* --vsock: its spelling, and what config_check makes sure of. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "vmm/config.h"
#include "vmm/opts.h"

/* virtio 1.2 section 5.10.4: reserved ones; the host itself is 2. */
#define CID_MIN 3u
#define CID_MAX 0xfffffffeu

/* A guest's connection to port N of the host goes to PATH_N: what the longest N takes. */
#define PORT_TEXT (sizeof("_4294967295") - 1)
#define PATH_MAX_LEN (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1 - PORT_TEXT)

static int cid_check(unsigned long cid, struct err *e)
{
	static const char *const reserved[CID_MIN] = {
		"the hypervisor's",
		"a machine's own, for connections to itself",
		"the host's",
	};

	if (cid < CID_MIN)
		return err_msg(e, -EINVAL, "%lu is %s: a guest's is from %u to %u", cid,
			       reserved[cid], CID_MIN, CID_MAX);
	if (cid == CID_MAX + 1ul)
		return err_msg(e, -EINVAL, "%lu means any CID: a guest's is from %u to %u", cid,
			       CID_MIN, CID_MAX);
	if (cid > CID_MAX)
		return err_msg(e, -ERANGE, "%lu is out of range (%u to %u)", cid, CID_MIN, CID_MAX);
	return 0;
}

static int socket_check(const char *path, struct err *e)
{
	if (!*path)
		return err_msg(e, -EINVAL, "the path is empty");
	if (strlen(path) > PATH_MAX_LEN)
		return err_msg(e, -ENAMETOOLONG,
			       "the path is %zu bytes long; at most %zu leave room for a port "
			       "behind it",
			       strlen(path), PATH_MAX_LEN);
	return 0;
}

/* ------------------------------------------------------------- spelling */

static int set_cid(void *arg, const char *v, struct err *e)
{
	unsigned long cid;
	int r;

	if (!*v || v[strspn(v, "0123456789")])
		return err_msg(e, -EINVAL, "\"%s\" is no CID (%u to %u)", v, CID_MIN, CID_MAX);
	r = opts_number(v, 0, CID_MAX + 1ul, &cid, NULL);
	if (r < 0)
		return err_msg(e, -ERANGE, "%s is out of range (%u to %u)", v, CID_MIN, CID_MAX);
	r = cid_check(cid, e);
	if (r == 0)
		((struct vsock_config *)arg)->cid = (uint32_t)cid;
	return r;
}

static int set_socket(void *arg, const char *v, struct err *e)
{
	int r = socket_check(v, e);

	return r < 0 ? r : config_string(&((struct vsock_config *)arg)->socket, v, e);
}

static int set_id(void *arg, const char *v, struct err *e)
{
	return config_string(&((struct vsock_config *)arg)->id, v, e);
}

static int set_queue_size(void *arg, const char *v, struct err *e)
{
	return config_queue_size(v, CONFIG_VSOCK_QUEUE_MIN,
				 &((struct vsock_config *)arg)->queue_size, e);
}

static void vsock_fini(struct vsock_config *s)
{
	free(s->socket);
	free(s->id);
}

int config_vsock(struct config *c, const char *text, struct err *e)
{
	static const struct kv_key keys[] = {
		{"cid", set_cid, NULL},
		{"socket", set_socket, NULL},
		{"queue_size", set_queue_size, NULL},
		{"id", set_id, NULL},
		{"path", NULL, "socket=PATH"},
		{"uds", NULL, "socket=PATH"},
		{"guest-cid", NULL, "cid=N"},
		{NULL, NULL, NULL},
	};
	struct vsock_config s = {.present = true};
	int r;

	if (c->vsock.present)
		return err_msg(e, -EEXIST, "given twice: a machine has one of them");
	r = opts_kv(keys, "cid", text, &s, e);
	if (r == 0 && !s.cid)
		r = err_msg(e, -EINVAL, "the CID is missing (cid=N, %u to %u)", CID_MIN, CID_MAX);
	if (r < 0) {
		vsock_fini(&s);
		return r;
	}
	c->vsock = s;
	return 0;
}

/* ------------------------------------------------------------- checks */

int config_check_vsock(struct config *c, struct err *e)
{
	const struct vsock_config *s = &c->vsock;
	int r;

	if (!s->present)
		return 0;
	r = cid_check(s->cid, e);
	if (r == 0)
		r = config_check_queue_size(s->queue_size, CONFIG_VSOCK_QUEUE_MIN, e);
	if (r == 0 && s->socket)
		r = socket_check(s->socket, e);
	return r < 0 ? err_ctx(e, "--vsock %u", s->cid) : 0;
}

void config_vsock_fini(struct config *c)
{
	vsock_fini(&c->vsock);
}
