/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's command line: what mvm says by itself, and what the user adds. */
#include "vmm/payload.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/kernel_craft.h"

#define VERSION "6.1.0-43-cloud-amd64" /* of craft_bzimage */

static struct config cfg;
static struct payload p;
static char path[64];

static int before(void **s)
{
	int fd;

	(void)s;
	snprintf(path, sizeof(path), "/tmp/mvm-payload-XXXXXX");
	fd = mkstemp(path);
	craft_bzimage();
	if (fd < 0 || write(fd, img.p, img.n) != (ssize_t)img.n || close(fd))
		return -1;
	config_init(&cfg);
	cfg.software_kvm = true; /* without an initramfs of ours */
	return config_string(&cfg.kernel, path, &err);
}

static int after(void **s)
{
	(void)s;
	config_fini(&cfg);
	return unlink(path);
}

static void cmdline_is(const char *want)
{
	assert_int_equal(payload_open(&p, &cfg, &err), 0);
	assert_string_equal(p.cmdline, want);
	payload_close(&p);
}

static void command_line_names_the_console_that_is_there(void **s)
{
	(void)s;
	cfg.console.mode = CHAR_NULL;
	cmdline_is("console=hvc0 panic=-1 8250.nr_uarts=0");
	cfg.serial.mode = CHAR_NULL;
	cmdline_is("console=ttyS0 console=hvc0 panic=-1 8250.nr_uarts=1");
	cfg.console.mode = CHAR_OFF;
	cmdline_is("console=ttyS0 panic=-1 8250.nr_uarts=1");
	cfg.serial.mode = CHAR_OFF;
	cmdline_is("panic=-1 8250.nr_uarts=0");
}

static void command_line_names_the_root_and_whether_it_may_be_written(void **s)
{
	(void)s;
	cfg.console.mode = CHAR_NULL;
	assert_int_equal(config_string(&cfg.rootfs, "/img", &err), 0);
	assert_int_equal(config_disk(&cfg, "/img", &err), 0);
	cmdline_is("console=hvc0 panic=-1 8250.nr_uarts=0 root=/dev/vda rw");
	cfg.disks[0].readonly = true;
	cmdline_is("console=hvc0 panic=-1 8250.nr_uarts=0 root=/dev/vda ro");
}

static void command_line_names_a_directory_and_what_becomes_of_writes(void **s)
{
	(void)s;
	cfg.console.mode = CHAR_NULL;
	assert_int_equal(config_string(&cfg.rootfs, "/tmp", &err), 0);
	assert_int_equal(config_check_root(&cfg, &err), 0);
	cmdline_is("console=hvc0 panic=-1 8250.nr_uarts=0 root=virtiofs:mvm.root rw mvm.overlay");
	cfg.root_rw = true;
	cmdline_is("console=hvc0 panic=-1 8250.nr_uarts=0 root=virtiofs:mvm.root rw");
	cfg.root_rw = false;
	cfg.root_is_host = true;
	assert_int_equal(config_string(&cfg.cmdline, "mvm.shell=0", &err), 0);
	cmdline_is("console=hvc0 panic=-1 8250.nr_uarts=0 root=virtiofs:mvm.root rw mvm.overlay "
		   "mvm.shell mvm.shell=0");
}

static void command_line_of_the_user_comes_last_or_alone(void **s)
{
	(void)s;
	cfg.console.mode = CHAR_NULL;
	assert_int_equal(config_string(&cfg.cmdline, "quiet -- -x", &err), 0);
	cmdline_is("console=hvc0 panic=-1 8250.nr_uarts=0 quiet -- -x");
	cfg.no_default_cmdline = true;
	cmdline_is("quiet -- -x");
	assert_int_equal(config_string(&cfg.cmdline, "", &err), 0);
	cmdline_is("");
}

