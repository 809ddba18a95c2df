/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvm doctor`: `ok`, `warn` (machines run, but slower or without something) or `missing` for
 * each thing, and below what to do about it. Changes nothing on the host; the VM it creates to see
 * whether that works is closed at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/passt.h"
#include "virtio/virtiofsd.h"
#include "vmm/cmd.h"
#include "vmm/kvm.h"
#include "vmm/log.h"

#define INDENT 9
#define WIDTH 80
#define AIO_WANTED 4096 /* requests of a machine with several fast disks */

enum finding { OK, WARN, MISSING };

/* @text after @left, or after as much blank, in lines of at most WIDTH where words allow it. */
static void put_wrapped(const char *left, const char *text)
{
	size_t column = (size_t)printf("%-*s", INDENT, left), len;

	for (; *text; text += len + (text[len] == ' ')) {
		len = strcspn(text, " ");
		if (column > INDENT && column + 1 + len > WIDTH)
			column = (size_t)printf("\n%*s", INDENT, "") - 1;
		else if (column > INDENT)
			column += (size_t)printf(" ");
		column += (size_t)printf("%.*s", (int)len, text);
	}
	putchar('\n');
}

/* @advice: what to do, on lines of its own below; NULL when there is nothing to. */
static void tell(enum finding f, const char *advice, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void tell(enum finding f, const char *advice, const char *fmt, ...)
{
	static const char *const words[] = {"ok", "warn", "missing"};
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	put_wrapped(words[f], what);
	if (advice)
		put_wrapped("", advice);
}

/* The first line of @path, without its end; false when it cannot be read. */
static bool first_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	bool got = f && fgets(buf, (int)size, f);

	if (f)
		fclose(f);
	if (got)
		buf[strcspn(buf, "\n")] = '\0';
	return got;
}

/* ------------------------------------------------------------- KVM */

/* False when it is there and not for this user. */
static bool tell_access(void)
{
	struct stat st;
	struct group *g;
	char advice[128];

	if (stat("/dev/kvm", &st))
		return true; /* kvm_kind() says so */
	g = getgrgid(st.st_gid);
	if (!access("/dev/kvm", R_OK | W_OK)) {
		tell(OK, NULL, "/dev/kvm may be used by this user (group %s, mode %04o)",
		     g ? g->gr_name : "without a name", st.st_mode & 07777);
		return true;
	}
	if (g && st.st_gid && (st.st_mode & 0060) == 0060)
		snprintf(advice, sizeof(advice),
			 "usermod -aG %s USER, then log in again; or run as root", g->gr_name);
	else
		snprintf(advice, sizeof(advice),
			 "run as root; or, as root: chgrp kvm /dev/kvm; chmod 660 /dev/kvm; "
			 "usermod -aG kvm USER");
	tell(MISSING, advice, "/dev/kvm may not be used by this user");
	return false;
}

static bool tell_kind(void)
{
	struct err e = {0};

	switch (kvm_kind(&e)) {
	case KVM_KIND_HARDWARE:
		tell(OK, NULL, "KVM: hardware virtualization");
		return true;
	case KVM_KIND_SOFTWARE:
		tell(MISSING,
		     "stock kernels need the sources' test host: tools/testhost run -- COMMAND",
		     "KVM: software only (this CPU shows neither vmx nor svm)");
		return false;
	default:
		tell(MISSING, "until then, the sources' test host: tools/testhost run -- COMMAND",
		     "KVM: %s", e.text);
		return false;
	}
}

static bool tell_caps(int fd)
{
	int api = ioctl(fd, KVM_GET_API_VERSION, 0), vcpus;
	bool fine = api == KVM_API_VERSION, all = true;

	if (!fine)
		tell(MISSING, "a kernel with API version 12 is needed", "KVM API version %d", api);
	for (const struct kvm_cap *c = kvm_caps; c->name; c++) {
		if (ioctl(fd, KVM_CHECK_EXTENSION, c->cap) > 0)
			continue;
		tell(c->required ? MISSING : WARN, c->without, "KVM capability: %s", c->name);
		fine &= !c->required;
		all = false;
	}
	if (fine)
		tell(OK, NULL, "KVM API version %d and all capabilities that a machine %s", api,
		     all ? "can use" : "needs");
	vcpus = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	if (vcpus < CONFIG_CPUS_MAX)
		tell(WARN, "give --cpus no more", "KVM: at most %d vCPUs a machine", vcpus);
	else
		tell(OK, NULL, "KVM: up to %d vCPUs a machine", CONFIG_CPUS_MAX);
	return fine;
}

static bool tell_vm(void)
{
	struct err e = {0};
	struct vm vm;

	if (vm_open(&vm, &e)) {
		tell(MISSING, "end what holds it, or use a host of your own", "a machine: %s",
		     e.text);
		return false;
	}
	vm_close(&vm);
	tell(OK, NULL, "a machine can be created");
	return true;
}

static void tell_paging(void)
{
	static const char *const files[] = {"/sys/module/kvm_intel/parameters/ept",
					    "/sys/module/kvm_amd/parameters/npt"};
	char line[16];

	for (size_t i = 0; i < 2; i++) {
		if (!first_line(files[i], line, sizeof(line)))
			continue;
		if (*line == 'Y' || *line == '1')
			tell(OK, NULL, "nested paging (%s)", i ? "NPT" : "EPT");
		else
			tell(WARN, "load the KVM module without ept=0 or npt=0",
			     "nested paging is off: guests are slow");
	}
}

static bool examine_kvm(void)
{
	bool fine = tell_access() && tell_kind();
	int fd;

	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	fine &= tell_caps(fd);
	close(fd);
	fine &= tell_vm();
	tell_paging();
	return fine;
}

/* ------------------------------------------------------------- what devices use */

static void examine_node(const char *path, const char *use, const char *module)
{
	const char *advice = "run as root, or give this user access to it";
	char load[64];

	if (!access(path, R_OK | W_OK)) {
		tell(OK, NULL, "%s (%s)", path, use);
		return;
	}
	if (errno == ENOENT) {
		snprintf(load, sizeof(load), "modprobe %s", module);
		errno = ENOENT;
		advice = load;
	}
	tell(WARN, advice, "%s (%s): %s", path, use, strerror(errno));
}

/* @path: where it is, ours to free; NULL: nowhere. */
static void tell_program(char *path, const char *name, const char *use, const char *advice)
{
	if (path)
		tell(OK, NULL, "%s (%s)", path, use);
	else
		tell(WARN, advice, "no %s (%s)", name, use);
	free(path);
}

static void examine_devices(void)
{
	examine_node("/dev/net/tun", "--net TAP", "tun");
	examine_node("/dev/vhost-net", "faster networks", "vhost_net");
	examine_node("/dev/vhost-vsock", "--vsock without socket=", "vhost_vsock");
	tell_program(passt_find(), "passt", "--net user", "apt install passt");
	tell_program(virtiofsd_find(), "virtiofsd", "--fs dir=, --rootfs DIRECTORY",
		     "apt install virtiofsd; up to Debian 12: qemu-system-common");
}

/* ------------------------------------------------------------- memory and limits */

static void examine_thp(void)
{
	char line[128];

	if (!first_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof(line)))
		tell(WARN, "use a kernel with CONFIG_TRANSPARENT_HUGEPAGE",
		     "no transparent huge pages: guests boot slower");
	else if (strstr(line, "[never]"))
		tell(WARN, "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled",
		     "transparent huge pages are off: guests boot slower");
	else
		tell(OK, NULL, "transparent huge pages: %s", line);
}

static void examine_limits(void)
{
	char line[64];
	unsigned long used, max;

	if (first_line("/proc/sys/fs/aio-nr", line, sizeof(line))) {
		used = strtoul(line, NULL, 10);
		max = first_line("/proc/sys/fs/aio-max-nr", line, sizeof(line))
			      ? strtoul(line, NULL, 10)
			      : 0;
		if (max < used + AIO_WANTED)
			tell(WARN, "sysctl fs.aio-max-nr=1048576",
			     "asynchronous disk requests: %lu of %lu taken", used, max);
		else
			tell(OK, NULL, "asynchronous disk requests: %lu of %lu taken", used, max);
	}
}

static void examine_kernel(void)
{
	struct err e = {0};
	char *path = NULL;

	if (config_newest_kernel("/boot", &path, &e))
		tell(WARN, "apt install linux-image-amd64, or give --kernel FILE each time",
		     "no kernel in /boot that can be read");
	else
		tell(OK, NULL, "kernel %s", path);
	free(path);
}

int cmd_doctor(int argc, char **argv)
{
	bool fine;

	if (cmd_wants_help(argc, argv))
		return cmd_help(2, (char *[]){"help", "doctor", NULL});
	if (argc > 1) {
		log_error("doctor: %s: unexpected argument", argv[1]);
		return EXIT_VMM;
	}
	fine = examine_kvm();
	examine_thp();
	examine_limits();
	examine_kernel();
	examine_devices();
	puts(fine ? "mvm boot can run here." : "mvm boot cannot run here.");
	if (cmd_printed())
		return EXIT_VMM;
	return fine ? 0 : 1;
}
