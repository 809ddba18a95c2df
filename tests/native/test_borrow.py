# SPDX-License-Identifier: Apache-2.0
"""A kernel whose file is borrowed at first, and rewritten while the guest runs in it."""
import os
import shutil
import signal
import struct
import subprocess
import threading
import time

from tests.lib import borrow, vm
from tests.native import guests

MIB = 1 << 20


def grow(path, size):
    """The last segment of an ELF file gets zeros behind what it has: more to copy, nothing to see."""
    with open(path, "r+b") as f:
        head = f.read(64)
        phoff, phnum = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
        f.seek(phoff + (phnum - 1) * 56)
        at = f.tell()
        kind, flags, off, vaddr, paddr, filesz, memsz, align = struct.unpack("<IIQQQQQQ", f.read(56))
        f.truncate(off + filesz)  # what follows the segment lies where zeros belong now
        f.truncate(off + size)
        f.seek(at)
        f.write(struct.pack("<IIQQQQQQ", kind, flags, off, vaddr, paddr, size, size, align))
        f.seek(40)  # no sections
        f.write(bytes(8))
        f.seek(58)
        f.write(bytes(6))


class Borrow(borrow.TestCase):
    def setUp(self):
        super().setUp()
        shutil.copyfile(f"{vm.BUILD}/payload/guest_borrow.elf", self.kernel)
        grow(self.kernel, 64 * MIB)
        self.disk = guests.image(self.path("disk.img"))
        self.args = ["--software-kvm", "--console", "off", "--serial", "tty", "--memory", "128M",
                     "--timeout", "200", "--no-reboot", "--cpus", "2"]

    def catch(self, cmdline="pci", env={}):
        return super().catch(*self.args, "--disk", self.disk, "--cmdline", cmdline, env=env)

    def finish(self, t):
        t.expect("ready")
        t.send(" ")
        for name in ("works_while_its_file_is_rewritten", "what_the_disk_put_there_is_there",
                     "all_else_is_as_it_was"):
            t.expect(rf"\nok {name}(?=\r?\n)")
        self.assertEqual(t.wait(), 0, t.out)

    def test_guest_goes_on_when_its_kernel_is_written_over(self):
        t = self.catch()
        self.write(t, self.overwrite)
        self.finish(t)

    def test_guest_goes_on_when_its_kernel_is_truncated(self):
        t = self.catch()
        self.write(t, lambda: os.truncate(self.kernel, 0))
        self.finish(t)

    def test_guest_with_direct_io_goes_on_when_its_kernel_is_replaced(self):
        self.disk += ",direct=on"
        t = self.catch()
        self.write(t, lambda: self.overwrite(os.O_TRUNC))
        self.finish(t)

    def test_disk_that_does_not_answer_puts_the_exchange_off(self):
        """Its requests are in the borrowed memory; the machine lives on meanwhile."""
        library, stall = self.path("stall.so"), self.path("stall")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, f"{vm.ROOT}/tests/native/stall.c"],
                       check=True)
        open(stall, "w").close()
        t = self.catch(env={"LD_PRELOAD": library, "STALL": stall,
                            "ASAN_OPTIONS": "verify_asan_link_order=0"})
        w = threading.Thread(target=self.overwrite, daemon=True)
        w.start()
        t.kill(signal.SIGCONT)
        end = time.monotonic() + vm.LIMIT
        while not os.path.exists(f"{stall}.met"):
            self.assertLess(time.monotonic(), end)
            self.assertTrue(self.borrowed(t))
            time.sleep(0.01)
        time.sleep(3)  # several attempts
        self.assertTrue(w.is_alive(), "the file could be changed while it was borrowed")
        self.assertTrue(self.borrowed(t))
        self.assertIsNone(t.proc.poll())
        os.unlink(stall)
        w.join(vm.LIMIT)
        self.assertFalse(w.is_alive())
        self.assertFalse(self.borrowed(t))
        self.finish(t)

    def begin(self):
        t = vm.Terminal("boot", "--kernel", self.kernel, *self.args, "--disk", self.disk,
                        "--cmdline", "pci")
        self.addCleanup(t.close)
        return t

    def start(self):
        t = self.begin()
        t.expect("ready")
        return t

    def test_kernel_is_not_borrowed_for_long(self):
        t = self.start()
        self.await_settled(t)
        self.overwrite()
        t.send(" ")
        t.expect(r"\nok all_else_is_as_it_was(?=\r?\n)")
        self.assertEqual(t.wait(), 0, t.out)

    def test_machine_that_ends_at_once_gives_its_kernel_back(self):
        """Its guest powers off while the copies are being made."""
        t = self.catch("off")
        t.kill(signal.SIGCONT)
        self.assertEqual(t.wait(), 0, t.out)
        self.assertEqual(t.out.strip(), "end")
        self.overwrite()

    def test_kernel_that_somebody_may_be_writing_is_copied(self):
        fd = os.open(self.kernel, os.O_WRONLY)
        self.addCleanup(os.close, fd)
        t = self.begin()
        end = time.monotonic() + vm.LIMIT
        while "ready" not in t.out:
            self.assertFalse(self.borrowed(t))
            self.assertTrue(t.read(0), t.out)
            self.assertLess(time.monotonic(), end)
        os.ftruncate(fd, 0)
        t.send(" ")
        t.expect(r"\nok all_else_is_as_it_was(?=\r?\n)")
        self.assertEqual(t.wait(), 0, t.out)
