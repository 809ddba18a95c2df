/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ends or restarts a machine, as its devices and vCPUs report it. The
 * machine hands each device a sink at set-up; calling it is safe from any
 * thread and returns at once: the first report that ends the machine wins.
 */
#ifndef VMM_POWER_H
#define VMM_POWER_H

enum power_event {
	POWER_NONE,
	POWER_OFF,    /* the guest powered off (ACPI S5) */
	POWER_RESET,  /* the guest asked for a reset (reset register, i8042, triple fault after
			 request) */
	POWER_TRIPLE, /* KVM_EXIT_SHUTDOWN: triple fault */
	POWER_PANIC, /* pvpanic: the guest's kernel panicked; the machine goes on until it resets or
			ends */
	POWER_CRASHLOADED, /* pvpanic: a crash kernel takes over */
	POWER_INIT_FAILED, /* guest/init did not reach the root's init; it powers off by itself */
	POWER_NO_INIT,     /* guest/init reached the root, and no init runs there; likewise */
	POWER_TIMEOUT,     /* --timeout */
	POWER_QUIT,        /* the user (Ctrl-A x) or a second SIGTERM */
	POWER_FAIL,        /* the host failed; the reason was logged */
};

struct power_sink {
	void (*fn)(void *arg, enum power_event ev);
	void *arg;
};

static inline void power_report(const struct power_sink *s, enum power_event ev)
{
	if (s->fn)
		s->fn(s->arg, ev);
}

#endif
