/* SPDX-License-Identifier: Apache-2.0 */
/* The whole initramfs, from module directories made up here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/unit/cpio_parse.h"

static struct err err;
static char dir[64];

static void write_file(const char *name, const char *text)
{
	char path[200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int setup(void **state)
{
	char path[100];

	(void)state;
	strcpy(dir, "/tmp/test_initramfs-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/k", dir);
	mkdir(path, 0700);
	strcat(path, "/fs");
	mkdir(path, 0700);
	write_file("modules.dep", "k/virtio_pci.ko: k/ring.ko\n"
				  "k/virtio_mmio.ko: k/ring.ko\n"
				  "k/virtio_blk.ko: k/ring.ko\n"
				  "k/virtio-rng.ko: k/ring.ko\n"
				  "k/pvpanic-mmio.ko: k/pvpanic.ko\n"
				  "k/pvpanic.ko:\n"
				  "k/ring.ko:\n"
				  "k/fs/btrfs.ko: k/lib.ko\n"
				  "k/fs/xfs.ko: k/lib.ko\n"
				  "k/lib.ko:\n");
	write_file("modules.builtin", "k/fs/ext4.ko\n");
	write_file("k/virtio_pci.ko", "pci");
	write_file("k/virtio_mmio.ko", "mmio");
	write_file("k/virtio_blk.ko", "blk");
	write_file("k/virtio-rng.ko", "rng");
	write_file("k/ring.ko", "ring");
	write_file("k/pvpanic-mmio.ko", "mmio");
	write_file("k/pvpanic.ko", "common");
	write_file("k/lib.ko", "lib");
	write_file("k/fs/btrfs.ko", "btrfs");
	write_file("k/fs/xfs.ko", "");
	return 0;
}

static int teardown(void **state)
{
	char cmd[100];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static bool entry(const struct cpio *c, const char *name, struct cpio_entry *ret)
{
	size_t at = 0;

	while (cpio_next(c, &at, ret))
		if (!strcmp(ret->name, name))
			return true;
	return false;
}

static char *list(const struct cpio *c)
{
	struct cpio_entry e;

	assert_true(entry(c, "modules.list", &e));
	return strndup((const char *)e.data, e.len);
}

/* Every directory stands before what is in it, no name twice, and the trailer ends it. */
static void well_formed(const struct cpio *c)
{
	struct cpio_entry e, p;
	size_t at = 0, n;
	char up[300];
	bool end = false;

	while (cpio_next(c, &at, &e)) {
		end = !strcmp(e.name, "TRAILER!!!");
		n = 0;
		for (size_t all = 0; cpio_next(c, &all, &p);)
			n += !strcmp(p.name, e.name);
		assert_int_equal(n, 1);
		if (!strchr(e.name, '/'))
			continue;
		snprintf(up, sizeof(up), "%s", e.name);
		*strrchr(up, '/') = 0;
		assert_true(entry(c, up, &p));
		assert_true(S_ISDIR(p.mode));
		assert_true(p.name < e.name);
	}
	assert_true(end);
	assert_int_equal(at, c->len);
}

static void without_modules_it_is_init_and_console(void **state)
{
	const struct initramfs_args a = {.root = true};
	struct cpio c = {0};
	struct cpio_entry e;

	(void)state;
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	well_formed(&c);
	assert_true(entry(&c, "init", &e));
	assert_int_equal(e.mode, S_IFREG | 0755);
	assert_memory_equal(e.data, "\177ELF", 4);
	assert_true(entry(&c, "dev/console", &e));
	assert_int_equal(e.mode, S_IFCHR | 0600);
	assert_int_equal(e.rmajor, 5);
	assert_int_equal(e.rminor, 1);
	assert_true(entry(&c, "modules.list", &e));
	assert_int_equal(e.len, 0);
	cpio_fini(&c);
}

/* It is unpacked at every boot. */
static void init_is_small(void **state)
{
	const struct initramfs_args a = {0};
	struct cpio c = {0};
	struct cpio_entry e;

	(void)state;
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	assert_true(entry(&c, "init", &e));
	assert_true(e.len < 64 << 10);
	cpio_fini(&c);
}

