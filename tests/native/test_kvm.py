# SPDX-License-Identifier: Apache-2.0
"""A /dev/kvm that is missing, forbidden, in use or lacks something: one line, status 125."""
import ctypes
import errno
import os
import struct
import subprocess
import unittest

from tests.lib import vm
from tests.native import test_cli as cli

KVM_CREATE_VM, KVM_CHECK_EXTENSION = 0xae01, 0xae03
KVM_CAP_IRQFD = 32


def ioctl_fails(request, error, arg=None):
    """Makes the kernel refuse one ioctl of what this process starts: a seccomp filter."""
    load, jump_if_equal, leave = 0x20, 0x15, 0x06
    prctl_no_new_privs, prctl_seccomp, mode_filter = 38, 22, 2
    allow, fail = 0x7fff0000, 0x00050000
    tests = [(0, 16), (24, request)]  # struct seccomp_data: nr is ioctl's, args[1]
    if arg is not None:
        tests.append((32, arg))       # args[2]
    code, left = [], 2 * len(tests) + 1
    for offset, value in tests:
        left -= 2
        code += [(load, 0, 0, offset), (jump_if_equal, 0, left, value)]
    code += [(leave, 0, 0, fail | error), (leave, 0, 0, allow)]
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *c) for c in code))

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    program = Program(len(code), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)

    def before():
        if libc.prctl(prctl_no_new_privs, 1, 0, 0, 0) or \
                libc.prctl(prctl_seccomp, mode_filter, ctypes.byref(program)):
            raise OSError(ctypes.get_errno(), "seccomp")
    before.keep = text
    return before


@unittest.skipIf(os.uname().machine != "x86_64", "the filter knows x86-64's ioctl alone")
class KvmRefuses(cli.Cli):
    """What a host's KVM says no to, with everything else as it is."""

    def refused_by(self, before, *says):
        files = self.files()
        r = vm.mvm(*self.boot_args("--serial", f"file={self.path('s')}",
                                   f"--timeline={self.path('t')}"), before=before)
        self.check(r, says)
        self.assertEqual(self.files(), files)

    def test_in_use(self):
        """As when another hypervisor holds the CPU's virtualization."""
        self.refused_by(ioctl_fails(KVM_CREATE_VM, errno.EBUSY),
                        "/dev/kvm", "in use", "another hypervisor")

    def test_no_memory(self):
        self.refused_by(ioctl_fails(KVM_CREATE_VM, errno.ENOMEM), "/dev/kvm", "allocate memory")

    def test_without_a_capability(self):
        lacks = ioctl_fails(KVM_CHECK_EXTENSION, errno.EINVAL, KVM_CAP_IRQFD)
        self.refused_by(lacks, "/dev/kvm", "lacks irqfd", "newer kernel")
        r = vm.mvm("doctor", before=lacks)
        self.assertEqual(r.status, 1, r)
        self.assertRegex(r.out, r"(?m)^missing  KVM capability: irqfd\n {9}a newer kernel")
        self.assertNotIn("all capabilities", r.out)
        self.assertIn("mvm boot cannot run here.", r.out)

    def test_doctor_sees_that_it_is_in_use(self):
        r = vm.mvm("doctor", before=ioctl_fails(KVM_CREATE_VM, errno.EBUSY))
        self.assertEqual(r.status, 1, r)
        self.assertRegex(" ".join(r.out.split()), "missing a machine: /dev/kvm: in use")


@unittest.skipIf(os.getuid(), "needs root to arrange /dev")
class Kvm(cli.Cli):
    def run_in(self, setup, *args):
        return cli.in_namespace(setup, *self.boot_args(*args))

    def test_missing(self):
        # A /dev of its own without kvm in it.
        r = self.run_in("mount -t tmpfs none /dev")
        self.check(r, ["/dev/kvm", "not there"])

    def test_forbidden(self):
        node = self.file("kvm", b"", 0o000)
        r = cli.powerless(f"mount --bind {node} /dev/kvm", *self.boot_args())
        self.check(r, ["/dev/kvm", "permission denied"])

    def test_not_a_kvm(self):
        r = self.run_in("mount --bind /dev/null /dev/kvm")
        self.check(r, ["/dev/kvm"])

    def test_without_a_driver(self):
        if subprocess.run(["mknod", self.path("files/kvm"), "c", "10", "254"]).returncode:
            self.skipTest("this host lets nobody make a device node")
        r = self.run_in(f"mount --bind {self.path('files/kvm')} /dev/kvm")
        self.check(r, ["/dev/kvm"])

    def test_software_only(self):
        """A CPU that shows neither vmx nor svm: here, or because /proc/cpuinfo says so."""
        cpuinfo = self.file("cpuinfo", b"processor : 0\nflags : fpu vme de pse svm_lock avmx\n\n")
        args = [a for a in self.boot_args("--initrd", self.file("i", b"070701"))
                if a != "--software-kvm"]
        r = cli.in_namespace(f"mount --bind {cpuinfo} /proc/cpuinfo", *args)
        self.check(r, ["/dev/kvm", "software", "testhost"])
