# SPDX-License-Identifier: Apache-2.0
"""Stock and lean kernels of every format reach user space, over both transports."""
import os

from tests.lib import vm


def look():
    # Quotes do not survive the kernel's command line: awk gets by without them.
    return vm.script("echo CPUS=$(nproc); grep MemTotal /proc/meminfo; cat /proc/mounts; "
                     "cat /proc/version; ls -l /sys/bus/virtio/devices; "
                     "grep -E 'siblings|cpu cores|physical id' /proc/cpuinfo | sort | uniq -c; "
                     "poweroff -f")


class Kernels(vm.TestCase):
    def check(self, kernel, *args, cpus=1, mib=512, root="ext4", via="pci0000"):
        r = self.boot("--rootfs", self.image, "--cpus", cpus, "--memory", f"{mib}M",
                      "--cmdline", look(), *args, kernel=kernel)
        self.assertEqual(r.status, 0, r)
        self.assertIn(f"CPUS={cpus}", r.out, r)
        self.assertRegex(r.out, rf"/dev/(root|vda) / {root} ", r)
        self.assertIn(via, r.out, r)
        total = int(r.out.split("MemTotal:")[1].split()[0]) // 1024
        self.assertTrue(mib * 0.75 - 40 <= total <= mib, f"{total} MiB of {mib}\n{r}")
        return r

    def setUp(self):
        super().setUp()
        self.image = self.rootfs()

    def test_debian_bzimage_boots_with_modules_over_pci(self):
        kernel, modules = vm.debian()
        self.check(kernel, "--modules", modules)

    def test_debian_bzimage_boots_with_modules_over_mmio(self):
        kernel, modules = vm.debian()
        self.check(kernel, "--modules", modules, "--transport", "mmio", cpus=2, via="LNRO0005")

    def test_debian_with_8_cpus_and_5_gib(self):
        kernel, modules = vm.debian()
        r = self.check(kernel, "--modules", modules, cpus=8, mib=5120)
        self.assertRegex(r.out, r"8 siblings\s*: 8")
        self.assertRegex(r.out, r"8 cpu cores\s*: 8")
        self.assertRegex(r.out, r"8 physical id\s*: 0")

    def test_lean_vmlinux_with_pvh_note(self):
        self.check(vm.lean("vmlinux"))

    def test_lean_vmlinux_without_note(self):
        self.check(vm.lean("vmlinux.nopvh"), cpus=2)

    def test_lean_vmlinux_gzip(self):
        self.check(vm.lean("vmlinux.gz"))

    def test_lean_bzimage_128_mib(self):
        self.check(vm.lean("bzImage"), mib=128)

    def test_lean_64_mib(self):
        self.check(vm.lean(), mib=64)

    def test_lean_mmio_2_cpus(self):
        self.check(vm.lean(), "--transport", "mmio", cpus=2, via="LNRO0005")

    def test_lean_mmio_8_cpus_5_gib(self):
        self.check(vm.lean(), "--transport", "mmio", cpus=8, mib=5120, via="LNRO0005")

    def test_lean_memory_beyond_the_hole(self):
        self.check(vm.lean(), mib=3584)

    def test_kernel_without_kvm_guest_support_keeps_time(self):
        """No kvmclock: the TSC is calibrated, and the CMOS gives the date."""
        r = self.boot("--rootfs", self.image, "--cmdline",
                      vm.script("date +YEAR=%Y; cat /sys/devices/system/clocksource/clocksource0/"
                                "current_clocksource; dmesg | grep -i tsc; sleep 1; poweroff -f"),
                      kernel=f"{vm.kernels('lean-bare')}/bzImage")
        self.assertEqual(r.status, 0, r)
        self.assertRegex(r.out, r"YEAR=20[2-9]\d", r)
        self.assertRegex(r.out, r"(?m)^tsc(-early)?\r?$", r)

    def test_32_cpus_come_up(self):
        r = self.boot("--rootfs", self.image, "--cpus", 32, "--cmdline", look())
        self.assertEqual(r.status, 0, r)
        self.assertIn("CPUS=32", r.out, r)