static void known_root_takes_its_modules_alone(void **state)
{
	const struct initramfs_args a = {.modules = dir, .root = true, .rootfs = "btrfs"};
	struct cpio c = {0};
	struct cpio_entry e;
	char *text;

	(void)state;
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	well_formed(&c);
	text = list(&c);
	assert_string_equal(text, "/lib/modules/k/ring.ko\n"
				  "/lib/modules/k/virtio_pci.ko\n"
				  "/lib/modules/k/pvpanic.ko\n"
				  "/lib/modules/k/pvpanic-mmio.ko\n"
				  "/lib/modules/k/virtio-rng.ko\n"
				  "/lib/modules/k/virtio_blk.ko\n"
				  "@btrfs\n"
				  "/lib/modules/k/lib.ko\n"
				  "/lib/modules/k/fs/btrfs.ko\n");
	free(text);
	assert_true(entry(&c, "lib/modules/k/fs/btrfs.ko", &e));
	assert_int_equal(e.len, 5);
	assert_memory_equal(e.data, "btrfs", 5);
	assert_false(entry(&c, "lib/modules/k/virtio_mmio.ko", &e));
	assert_false(entry(&c, "lib/modules/k/fs/xfs.ko", &e));
	cpio_fini(&c);
}

static void unknown_root_takes_all_that_exist(void **state)
{
	const struct initramfs_args a = {.modules = dir, .root = true};
	struct cpio c = {0};
	struct cpio_entry e;
	char *text;

	(void)state;
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	well_formed(&c);
	text = list(&c);
	assert_non_null(strstr(text, "@btrfs\n/lib/modules/k/lib.ko\n/lib/modules/k/fs/btrfs.ko\n"
				     "@xfs\n/lib/modules/k/lib.ko\n/lib/modules/k/fs/xfs.ko\n"));
	assert_null(strstr(text, "ext4"));
	free(text);
	assert_true(entry(&c, "lib/modules/k/fs/xfs.ko", &e));
	assert_int_equal(e.len, 0);
	cpio_fini(&c);
}

static void a_root_without_its_modules_is_refused(void **state)
{
	struct initramfs_args a = {.modules = dir, .rootfs = "virtiofs", .share = true};
	struct cpio c = {0};

	(void)state;
	assert_int_equal(initramfs_build(&c, &a, &err), -ENOENT);
	assert_non_null(strstr(err.text, "the kernel has no virtiofs, neither"));
	a.rootfs = NULL; /* for a share that is not the root it may still come from there */
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	cpio_fini(&c);
	a.overlay = true;
	assert_int_equal(initramfs_build(&c, &a, &err), -ENOENT);
	assert_non_null(strstr(err.text, "the kernel has no overlay, neither"));
}

static void shares_networks_and_overlays_take_their_modules(void **state)
{
	const struct initramfs_args a = {
		.modules = dir,
		.rootfs = "virtiofs",
		.share = true,
		.overlay = true,
		.net = true,
		.vsock = true,
	};
	struct cpio c = {0};
	char *text;

	(void)state;
	write_file("modules.dep", "k/virtio_pci.ko:\nk/fuse.ko:\nk/virtiofs.ko: k/fuse.ko\n"
				  "k/overlay.ko:\nk/virtio_net.ko:\nk/xfs.ko:\n"
				  "k/vmw_vsock_virtio_transport.ko:\n");
	write_file("k/fuse.ko", "");
	write_file("k/virtiofs.ko", "");
	write_file("k/overlay.ko", "");
	write_file("k/virtio_net.ko", "");
	write_file("k/vmw_vsock_virtio_transport.ko", "");
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	well_formed(&c);
	text = list(&c);
	assert_string_equal(text, "/lib/modules/k/virtio_pci.ko\n"
				  "/lib/modules/k/fuse.ko\n"
				  "/lib/modules/k/virtiofs.ko\n"
				  "/lib/modules/k/overlay.ko\n"
				  "/lib/modules/k/virtio_net.ko\n"
				  "/lib/modules/k/vmw_vsock_virtio_transport.ko\n");
	free(text);
	cpio_fini(&c);
}

static void mmio_takes_the_other_transport(void **state)
{
	const struct initramfs_args a = {.modules = dir, .mmio = true};
	struct cpio c = {0};
	char *text;

	(void)state;
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	well_formed(&c);
	text = list(&c);
	assert_string_equal(text, "/lib/modules/k/ring.ko\n"
				  "/lib/modules/k/virtio_mmio.ko\n"
				  "/lib/modules/k/pvpanic.ko\n"
				  "/lib/modules/k/pvpanic-mmio.ko\n"
				  "/lib/modules/k/virtio-rng.ko\n");
	free(text);
	cpio_fini(&c);
}

