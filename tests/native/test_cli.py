# SPDX-License-Identifier: Apache-2.0
"""Bad input: one line that says what, which and why, status 125, and nothing left behind.

No guest runs; what comes after /dev/kvm is opened uses a software KVM too.
"""
import fcntl
import gzip
import os
import socket
import struct
import subprocess
import unittest

from tests.lib import vm

GUEST = f"{vm.BUILD}/payload/guest_end.elf"
OFD_SETLK = 37  # F_OFD_SETLK of <fcntl.h>; Python's module has no name for it


class Cli(vm.TestCase):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("files"))

    def file(self, name, data=b"", mode=0o644):
        path = os.path.join(self.dir, "files", name)
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, mode)
        return path

    def files(self):
        return sorted((d, sorted(names)) for d, _, names in os.walk(self.dir))

    def boot_args(self, *args, kernel=GUEST):
        return ["boot", *(["--kernel", kernel] if kernel else []), "--software-kvm", "--console", "off",
                "--timeout", "20", *map(str, args)]

    def refused(self, *args, says, kernel=GUEST, status=125):
        """@says: words that must all stand in the one line."""
        before = self.files()
        r = vm.mvm(*self.boot_args(*args, kernel=kernel), limit=60)
        self.check(r, says, status)
        self.assertEqual(self.files(), before)
        return r

    def check(self, r, says, status=125):
        self.assertEqual(r.status, status, r)
        self.assertEqual(r.err.count("\n"), 1, r)
        self.assertTrue(r.err.startswith("mvm: ") and r.err.endswith("\n"), r)
        self.assertEqual(r.out, "", r)
        for word in [says] if isinstance(says, str) else says:
            self.assertIn(word, r.err, r)


