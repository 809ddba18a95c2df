/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtio/features.h"
#include "virtio/sizes.h"
#include "vmm/log.h"
#include "vmm/machine.h"
#include "vmm/opts.h"

#define TIMEOUT_MAX 1000000 /* seconds: eleven days */

static int set_kernel(void *c, const char *v, struct err *e)
{
	return config_string(&((struct config *)c)->kernel, v, e);
}

static int set_initrd(void *c, const char *v, struct err *e)
{
	return config_string(&((struct config *)c)->initrd, v, e);
}

static int set_rootfs(void *c, const char *v, struct err *e)
{
	return config_string(&((struct config *)c)->rootfs, v, e);
}

static int set_modules(void *c, const char *v, struct err *e)
{
	return config_string(&((struct config *)c)->modules, v, e);
}

static int set_cmdline(void *c, const char *v, struct err *e)
{
	for (const char *p = v; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return err_msg(e, -EINVAL, "holds a control character");
	return config_string(&((struct config *)c)->cmdline, v, e);
}

static int set_no_default_cmdline(void *c, const char *v, struct err *e)
{
	(void)v, (void)e;
	((struct config *)c)->no_default_cmdline = true;
	return 0;
}

static int set_disk(void *c, const char *v, struct err *e)
{
	return config_disk(c, v, e);
}

static int set_cpus(void *c, const char *v, struct err *e)
{
	unsigned long n;
	int ret = opts_number(v, 1, CONFIG_CPUS_MAX, &n, e);

	if (!ret)
		((struct config *)c)->cpus = (unsigned)n;
	return ret;
}

static int set_memory(void *c, const char *v, struct err *e)
{
	uint64_t size;
	int ret = config_size(v, &size);

	if (ret == -EINVAL)
		return err_msg(e, ret, "not a size (a whole number and K, M, G or T: 512M)");
	if (!ret && size >= CONFIG_MEM_MIN && size <= CONFIG_MEM_MAX) {
		((struct config *)c)->memory = size;
		return 0;
	}
	/* Without a unit it was most likely meant in MiB. */
	return err_msg(e, -ERANGE, "out of range (%lluM to %lluT)%s", CONFIG_MEM_MIN >> 20,
		       CONFIG_MEM_MAX >> 40,
		       v[strlen(v) - 1] <= '9' ? "; a number without a unit is in bytes" : "");
}

static int set_transport(void *c, const char *v, struct err *e)
{
	if (strcmp(v, "pci") && strcmp(v, "mmio"))
		return err_msg(e, -EINVAL, "must be pci or mmio");
	((struct config *)c)->transport = strcmp(v, "pci") ? TRANSPORT_MMIO : TRANSPORT_PCI;
	return 0;
}

static int set_virtio_features(void *c, const char *v, struct err *e)
{
	return features_config(c, v, e);
}

static int set_virtio_queue_sizes(void *c, const char *v, struct err *e)
{
	return sizes_config(c, v, e);
}

static int set_net(void *c, const char *v, struct err *e)
{
	return config_net(c, v, e);
}

static int set_fs(void *c, const char *v, struct err *e)
{
	return config_fs(c, v, e);
}

static int set_vsock(void *c, const char *v, struct err *e)
{
	return config_vsock(c, v, e);
}

static int set_console(void *c, const char *v, struct err *e)
{
	return config_char(&((struct config *)c)->console, v, e);
}

static int set_serial(void *c, const char *v, struct err *e)
{
	return config_char(&((struct config *)c)->serial, v, e);
}

static int set_timeout(void *c, const char *v, struct err *e)
{
	unsigned long n;
	int ret = opts_number(v, 0, TIMEOUT_MAX, &n, e);

	if (!ret)
		((struct config *)c)->timeout_s = (unsigned)n;
	return ret;
}

static int set_no_reboot(void *c, const char *v, struct err *e)
{
	(void)v, (void)e;
	((struct config *)c)->no_reboot = true;
	return 0;
}

/* Both forms may stand, each once. */
static int set_timeline(void *arg, const char *v, struct err *e)
{
	struct config *c = arg;

	if (v ? c->timeline_file != NULL : c->timeline)
		return err_msg(e, -EINVAL, "given twice");
	if (v)
		return config_string(&c->timeline_file, v, e);
	c->timeline = true;
	return 0;
}

static int set_verbose(void *c, const char *v, struct err *e)
{
	(void)v, (void)e;
	((struct config *)c)->verbose++;
	return 0;
}

static int set_software_kvm(void *c, const char *v, struct err *e)
{
	(void)v, (void)e;
	((struct config *)c)->software_kvm = true;
	return 0;
}

static int set_help(void *c, const char *v, struct err *e)
{
	(void)c, (void)v, (void)e;
	return OPTS_STOP;
}

#define GROUP(text) .name = (text), .kind = OPT_GROUP
#define FLAG(text, fn) .name = (text), .kind = OPT_FLAG, .set = (fn)
#define VALUE(text, fn, what) .name = (text), .kind = OPT_VALUE, .set = (fn), .arg = (what)
#define MEANT(text, option) .name = (text), .kind = OPT_MEANT, .arg = (option)

static const struct opt boot_options[] = {
	{GROUP("What to boot:")},
	{VALUE("kernel", set_kernel, "FILE"),
	 .help = "bzImage, ELF vmlinux, or vmlinux.gz\n"
		 "(default: the newest /boot/vmlinuz* that can be read)"},
	{VALUE("initrd", set_initrd, "FILE"),
	 .help = "initial RAM disk (default: mvm builds one with the\n"
		 "modules that the root needs)"},
	{VALUE("modules", set_modules, "DIR"),
	 .help = "where these are (default: /lib/modules/VERSION, or\n"
		 "../lib/modules/VERSION from where the kernel is)"},
	{VALUE("cmdline", set_cmdline, "TEXT"), .empty = true,
	 .help = "appended to the kernel's command line"},
	{FLAG("no-default-cmdline", set_no_default_cmdline),
	 .help = "pass the text of --cmdline alone"},
	{GROUP("The machine:")},
	{VALUE("cpus", set_cpus, "N"), .help = "1 to 32 (default: 1)"},
	{VALUE("memory", set_memory, "SIZE"),
	 .help = "64M to 1T, units K, M, G, T (default: 512M)"},
	{VALUE("transport", set_transport, "BUS"),
	 .help = "of the virtio devices: pci or mmio (default: pci)"},
	{GROUP("The root, and disks (raw images or block devices):")},
	{VALUE("rootfs", set_rootfs, "FILE|DIR[,KEY=VALUE...]"),
	 .help = "a disk that becomes /dev/vda and the root, keys as\n"
		 "for --disk; or a directory that becomes the root:\n"
		 "what the guest writes there is lost at the end;\n"
		 "--rootfs / gives a shell on this machine's own; keys:\n"
		 "  ro | rw           what the guest writes: lost, or\n"
		 "                    written to the directory (ro)\n"
		 "  cache=auto|always|never (auto)\n"
		 "  queues=N          of requests, 1 to 31 (1)\n"
		 "  queue_size=N      a power of two, 16 to 1024 (1024)\n"
		 "  id=NAME           a name of your own, unique"},
	{VALUE("disk", set_disk, "FILE[,KEY=VALUE...]"), .repeat = true,
	 .help = "one more disk; keys (and what they are by default):\n"
		 "  readonly=on|off   refuse writes (off)\n"
		 "  direct=on|off     bypass the page cache (off)\n"
		 "  cache=writeback|writethrough (writeback)\n"
		 "  queues=N          1 to 32 (one a CPU, at most 8)\n"
		 "  queue_size=N      a power of two, 4 to 1024 (512)\n"
		 "  serial=TEXT       serial number (20 characters)\n"
		 "  id=NAME           a name of your own, unique\n"
		 "  format=raw        also when it looks like another\n"
		 "  socket=PATH       in the file's place: another\n"
		 "                    process serves it (vhost-user)\n"
		 "a value that holds a comma stands in double quotes"},
	{GROUP("Network, sockets, shared directories:")},
	{VALUE("net", set_net, "TAP|user[,KEY=VALUE...]"), .repeat = true,
	 .help = "a network device; on the host's side is a TAP of\n"
		 "this name, made when there is none, fd=N[:N...] for\n"
		 "open ones, or with the word user passt, which needs\n"
		 "no privileges; keys (and what they are by default):\n"
		 "  mac=ADDRESS       (a random one)\n"
		 "  mtu=N             what the guest is told, 68 to\n"
		 "                    65535 (nothing)\n"
		 "  queues=N          pairs of them, 1 to 16 (1)\n"
		 "  queue_size=N      a power of two, 32 to 1024\n"
		 "                    (receiving 1024, else 256)\n"
		 "  vhost=auto|on|off leave data to the host's kernel\n"
		 "                    (auto: if it can)\n"
		 "  offload=on|off    checksums and segmentation (on)\n"
		 "  id=NAME           a name of your own, unique"},
	{VALUE("vsock", set_vsock, "CID[,KEY=VALUE...]"),
	 .help = "AF_VSOCK between host and guest; keys:\n"
		 "  socket=PATH       not the host's AF_VSOCK: host\n"
		 "                    programs connect to PATH and\n"
		 "                    say CONNECT PORT; the guest's\n"
		 "                    arrive at PATH_PORT\n"
		 "  queue_size=N      a power of two, 4 to 1024\n"
		 "                    (128; 256 with socket=)\n"
		 "  id=NAME           a name of your own, unique\n"
		 "CIDs are from 3 on; without socket= every VM of a host\n"
		 "needs another"},
	{VALUE("fs", set_fs, "tag=TAG,dir=DIR[,...]"), .repeat = true,
	 .help = "a directory of the host; in the guest:\n"
		 "mount -t virtiofs TAG /mnt (virtiofsd serves it);\n"
		 "keys (and what they are by default):\n"
		 "  socket=PATH       in place of dir: one that runs\n"
		 "  ro | rw           whether anybody in the guest can\n"
		 "                    write (rw)\n"
		 "  cache=auto|always|never (auto)\n"
		 "  queues=N          of requests, 1 to 31 (1)\n"
		 "  queue_size=N      a power of two, 16 to 1024 (1024)\n"
		 "  id=NAME           a name of your own, unique"},
	{GROUP("Consoles:")},
	{VALUE("console", set_console, "WHERE"), .help = "virtio console (default: tty)"},
	{VALUE("serial", set_serial, "WHERE"),
	 .help = "16550 at 0x3f8 (default: off)\n"
		 "WHERE is off, null, tty, pty, file=PATH or socket=PATH"},
	{GROUP("For developers of drivers:")},
	{VALUE("virtio-features", set_virtio_features, "DEVICE=-FEATURE[,...]"), .repeat = true,
	 .help = "what a device shall not offer, in the standard's\n"
		 "words: disk0=-EVENT_IDX,-INDIRECT_DESC, with their\n"
		 "prefix (VIRTIO_RING_F_EVENT_IDX) or without; -v says\n"
		 "what each offers and what its driver took\n"
		 "(devices: console, disk0, net0, fs0, ..., rng, vsock)"},
	{VALUE("virtio-queue-sizes", set_virtio_queue_sizes, "DEVICE=SIZE[:SIZE...]"),
	 .repeat = true,
	 .help = "of its queues in order, the last one for the rest:\n"
		 "net0=256:1024; powers of two, 2 to 1024 (4 at least\n"
		 "for disks and vsock, 16 for fs, 32 for net)"},
	{GROUP("The run:")},
	{VALUE("timeout", set_timeout, "SECONDS"),
	 .help = "end the machine then, with status 124 (0: never)"},
	{FLAG("no-reboot", set_no_reboot), .help = "a reboot of the guest ends the machine"},
	{.name = "timeline",
	 .kind = OPT_MAYBE,
	 .repeat = true,
	 .set = set_timeline,
	 .arg = "FILE.json",
	 .help = "when each stage of the boot was reached: printed at\n"
		 "the end, or written to the file"},
	{FLAG("verbose", set_verbose), .letter = 'v', .repeat = true,
	 .help = "say what is booted and in what machine; -vv says\n"
		 "more, as where the modules are from"},
	{FLAG("help", set_help), .letter = 'h', .repeat = true, .help = "this text"},
	/* What other programs call these. */
	{MEANT("m", "memory")},
	{MEANT("smp", "cpus")},
	{MEANT("append", "cmdline")},
	{MEANT("drive", "disk")},
	{MEANT("hda", "rootfs")},
	/* Freestanding test guests alone run there. */
	{FLAG("software-kvm", set_software_kvm)},
	{0},
};

void cmd_boot_help(FILE *out)
{
	fputs("Usage: mvm boot [OPTION]...\n"
	      "\n"
	      "Boots a Linux kernel in a virtual machine of its own.\n",
	      out);
	opts_help(boot_options, out);
	fputs("\n"
	      "Keys at the terminal (all others, Ctrl-C too, are the guest's):\n"
	      "  Ctrl-A x              quit\n"
	      "  Ctrl-A c              move the keyboard between console and serial line\n"
	      "  Ctrl-A h              list these keys\n"
	      "  Ctrl-A Ctrl-A         send one Ctrl-A\n"
	      "  Ctrl-A and another    send both\n"
	      "\n"
	      "Exit status:\n"
	      "  0    the guest powered off, or reset with --no-reboot\n"
	      "  122  its kernel panicked, or reset the machine before it ran an init\n"
	      "  123  it triple-faulted\n"
	      "  124  --timeout ran out\n"
	      "  125  mvm could not start, or failed, or found no root to run; it says why\n"
	      "  130  Ctrl-A x\n"
	      "  143  SIGTERM, SIGINT or SIGHUP, and the guest did not power off in 10 s\n"
	      "\n"
	      "Examples:\n"
	      "  mvm boot --rootfs disk.img\n"
	      "  mvm boot --kernel arch/x86/boot/bzImage --rootfs /\n"
	      "  mvm boot --kernel arch/x86/boot/bzImage --rootfs disk.img --cpus 4 --memory 2G\n"
	      "  mvm boot --kernel vmlinux --initrd initrd.cpio --cmdline \"panic=-1 quiet\"\n"
	      "  mvm boot --rootfs disk.img --disk data.img,readonly=on --serial file=boot.log\n",
	      out);
}

int cmd_boot_parse(int argc, char **argv, struct config *c, struct err *e)
{
	return opts_parse(boot_options, argc, argv, c, e);
}

/* Started without standard files, /dev/kvm would become one and be printed to. */
static void standard_files(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			exit(EXIT_VMM);
}

int cmd_boot(int argc, char **argv)
{
	struct config c;
	struct err e = {0};
	int ret;

	standard_files();
	config_init(&c);
	ret = cmd_boot_parse(argc - 1, argv + 1, &c, &e);
	if (ret == OPTS_STOP) {
		cmd_boot_help(stdout);
		config_fini(&c);
		return cmd_printed();
	}
	if (!ret) {
		unsigned level = LOG_WARN + c.verbose;

		log_set_level(level < LOG_TRACE ? (enum log_level)level : LOG_TRACE);
		ret = config_check(&c, &e);
	}
	if (ret) {
		log_error("%s", e.text);
		config_fini(&c);
		return EXIT_VMM;
	}
	ret = machine_main(&c);
	config_fini(&c);
	return ret;
}
