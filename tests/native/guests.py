# SPDX-License-Identifier: Apache-2.0
"""Running the freestanding guests, and the images their disks are."""
import os
import re
import shutil
import struct
import tempfile
import unittest

from tests.lib import vm

SECTORS = 8192
HERE = os.path.dirname(os.path.abspath(__file__))


def sector(n):
    """disk_word() of payload/virtio.h."""
    return struct.pack("<128I", *((n * 2654435761 + i * 40503 + 1) & 0xffffffff
                                  for i in range(128)))


def image(path):
    with open(path, "wb") as f:
        for n in range(SECTORS):
            f.write(sector(n))
    return path


def run(guest, *args, cmdline="-", timeout=100, memory="128M", before=None):
    """A guest_*.elf to its end; what it prints on its serial line is .out."""
    return vm.mvm("boot", "--software-kvm", "--kernel", f"{vm.BUILD}/payload/guest_{guest}.elf",
                  "--console", "off", "--serial", "tty", "--no-reboot", "--memory", memory,
                  "--timeout", timeout, "--no-default-cmdline", "--cmdline", cmdline, *args,
                  before=before)


class Guest(unittest.TestCase):
    """One run of a guest for the whole class; each line it must print is a test of its own."""
    guest, transport = None, "pci"

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="mvm-test-")
        cls.addClassCleanup(shutil.rmtree, cls.dir, True)
        cls.images = [image(f"{cls.dir}/disk{i}.img") for i in range(2)]
        cls.done = run(cls.guest, *cls.args(), "--transport", cls.transport,
                       "--timeline=" + f"{cls.dir}/timeline.json", cmdline=cls.transport)
        cls.lines = cls.done.out.replace("\r", "").split("\n")

    @classmethod
    def args(cls):
        return ["--disk", f"{cls.images[0]},serial=native-0", "--disk", cls.images[1]]

    def verdict(self, name):
        for line in self.lines:
            if line == f"ok {name}":
                return
            if line.startswith(f"not ok {name}:"):
                self.fail(line)
        self.fail(f"the guest said nothing of {name}\n{self.done}")

    def test_guest_ends_in_order(self):
        self.assertEqual(self.done.status, 0, self.done)
        self.assertIn("end", self.lines, self.done)

    def assertImage(self, n, changed=()):
        """The image is as it was written, but for {sector: content}."""
        changed = dict(changed)
        with open(self.images[n], "rb") as f:
            data = f.read()
        self.assertEqual(len(data), SECTORS * 512)
        bad = [i for i in range(SECTORS)
               if data[i * 512:(i + 1) * 512] != changed.get(i, sector(i))]
        self.assertEqual(bad, [])


def lines_of(guest):
    """Adds a test for each TEST() of guest_*.c that belongs to the class' transport."""
    def add(cls):
        cls.guest = guest
        with open(f"{HERE}/payload/guest_{guest}.c") as f:
            names = re.findall(r"^TEST\((\w+)\)", f.read(), re.M)
        assert names
        other = "mmio_" if cls.transport == "pci" else "pci_"
        for name in names:
            if not name.startswith(other):
                setattr(cls, f"test_{name}", lambda self, name=name: self.verdict(name))
        return cls
    return add
