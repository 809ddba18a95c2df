# SPDX-License-Identifier: Apache-2.0
"""A guest that resets a device with I/O in flight, thousands of times, for every kind of device."""
import ctypes
import os
import socket
import tempfile
import unittest

from tests.lib import vm
from tests.native import guests

CLONE_NEWNET = 0x40000000


def network_of_its_own():
    """In the child: what it does to TAPs and links nobody else sees."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


class Resets(unittest.TestCase):
    once = "sanitized"  # what it looks for is memory that is used too late

    # Over PCI each round takes and gives back ioeventfds, which KVM makes wait.
    MANY = {"pci": "", "mmio": "many"}
    LIMIT = 300

    def setUp(self):
        d = tempfile.TemporaryDirectory(prefix="mvm-test-")
        self.addCleanup(d.cleanup)
        self.dir = d.name

    def storm(self, what, *args, before=None):
        for transport, many in self.MANY.items():
            with self.subTest(transport):
                r = guests.run("resets", *args, "--transport", transport, before=before, timeout=self.LIMIT,
                               cmdline=f"{what} {many}")
                self.assertEqual(r.status, 0, r)
                self.assertIn(f"ok {what}", r.out.replace("\r", "").split("\n"), r)

    def test_a_disk(self):
        self.storm("blk", "--disk", guests.image(f"{self.dir}/disk.img"))

    def test_the_random_source(self):
        self.storm("rng")

    def test_a_network_device(self):
        self.storm("net", "--net", "tap=mvmtest0,vhost=off", before=network_of_its_own)

    def test_a_socket_device(self):
        path = f"{self.dir}/v.sock"
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(f"{path}_50")  # where the guest finds somebody
            s.listen(64)
            self.storm("vsock", "--vsock", f"cid=7,socket={path}")

    def test_a_shared_directory(self):
        os.mkdir(f"{self.dir}/share")
        self.storm("fs", "--fs", f"tag=t,dir={self.dir}/share")


if __name__ == "__main__":
    unittest.main()
