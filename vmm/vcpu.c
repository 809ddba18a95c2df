/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/stats.h"
#include "vmm/timeline.h"
#include "vmm/vcpu_arch.h"

#define VCPU_SIGNAL SIGRTMIN /* only interrupts KVM_RUN; its handler does nothing */
#define VCPU_STACK (128u << 10)

struct vcpu {
	struct vcpu_env env;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool started;
	bool stop; /* atomic; written under the lock */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* what follows, and stop */
	bool pause;             /* somebody wants it parked; atomic, as stop */
	bool parked, ended;
};

static void vcpu_on_signal(int sig)
{
	(void)sig;
}

int vcpu_new(struct vcpu **ret, unsigned index, const struct vcpu_env *env, struct err *e)
{
	struct vcpu *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return err_msg(e, -ENOMEM, "vCPU %u: out of memory", index);
	v->env = *env;
	v->index = index;
	v->run = MAP_FAILED;
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->changed, NULL);
	v->fd = ioctl(env->vm->fd, KVM_CREATE_VCPU, index);
	if (v->fd >= 0)
		v->run =
			mmap(NULL, env->vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->fd < 0 || v->run == MAP_FAILED) {
		r = err_sys(e, "vCPU %u", index);
		vcpu_free(v);
		return r;
	}
	timeline_vcpu(v->fd);
	*ret = v;
	return 0;
}

void vcpu_free(struct vcpu *v)
{
	if (!v)
		return;
	if (v->run != MAP_FAILED)
		munmap(v->run, v->env.vm->run_size);
	if (v->fd >= 0)
		close(v->fd);
	pthread_cond_destroy(&v->changed);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

int vcpu_setup(struct vcpu *v, const struct vcpu_entry *entry, struct err *e)
{
	int r = vcpu_arch_setup(v->fd, v->index, &v->env, entry, e);

	return r < 0 ? err_ctx(e, "vCPU %u", v->index) : 0;
}

/* -------------------------------------------------------------- exits */

static uint64_t vcpu_get(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size); /* size is KVM's, 1 to 8; x86-64 and arm64 guests are little-endian */
	return v;
}

static void vcpu_pio(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	/* A string instruction arrives as a batch for one port. */
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			bus_write(v->env.pio, run->io.port, run->io.size,
				  vcpu_get(data, run->io.size));
		} else {
			uint64_t val = bus_read(v->env.pio, run->io.port, run->io.size);
			memcpy(data, &val, run->io.size);
		}
	}
}

static void vcpu_mmio(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	if (run->mmio.len > 8)
		return;
	if (run->mmio.is_write) {
		bus_write(v->env.mmio, run->mmio.phys_addr, run->mmio.len,
			  vcpu_get(run->mmio.data, run->mmio.len));
	} else {
		uint64_t val = bus_read(v->env.mmio, run->mmio.phys_addr, run->mmio.len);
		memcpy(run->mmio.data, &val, run->mmio.len);
	}
}

static void vcpu_system_event(struct vcpu *v)
{
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		power_report(&v->env.power, POWER_OFF);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		power_report(&v->env.power, POWER_RESET);
		break;
	case KVM_SYSTEM_EVENT_CRASH:
		power_report(&v->env.power, POWER_PANIC);
		break;
	default:
		log_error("vCPU %u: unknown system event %u", v->index, v->run->system_event.type);
		power_report(&v->env.power, POWER_FAIL);
	}
}

