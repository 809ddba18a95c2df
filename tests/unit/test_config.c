/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/cmd.h"
#include "vmm/opts.h"

static struct config cfg;
static struct err err;

/* `mvm boot` with these words, up to the checked configuration. */
static int boot(const char *words[])
{
	int argc = 0, ret;

	while (words[argc])
		argc++;
	config_fini(&cfg);
	config_init(&cfg);
	err = (struct err){0};
	ret = cmd_boot_parse(argc, (char **)words, &cfg, &err);
	return ret ? ret : config_check(&cfg, &err);
}
#define BOOT(...) boot((const char *[]){__VA_ARGS__, NULL})

/* A kernel is given, so that what /boot holds does not matter. */
#define REFUSED(why, ...)                                                                          \
	do {                                                                                       \
		assert_true(BOOT("--kernel", "k", __VA_ARGS__) < 0);                               \
		assert_string_equal(err.text, why);                                                \
	} while (0)

static int done(void **s)
{
	(void)s;
	config_fini(&cfg);
	return 0;
}

static void config_defaults(void **s)
{
	(void)s;
	assert_int_equal(BOOT("--kernel", "k"), 0);
	assert_int_equal(cfg.cpus, 1);
	assert_int_equal(cfg.memory, 512ull << 20);
	assert_int_equal(cfg.transport, TRANSPORT_PCI);
	assert_int_equal(cfg.console.mode, CHAR_TTY);
	assert_int_equal(cfg.serial.mode, CHAR_OFF);
	assert_int_equal(cfg.ndisks, 0);
	assert_int_equal(cfg.timeout_s, 0);
	assert_null(cfg.cmdline);
}

static void config_takes_every_option(void **s)
{
	(void)s;
	assert_int_equal(BOOT("--kernel", "k", "--initrd=i", "--cmdline", "a b", "--cpus=4",
			      "--memory", "2G", "--transport", "mmio", "--console=off", "--serial",
			      "file=/x", "--timeout", "9", "--no-reboot", "--timeline",
			      "--timeline=t.json", "-vv", "--no-default-cmdline", "--software-kvm"),
			 0);
	assert_string_equal(cfg.initrd, "i");
	assert_string_equal(cfg.cmdline, "a b");
	assert_int_equal(cfg.cpus, 4);
	assert_int_equal(cfg.memory, 2ull << 30);
	assert_int_equal(cfg.transport, TRANSPORT_MMIO);
	assert_int_equal(cfg.console.mode, CHAR_OFF);
	assert_int_equal(cfg.serial.mode, CHAR_FILE);
	assert_string_equal(cfg.serial.path, "/x");
	assert_int_equal(cfg.timeout_s, 9);
	assert_true(cfg.no_reboot && cfg.timeline && cfg.no_default_cmdline && cfg.software_kvm);
	assert_string_equal(cfg.timeline_file, "t.json");
	assert_int_equal(cfg.verbose, 2);
	assert_int_equal(BOOT("--kernel", "k", "--modules", "m", "--cmdline", ""), 0);
	assert_string_equal(cfg.modules, "m");
	assert_string_equal(cfg.cmdline, "");
	REFUSED("--modules m: not together with --initrd, which is taken as it is", "--modules=m",
		"--initrd=i");
}

static void config_root_is_the_first_disk(void **s)
{
	(void)s;
	assert_int_equal(BOOT("--kernel=k", "--disk", "path=/d1,readonly=on,serial=S,id=a",
			      "--disk", "/d2,direct=on,cache=writethrough,queues=2,queue_size=64",
			      "--rootfs", "/root.img,readonly=on"),
			 0);
	assert_int_equal(cfg.ndisks, 3);
	assert_string_equal(cfg.disks[0].path, "/root.img");
	assert_true(cfg.disks[0].readonly);
	assert_string_equal(cfg.disks[1].path, "/d1");
	assert_true(cfg.disks[1].readonly && !cfg.disks[1].direct && !cfg.disks[1].writethrough);
	assert_string_equal(cfg.disks[1].serial, "S");
	assert_string_equal(cfg.disks[1].id, "a");
	assert_string_equal(cfg.disks[2].path, "/d2");
	assert_true(!cfg.disks[2].readonly && cfg.disks[2].direct && cfg.disks[2].writethrough);
	assert_int_equal(cfg.disks[2].queues, 2);
	assert_int_equal(cfg.disks[2].queue_size, 64);
}

