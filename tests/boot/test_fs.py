# SPDX-License-Identifier: Apache-2.0
"""Directories of the host in the guest: virtio-fs over both transports, and its virtiofsd dying."""
import os
import shutil
import signal
import socket
import subprocess
import time

from tests.lib import vm


def virtiofsd():
    """(program, whether it is the one in Rust)"""
    path = os.environ["PATH"] + ":/usr/libexec:/usr/lib/qemu"
    program = shutil.which("virtiofsd", path=path)
    text = subprocess.run([program, "--help"], stdout=subprocess.PIPE).stdout.decode()
    return program, "--shared-dir" in text


def children(pid, name):
    """The descendants of a process that have this name."""
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        try:
            with open(f"/proc/{p}/task/{p}/children") as f:
                kids = [int(k) for k in f.read().split()]
            with open(f"/proc/{p}/comm") as f:
                found += [p] if f.read().strip() == name else []
        except FileNotFoundError:
            continue
        todo += kids
    return found


class TestCase(vm.TestCase):
    def setUp(self):
        super().setUp()
        self.share = self.path("share")
        os.mkdir(self.share)

    def put(self, name, text):
        with open(os.path.join(self.share, name), "w") as f:
            f.write(text)

    def get(self, name):
        with open(os.path.join(self.share, name)) as f:
            return f.read()


class Share(TestCase):
    """What a file system has to do, from a shell in the guest, and what the host sees of it."""
    CHECKS = ("mount -t virtiofs {tag} /mnt || echo BAD-mount; cd /mnt; "
              "grep -q ^hello$ f || echo BAD-read; echo new > g; echo more >> g; "
              "mkdir -p d/e; mv g d/e/h; ln -s d/e/h l; ln d/e/h hard; "
              "[ $(readlink l) = d/e/h ] || echo BAD-link; "
              "[ $(stat -c %h hard) = 2 ] || echo BAD-nlink; "
              "chmod 640 hard; cat l > copy; rm f; "
              "(flock -x 9; flock -n -x 8 && echo BAD-lock) 9>lk 8>lk; "
              "truncate -s 5G big; echo end | dd of=big bs=1 seek=5368709116 conv=notrunc 2>/dev/null; "
              "[ $(tail -c 4 big) = end ] || echo BAD-big; "
              "dd if=/dev/urandom of=r bs=64k count=32 2>/dev/null; md5sum r > sums; sync; "
              "echo 3 > /proc/sys/vm/drop_caches; md5sum -c sums >/dev/null || echo BAD-sum; "
              "{extra} cd /; umount /mnt && echo UNMOUNTED; poweroff -f")
    MMAP = ("fio --name=m --filename=/mnt/m --rw=randwrite --bs=4k --size=1M --ioengine=mmap "
            "--verify=crc32c --output=/dev/null || echo BAD-mmap;")

    def check(self, *args, tag="share", keys="", extra="", image=(), **kw):
        self.put("f", "hello\n")
        r = self.boot("--rootfs", self.rootfs(*image), "--fs", f"tag={tag},dir={self.share}{keys}",
                      *args, "--cmdline",
                      vm.script(self.CHECKS.format(tag=tag, extra=extra)), **kw)
        self.assertEqual(r.status, 0, r)
        self.assertIn("UNMOUNTED", r.out, r)
        self.assertNotIn("BAD", r.out.replace("echo BAD", ""), r)
        self.assertEqual(self.get("copy"), "new\nmore\n")
        self.assertEqual(self.get("d/e/h"), "new\nmore\n")
        self.assertEqual(os.stat(os.path.join(self.share, "hard")).st_mode & 0o777, 0o640)
        self.assertEqual(os.path.getsize(os.path.join(self.share, "big")), 5 << 30)
        self.assertFalse(os.path.exists(os.path.join(self.share, "f")))

    def test_over_pci(self):
        self.check("--memory", "1G", extra=self.MMAP, image=("--size", "128M", "--with", "fio"))

    def test_over_mmio_without_cache_and_with_the_longest_tag(self):
        self.check("--transport", "mmio", tag="0123456789abcdef0123456789abcdef0123",
                   keys=",cache=never")

    def test_with_debians_modules_and_all_cached(self):
        kernel, modules = vm.debian()
        fuse = f"{modules}/kernel/fs/fuse"
        self.CHECKS = "insmod /fuse.ko; insmod /virtiofs.ko; " + self.CHECKS
        self.check("--modules", modules, keys=",cache=always", kernel=kernel,
                   image=("--file", f"{fuse}/fuse.ko:/fuse.ko", "--file",
                          f"{fuse}/virtiofs.ko:/virtiofs.ko"))

    def test_read_only_whatever_the_guest_does(self):
        self.put("f", "hello\n")
        r = self.boot("--rootfs", self.rootfs(), "--fs", f"tag=a,dir={self.share},ro", "--cmdline",
                      vm.script("mount -t virtiofs a /mnt; cat /mnt/f; mount -o remount,rw /mnt; "
                                "echo x > /mnt/f; echo W=$?; echo x > /mnt/g; echo C=$?; rm /mnt/f; "
                                "echo R=$?; chmod 777 /mnt/f; echo M=$?; umount /mnt; poweroff -f"))
        self.assertEqual(r.status, 0, r)
        self.assertRegex(r.out, r"(?s)hello.*W=1.*C=1.*R=1.*M=1", r)
        self.assertEqual(os.listdir(self.share), ["f"])
        self.assertEqual(self.get("f"), "hello\n")


