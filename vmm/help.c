/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/cmd.h"
#include "vmm/log.h"
#include "vmm/opts.h"

const char *const cmd_names[] = {"boot", "doctor", "help", "version", NULL};

static const char overview[] =
	"Usage: mvm COMMAND [OPTION]...\n"
	"\n"
	"Boots Linux kernels in micro virtual machines, on KVM.\n"
	"\n"
	"Commands:\n"
	"  boot      boot a kernel in a machine of its own\n"
	"  doctor    examine this host and say what is missing\n"
	"  help      this text, or that of a command: mvm help boot\n"
	"  version   print the version\n"
	"\n"
	"Examples:\n"
	"  mvm boot --rootfs disk.img\n"
	"  mvm boot --kernel bzImage --rootfs disk.img --cpus 4 --memory 2G\n";

static const char doctor_help[] =
	"Usage: mvm doctor\n"
	"\n"
	"Examines this host and changes nothing: the kind of KVM, what it can do and who\n"
	"may use it, transparent huge pages, limits, kernels, and what networks, sockets\n"
	"and shared directories need. Each is ok, warn (machines run, but slower or\n"
	"without it) or missing, with what to do about it below.\n"
	"\n"
	"Exit status:\n"
	"  0    mvm boot can run here\n"
	"  1    it cannot\n"
	"  125  the findings could not be printed\n";

static const char help_help[] = "Usage: mvm help [COMMAND]\n"
				"\n"
				"Lists the commands, or explains one of them.\n";
static const char version_help[] = "Usage: mvm version\n"
				   "\n"
				   "Prints the version.\n";

int cmd_unknown(const char *name)
{
	const char *near = opts_nearest(name + strspn(name, "-"), cmd_names);

	if (near)
		log_error("%s: unknown command; did you mean %s?", name, near);
	else if (*name == '-')
		log_error("%s: a command comes first: mvm boot %s (mvm help lists them)", name,
			  name);
	else
		log_error("%s: unknown command (mvm help lists them)", name);
	return EXIT_VMM;
}

/* Standard output that takes nothing (a full disk) is a failure. */
int cmd_printed(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	log_error("standard output: %s", strerror(errno));
	return EXIT_VMM;
}

bool cmd_wants_help(int argc, char **argv)
{
	return argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
}

int cmd_help(int argc, char **argv)
{
	const char *topic = cmd_wants_help(argc, argv) ? "help" : argc > 1 ? argv[1] : "";

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
	return cmd_printed();
}

int cmd_none(void)
{
	fputs(overview, stderr);
	log_error("no command given");
	return EXIT_VMM;
}

int cmd_version(int argc, char **argv)
{
	if (cmd_wants_help(argc, argv))
		return cmd_help(2, (char *[]){"help", "version", NULL});
	if (argc > 1) {
		log_error("version: %s: unexpected argument", argv[1]);
		return EXIT_VMM;
	}
	puts("mvm " MVM_VERSION);
	return cmd_printed();
}
