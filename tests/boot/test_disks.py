# SPDX-License-Identifier: Apache-2.0
"""Disks under real loads: fio verifies what it wrote, over both transports."""
import os
import re
import subprocess

from tests.lib import vm


class Disks(vm.TestCase):
    def fio(self, transport, opts, cpus=2, jobs=2):
        image = self.rootfs("--size", "128M", "--with", "fio")
        data = self.disk("data.img", 64)
        r = self.boot("--rootfs", image, "--disk", f"path={data},{opts}", "--transport", transport,
                      "--cpus", cpus, "--memory", "1G", "--cmdline", vm.script(
                          "mount -t tmpfs t /tmp; cd /tmp; "
                          "fio --name=v --filename=/dev/vdb --rw=randwrite --bsrange=4k-64k --size=16M "
                          f"--offset_increment=16M --numjobs={jobs} --iodepth=16 --ioengine=libaio "
                          "--direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=32 "
                          "--group_reporting > out; echo FIO=$?; tail -n 3 out; "
                          "blkdiscard /dev/vdb; sync; dd if=/dev/vdb bs=1M count=1 2>/dev/null | tr -d "
                          "'\\000' | wc -c; cat /sys/block/vdb/queue/write_cache; poweroff -f"),
                      limit=400, timeout=380)
        self.assertEqual(r.status, 0, r)
        self.assertIn("FIO=0", r.out, r)
        left = os.stat(data).st_blocks * 512
        self.assertLess(left, 1 << 20, "blkdiscard gave no space back to the host")
        return r, data

    def test_fio_verifies_over_pci_with_direct_io(self):
        self.fio("pci", "direct=on")

    def test_fio_verifies_over_mmio_through_the_page_cache(self):
        self.fio("mmio", "direct=off")

    def test_fio_verifies_with_four_queues_and_write_through(self):
        r, _ = self.fio("pci", "queues=4,cache=writethrough", cpus=4, jobs=4)
        self.assertIn("write through", r.out, r)

    def test_read_only_disk_is_read_only_in_the_guest(self):
        data = self.disk("ro.img", 16)
        r = self.boot("--rootfs", self.rootfs(), "--disk", f"path={data},readonly=on", "--cmdline",
                      vm.script("cat /sys/block/vdb/ro; dd if=/dev/zero of=/dev/vdb count=1; "
                                "echo DD=$?; poweroff -f"))
        self.assertEqual(r.status, 0, r)
        self.assertRegex(r.out, r"DD=1")

    def test_features_taken_away_are_not_negotiated(self):
        """Bits of the driver's set in sysfs, and what mvm says of both sides; the disk works all the same."""
        for transport in ("pci", "mmio"):
            with self.subTest(transport):
                r = self.boot("-v", "--rootfs", self.rootfs(), "--transport", transport,
                              "--virtio-features", "disk0=-EVENT_IDX,-INDIRECT_DESC,-WRITE_ZEROES",
                              "--virtio-features", "rng=-EVENT_IDX", "--cmdline",
                              vm.script("cat /sys/block/vda/device/features; poweroff -f"))
                self.assertEqual(r.status, 0, r)
                bits = re.search(r"\b[01]{64}\b", r.out)[0]
                self.assertEqual([bits[i] for i in (9, 14, 28, 29, 32)], list("10001"), r)
                self.assertRegex(r.err, r"disk0 offers: (?!.*EVENT_IDX).*FLUSH.*VERSION_1", r)
                self.assertRegex(r.err, r"disk0 negotiated: (?!.*INDIRECT_DESC).*FLUSH.*VERSION_1", r)
                self.assertRegex(r.err, r"rng offers: INDIRECT_DESC VERSION_1 RING_RESET", r)
                self.assertRegex(r.err, r"console offers: .*EVENT_IDX", r)

    def test_serial_and_order_of_disks(self):
        a, b = self.disk("a.img", 16), self.disk("b.img", 32)
        r = self.boot("--rootfs", self.rootfs(), "--disk", f"path={a},serial=ALPHA", "--disk",
                      f"{b},serial=BETA", "--cmdline",
                      vm.script("cat /sys/block/vdb/serial /sys/block/vdc/serial "
                                "/sys/block/vdb/size /sys/block/vdc/size; poweroff -f"))
        self.assertEqual(r.status, 0, r)
        self.assertRegex(r.out, r"ALPHA\s*BETA\s*32768\s+65536", r)

    def test_file_system_survives_and_is_clean(self):
        image = self.rootfs("--size", "64M")
        r = self.boot("--rootfs", image, "--cmdline", vm.script(
            "for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/f$i bs=64k count=16 2>/dev/null; done; "
            "md5sum /f* > /sums; sync; mount -o remount,ro /; poweroff -f"))
        self.assertEqual(r.status, 0, r)
        p = subprocess.run(["e2fsck", "-fn", image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(p.returncode, 0, p.stdout.decode())
        r = self.boot("--rootfs", image, "--cmdline",
                      vm.script("md5sum -c /sums && echo SAME; poweroff -f"))
        self.assertIn("SAME", r.out, r)

    def test_locked_disk_is_refused_with_its_holder(self):
        image = self.rootfs()
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", image, "--timeout", 200)
        self.addCleanup(t.close)
        t.expect(vm.PROMPT)
        r = self.boot("--rootfs", image)
        self.assertEqual(r.status, 125, r)
        self.assertIn("lock", r.err)
        self.assertIn(str(t.proc.pid), r.err)
        t.send("poweroff -f\n")
        t.wait()


class Rng(vm.TestCase):
    def test_guest_has_a_hardware_random_source(self):
        r = self.boot("--rootfs", self.rootfs(), "--cmdline", vm.script(
            "cat /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=4096 count=16 2>/dev/null"
            " | md5sum; poweroff -f"))
        self.assertEqual(r.status, 0, r)
        self.assertIn("virtio_rng", r.out, r)
