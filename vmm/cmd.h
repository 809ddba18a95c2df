/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of `mvm`. Each takes its own arguments (argv[0] is the command's
 * name), speaks one line on standard error when it refuses, and returns the
 * process' exit status.
 */
#ifndef VMM_CMD_H
#define VMM_CMD_H

#include <stdbool.h>
#include <stdio.h>

#include "vmm/config.h"
#include "vmm/err.h"
#include "vmm/machine.h"

int cmd_boot(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* What `mvm NAME` means: NULL-terminated, for the dispatcher and for its suggestions. */
extern const char *const cmd_names[];

/* Whether a command that takes nothing else was asked for its help. */
bool cmd_wants_help(int argc, char **argv);

/* Whether standard output took all: 0, or EXIT_VMM after saying why not. */
int cmd_printed(void);

/* `mvm` alone: how it is used, on standard error; returns EXIT_VMM. */
int cmd_none(void);

/* Says that @name is no command, and the nearest one; returns EXIT_VMM. */
int cmd_unknown(const char *name);

/*
 * `mvm boot` arguments into a configuration that config_init() began; not
 * checked yet. 0, OPTS_STOP when help was asked for, or a negative errno.
 */
int cmd_boot_parse(int argc, char **argv, struct config *c, struct err *e);
void cmd_boot_help(FILE *out);

#endif