static void config_disk_errors(void **s)
{
	(void)s;
	REFUSED("--disk a,readnly=on: unknown key \"readnly\"; did you mean readonly?", "--disk",
		"a,readnly=on");
	REFUSED("--disk readonly=on: the path is missing (path=FILE)", "--disk", "readonly=on");
	REFUSED("--disk a,readonly=yes: readonly: \"yes\" is neither on nor off", "--disk",
		"a,readonly=yes");
	REFUSED("--disk a,cache=none: cache: \"none\" is spelled direct=on", "--disk",
		"a,cache=none");
	REFUSED("--disk a,cache=on: cache: \"on\" is neither writeback nor writethrough", "--disk",
		"a,cache=on");
	REFUSED("--disk a,format=vdi: format: \"vdi\" is not supported: raw is the only one",
		"--disk", "a,format=vdi");
	REFUSED("--disk a,readonly: \"readonly\" is not key=value; did you mean readonly=on?",
		"--disk", "a,readonly");
	REFUSED("--rootfs a,ro=on: unknown key \"ro\"; did you mean readonly=on?", "--rootfs",
		"a,ro=on");
	REFUSED("--disk a,queues=33: queues: out of range (1 to 32)", "--disk", "a,queues=33");
	REFUSED("--disk a,queue_size=48: queue_size: 48 is not a power of two from 4 to 1024",
		"--disk", "a,queue_size=48");
	REFUSED("--disk a,queue_size=2: queue_size: 2 is not a power of two from 4 to 1024",
		"--disk", "a,queue_size=2");
	REFUSED("--disk a,serial=123456789012345678901: serial: \"123456789012345678901\" is "
		"longer "
		"than 20 characters",
		"--disk", "a,serial=123456789012345678901");
}

static void config_queue_size_is_a_power_of_two_in_range(void **s)
{
	static const char *const bad[] = {"",
					  "0",
					  "-4",
					  "+4",
					  "4x",
					  "x4",
					  "3",
					  "48",
					  "2048",
					  "0x8",
					  "8 ",
					  "65544",
					  "18446744073709551620"};
	uint16_t n = 7;

	(void)s;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(config_queue_size(bad[i], 4, &n, &err), -ERANGE);
		assert_non_null(strstr(err.text, "is not a power of two from 4 to 1024"));
		assert_int_equal(n, 7);
	}
	assert_int_equal(config_queue_size("4", 4, &n, &err), 0);
	assert_int_equal(n, 4);
	assert_int_equal(config_queue_size("1024", 4, &n, &err), 0);
	assert_int_equal(n, 1024);
	assert_int_equal(config_check_queue_size(0, 4, &err), 0); /* the default */
	assert_int_equal(config_check_queue_size(4, 4, &err), 0);
	assert_int_equal(config_check_queue_size(2, 4, &err), -ERANGE);
}

/* What was filled in without a parser of ours. */
static void config_check_knows_the_least_queue_size_of_each_device(void **s)
{
	static const struct {
		unsigned disk, net, fs, vsock;
		int ret;
	} cases[] = {{4, 32, 16, 4, 0},
		     {2, 32, 16, 4, -ERANGE},
		     {4, 16, 16, 4, -ERANGE},
		     {4, 32, 8, 4, -ERANGE},
		     {4, 32, 16, 2, -ERANGE}};

	(void)s;
	assert_int_equal(BOOT("--kernel=k", "--disk=d", "--net=t", "--fs=tag=a,dir=/",
			      "--vsock=3,socket=/x"),
			 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cfg.disks[0].queue_size = (uint16_t)cases[i].disk;
		cfg.nets[0].queue_size = (uint16_t)cases[i].net;
		cfg.fs[0].queue_size = (uint16_t)cases[i].fs;
		cfg.vsock.queue_size = (uint16_t)cases[i].vsock;
		assert_int_equal(config_check(&cfg, &err), cases[i].ret);
		if (cases[i].ret)
			assert_non_null(strstr(err.text, ": queue_size: "));
	}
}

/* ------------------------------------------------------------- id= */