static void words_put_in_front_leave_the_last_one_to_the_user(void **s)
{
	static char words[sizeof(p.cmdline)];

	(void)s;
	cfg.console.mode = CHAR_NULL;
	assert_int_equal(config_string(&cfg.cmdline, "quiet", &err), 0);
	assert_int_equal(payload_open(&p, &cfg, &err), 0);
	assert_int_equal(payload_cmdline_front(&p, "tsc_early_khz=1", &err), 0);
	assert_string_equal(p.cmdline,
			    "tsc_early_khz=1 console=hvc0 panic=-1 8250.nr_uarts=0 quiet");
	memset(words, 'x', sizeof(p.cmdline) - 2 - strlen(p.cmdline));
	assert_int_equal(payload_cmdline_front(&p, words, &err), 0);
	assert_int_equal(strlen(p.cmdline), sizeof(p.cmdline) - 1);
	assert_int_equal(payload_cmdline_front(&p, "", &err), -E2BIG);
	payload_close(&p);
}

static void command_line_that_does_not_fit_is_refused(void **s)
{
	static char text[sizeof(p.cmdline) + 1];

	(void)s;
	cfg.no_default_cmdline = true;
	memset(text, 'x', sizeof(p.cmdline));
	assert_int_equal(config_string(&cfg.cmdline, text, &err), 0);
	assert_int_equal(payload_open(&p, &cfg, &err), -E2BIG);
	assert_non_null(strstr(err.text, "4095"));
	cfg.cmdline[sizeof(p.cmdline) - 1] = '\0';
	cmdline_is(cfg.cmdline);
}

static void without_a_root_there_is_nothing_to_run(void **s)
{
	(void)s;
	cfg.software_kvm = false;
	assert_int_equal(payload_open(&p, &cfg, &err), -EINVAL);
	assert_non_null(strstr(err.text, "--rootfs"));
	assert_int_equal(config_string(&cfg.cmdline, "nfsroot=x quiet", &err), 0);
	assert_int_equal(payload_open(&p, &cfg, &err), -EINVAL);
	assert_int_equal(config_string(&cfg.cmdline, "quiet root=/dev/vdb1", &err), 0);
	assert_int_equal(payload_open(&p, &cfg, &err), 0);
	assert_true(p.cpio.len > 0);
	payload_close(&p);
}

static void make(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static char tree[32], at[256];

/* @name in the tree, for one use. */
static const char *in_tree(const char *name)
{
	snprintf(at, sizeof(at), "%s/%s", tree, name);
	return at;
}

/* As an unpacked package has it: DIR/boot/KERNEL and DIR/lib/modules/VERSION. */
static void plant(void)
{
	static const char *const dirs[] = {"boot", "lib", "lib/modules", ("lib/modules/" VERSION)};

	strcpy(tree, "/tmp/mvm-modules-XXXXXX");
	assert_non_null(mkdtemp(tree));
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		assert_int_equal(mkdir(in_tree(dirs[i]), 0755), 0);
	make(in_tree("lib/modules/" VERSION "/virtio_pci.ko"), "module");
	make(in_tree("lib/modules/" VERSION "/modules.dep"), "virtio_pci.ko:\n");
	assert_int_equal(link(path, in_tree("boot/vmlinuz")), 0);
	cfg.software_kvm = false;
}

static void uproot(void)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "rm -r %s", tree);
	assert_int_equal(system(cmd), 0);
}

static void modules_are_found_beside_the_kernel(void **s)
{
	(void)s;
	plant();
	assert_int_equal(config_string(&cfg.cmdline, "root=/dev/vda", &err), 0);
	assert_int_equal(payload_open(&p, &cfg, &err), 0);
	assert_non_null(strstr(p.no_modules, "/lib/modules/" VERSION));
	assert_non_null(strstr(p.no_modules, "--modules DIR"));
	payload_close(&p);
	assert_non_null(strstr(p.no_modules, "--modules DIR")); /* for how the machine ends */
	assert_int_equal(config_string(&cfg.kernel, in_tree("boot/vmlinuz"), &err), 0);
	assert_int_equal(payload_open(&p, &cfg, &err), 0);
	assert_string_equal(p.no_modules, "");
	assert_int_equal(p.modules, 1);
	payload_close(&p);
	uproot();
}