static void file_system_built_in_needs_nothing(void **state)
{
	const struct initramfs_args a = {.modules = dir, .root = true, .rootfs = "ext4"};
	struct cpio c = {0};
	char *text;

	(void)state;
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	text = list(&c);
	assert_null(strchr(text, '@'));
	free(text);
	cpio_fini(&c);
}

static void what_the_kernel_lacks_is_named(void **state)
{
	const struct initramfs_args a = {.modules = dir, .root = true, .rootfs = "erofs"};
	struct cpio c = {0};

	(void)state;
	assert_int_equal(initramfs_build(&c, &a, &err), -ENOENT);
	assert_string_equal(err.text,
			    "initramfs: the kernel has no erofs, neither as a module nor built in");
	assert_int_equal(initramfs_build(&c, &a, NULL), -ENOENT);
	assert_null(c.data);
}

static void missing_directory_is_named(void **state)
{
	const struct initramfs_args a = {.modules = "/nonexistent"};
	struct cpio c = {0};

	(void)state;
	assert_int_equal(initramfs_build(&c, &a, &err), -ENOENT);
	assert_string_equal(err.text, "initramfs: open /nonexistent: No such file or directory");
}

/* Builds with this in place of the virtio_blk module. */
static int with_odd_module(int (*make)(const char *path))
{
	const struct initramfs_args a = {.modules = dir, .root = true, .rootfs = "ext4"};
	struct cpio c = {0};
	char path[100];

	snprintf(path, sizeof(path), "%s/k/virtio_blk.ko", dir);
	unlink(path);
	if (make)
		assert_int_equal(make(path), 0);
	return initramfs_build(&c, &a, &err);
}

static int make_fifo(const char *path)
{
	return mkfifo(path, 0600);
}

static int make_large(const char *path)
{
	FILE *f = fopen(path, "w");
	int r = f ? ftruncate(fileno(f), (64 << 20) + 1) : -1;

	if (f)
		fclose(f);
	return r;
}

static void module_that_is_gone_is_named(void **state)
{
	(void)state;
	assert_int_equal(with_odd_module(NULL), -ENOENT);
	assert_non_null(strstr(err.text, "virtio_blk.ko: No such file"));
}

static void module_that_is_a_fifo_is_refused(void **state)
{
	int watch = inotify_init1(IN_NONBLOCK);
	char path[100], events[4096];

	(void)state;
	assert_int_equal(with_odd_module(make_fifo), -EINVAL);
	assert_non_null(strstr(err.text, "virtio_blk.ko: not a regular file"));
	/* Nor is it opened: that alone can do something. */
	snprintf(path, sizeof(path), "%s/k/virtio_blk.ko", dir);
	assert_true(inotify_add_watch(watch, path, IN_OPEN) >= 0);
	assert_int_equal(initramfs_build(&(struct cpio){0},
					 &(struct initramfs_args){.modules = dir, .root = true},
					 &err),
			 -EINVAL);
	assert_int_equal(read(watch, events, sizeof(events)), -1);
	close(watch);
}

static int make_device(const char *path)
{
	return mknod(path, S_IFCHR | 0600, makedev(1, 5)) ? symlink("/dev/zero", path) : 0;
}

static void module_that_is_a_device_is_refused(void **state)
{
	int r;

	(void)state;
	r = with_odd_module(make_device);
	assert_true(r == -EINVAL || r == -EXDEV); /* who may make no device node made a link */
}

static int link_out(const char *path)
{
	return symlink("/etc/passwd", path);
}

static int link_out_by_dots(const char *path)
{
	return symlink("../../../../../../../../etc/passwd", path);
}

static int link_in(const char *path)
{
	return symlink("../k/fs/../virtio_mmio.ko", path);
}

static void link_out_of_the_directory_is_refused(void **state)
{
	(void)state;
	assert_int_equal(with_odd_module(link_out), -EXDEV);
	assert_non_null(
		strstr(err.text, "virtio_blk.ko: a symbolic link leads out of the directory"));
	assert_int_equal(with_odd_module(link_out_by_dots), -EXDEV);
}