static void config_ids_are_of_one_device_each(void **s)
{
	(void)s;
	REFUSED("--disk b: id x is that of --disk a already", "--disk", "a,id=x", "--disk",
		"b,id=x");
	REFUSED("--disk a: id x is that of --rootfs r already", "--disk", "a,id=x", "--rootfs",
		"r,id=x");
	REFUSED("--net u: id x is that of --net t already", "--net", "t,id=x", "--net", "u,id=x");
	REFUSED("--net user: id x is that of --disk a already", "--net", "user,id=x", "--disk",
		"a,id=x");
	REFUSED("--vsock 3: id x is that of --net user already", "--net", "user,id=x", "--vsock",
		"3,id=x");
	REFUSED("--fs tag=m: id x is that of --vsock 3 already", "--fs", "tag=m,dir=/,id=x",
		"--vsock", "3,id=x");
	REFUSED("--fs tag=n: id x is that of --fs tag=m already", "--fs", "tag=m,dir=/,id=x",
		"--fs", "tag=n,dir=/,id=x");
	REFUSED("--fs tag=m: id x is that of --rootfs / already", "--fs", "tag=m,dir=/,id=x",
		"--rootfs", "/,id=x");
	REFUSED("--rootfs /: id x is that of --disk a already", "--disk", "a,id=x", "--rootfs",
		"/,id=x");
	assert_int_equal(BOOT("--kernel=k", "--disk=a,id=1", "--disk=a", "--net=t,id=2", "--net=u",
			      "--vsock=3,id=3", "--fs=tag=m,dir=/,id=4", "--rootfs=/,id=5"),
			 0);
}

static void config_too_many_disks(void **s)
{
	const char *words[2 * CONFIG_DISKS_MAX + 6] = {"--kernel", "k"};
	int n = 2;

	(void)s;
	for (int i = 0; i < CONFIG_DISKS_MAX; i++) {
		words[n++] = "--disk";
		words[n++] = "d";
	}
	assert_int_equal(boot(words), 0);
	words[n] = "--rootfs=r";
	assert_int_equal(boot(words), -E2BIG);
	assert_string_equal(err.text, "--rootfs and 24 disks: at most 24 fit in all");
	words[n] = "--disk=e";
	assert_int_equal(boot(words), -E2BIG);
	assert_string_equal(err.text, "--disk e: at most 24 disks fit");
}

static void config_numbers_out_of_range(void **s)
{
	(void)s;
	REFUSED("--cpus 0: out of range (1 to 32)", "--cpus", "0");
	REFUSED("--cpus 33: out of range (1 to 32)", "--cpus", "33");
	REFUSED("--cpus two: not a whole number (1 to 32)", "--cpus", "two");
	REFUSED("--timeout -1: not a whole number (0 to 1000000)", "--timeout", "-1");
	REFUSED("--transport isa: must be pci or mmio", "--transport", "isa");
	REFUSED("--memory 63M: out of range (64M to 1T)", "--memory", "63M");
	REFUSED("--memory 2T: out of range (64M to 1T)", "--memory", "2T");
	REFUSED("--memory 512: out of range (64M to 1T); a number without a unit is in bytes",
		"--memory", "512");
	REFUSED("--memory 1Q: not a size (a whole number and K, M, G or T: 512M)", "--memory",
		"1Q");
	REFUSED("--timeline: given twice", "--timeline", "--timeline");
	REFUSED("--timeline b: given twice", "--timeline=a", "--timeline=b");
	REFUSED("--cmdline a\nb: holds a control character", "--cmdline", "a\nb");
	/* The struct is checked too: JSON fills it past the option parser. */
	config_fini(&cfg);
	config_init(&cfg);
	cfg.cpus = 33;
	assert_int_equal(config_check(&cfg, &err), -ERANGE);
	cfg.cpus = 1;
	cfg.memory = CONFIG_MEM_MAX + 1;
	assert_int_equal(config_check(&cfg, &err), -ERANGE);
	cfg.memory = CONFIG_MEM_MIN - 1;
	assert_int_equal(config_check(&cfg, &err), -ERANGE);
}

static void config_memory_is_rounded_up(void **s)
{
	(void)s;
	assert_int_equal(BOOT("--kernel=k", "--memory=65537K"), 0);
	assert_int_equal(cfg.memory, 66ull << 20);
	assert_int_equal(BOOT("--kernel=k", "--memory=64M"), 0);
	assert_int_equal(cfg.memory, 64ull << 20);
	assert_int_equal(BOOT("--kernel=k", "--memory=1T"), 0);
	assert_int_equal(cfg.memory, CONFIG_MEM_MAX);
	assert_int_equal(BOOT("--kernel=k", "--memory=1099511627775"), 0);
	assert_int_equal(cfg.memory, CONFIG_MEM_MAX);
}