/* True to go on running. */
static bool vcpu_exit(struct vcpu *v)
{
	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		vcpu_pio(v);
		return true;
	case KVM_EXIT_MMIO:
		vcpu_mmio(v);
		return true;
	case KVM_EXIT_HLT:
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return true;
	case KVM_EXIT_SHUTDOWN:
		power_report(&v->env.power,
			     vcpu_arch_shutdown_is_reset(v->fd) ? POWER_RESET : POWER_TRIPLE);
		return false;
	case KVM_EXIT_SYSTEM_EVENT:
		vcpu_system_event(v);
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		log_error("vCPU %u: the guest did something that KVM cannot emulate, at %#llx "
			  "(internal error %u)",
			  v->index, (unsigned long long)vcpu_arch_ip(v->fd),
			  v->run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		log_error("vCPU %u: the CPU refused to enter the guest: reason %#llx", v->index,
			  (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		log_error("vCPU %u: unexpected exit %u at %#llx", v->index, v->run->exit_reason,
			  (unsigned long long)vcpu_arch_ip(v->fd));
	}
	power_report(&v->env.power, POWER_FAIL);
	return false;
}

static bool vcpu_enter(struct vcpu *v)
{
	if (ioctl(v->fd, KVM_RUN, 0) == 0)
		return true;
	if (errno == EINTR || errno == EAGAIN) {
		v->run->exit_reason = KVM_EXIT_INTR;
		return true;
	}
	log_error("vCPU %u: run: %s at %#llx", v->index, strerror(errno),
		  (unsigned long long)vcpu_arch_ip(v->fd));
	power_report(&v->env.power, POWER_FAIL);
	return false;
}

static void vcpu_park(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	v->parked = true;
	pthread_cond_broadcast(&v->changed);
	while (v->pause && !v->stop)
		pthread_cond_wait(&v->changed, &v->lock);
	v->parked = false;
	pthread_mutex_unlock(&v->lock);
}

/*
 * Asked to pause, it parks when KVM_RUN says that it was interrupted, and not
 * before: only then has KVM taken in the answer to the exit before.
 */
static bool vcpu_should_park(struct vcpu *v)
{
	return v->run->exit_reason == KVM_EXIT_INTR && __atomic_load_n(&v->pause, __ATOMIC_ACQUIRE);
}

static void vcpu_loop(struct vcpu *v)
{
	bool watch = v->index == 0 && timeline_wanted();

	while (!__atomic_load_n(&v->stop, __ATOMIC_ACQUIRE)) {
		if (!vcpu_enter(v))
			break;
		/* Only a boot that is being timed pays for reading the register. */
		if (watch && vcpu_arch_ip_is_kernel(vcpu_arch_ip(v->fd))) {
			timeline_mark(STAGE_ENTRY);
			watch = false;
		}
		if (!vcpu_exit(v))
			break;
		if (vcpu_should_park(v))
			vcpu_park(v);
	}
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	sigset_t kick;

	/* Whoever started us may have blocked it, and masks are inherited through exec. */
	sigemptyset(&kick);
	sigaddset(&kick, VCPU_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	timeline_mark(STAGE_RUN);
	vcpu_loop(v);
	pthread_mutex_lock(&v->lock);
	v->ended = true;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

/* ------------------------------------------------------------- thread */

int vcpu_start(struct vcpu *v, struct err *e)
{
	struct sigaction sa = {.sa_handler = vcpu_on_signal};
	pthread_attr_t attr;
	char name[16];

	sigaction(VCPU_SIGNAL, &sa, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, VCPU_STACK);
	int r = pthread_create(&v->thread, &attr, vcpu_thread, v);
	pthread_attr_destroy(&attr);
	if (r)
		return err_msg(e, -r, "vCPU %u: thread: %s", v->index, strerror(r));
	v->started = true;
	snprintf(name, sizeof(name), "vcpu%u", v->index);
	pthread_setname_np(v->thread, name);
	return 0;
}

/* Takes it out of KVM_RUN, or makes the next one end at once: no window in between. */
static void vcpu_interrupt(struct vcpu *v, bool *why)
{
	pthread_mutex_lock(&v->lock);
	__atomic_store_n(why, true, __ATOMIC_RELEASE);
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	pthread_kill(v->thread, VCPU_SIGNAL);
}

void vcpu_kick(struct vcpu *v)
{
	if (v->started)
		vcpu_interrupt(v, &v->stop);
}

void vcpu_pause(struct vcpu *v)
{
	if (v->started)
		vcpu_interrupt(v, &v->pause);
}

bool vcpu_wait(struct vcpu *v, uint64_t until)
{
	struct timespec t = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
	int r = 0;

	if (!v->started)
		return true;
	pthread_mutex_lock(&v->lock);
	while (!v->parked && !v->ended && r != ETIMEDOUT)
		r = pthread_cond_clockwait(&v->changed, &v->lock, CLOCK_MONOTONIC, &t);
	bool still = v->parked || v->ended;
	pthread_mutex_unlock(&v->lock);
	return still;
}

void vcpu_resume(struct vcpu *v)
{
	if (!v->started)
		return;
	pthread_mutex_lock(&v->lock);
	__atomic_store_n(&v->pause, false, __ATOMIC_RELEASE);
	if (!v->stop)
		__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

void vcpu_join(struct vcpu *v)
{
	if (!v->started)
		return;
	pthread_join(v->thread, NULL);
	v->started = false;
}
