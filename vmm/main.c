/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "vmm/cmd.h"
#include "vmm/timeline.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"boot", cmd_boot},         {"doctor", cmd_doctor}, {"help", cmd_help},
	{"--help", cmd_help},       {"-h", cmd_help},       {"version", cmd_version},
	{"--version", cmd_version}, {"-V", cmd_version},
};

int main(int argc, char **argv)
{
	timeline_begin();
	if (argc < 2)
		return cmd_none();
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	return cmd_unknown(argv[1]);
}