class Ends(TestCase):
    def test_a_directory_that_is_none_is_told_before_anything_starts(self):
        r = self.boot("--fs", "tag=a,dir=/nonexistent")
        self.assertEqual(r.status, 125, r)
        self.assertIn("--fs tag=a: dir=/nonexistent: No such file or directory", r.err)

    def test_its_virtiofsd_ends_with_it(self):
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.rootfs(), "--fs",
                        f"tag=a,dir={self.share}", "--timeout", 200)
        self.addCleanup(t.close)
        t.expect(vm.PROMPT)
        pids = children(t.proc.pid, "virtiofsd")
        self.assertTrue(pids)
        t.kill(signal.SIGKILL)
        t.wait()
        end = time.monotonic() + 30
        while any(os.path.exists(f"/proc/{p}/root/.") for p in pids) and time.monotonic() < end:
            time.sleep(0.1)
        self.assertFalse(any(os.path.exists(f"/proc/{p}/root/.") for p in pids))

    LOAD = ("if [ -e /mark ]; then mount -t virtiofs a /mnt; cat /mnt/f; poweroff -f; fi; touch /mark; "
            "sync; mount -t virtiofs a /mnt; "
            "(dd if=/dev/zero of=/mnt/big bs=64k count=9000 2>/dev/null; echo DD=$?) & "
            "(while cat /mnt/f >/dev/null 2>&1; do :; done; echo CAT=$?) & "
            "(while ls -lR /mnt >/dev/null 2>&1; do :; done; echo LS=$?) & "
            "sleep 1; echo READY; wait; echo NOBODY-HANGS; ls /mnt; umount /mnt; echo UMOUNT=$?; "
            "mount -t virtiofs a /mnt && ls /mnt; echo AGAIN=$?; umount /mnt; "
            "mount -o remount,ro /; reboot -f")

    def kill_it(self, *args):
        self.put("f", "hello\n")
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.rootfs(), "--cpus", 2, "--fs",
                        f"tag=a,dir={self.share}", "--timeout", 200, *args, "--cmdline",
                        vm.script(self.LOAD))
        self.addCleanup(t.close)
        t.expect(r"\nREADY\r")
        for p in children(t.proc.pid, "virtiofsd"):
            os.kill(p, signal.SIGKILL)
        t.expect(r"fs0 \(tag a\): vhost-user: it closed the connection; the device is dead")
        out = t.out
        t.expect("NOBODY-HANGS")
        t.expect(r"Transport endpoint is not connected")
        t.expect("UMOUNT=0")
        t.expect(r"AGAIN=1")
        t.expect(r"\nhello\r", limit=120)
        self.assertEqual(t.wait(), 0, out + t.out)

    def test_a_dead_virtiofsd_leaves_errors_and_a_reboot_brings_another(self):
        self.kill_it()

    def test_the_same_over_mmio(self):
        self.kill_it("--transport", "mmio")


class Socket(TestCase):
    """A virtiofsd of somebody else's: it serves its first peer alone, and ends with it."""

    def start(self):
        program, rust = virtiofsd()
        listener = socket.socket(socket.AF_UNIX)
        path = self.path("sock")
        listener.bind(path)
        listener.listen(8)
        args = (["--shared-dir", self.share, "--sandbox", "chroot"] if rust else
                ["-f", "-o", f"source={self.share}", "-o", "sandbox=chroot"])
        self.addCleanup(listener.close)
        p = subprocess.Popen([program, f"--fd={listener.fileno()}", *args], stderr=subprocess.DEVNULL,
                             pass_fds=[listener.fileno()])
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        return p, listener, path

    def test_the_only_connection_lives_through_a_reboot(self):
        self.put("f", "hello\n")
        p, listener, path = self.start()
        r = self.boot("--rootfs", self.rootfs(), "--fs", f"tag=a,socket={path}", "--cmdline",
                      vm.script("mount -t virtiofs a /mnt; cat /mnt/f; if [ -e /mark ]; then "
                                "poweroff -f; fi; touch /mark; sync; reboot -f"))
        self.assertEqual(r.status, 0, r)
        self.assertEqual(r.out.count("hello"), 2, r)
        self.assertEqual(p.wait(30), 0)
        listener.setblocking(False)
        with self.assertRaises(BlockingIOError):
            listener.accept()

    def test_no_socket_is_an_error(self):
        r = self.boot("--rootfs", self.rootfs(), "--fs", "tag=a,socket=/nonexistent/s")
        self.assertEqual(r.status, 125, r)
        self.assertIn("--fs tag=a: connect to /nonexistent/s: No such file or directory", r.err)