/* Of a kernel that stands elsewhere; the root cannot be reached without virtiofs and overlay. */
static void modules_are_found_in_a_directory_that_is_the_root(void **s)
{
	(void)s;
	plant();
	assert_int_equal(config_string(&cfg.rootfs, tree, &err), 0);
	assert_int_equal(config_check_root(&cfg, &err), 0);
	make(in_tree("lib/modules/" VERSION "/modules.builtin"), "kernel/fs/fuse/virtiofs.ko\n");
	assert_int_equal(payload_open(&p, &cfg, &err), -ENOENT);
	assert_non_null(strstr(err.text, "the kernel has no overlay, neither"));
	cfg.root_rw = true;
	assert_int_equal(payload_open(&p, &cfg, &err), 0);
	assert_string_equal(p.no_modules, "");
	payload_close(&p);
	assert_int_equal(config_string(&cfg.cmdline, "mvm.overlay", &err), 0);
	assert_int_equal(payload_open(&p, &cfg, &err), -ENOENT);
	uproot();
}

/* With a terminal as standard input. */
static void term_is(const char *term, const char *want)
{
	if (term)
		setenv("TERM", term, 1);
	else
		unsetenv("TERM");
	cmdline_is(want);
}

static void terminal_type_reaches_the_guest_when_it_is_one_word(void **s)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave, in = dup(STDIN_FILENO);

	(void)s;
	assert_int_equal(grantpt(master) | unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	dup2(slave, STDIN_FILENO);
	term_is("xterm-256color", "console=hvc0 panic=-1 8250.nr_uarts=0 TERM=xterm-256color");
	term_is("a b", "console=hvc0 panic=-1 8250.nr_uarts=0");
	term_is("\"", "console=hvc0 panic=-1 8250.nr_uarts=0");
	term_is("x\n", "console=hvc0 panic=-1 8250.nr_uarts=0");
	term_is("", "console=hvc0 panic=-1 8250.nr_uarts=0");
	term_is(NULL, "console=hvc0 panic=-1 8250.nr_uarts=0");
	term_is("0123456789012345678901234567890123456789x",
		"console=hvc0 panic=-1 8250.nr_uarts=0");
	cfg.console.mode = CHAR_NULL; /* somebody else's terminal is not ours */
	term_is("xterm", "console=hvc0 panic=-1 8250.nr_uarts=0");
	cfg.console.mode = CHAR_TTY;
	dup2(in, STDIN_FILENO);
	if (!isatty(STDIN_FILENO))
		term_is("xterm", "console=hvc0 panic=-1 8250.nr_uarts=0");
	close(in);
	close(slave);
	close(master);
}

/* What is no disk is left to the disk's own code, which says so. */
static void root_that_is_a_fifo_is_not_opened(void **s)
{
	char fifo[100], events[4096];
	int watch = inotify_init1(IN_NONBLOCK);

	(void)s;
	snprintf(fifo, sizeof(fifo), "%s-fifo", path);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_true(inotify_add_watch(watch, fifo, IN_OPEN) >= 0);
	cfg.software_kvm = false;
	assert_int_equal(config_string(&cfg.rootfs, fifo, &err), 0);
	assert_int_equal(config_disk(&cfg, fifo, &err), 0);
	assert_int_equal(payload_open(&p, &cfg, &err), 0);
	payload_close(&p);
	assert_int_equal(read(watch, events, sizeof(events)), -1);
	close(watch);
	unlink(fifo);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, before, after)
		T(command_line_names_the_console_that_is_there),
		T(command_line_names_the_root_and_whether_it_may_be_written),
		T(command_line_names_a_directory_and_what_becomes_of_writes),
		T(command_line_of_the_user_comes_last_or_alone),
		T(words_put_in_front_leave_the_last_one_to_the_user),
		T(command_line_that_does_not_fit_is_refused),
		T(root_that_is_a_fifo_is_not_opened),
		T(without_a_root_there_is_nothing_to_run),
		T(modules_are_found_beside_the_kernel),
		T(modules_are_found_in_a_directory_that_is_the_root),
		T(terminal_type_reaches_the_guest_when_it_is_one_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
