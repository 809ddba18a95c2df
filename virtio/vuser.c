/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vuser.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "vmm/log.h"

/* Rings are looked at more often while they go round fast: some 100,000 requests a second are 100
 * in 1 ms, which is what a timer of the loop can do. */
#define FOLLOW_LEAST 1000000u /* ns */
#define FOLLOW_MOST 10000000u

/* ------------------------------------------------------------- following the rings */

/* The fastest one's. */
static enum vq_pace follow_rings(struct vuser *d)
{
	enum vq_pace most = VQ_AT_REST;

	for (unsigned q = 0; q < d->v.nqueues; q++) {
		enum vq_pace p =
			vq_live(virtio_vq(&d->v, q)) ? vq_follow(virtio_vq(&d->v, q)) : VQ_AT_REST;

		if (p > most)
			most = p;
	}
	return most;
}

static void forget_kicks(struct vuser *d)
{
	for (unsigned q = 0; q < d->v.nqueues; q++)
		loop_fd_del(&d->kicks[q]);
}

/*
 * The back end reads the eventfd, maybe before this thread comes to it. An edge counts all the same
 * as long as the eventfd is ready for something then, and it can be written to at nearly all times.
 */
static void await_kicks(struct vuser *d)
{
	for (unsigned q = 0; q < d->v.nqueues; q++)
		if (vq_live(virtio_vq(&d->v, q)) && !d->kicks[q].loop)
			loop_fd_add(d->v.loop, &d->kicks[q], d->v.queue[q].kick_fd,
				    EPOLLIN | EPOLLOUT | EPOLLET);
}

static void follow(void *arg)
{
	struct vuser *d = arg;
	enum vq_pace pace;

	if (!d->link.running)
		return;
	pace = follow_rings(d);
	if (pace == VQ_AT_REST) {
		await_kicks(d);
		/* What came before that made no edge. */
		pace = follow_rings(d);
		if (pace == VQ_AT_REST)
			return;
		forget_kicks(d);
	}
	d->follow_ns = pace == VQ_FAST ? FOLLOW_LEAST : d->follow_ns * 2;
	if (d->follow_ns > FOLLOW_MOST)
		d->follow_ns = FOLLOW_MOST;
	loop_timer_set(d->v.loop, &d->follow, loop_now() + d->follow_ns);
}

static void follow_soon(struct vuser *d)
{
	forget_kicks(d);
	d->follow_ns = FOLLOW_LEAST;
	if (d->link.running)
		loop_timer_set(d->v.loop, &d->follow, loop_now() + d->follow_ns);
}

/* A kick, or the first event of an eventfd that has come to the loop, which says nothing. */
static void on_kick(void *arg, uint32_t events)
{
	struct vuser *d = arg;

	(void)events;
	if (follow_rings(d) != VQ_AT_REST)
		follow_soon(d);
}

/* Before a ring ends: its eventfd is watched by the device itself then. */
static void follow_no_more(struct vuser *d)
{
	loop_timer_cancel(&d->follow);
	forget_kicks(d);
}

/* ------------------------------------------------------------- without a back end */

/* From here on the ring is ours, and what it holds is answered. */
static void adopt(struct vuser *d, unsigned q)
{
	struct vq_adopted a;
	int r = vq_adopt(virtio_vq(&d->v, q), &a);

	d->adopted[q] = true;
	if (r < 0)
		log_guest(&d->v.budget, "%s: queue %u: what was under way stays unanswered: %s",
			  d->label, q, strerror(-r));
	else if (a.hidden)
		log_guest(&d->v.budget,
			  "%s: queue %u: %u requests stay unanswered: they came and went too fast "
			  "to know which are out",
			  d->label, q, a.hidden);
	/* The back end may have returned some, and died before it said so. */
	virtio_interrupt(&d->v, q);
}

static void refuse_all(struct vuser *d, unsigned q)
{
	struct vq *vq = virtio_vq(&d->v, q);
	unsigned budget = vq_max_size(vq);
	struct vq_chain *c;

	vq_kicks_off(vq);
	do {
		while (budget && vq_next(vq, &c) == VQ_CHAIN) {
			d->refuse(d, c);
			vq_return(c);
			budget--;
		}
	} while (budget && vq_kicks_on(vq));
	vq_notify(vq);
	if (!budget)
		virtio_rekick(&d->v, q);
}

