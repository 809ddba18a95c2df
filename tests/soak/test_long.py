# SPDX-License-Identifier: Apache-2.0
"""Long loads: what only time and repetition bring out."""
import glob
import os
import re
import subprocess

from tests.lib import vm


class Reboots(vm.TestCase):
    ROUNDS = 60

    @staticmethod
    def threads(proc):
        names = []
        for tid in os.listdir(f"{proc}/task"):
            with open(f"{proc}/task/{tid}/comm") as f:
                names.append(f.read())
        return names

    def test_a_guest_that_reboots_again_and_again_leaks_nothing(self):
        """One process, many machines: descriptors, threads and memory come back each time."""
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.rootfs())
        self.addCleanup(t.close)
        proc = f"/proc/{t.proc.pid}"
        seen = []
        for i in range(self.ROUNDS):
            t.expect(vm.PROMPT)
            with open(f"{proc}/status") as f:
                anon = int(re.search(r"VmData:\s+(\d+)", f.read())[1])
            threads = self.threads(proc)
            workers = sum(name.startswith("worker") for name in threads)
            self.assertLessEqual(workers, 8)  # as many as there was work for
            seen.append((len(os.listdir(f"{proc}/fd")), len(threads) - workers, anon))
            t.send("reboot -f\n")
        t.expect(vm.PROMPT)
        t.send("poweroff -f\n")
        self.assertEqual(t.wait(), 0, t.out)
        self.assertEqual(seen[1][:2], seen[-1][:2], seen)
        self.assertLess(seen[-1][2] - seen[1][2], 4096, f"KiB of memory grew: {seen}")


class Boots(vm.TestCase):
    def test_a_hundred_boots_of_every_shape_reach_user_space(self):
        image = self.rootfs()
        for i in range(100):
            args = ["--transport", ("pci", "mmio")[i % 2], "--cpus", (1, 2, 8, 3)[i % 4],
                    "--memory", ("128M", "512M", "3584M")[i % 3]]
            r = self.boot("--rootfs", image, *args, "--cmdline",
                          vm.script("echo UP-$(nproc); poweroff -f"))
            self.assertEqual(r.status, 0, f"boot {i} {args}: {r}")
            self.assertIn(f"UP-{args[3]}", r.out, r)


class Disks(vm.TestCase):
    def test_ten_minutes_of_verified_writes(self):
        image = self.rootfs("--size", "160M", "--with", "fio")
        data = self.disk("data.img", 256)
        for transport in ("pci", "mmio"):
            r = self.boot("--rootfs", image, "--disk", f"path={data},direct=on,queues=4", "--cpus", 4,
                          "--memory", "1G", "--transport", transport, "--cmdline", vm.script(
                              "mount -t tmpfs t /tmp; cd /tmp; f=0; "
                              "while :; do "
                              "fio --name=v --filename=/dev/vdb --rw=randrw --bsrange=512-128k "
                              "--size=48M --offset_increment=64M --numjobs=4 --iodepth=32 "
                              "--ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --fsync=64 "
                              "--runtime=60 --group_reporting > out || { f=1; break; }; "
                              "[ $(cut -d. -f1 /proc/uptime) -gt 300 ] && break; done; "
                              "echo FIO=$f; tail -n 5 out; poweroff -f"), limit=1200, timeout=1150)
            self.assertEqual(r.status, 0, r)
            self.assertIn("FIO=0", r.out, r)


class SharedDirectories(vm.TestCase):
    def test_all_loads_give_what_they_give_on_the_host(self):
        """tests/lib/fs_load.py at length, with a guest's kernels, transports and cache modes."""
        cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "mvm")
        source = sorted(glob.glob(f"{cache}/kernels/source-*"))[-1]
        prog = f"python3 {vm.ROOT}/tests/lib/fs_load.py --long --source {source}"
        where = self.cache_dir()
        os.mkdir(f"{where}/here")
        want = subprocess.run(f"{prog} {where}/here", shell=True, check=True,
                              stdout=subprocess.PIPE).stdout.decode()
        self.assertNotIn("failed", want)
        kernel, modules = vm.debian()
        for i, (kernel, args, keys) in enumerate((
                (vm.lean(), (), "queues=1"),
                (kernel, ("--modules", modules, "--transport", "mmio"), "cache=always,queues=2"),
                (vm.lean(), ("--virtio-queue-sizes", "fs1=16"), "cache=never"))):
            there = f"{where}/there{i}"
            os.mkdir(there)
            r = self.boot("--rootfs", "/", "--fs", f"tag=work,dir={there},{keys}", "--memory", "2G",
                          "--cpus", 2, *args, "--cmdline", vm.script(
                              "export PATH=$PATH:/usr/sbin:/sbin:/usr/bin HOME=/root; "
                              f"mount -t virtiofs work /mnt && {prog} /mnt > /mnt/got 2>&1; "
                              "cat /mnt/got; poweroff -f"), kernel=kernel, limit=7200, timeout=7000)
            self.assertEqual(r.status, 0, r)
            with open(f"{there}/got") as f:
                self.assertEqual(f.read(), want, r)
            print(f"# shared directories, {keys}: as on the host", flush=True)  # for who waits for lines