class Kernels(Cli):
    def bad(self, path, *says):
        self.refused(kernel=path, says=[path, *says])

    def elf(self, **change):
        """A copy of a guest's ELF header and program headers with fields changed."""
        with open(GUEST, "rb") as f:
            data = bytearray(f.read())
        for at, fmt, value in change.values():
            struct.pack_into(fmt, data, at, value)
        return bytes(data)

    def test_missing(self):
        self.bad(self.path("vmlinuz"), "No such file")

    def test_directory(self):
        self.bad(self.dir, "directory")

    def test_empty(self):
        self.bad(self.file("k"), "empty")

    def test_fifo(self):
        path = self.path("fifo")
        os.mkfifo(path)
        self.bad(path, "not a regular file")

    def test_truncated_elf(self):
        with open(GUEST, "rb") as f:
            head = f.read()
        self.bad(self.file("k", head[:40]), "truncated")
        self.bad(self.file("k", head[:100]), "truncated")
        self.bad(self.file("k", head[:2000]), "truncated")

    def test_truncated_bzimage(self):
        head = bytearray(4096)
        head[0x1f1] = 4
        head[0x200:0x202] = b"\xeb\x6a"  # the header reaches to 0x26c
        head[0x1fe:0x200] = b"\x55\xaa"
        head[0x202:0x206] = b"HdrS"
        struct.pack_into("<H", head, 0x206, 0x20f)
        struct.pack_into("<I", head, 0x1f4, 1 << 16)  # syssize: 1 MiB follows
        struct.pack_into("<H", head, 0x236, 1)        # 64-bit entry
        head[0x211] = 1
        self.bad(self.file("k", bytes(head)), "truncated")

    def test_arm64_elf(self):
        self.bad(self.file("k", self.elf(machine=(18, "<H", 183))), "arm64", "x86-64")

    def test_32_bit_elf(self):
        self.bad(self.file("k", self.elf(cls=(4, "B", 1), machine=(18, "<H", 3))), "32-bit")

    def test_arm64_image(self):
        self.bad(self.file("k", bytes(0x38) + b"ARM\x64" + bytes(4096)), "arm64")

    def test_program_for_user_space(self):
        self.bad("/bin/sh", "not a kernel")

    def test_text_file(self):
        self.bad(self.file("k", b"hello\n" * 1000), "not a Linux kernel")

    def test_damaged_gzip(self):
        packed = gzip.compress(self.elf())
        self.bad(self.file("k", packed[:len(packed) // 2]))
        self.bad(self.file("k", packed[:200] + b"\xff" * 50 + packed[250:]))

    def test_kernel_beyond_memory(self):
        with open(GUEST, "rb") as f:
            data = bytearray(f.read())
        phoff, = struct.unpack_from("<Q", data, 32)
        count, = struct.unpack_from("<H", data, 56)
        struct.pack_into("<Q", data, phoff + 56 * (count - 1) + 40, 1 << 30)  # memsz
        self.bad(self.file("k", bytes(data)), "memory")

    @unittest.skipIf(os.getuid(), "needs root, whose rights it takes away")
    def test_unreadable(self):
        path = self.file("k", self.elf(), 0o000)
        r = powerless("", *self.boot_args(kernel=path))
        self.check(r, [path, "Permission denied"])


class Initrds(Cli):
    def test_missing(self):
        self.refused("--initrd", self.path("i"), says=[self.path("i"), "No such file"])

    def test_directory(self):
        self.refused("--initrd", self.dir, says=[self.dir, "directory"])

    def test_empty(self):
        path = self.file("i")
        self.refused("--initrd", path, says=[path, "empty"])

    def test_fifo(self):
        path = self.path("fifo")
        os.mkfifo(path)
        self.refused("--initrd", path, says=["initrd", path, "not a regular file"])

    @unittest.skipIf(os.getuid(), "needs root, whose rights it takes away")
    def test_unreadable(self):
        path = self.file("i", b"x", 0o000)
        r = powerless("", *self.boot_args("--initrd", path))
        self.check(r, ["initrd", path, "Permission denied"])

    def test_that_linux_would_not_take_is_warned_of(self):
        path = self.file("i", b"hello\n")
        r = vm.mvm(*self.boot_args("--initrd", path, "--no-reboot", "--cmdline", "off"))
        self.check(r, ["initrd", path, "neither a cpio archive nor compressed"], 0)
        for good in (b"070701", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", bytes(512)):
            path = self.file("i", good + bytes(100))
            r = vm.mvm(*self.boot_args("--initrd", path, "--no-reboot", "--cmdline", "off"))
            self.assertEqual((r.status, r.err), (0, ""), r)

    def test_not_with_modules(self):
        path = self.file("i", b"070701")
        self.refused("--initrd", path, "--modules", self.dir, says=["--modules", self.dir, "--initrd"])

    def test_too_large_for_memory(self):
        path = self.file("i")
        os.truncate(path, 200 << 20)
        self.refused("--initrd", path, "--memory", "128M", says=["initrd", "200.0 MiB", "does not fit"])


class Options(Cli):
    def test_unknown_option_names_the_nearest(self):
        for wrong, right in (("--memroy", "--memory"), ("--kernal", "--kernel"),
                             ("--cpu", "--cpus"), ("--no-rebot", "--no-reboot")):
            with self.subTest(wrong):
                self.refused(wrong, "1", says=[wrong, "unknown", right])

    def test_unknown_option_near_nothing(self):
        self.refused("--xyzzy", says=["--xyzzy", "unknown"])

    def test_option_given_twice(self):
        self.refused("--cpus", "1", "--cpus", "2", says=["--cpus", "twice"])
        self.refused("--no-reboot", "--no-reboot", says=["--no-reboot", "twice"])

    def test_missing_value(self):
        self.refused("--memory", says=["--memory", "missing"])

    def test_value_for_a_flag(self):
        self.refused("--no-reboot=yes", says=["--no-reboot", "no value"])

    def test_stray_argument(self):
        self.refused("bzImage", says=["bzImage", "unexpected"])

    def test_cpus_out_of_range(self):
        for n in ("0", "33", "-1", "99999999999999999999", "two", ""):
            with self.subTest(n):
                self.refused("--cpus", n, says="--cpus")

    def test_memory_out_of_range(self):
        for size in ("0", "512", "63M", "2T", "99999999999999999999G"):
            with self.subTest(size):
                self.refused("--memory", size, says=["--memory", "out of range"])
        for size in ("lots", "12Q", "1.5G", "-1G"):
            with self.subTest(size):
                self.refused("--memory", size, says=["--memory", size])

    def test_numbers_are_whole(self):
        self.refused("--cpus", "2.5", says=["--cpus 2.5", "not a whole number"])
        self.refused("--memory", "1.5G", says=["--memory 1.5G", "whole number", "K, M, G or T"])

    def test_empty_command_line_is_one(self):
        self.refused("--cmdline", "", "--disk", "/nonexistent", says="--disk")

    def test_what_other_programs_call_it(self):
        for wrong, right in (("-m", "--memory"), ("--smp", "--cpus"), ("-append", "--cmdline"),
                             ("--drive", "--disk")):
            with self.subTest(wrong):
                self.refused(wrong, "1", says=[wrong, f"did you mean {right}?"])
        self.refused("--serial", "stdio", says=["--serial", "did you mean tty?"])
        self.refused("--serial", "none", says=["--serial", "did you mean off?"])

    def test_without_a_root(self):
        for args, says in (((), "--rootfs IMAGE"), (("--cmdline", "noroot=x"), "--initrd FILE"),
                           (("--disk", "d"), "--cmdline root=/dev/vda")):
            with self.subTest(args):
                self.check(vm.mvm("boot", "--kernel", GUEST, *args), ["nothing to run", says])

    def test_modules(self):
        root = self.file("root", bytes(4096))
        for path, says in ((self.path("m"), "No such file"), (root, "not a directory"),
                           (self.dir, "no modules.dep")):
            with self.subTest(says):
                self.check(vm.mvm("boot", "--kernel", GUEST, "--rootfs", root, "--modules", path),
                           [f"--modules {path}", says])

    def test_no_command(self):
        r = vm.mvm()
        self.assertEqual((r.status, r.out), (125, ""), r)
        self.assertRegex(r.err, r"^Usage: mvm COMMAND(.|\n)*mvm: no command given\n$")

    def test_help_that_cannot_be_printed(self):
        for args in (["boot", "--help"], ["doctor"], ["help"], ["version"]):
            with self.subTest(args), open("/dev/full", "w") as full:
                p = subprocess.run([vm.MVM, *args], stdout=full, stderr=subprocess.PIPE)
                self.assertEqual((p.returncode, p.stderr),
                                 (125, b"mvm: standard output: No space left on device\n"))

    def test_verbose_says_what_the_machine_is(self):
        disk = self.file("d", bytes(1 << 20))
        r = vm.mvm(*self.boot_args("-v", "--no-reboot", "--cmdline", "off", "--cpus", "2", "--memory", "128M",
                                   "--disk", f"{disk},readonly=on,queues=1"))
        for line in (f"kernel: {GUEST}, ELF, of unknown version", "initramfs: none",
                     "machine: 2 CPUs, 128M of memory, virtio over PCI",
                     f"--disk {disk}: 1048576 bytes, raw, read-only, through the page cache, "
                     "write-back, 1 queue", "console: off", "serial: off",
                     "rng offers: INDIRECT_DESC EVENT_IDX VERSION_1 RING_RESET"):
            self.assertIn(f"mvm: {line}\n", r.err)
        self.assertRegex(r.err, "mvm: command line: .*panic=-1 .*off\n")

    def test_virtio_features(self):
        option = "--virtio-features"
        for value, *says in (("disk0=-EVENT_INDEX", "EVENT_INDEX", "did you mean -EVENT_IDX?"),
                             ("disk0=EVENT_IDX", "only taken away"),
                             ("gpu0=-EDID", "gpu0: no device"),
                             ("disk0", "DEVICE=-FEATURE"),
                             ("rng=-VERSION_1", "VERSION_1"),
                             ("disk7=-FLUSH", "disk7", "this machine has none; it has rng")):
            with self.subTest(value):
                self.refused(option, value, says=[option, *says])
        disk = self.file("d", bytes(1 << 20))
        self.refused("--disk", f"{disk},queues=1", option, "disk0=-MQ",
                     says=[option, "disk0 does not offer MQ"])

    def test_unknown_transport(self):
        self.refused("--transport", "usb", says=["--transport", "usb", "pci"])

    def test_unknown_console(self):
        self.refused("--serial", "fiel=x", says=["--serial", "did you mean file"])

    def test_command_line_too_long(self):
        self.refused("--cmdline", "x" * 2100, says=["command line", "2047"])
        self.refused("--cmdline", "x" * 9000, says="command line")

    def test_command_line_with_control_characters(self):
        self.refused("--cmdline", "a\nb", says="--cmdline")

    def test_timeout_out_of_range(self):
        for n in ("-1", "1000001", "1h", "1.5"):
            with self.subTest(n):
                self.check(vm.mvm("boot", "--timeout", n), ["--timeout", n, "1000000"])

    def test_unknown_command_names_the_nearest(self):
        for wrong, says in (("bott", "did you mean boot?"), ("docter", "did you mean doctor?"),
                            ("xyzzy", "mvm help"), ("--kernel", "mvm boot --kernel")):
            with self.subTest(wrong):
                self.check(vm.mvm(wrong), [wrong, says])
        self.check(vm.mvm("help", "bott"), ["bott", "did you mean boot?"])
        self.check(vm.mvm("version", "now"), ["version", "now", "unexpected"])

    def test_help_and_version_succeed(self):
        for args in (["help"], ["--help"], ["help", "boot"], ["boot", "--help"], ["boot", "-h"],
                     ["help", "doctor"], ["doctor", "--help"], ["help", "help"],
                     ["help", "--help"], ["help", "version"], ["version", "--help"]):
            with self.subTest(args):
                r = vm.mvm(*args)
                self.assertEqual((r.status, r.err), (0, ""), r)
                self.assertTrue(r.out.startswith("Usage: mvm "), r)
                self.assertLessEqual(max(map(len, r.out.split("\n"))), 80, r)
                self.assertTrue(r.out.isascii(), r)
        for args in (["version"], ["--version"], ["-V"]):
            with self.subTest(args):
                r = vm.mvm(*args)
                self.assertEqual((r.status, r.err), (0, ""), r)
                self.assertRegex(r.out, r"^mvm \d+\.\d+\.\d+\n$")


class Disks(Cli):
    def image(self, name="d", size=1 << 20, mode=0o644):
        path = self.file(name, b"", mode)
        os.truncate(path, size)
        return path

    def test_missing(self):
        path = self.path("nothing.img")
        for option in ("--disk", "--rootfs"):
            r = self.refused(option, path, says="No such file")
            self.assertEqual(r.err, f"mvm: {option}: open {path}: No such file or directory\n")

    def test_directory(self):
        self.refused("--disk", self.dir, says=["--disk", self.dir, "directory"])

    def test_empty(self):
        path = self.image(size=0)
        self.refused("--disk", path, says=f"mvm: --disk: {path} is empty")

    def test_fifo(self):
        path = self.path("fifo")
        os.mkfifo(path)
        self.refused("--disk", path, says=["--disk", path, "FIFO"])

    def test_character_device(self):
        self.refused("--disk", "/dev/zero", says=["--disk", "/dev/zero", "character device"])

    def test_second_of_two_is_named(self):
        self.refused("--disk", self.image(), "--disk", self.path("x"), says=["--disk", "No such"])

    def locked(self, kind):
        path = self.image()
        f = open(path, "r+b")
        self.addCleanup(f.close)
        fcntl.fcntl(f, OFD_SETLK, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))
        return path

    def test_locked_by_a_writer(self):
        path = self.locked(fcntl.F_WRLCK)
        for how in ("", ",readonly=on"):
            self.refused("--disk", path + how, says=["--disk", path, "locked", str(os.getpid())])

    def test_locked_by_a_reader(self):
        path = self.locked(fcntl.F_RDLCK)
        self.refused("--disk", path, says=["--disk", path, "locked"])
        self.runs("--disk", f"{path},readonly=on")

    def test_same_image_twice(self):
        path = self.image()
        self.refused("--disk", path, "--disk", path, says=["--disk", path, "this machine"])
        self.runs("--disk", f"{path},readonly=on", "--disk", f"{path},readonly=on")

    def runs(self, *args, err=""):
        r = vm.mvm(*self.boot_args("--no-reboot", "--cmdline", "off", *args))
        self.assertEqual(r.status, 0, r)
        if err:
            self.assertEqual(r.err.count("\n"), 1, r)
        self.assertIn(err, r.err, r)
        return r

    def test_odd_size_is_warned_of_and_cut(self):
        path = self.image(size=(1 << 20) + 100)
        r = self.runs("--disk", path, err=f"mvm: --disk {path}: its size, 1048676 bytes, is not a multiple of 512")
        self.assertTrue(r.err.endswith("does not see the last 100 bytes\n"), r)
        self.assertEqual(os.path.getsize(path), (1 << 20) + 100)

    def test_below_one_sector(self):
        path = self.image(size=511)
        self.refused("--disk", path, says=["--disk", path, "512"])

    def test_image_of_another_format(self):
        for magic, name in ((b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk"), (b"vhdxfile", "vhdx"),
                            (bytes(64) + b"\x7f\x10\xda\xbe", "vdi")):
            with self.subTest(name):
                path = self.file("d", magic)
                os.truncate(path, 1 << 20)
                self.refused("--disk", path, says=["--disk", f"{path} is a {name} image", "qemu-img convert"])
                self.runs("--disk", f"{path},format=raw")
        self.refused("--disk", f"{path},format=qcow2", says=["format", "qcow2", "raw"])

    def test_image_that_a_guest_made_look_like_another_is_still_there_after_a_reboot(self):
        """What it is was decided before the guest first ran."""
        path = self.image()
        p = subprocess.Popen([vm.MVM, "boot", "--software-kvm", "--kernel", GUEST, "--console", "off",
                              "-v", "--cmdline", "reset", "--disk", path, "--timeout", "6"],
                             stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.stderr.close)
        for line in p.stderr:
            if "restarts" in line:
                break
        with open(path, "r+b") as f:
            f.write(b"QFI\xfb")
        err = p.stderr.read()
        self.assertEqual(p.wait(), 124, err)
        self.assertIn("restarts", err)

    def test_option_is_named_for_the_same_id_twice(self):
        a, b = self.image("a"), self.image("b")
        self.refused("--disk", f"{a},id=x", "--disk", f"{b},id=x",
                     says=[f"--disk {b}: id x is that of --disk {a} already"])

    def test_doubled_and_unknown_keys(self):
        path = self.image()
        self.refused("--disk", f"{path},ro", says=['"ro"', "did you mean readonly=on?"])
        self.refused("--disk", f"{path},foo=1", says=['unknown key "foo"', "readonly", "format"])
        self.refused("--disk", f"{path},cache=none", says=["cache", "direct=on"])
        self.refused("--rootfs", f"{path},redonly=on", says=[f"--rootfs {path}", "redonly", "readonly"])
        self.refused("--disk", f"{path},serial=a,serial=b", says=["serial", "twice"])
        self.refused("--disk", f"{path},redonly=on", says=["redonly", "readonly"])
        self.refused("--disk", f"{path},readonly=maybe", says=["readonly", "maybe"])
        self.refused("--disk", f"{path},queue_size=3", says=["queue_size", "power of two"])

    @unittest.skipIf(os.getuid(), "needs root, whose rights it takes away")
    def test_read_only_file(self):
        path = self.image(mode=0o444)
        r = powerless("", *self.boot_args("--disk", path))
        self.check(r, ["--disk", "no permission to write", path, "readonly=on"])

    @unittest.skipIf(os.getuid(), "needs root to mount")
    def test_read_only_file_system(self):
        os.mkdir(self.path("ro"))
        image = self.path("ro/d")
        r = in_namespace(f"mount -t tmpfs none {self.path('ro')} && truncate -s 1M {image} && "
                         f"mount -o remount,ro {self.path('ro')}",
                         *self.boot_args("--disk", image))
        self.check(r, ["--disk", image, "read-only", "readonly=on"])


class Outputs(Cli):
    def test_serial_file_in_no_directory(self):
        self.refused("--serial", "file=/nonexistent/x", says=["serial", "/nonexistent/x", "No such"])

    def test_serial_file_that_is_a_directory(self):
        self.refused("--serial", f"file={self.dir}", says=["serial", self.dir, "directory"])

    def test_serial_file_is_removed_when_a_later_thing_fails(self):
        path = self.path("serial.log")
        self.refused("--serial", f"file={path}", "--disk", "/nonexistent", says="--disk")
        self.assertFalse(os.path.exists(path))

    def test_serial_file_of_an_earlier_run_stays_as_it_is(self):
        for old in (b"", b"boot log\n"):
            path = self.file("serial.log", old)
            self.refused("--serial", f"file={path}", "--disk", "/nonexistent", says="--disk")
            with open(path, "rb") as f:
                self.assertEqual(f.read(), old)

    def test_link_to_what_is_not_there_yet(self):
        for n, option in enumerate(("--serial=file=", "--timeline=")):
            with self.subTest(option):
                link, path = self.path(f"link{n}"), self.path(f"files/made{n}")
                os.symlink(path, link)
                r = vm.mvm(*self.boot_args("--no-reboot", "--cmdline", "off", option + link))
                self.assertEqual((r.status, r.err), (0, ""), r)
                self.assertTrue(os.path.islink(link))
                self.assertTrue(os.path.isfile(path))
                os.unlink(path)
                os.rmdir(self.path("files"))
                self.refused(option + link, says=[link, "No such file"])
                os.mkdir(self.path("files"))

    def test_timeline_in_no_directory(self):
        self.refused("--timeline=/nonexistent/t", says=["timeline", "/nonexistent/t", "No such"])

    def test_timeline_that_is_a_directory(self):
        self.refused(f"--timeline={self.dir}", says=["timeline", self.dir, "directory"])

    @unittest.skipIf(os.getuid(), "needs root, whose rights it takes away")
    def test_timeline_that_may_not_be_written(self):
        path = self.file("t", b"old", 0o444)
        r = powerless("", *self.boot_args(f"--timeline={path}"))
        self.check(r, ["timeline", path, "Permission denied"])

    def test_timeline_is_not_left_empty_when_a_later_thing_fails(self):
        path = self.path("t.json")
        for args, says in ((["--disk", "/nonexistent"], "--disk"),
                           (["--serial", "file=/nonexistent/x"], "serial"),
                           (["--cmdline", "x" * 2100], "command line")):
            with self.subTest(says):
                self.refused(f"--timeline={path}", *args, says=says)

    def test_timeline_of_an_earlier_run_stays_as_it_is(self):
        path = self.file("t.json", b"{}")
        self.refused(f"--timeline={path}", "--disk", "/nonexistent", says="--disk")
        with open(path, "rb") as f:
            self.assertEqual(f.read(), b"{}")

    def test_socket_in_no_directory(self):
        self.refused("--serial", "socket=/nonexistent/x", says=["serial", "/nonexistent/x", "No such"])

    def test_socket_path_too_long(self):
        self.refused("--serial", "socket=/" + "x" * 200, says=["serial", "201 bytes"])

    def test_socket_is_removed_when_a_later_thing_fails(self):
        path = self.path("s")
        r = vm.mvm(*self.boot_args("--serial", f"socket={path}", "--disk", "/nonexistent"))
        self.assertEqual(r.status, 125, r)
        self.assertRegex(r.err, rf"^mvm: serial listens at {path}\nmvm: --disk: .*No such file.*\n$", r)
        self.assertFalse(os.path.exists(path))

    def test_socket_that_somebody_uses(self):
        path = self.path("s")
        s = socket.socket(socket.AF_UNIX)
        self.addCleanup(s.close)
        s.bind(path)
        s.listen()
        self.refused("--serial", f"socket={path}", says=["serial", path])
        self.assertTrue(os.path.exists(path))


class Terminal(Cli):
    """What fails late has already seen the terminal raw; it comes back."""

    def check_pty(self, *args, says):
        t = vm.Terminal("boot", "--software-kvm", "--kernel", GUEST, "--console", "tty", *args)
        self.addCleanup(t.close)
        self.assertEqual(t.wait(60), 125, t.out)
        self.assertTrue(t.restored())
        self.assertEqual(t.out.count("\n"), 1, t.out)
        self.assertIn(says, t.out)

    def test_restored_after_a_bad_option(self):
        self.check_pty("--cpus", "99", says="--cpus 99")

    def test_restored_after_a_missing_disk(self):
        self.check_pty("--disk", "/nonexistent", says="--disk")

    def test_restored_after_a_long_command_line(self):
        self.check_pty("--cmdline", "x" * 2100, says="command line")

    def test_restored_after_a_serial_file_in_no_directory(self):
        self.check_pty("--serial", "file=/nonexistent/x", says="serial")

    def test_restored_after_a_timeline_in_no_directory(self):
        self.check_pty("--timeline=/nonexistent/x", says="timeline")

    def test_restored_after_a_bad_initrd(self):
        self.check_pty("--initrd", "/nonexistent", says="initrd")


def finish(argv):
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=60)
    return vm.Done(p.returncode, p.stdout.decode(), p.stderr.decode())


def in_namespace(setup, *args):
    """mvm in a mount namespace of its own, after a shell's set-up in it."""
    return finish(["unshare", "-m", "sh", "-ec", f'{setup}\nexec "$@"', "sh", vm.MVM, *args])


def powerless(setup, *args):
    """The same without the right to pass over the modes of files."""
    return finish(["unshare", "-m", "sh", "-ec", f'{setup}\nexec setpriv --bounding-set '
                   '-dac_override,-dac_read_search -- "$@"', "sh", vm.MVM, *args])
