/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When each stage of a boot was reached, on CLOCK_MONOTONIC from the start of
 * the process, with the process' CPU time and the VM's exits by kind up to then.
 * A stage counts once: the first call wins. Any thread; a lock is taken only when
 * somebody wants the timeline.
 */
#ifndef VMM_TIMELINE_H
#define VMM_TIMELINE_H

#include <stdbool.h>

#include "vmm/err.h"

enum stage {
	STAGE_START,     /* the process */
	STAGE_VM,        /* VM created */
	STAGE_MEMORY,    /* guest memory mapped */
	STAGE_KERNEL,    /* kernel, initrd and tables in place */
	STAGE_RUN,       /* first KVM_RUN */
	STAGE_ENTRY,     /* first exit from the kernel proper (past any decompressor) */
	STAGE_CONSOLE,   /* first console byte */
	STAGE_INIT,      /* guest/init started */
	STAGE_ROOT,      /* root mounted */
	STAGE_ROOT_INIT, /* the root's own init about to run */
	STAGE_END,       /* the machine ended */
	STAGES
};

void timeline_begin(void); /* first thing in main() */

/* From here on exits are counted and stages compared with the guest's instruction pointer. */
void timeline_want(void);
bool timeline_wanted(void);

void timeline_vcpu(int vcpu_fd); /* counts this vCPU's exits too (when wanted) */
void timeline_vcpus_gone(void);  /* their counts are final; before a machine is freed */

void timeline_mark(enum stage s);
bool timeline_reached(enum stage s);
void timeline_print(void); /* table on standard error */

/* Before the machine starts: makes the file, or opens the one that is there. */
int timeline_open(const char *path, struct err *e);
/* JSON into it; on failure a file that timeline_open made goes again. Either ends with it. */
int timeline_write(struct err *e);
void timeline_undo(void); /* the machine did not start: so it does without a word */

#endif