static void config_size_grammar(void **s)
{
	static const struct {
		const char *text;
		int ret;
		uint64_t v;
	} cases[] = {
		{"0", 0, 0},
		{"4096", 0, 4096},
		{"1K", 0, 1024},
		{"1k", 0, 1024},
		{"3M", 0, 3ull << 20},
		{"3MiB", 0, 3ull << 20},
		{"7G", 0, 7ull << 30},
		{"2T", 0, 2ull << 40},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"99999999999999999999999", -ERANGE, 0},
		{"16777216T", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"M", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"1.5G", -EINVAL, 0},
		{"1MB", -EINVAL, 0},
		{"1MiBx", -EINVAL, 0},
		{"1iB", -EINVAL, 0},
		{"1 M", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
		{"1\rM", -EINVAL, 0},
	};

	(void)s;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t v = 12345;

		assert_int_equal(config_size(cases[i].text, &v), cases[i].ret);
		assert_int_equal(v, cases[i].ret ? 12345 : cases[i].v);
	}
}

static void config_size_text_is_what_the_user_writes(void **s)
{
	static const struct {
		uint64_t size;
		const char *text;
	} cases[] = {{0, "0"},           {512, "512"},
		     {1ull << 40, "1T"}, {1536ull << 20, "1536M"},
		     {3ull << 30, "3G"}, {UINT64_MAX, "18446744073709551615"}};
	char buf[CONFIG_SIZE_TEXT];

	(void)s;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		config_size_text(buf, cases[i].size);
		assert_string_equal(buf, cases[i].text);
	}
}

static void config_char_spellings(void **s)
{
	static const char *const words[] = {"off", "null",      "tty",
					    "pty", "file=/a=b", "socket=/s,1"};

	(void)s;
	for (int i = 0; i <= CHAR_SOCKET; i++) {
		assert_int_equal(BOOT("--kernel=k", "--console", words[i]), 0);
		assert_int_equal(cfg.console.mode, i);
	}
	assert_string_equal(cfg.console.path, "/s,1");
	REFUSED("--console none: did you mean off?", "--console", "none");
	REFUSED("--console stdio: did you mean tty?", "--console", "stdio");
	REFUSED("--console file: needs a path: file=PATH", "--console", "file");
	REFUSED("--console socket=: the path is empty", "--console", "socket=");
	REFUSED("--serial pyt: must be off, null, tty, pty, file=PATH or socket=PATH (did you "
		"mean "
		"pty?)",
		"--serial", "pyt");
	REFUSED("--serial unix=/x: must be off, null, tty, pty, file=PATH or socket=PATH",
		"--serial", "unix=/x");
}

static void config_console_and_serial_together(void **s)
{
	char path[130] = "socket=";

	(void)s;
	assert_int_equal(BOOT("--kernel=k", "--console=tty", "--serial=tty"), 0);
	assert_int_equal(BOOT("--kernel=k", "--console=off", "--serial=off"), 0);
	assert_int_equal(BOOT("--kernel=k", "--console=file=/a", "--serial=file=/b"), 0);
	REFUSED("console and serial cannot both use /a", "--console=file=/a", "--serial=file=/a");
	REFUSED("console and serial cannot both use /a", "--console=socket=/a", "--serial=file=/a");
	memset(path + 7, 'x', 107);
	assert_int_equal(BOOT("--kernel=k", "--serial", path), 0);
	path[7 + 107] = 'x';
	REFUSED("serial: socket path is 108 bytes long, at most 107 fit", "--serial", path);
}

static void config_string_replaces(void **s)
{
	char *at = NULL;

	(void)s;
	assert_int_equal(config_string(&at, "one", NULL), 0);
	assert_int_equal(config_string(&at, "two", NULL), 0);
	assert_string_equal(at, "two");
	free(at);
}

/* ------------------------------------------------------------- the newest kernel */

static char dir[] = "/tmp/mvm-config-XXXXXX";

static void touch(const char *name, mode_t mode)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_CREAT | O_WRONLY, mode);
	assert_true(fd >= 0);
	close(fd);
}

