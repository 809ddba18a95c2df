# SPDX-License-Identifier: Apache-2.0
"""Disks that another process serves: qemu-storage-daemon's vhost-user-blk export."""
import os
import re
import shutil
import signal
import subprocess
import time
import unittest

from tests.lib import vm


@unittest.skipUnless(shutil.which("qemu-storage-daemon"), "qemu-storage-daemon is missing")
class VhostUserBlock(vm.TestCase):
    def export(self, mib=64, writable="on", queues=2, image=None):
        data = image or self.path("data.img")
        if not image:
            with open(data, "wb") as f:
                f.truncate(mib << 20)
        sock = self.path("blk")
        p = subprocess.Popen(
            ["qemu-storage-daemon", "--blockdev", f"driver=file,filename={data},node-name=f", "--export",
             f"type=vhost-user-blk,id=e,node-name=f,writable={writable},num-queues={queues},"
             f"addr.type=unix,addr.path={sock}"])
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        end = time.monotonic() + 60
        while not os.path.exists(sock) and time.monotonic() < end:
            time.sleep(0.05)
        return p, sock

    def fio(self, *args):
        _, sock = self.export()
        image = self.rootfs("--size", "128M", "--with", "fio")
        r = self.boot("--rootfs", image, "--disk", f"socket={sock}", "--cpus", 2, "--memory", "1G", *args,
                      "--cmdline", vm.script(
                          "ls /sys/block/vdb/mq | wc -l; mount -t tmpfs t /tmp; cd /tmp; "
                          "fio --name=v --filename=/dev/vdb --rw=randwrite --bsrange=4k-64k --size=8M "
                          "--offset_increment=16M --numjobs=2 --iodepth=16 --ioengine=libaio --direct=1 "
                          "--verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=32 --group_reporting "
                          "> out; echo FIO=$?; blkdiscard /dev/vdb; "
                          "echo write through > /sys/block/vdb/queue/write_cache; poweroff -f"))
        self.assertEqual(r.status, 0, r)
        self.assertIn("FIO=0", r.out, r)

    def test_fio_verifies_over_pci(self):
        self.fio()

    def test_fio_verifies_over_mmio(self):
        self.fio("--transport", "mmio")

    def test_a_root_that_another_process_serves_and_a_reboot(self):
        _, sock = self.export(image=self.rootfs())
        r = self.boot("--rootfs", f"socket={sock}", "--cmdline", vm.script(
            "if [ -e /mark ]; then echo SECOND; poweroff -f; fi; touch /mark; sync; reboot -f"))
        self.assertEqual(r.status, 0, r)
        self.assertRegex(r.out, r"(?m)^SECOND", r)

    def test_a_machine_ends_without_it(self):
        """A reset that asks no device: what the back end may still write to is nobody's memory any more."""
        p, sock = self.export()
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.rootfs(), "--disk", f"socket={sock}",
                        "--timeout", 200, "--cmdline", vm.script(
                            "if [ -e /mark ]; then dd if=/dev/vdb of=/dev/null count=1 iflag=direct; "
                            "echo DD=$?; poweroff -f; fi; touch /mark; sync; "
                            "echo READY; read x; echo b > /proc/sysrq-trigger"))
        self.addCleanup(t.close)
        t.expect(r"\nREADY\r")
        os.kill(p.pid, signal.SIGSTOP)
        t.send("\n")
        m = t.expect(r"(?s)(.*)DD=1")
        self.assertEqual(t.wait(), 0, t.out)
        self.assertIn("the device is dead", m[1])
        self.assertNotIn("may still write", m[1])

    def test_read_only(self):
        _, sock = self.export(writable="off")
        r = self.boot("--rootfs", self.rootfs(), "--disk", f"socket={sock},readonly=on", "--cmdline",
                      vm.script("cat /sys/block/vdb/ro; dd if=/dev/zero of=/dev/vdb count=1; echo DD=$?; "
                                "poweroff -f"))
        self.assertEqual(r.status, 0, r)
        self.assertIn("DD=1", r.out, r)

    def test_read_only_is_the_back_ends_business(self):
        _, sock = self.export()
        r = self.boot("--rootfs", self.rootfs(), "--disk", f"socket={sock},readonly=on")
        self.assertEqual(r.status, 125, r)
        self.assertIn("readonly=on", r.err, r)

    def test_its_end_leaves_errors_and_nobody_hangs(self):
        p, sock = self.export(mib=32)
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.rootfs(), "--cpus", 2, "--disk",
                        f"socket={sock}", "--timeout", 200, "--cmdline", vm.script(
                            "(dd if=/dev/vdb of=/dev/null bs=4k count=99999999; echo D1=$?) & "
                            "(while dd if=/dev/zero of=/dev/vdb bs=64k count=99 oflag=direct; do :; done; "
                            "echo D2=$?) & (while dd if=/dev/vdb of=/dev/null bs=4k skip=100 count=9 "
                            "iflag=direct; do :; done 2>/dev/null; echo D3=$?) & sleep 1; echo READY; "
                            "wait; echo NOBODY-HANGS; dd if=/dev/vdb of=/dev/null count=1 iflag=direct; "
                            "echo LATER=$?; poweroff -f"))
        self.addCleanup(t.close)
        t.expect(r"\nREADY\r")
        p.kill()
        t.expect(rf"disk1 \({re.escape(sock)}\): vhost-user: it closed the connection; the device is dead")
        t.expect("NOBODY-HANGS")
        t.expect("LATER=1")
        self.assertEqual(t.wait(), 0, t.out)