void vuser_kick(struct virtio *v, unsigned q)
{
	struct vuser *d = (struct vuser *)v;

	if (d->link.running) {
		vhost_link_kick(&d->link, q);
		return;
	}
	if (d->at_large)
		return;
	if (!d->adopted[q])
		adopt(d, q);
	refuse_all(d, q);
}

/* The connection is dead. Whether nobody but us and the guest is at its memory any more. */
static bool end_backend(struct vuser *d)
{
	bool ended = d->end_backend && d->end_backend(d);

	if (!ended && vhost_user_may_write(d->u) && !d->at_large) {
		d->at_large = true;
		if (d->v.ending) /* then it does no harm there any more */
			return false;
		log_error("%s: its back end may still write to the guest's memory: the machine "
			  "ends",
			  d->label);
		power_report(&d->power, POWER_FAIL);
	}
	return !d->at_large;
}

/* On the loop, once, whoever saw it die. */
static void on_died(void *arg)
{
	struct vuser *d = arg;
	bool over = end_backend(d);

	if (!d->v.running)
		return;
	follow_no_more(d);
	vhost_link_stop(&d->link);
	for (unsigned q = 0; over && q < d->v.nqueues; q++)
		if (vq_live(virtio_vq(&d->v, q)))
			virtio_rekick(&d->v, q);
}

/* ------------------------------------------------------------- struct virtio_ops */

int vuser_start(struct virtio *v)
{
	struct vuser *d = (struct vuser *)v;
	bool over;
	int r = 0;

	if (!vhost_user_dead(d->u))
		r = vhost_link_start(&d->link, v->acked);
	follow_soon(d);
	if (!vhost_user_dead(d->u))
		return r;
	over = end_backend(d);
	for (unsigned q = 0; over && q < v->nqueues; q++)
		virtio_rekick(v, q);
	return 0;
}

void vuser_stop(struct virtio *v)
{
	struct vuser *d = (struct vuser *)v;

	follow_no_more(d);
	vhost_link_stop(&d->link);
	if (vhost_user_dead(d->u))
		end_backend(d);
	memset(d->adopted, 0, sizeof(d->adopted));
}

int vuser_queue_start(struct virtio *v, unsigned q)
{
	struct vuser *d = (struct vuser *)v;
	int r = d->link.running ? vhost_link_queue_start(&d->link, q) : 0;

	follow_soon(d);
	if (!vhost_user_dead(d->u))
		return r;
	virtio_rekick(v, q);
	return 0;
}

void vuser_queue_stop(struct virtio *v, unsigned q)
{
	struct vuser *d = (struct vuser *)v;

	follow_no_more(d);
	vhost_link_queue_stop(&d->link, q);
	follow_soon(d);
	if (vhost_user_dead(d->u))
		end_backend(d);
	d->adopted[q] = false;
}

void vuser_rewired(struct virtio *v, unsigned q)
{
	vhost_link_rewired(&((struct vuser *)v)->link, q);
}

/* ------------------------------------------------------------- life */

int vuser_init(struct vuser *d, const struct virtio_ops *ops, const struct vuser_env *env,
	       void (*config_changed)(void *d))
{
	const struct vhost_user_owner owner = {
		.died = on_died,
		.config_changed = config_changed,
		.arg = d,
		.name = d->label,
	};
	struct vhost *h = vhost_user_vhost(d->u);
	int r = virtio_init(&d->v, ops, d->name, env->gm, env->loop);

	d->power = env->power;
	d->follow = (struct loop_timer){.fn = follow, .arg = d};
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
		d->kicks[q] = (struct loop_fd){.fn = on_kick, .arg = d};
	if (r < 0)
		return r;
	vhost_limit(&d->v, h);
	for (unsigned q = 0; r == 0 && q < env->queues; q++)
		r = virtio_add_queue(&d->v, env->queue_size);
	if (r < 0)
		return r;
	h->nrings = env->queues;
	r = vhost_link_init(&d->link, &d->v, h, 0);
	return r < 0 ? r : vhost_user_bind(d->u, env->loop, &owner);
}

void vuser_fini(struct vuser *d)
{
	d->v.ending = true;
	virtio_fini(&d->v); /* stops it, which needs the link */
	vhost_link_fini(&d->link);
	vhost_user_bind(d->u, NULL, NULL);
}