static void directory_that_is_a_link_out_is_refused(void **state)
{
	const struct initramfs_args a = {.modules = dir, .root = true, .rootfs = "btrfs"};
	struct cpio c = {0};
	char from[100], to[100];

	(void)state;
	snprintf(from, sizeof(from), "%s/k/fs", dir);
	snprintf(to, sizeof(to), "%s-fs", dir);
	assert_int_equal(rename(from, to) | symlink(to, from), 0);
	assert_int_equal(initramfs_build(&c, &a, &err), -EXDEV);
	assert_int_equal(unlink(from) | rename(to, from), 0);
}

static void link_inside_the_directory_works(void **state)
{
	const struct initramfs_args a = {.modules = dir, .root = true, .rootfs = "ext4"};
	struct cpio c = {0};
	struct cpio_entry e;
	char path[100];

	(void)state;
	snprintf(path, sizeof(path), "%s/k/virtio_blk.ko", dir);
	assert_int_equal(unlink(path) | link_in(path), 0);
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	assert_true(entry(&c, "lib/modules/k/virtio_blk.ko", &e));
	assert_memory_equal(e.data, "mmio", 4);
	cpio_fini(&c);
}

static void directory_may_itself_be_a_link(void **state)
{
	char path[100];
	const struct initramfs_args a = {.modules = path, .root = true, .rootfs = "btrfs"};
	struct cpio c = {0};

	(void)state;
	snprintf(path, sizeof(path), "%s-link", dir);
	assert_int_equal(symlink(dir, path), 0);
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	unlink(path);
	cpio_fini(&c);
}

/* As on a kernel without it: this program's syscall() stands in front of libc's. */
static bool no_openat2;

long syscall(long n, ...)
{
	static long (*real)(long, ...);
	va_list ap;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "syscall");
	if (n == SYS_openat2 && no_openat2) {
		errno = ENOSYS;
		return -1;
	}
	va_start(ap, n);
	long a = va_arg(ap, long), b = va_arg(ap, long), c = va_arg(ap, long), d = va_arg(ap, long),
	     e = va_arg(ap, long), f = va_arg(ap, long);
	va_end(ap);
	return real(n, a, b, c, d, e, f);
}

static void without_openat2_no_link_is_followed(void **state)
{
	const struct initramfs_args a = {.modules = dir, .root = true, .rootfs = "btrfs"};
	struct cpio c = {0};
	char from[100];

	(void)state;
	no_openat2 = true;
	assert_int_equal(initramfs_build(&c, &a, &err), 0);
	well_formed(&c);
	cpio_fini(&c);
	assert_int_equal(with_odd_module(link_in), -ELOOP);
	assert_non_null(strstr(err.text, "virtio_blk.ko: a symbolic link"));
	assert_int_equal(with_odd_module(link_out), -ELOOP);
	assert_int_equal(with_odd_module(make_fifo), -EINVAL);
	assert_int_equal(with_odd_module(NULL), -ENOENT);
	snprintf(from, sizeof(from), "%s/l", dir);
	assert_int_equal(symlink("k", from), 0);
	write_file("modules.dep", "l/virtio_pci.ko:\n");
	assert_int_equal(initramfs_build(&c, &(struct initramfs_args){.modules = dir}, &err),
			 -ENOTDIR);
	no_openat2 = false;
}

static void module_too_large_is_refused(void **state)
{
	(void)state;
	assert_int_equal(with_odd_module(make_large), -EFBIG);
	assert_non_null(strstr(err.text, "larger than 64 MiB"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(without_modules_it_is_init_and_console, setup,
						teardown),
		cmocka_unit_test_setup_teardown(init_is_small, setup, teardown),
		cmocka_unit_test_setup_teardown(known_root_takes_its_modules_alone, setup,
						teardown),
		cmocka_unit_test_setup_teardown(unknown_root_takes_all_that_exist, setup, teardown),
		cmocka_unit_test_setup_teardown(a_root_without_its_modules_is_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(shares_networks_and_overlays_take_their_modules,
						setup, teardown),
		cmocka_unit_test_setup_teardown(mmio_takes_the_other_transport, setup, teardown),
		cmocka_unit_test_setup_teardown(file_system_built_in_needs_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_the_kernel_lacks_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(missing_directory_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(module_that_is_gone_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(module_that_is_a_fifo_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(module_that_is_a_device_is_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(link_out_of_the_directory_is_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(directory_that_is_a_link_out_is_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(link_inside_the_directory_works, setup, teardown),
		cmocka_unit_test_setup_teardown(directory_may_itself_be_a_link, setup, teardown),
		cmocka_unit_test_setup_teardown(without_openat2_no_link_is_followed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(module_too_large_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
