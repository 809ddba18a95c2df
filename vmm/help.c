/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/cmd.h"
#include "vmm/log.h"
#include "vmm/opts.h"

const char *const cmd_names[] = {"boot", "doctor", "help", "version", NULL};

static const char overview[] = "Usage: mvm COMMAND [OPTION]...\n"
			       "\n"
			       "A micro-VM monitor: boots Linux kernels on KVM.\n"
			       "\n"
			       "Commands:\n"
			       "  boot      boot a kernel (mvm boot --help)\n"
			       "  doctor    examine this host and say what is missing\n"
			       "  help      this text, or that of a command (mvm help boot)\n"
			       "  version   print the version\n"
			       "\n"
			       "Example:\n"
			       "  mvm boot --kernel bzImage --rootfs disk.img\n";

static const char doctor_help[] =
	"Usage: mvm doctor\n"
	"\n"
	"Examines the host: the kind of KVM and what it can do, who may use it, network\n"
	"and vsock back ends, huge pages, kernels. One line a thing: ok, warn or missing,\n"
	"and what to do. Exit status 0 when mvm boot can run here, 1 when it cannot.\n";

static const char help_help[] = "Usage: mvm help [COMMAND]\n";
static const char version_help[] = "Usage: mvm version\n";

int cmd_unknown(const char *name)
{
	const char *near = opts_nearest(name + strspn(name, "-"), cmd_names);

	if (near)
		log_error("%s: unknown command; did you mean %s?", name, near);
	else
		log_error("%s: unknown command (mvm help lists them)", name);
	return EXIT_VMM;
}

/* Standard output that takes nothing (a full disk) is a failure. */
static int printed(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	log_error("standard output: %s", strerror(errno));
	return EXIT_VMM;
}

int cmd_help(int argc, char **argv)
{
	const char *topic = argc > 1 ? argv[1] : "";

	if (argc > 2) {
		log_error("help: one command at a time");
		return EXIT_VMM;
	}
	if (!*topic)
		fputs(overview, stdout);
	else if (!strcmp(topic, "boot"))
		cmd_boot_help(stdout);
	else if (!strcmp(topic, "doctor"))
		fputs(doctor_help, stdout);
	else if (!strcmp(topic, "help"))
		fputs(help_help, stdout);
	else if (!strcmp(topic, "version"))
		fputs(version_help, stdout);
	else
		return cmd_unknown(topic);
	return printed();
}

int cmd_version(int argc, char **argv)
{
	if (argc > 1) {
		log_error("version: %s: unexpected argument", argv[1]);
		return EXIT_VMM;
	}
	puts("mvm " MVM_VERSION);
	return printed();
}