class Roots(vm.TestCase):
    def test_each_file_system_is_found_by_probing(self):
        for fs in ("ext4", "xfs", "btrfs", "erofs", "squashfs"):
            with self.subTest(fs=fs):
                image = self.rootfs("--type", fs, name=f"{fs}.img")
                args = ["--rootfs", image]
                kernel, modules = vm.debian()
                r = self.boot(*args, "--modules", modules, "--cmdline", look(), kernel=kernel)
                self.assertEqual(r.status, 0, r)
                self.assertRegex(r.out, rf"/dev/(root|vda) / {fs} ", r)

    def test_roots_own_init_runs(self):
        init = self.path("init")
        with open(init, "w") as f:
            f.write("#!/bin/sh\nmount -t proc p /proc 2>/dev/null\necho OWN-INIT $$\npoweroff -f\n")
        os.chmod(init, 0o755)
        image = self.rootfs("--init", init)
        r = self.boot("--rootfs", image)
        self.assertEqual(r.status, 0, r)
        self.assertIn("OWN-INIT 1", r.out, r)

    def test_without_init_a_shell_reads_standard_input(self):
        r = self.boot("--rootfs", self.rootfs(), stdin=b"echo $((6*7))-shell\nexit\n")
        self.assertEqual(r.status, 0, r)
        self.assertIn("42-shell", r.out, r)

    def test_user_initrd_is_used_alone(self):
        """An initrd of the user's: /init in it runs, mvm adds nothing."""
        import subprocess
        tree = self.path("tree")
        os.makedirs(f"{tree}/bin")
        subprocess.run(["cp", "/bin/busybox", f"{tree}/bin/"], check=True)
        with open(f"{tree}/init", "w") as f:
            f.write("#!/bin/busybox sh\necho USER-INITRD\nread x\necho GOT-$x\n"
                    "/bin/busybox poweroff -f\n")
        os.chmod(f"{tree}/init", 0o755)
        os.symlink("busybox", f"{tree}/bin/sh")
        initrd = self.path("initrd")
        subprocess.run(f"cd {tree} && mkdir -p dev && mknod dev/console c 5 1 && "
                       f"find . | cpio -o -H newc --quiet | gzip > {initrd}", shell=True, check=True)
        r = self.boot("--initrd", initrd, stdin=b"early\n")
        self.assertEqual(r.status, 0, r)
        self.assertIn("USER-INITRD", r.out, r)
        self.assertIn("GOT-early", r.out, r)

    def test_no_root_says_what_to_give(self):
        image = self.path("blank.img")
        with open(image, "wb") as f:
            f.truncate(1 << 20)
        r = self.boot("--rootfs", image)
        self.assertEqual(r.status, 125, r)
        self.assertRegex(r.out, r"guest init: no ext4.*--cmdline root=DEVICE; there are vda\)", r)
        self.assertIn(f"mvm: --rootfs {image}: mvm's init could not reach the root: its line on the guest's console",
                      r.err, r)
        r = self.boot("--rootfs", image, "--console", "null")
        self.assertIn("could not reach the root: --console tty shows its line that says why", r.err, r)

    def test_init_that_does_not_run_is_told_apart(self):
        r = self.boot("--rootfs", self.rootfs(), "--cmdline", "init=/nope")
        self.assertEqual(r.status, 125, r)
        self.assertIn("guest init: cannot run /nope: No such file", r.out, r)
        self.assertIn("the root has no init that runs: ", r.err, r)

    def test_read_only_root_that_was_not_unmounted(self):
        image = self.rootfs()
        r = self.boot("--rootfs", image, "--no-reboot", "--cmdline",
                      vm.script("echo 1 > /mark; sync; reboot -f"))
        self.assertEqual(r.status, 0, r)
        r = self.boot("--rootfs", f"{image},readonly=on", "--cmdline",
                      vm.script("cat /mark; cat /proc/mounts; poweroff -f"))
        self.assertEqual(r.status, 0, r)
        self.assertIn("guest init: the root /dev/vda was not cleanly unmounted", r.out, r)
        self.assertRegex(r.out, r"/dev/(root|vda) / ext4 ro,.*(noload|norecovery)", r)

    def test_modules_are_found_beside_the_kernel(self):
        kernel, _ = vm.debian()
        r = self.boot("--rootfs", self.rootfs(), "--cmdline", look(), kernel=kernel)
        self.assertEqual((r.status, r.err), (0, ""), r)

    def test_kernel_whose_modules_are_not_there_says_so_at_the_end(self):
        kernel = self.path("vmlinuz")
        with open(vm.debian()[0], "rb") as f:
            data = f.read()
        # The host may run the same version: its header names one that nobody has.
        head = data[:0x8000].replace(b"-cloud-", b"-clone-")
        with open(kernel, "wb") as f:
            f.write(head + data[0x8000:])
        r = self.boot("--rootfs", self.rootfs(), kernel=kernel)
        self.assertEqual(r.status, 125, r)
        self.assertEqual(r.err.count("\n"), 1, r)
        self.assertIn("could not reach the root", r.err)
        self.assertRegex(r.err, r"no modules for this kernel \(/lib/modules/.*--modules DIR")