static int make_dir(void **s)
{
	(void)s;
	strcpy(dir, "/tmp/mvm-config-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **s)
{
	char cmd[64];

	(void)s;
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static void newest_is(const char *name)
{
	char *path = NULL, want[300];

	assert_int_equal(config_newest_kernel(dir, &path, &err), 0);
	snprintf(want, sizeof(want), "%s/%s", dir, name);
	assert_string_equal(path, want);
	free(path);
}

static void config_newest_kernel_by_version(void **s)
{
	char path[300];

	(void)s;
	touch("vmlinuz", 0644);
	newest_is("vmlinuz");
	touch("vmlinuz-6.1.0-9-amd64", 0644);
	touch("vmlinuz-6.1.0-18-amd64", 0644);
	newest_is("vmlinuz-6.1.0-18-amd64");
	touch("vmlinuz-6.10.2", 0644);
	newest_is("vmlinuz-6.10.2");
	touch("vmlinuz-7.0.0.old", 0644);
	touch("vmlinuz-7.0.0~", 0644);
	touch("vmlinuzz-9", 0644);
	touch("initrd.img-8.0.0", 0644);
	snprintf(path, sizeof(path), "%s/vmlinuz-8.0.0", dir);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/vmlinuz-8.1.0", dir);
	assert_int_equal(symlink("gone", path), 0);
	newest_is("vmlinuz-6.10.2");
}

static void config_no_kernel_is_clear(void **s)
{
	char *path = NULL, want[300];

	(void)s;
	assert_int_equal(config_newest_kernel("/nonexistent", &path, &err), -ENOENT);
	assert_string_equal(err.text, "no kernel given, and no /nonexistent/vmlinuz* to take: give "
				      "--kernel FILE");
	assert_null(path);
	/* Root may read everything: what is left is that of other users. */
	touch("vmlinuz-6.1.0", 0);
	if (!geteuid() && (setegid(65534) || seteuid(65534)))
		fail();
	assert_int_equal(chmod("/nonexistent", 0), -1);
	if (config_newest_kernel(dir, &path, &err) == -EACCES) {
		snprintf(want, sizeof(want),
			 "no kernel given, and %s/vmlinuz-6.1.0 may not be read by this user: run "
			 "as root or give --kernel FILE",
			 dir);
		assert_string_equal(err.text, want);
	} else {
		/* mkdtemp's 0700 hides the directory itself. */
		assert_int_equal(err.code, -ENOENT);
	}
	assert_int_equal(seteuid(getuid()), 0);
	assert_int_equal(setegid(getgid()), 0);
}

/* ------------------------------------------------------------- what the commands print */

static void boot_help_fits_80_columns_and_lists_all(void **s)
{
	static const char *const names[] = {
		"--kernel",   "--initrd",    "--rootfs",  "--disk",    "--cmdline",
		"--cpus",     "--memory",    "--console", "--serial",  "--no-default-cmdline",
		"--timeout",  "--transport", "--modules", "--verbose", "--no-reboot",
		"--timeline", "--help",      "Examples:"};
	char *text = NULL;
	size_t size = 0, column = 0;
	FILE *f = open_memstream(&text, &size);

	(void)s;
	cmd_boot_help(f);
	fclose(f);
	for (size_t i = 0; i < size; i++) {
		column = text[i] == '\n' ? 0 : column + 1;
		assert_true(column <= 80);
		assert_true(text[i] == '\n' || (text[i] >= ' ' && text[i] <= '~'));
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_non_null(strstr(text, names[i]));
	assert_null(strstr(text, "software-kvm"));
	free(text);
}

static void boot_help_wins_over_what_follows(void **s)
{
	(void)s;
	assert_int_equal(BOOT("--cpus", "2", "--help", "--nonsense"), OPTS_STOP);
	assert_int_equal(BOOT("-h"), OPTS_STOP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(config_defaults, done),
		cmocka_unit_test_teardown(config_takes_every_option, done),
		cmocka_unit_test_teardown(config_root_is_the_first_disk, done),
		cmocka_unit_test_teardown(config_disk_errors, done),
		cmocka_unit_test(config_queue_size_is_a_power_of_two_in_range),
		cmocka_unit_test_teardown(config_check_knows_the_least_queue_size_of_each_device,
					  done),
		cmocka_unit_test_teardown(config_ids_are_of_one_device_each, done),
		cmocka_unit_test_teardown(config_too_many_disks, done),
		cmocka_unit_test_teardown(config_numbers_out_of_range, done),
		cmocka_unit_test_teardown(config_memory_is_rounded_up, done),
		cmocka_unit_test(config_size_grammar),
		cmocka_unit_test(config_size_text_is_what_the_user_writes),
		cmocka_unit_test_teardown(config_char_spellings, done),
		cmocka_unit_test_teardown(config_console_and_serial_together, done),
		cmocka_unit_test(config_string_replaces),
		cmocka_unit_test_setup_teardown(config_newest_kernel_by_version, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(config_no_kernel_is_clear, make_dir, remove_dir),
		cmocka_unit_test(boot_help_fits_80_columns_and_lists_all),
		cmocka_unit_test_teardown(boot_help_wins_over_what_follows, done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
