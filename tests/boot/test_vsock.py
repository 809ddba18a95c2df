# SPDX-License-Identifier: Apache-2.0
"""Programs in the guest and on the host talk over AF_VSOCK and the Unix sockets of --vsock socket=PATH."""
import os
import socket
import subprocess
import threading
import zlib

from tests.lib import emulator, vm

MIB = 1 << 20
LOAD = f"{vm.ROOT}/tests/boot/vsock_load.c"


def exactly(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise AssertionError(f"the stream ended after {data!r}")
        data += more
    return data


class Host:
    """Host programs: one end of the sockets."""

    def __init__(self, path):
        self.path = path

    def connect(self, port):
        """To the guest's port; None when it refuses."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(vm.LIMIT)
        s.connect(self.path)
        s.sendall(b"CONNECT %d\n" % port)
        line = b""
        try:
            while not line.endswith(b"\n"):
                c = s.recv(1)
                if not c:
                    s.close()
                    return None
                line += c
        except ConnectionResetError:
            s.close()
            return None
        assert line.startswith(b"OK ") and int(line[3:]) >= 1 << 30, line
        return s

    def listen(self, port, serve):
        """Each that comes is served by a thread of its own."""
        l = socket.socket(socket.AF_UNIX)
        l.bind(f"{self.path}_{port}")
        l.listen(1024)

        def loop():
            while True:
                try:
                    s, _ = l.accept()
                except OSError:
                    return
                s.settimeout(vm.LIMIT)
                threading.Thread(target=serve, args=(s,), daemon=True).start()

        threading.Thread(target=loop, daemon=True).start()


def echo(s):
    with s:
        while True:
            data = s.recv(65536)
            if not data:
                return
            s.sendall(data)


def stream(size, tell):
    """Sends or checks in pieces; returns the checksum."""
    block, total = os.urandom(MIB), 0
    for at in range(0, size, MIB):
        piece = (b"%016d" % at + block)[:min(MIB, size - at)]
        total = zlib.crc32(piece, total)
        tell(piece)
    return total


class VsockCase(vm.TestCase):
    def setUp(self):
        super().setUp()
        program = self.path("vsock_load")
        subprocess.run([os.environ.get("MUSL_CC", "musl-gcc"), "-O2", "-Wall", "-Wextra", "-static", "-s",
                        "-o", program, LOAD], check=True)
        self.program = f"{program}:/usr/bin/vsock_load"
        self.image = self.rootfs("--size", "64M", "--with", "socat", "--file", self.program)
        self.host = Host(self.path("v"))

    def guest(self, *args, kernel=None, timeout=1000):
        t = vm.Terminal("boot", "--kernel", kernel or vm.lean(), "--rootfs", self.image, "--timeout",
                        timeout, "--cpus", 2, "--memory", "512M", "--vsock", f"cid=3,socket={self.host.path}",
                        *emulator.cmdline(), *args)
        self.addCleanup(t.close)
        t.expect(vm.PROMPT)
        return t

    def end(self, t):
        t.send(f"dmesg | grep -E '{vm.TROUBLE}'; echo FOUND=$?; poweroff -f\n")
        t.expect(r"FOUND=1\r")
        self.assertEqual(t.wait(), 0, t.out)
        self.assertFalse(os.path.exists(self.host.path))

    # ---- the parts, each on a running guest

    def to_the_guest(self, t, size):
        t.send("vsock_load sink 1001\n")
        s = None
        while not s:  # until it listens
            s = self.host.connect(1001)
        total = stream(size, s.sendall)
        s.shutdown(socket.SHUT_WR)
        m = t.expect(r"SINK (\d+) (\w+)\r")
        self.assertEqual((int(m[1]), int(m[2], 16)), (size, total))
        s.close()

    def to_the_host(self, t, size):
        got = []

        def take(s):
            n = total = 0
            while True:
                data = s.recv(MIB)
                if not data:
                    break
                n += len(data)
                total = zlib.crc32(data, total)
            got.append((n, total))
            s.sendall(b"done")
            s.close()

        self.host.listen(53, take)
        t.send(f"vsock_load source 53 {size}\n")
        m = t.expect(r"SOURCE (\d+) (\w+)\r")
        self.assertEqual(got, [(int(m[1]), int(m[2], 16))])
        self.assertEqual(got[0][0], size)

    def calls_of_the_guest(self, t, n, at_once):
        t.send(f"vsock_load call 52 {n} {at_once} 3000\n")
        t.expect(f"CALL good={n} bad=0 refused=0\r")

    def calls_of_the_host(self, n, at_once, length=3000):
        """Connections that are all open before the first is used."""
        for first in range(0, n, at_once):
            all_ = [self.host.connect(1000) for _ in range(min(at_once, n - first))]
            for i, s in enumerate(all_):
                s.sendall(bytes([(first + i) % 251]) * length)
                s.shutdown(socket.SHUT_WR)
            for i, s in enumerate(all_):
                self.assertEqual(exactly(s, length), bytes([(first + i) % 251]) * length)
                self.assertEqual(s.recv(1), b"")
                s.close()

    def refused(self, t):
        """Both ways, and at once: not after a time limit."""
        self.assertIsNone(self.host.connect(4000))
        t.send("socat -u VSOCK-CONNECT:2:4000 - ; echo RC=$?\n")
        t.expect("Connection reset by peer")
        t.expect("RC=1\r")

    def socat(self, t):
        """A program that knows nothing of us, both ways, with its half close."""
        t.send("socat VSOCK-LISTEN:1002,fork EXEC:'tr a-z A-Z' & sleep 1; echo UP\n")
        t.expect("UP\r")
        s = None
        while not s:
            s = self.host.connect(1002)
        s.sendall(b"from the host\n")
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(exactly(s, 14), b"FROM THE HOST\n")
        self.assertEqual(s.recv(1), b"")
        s.close()
        t.send("echo from the guest | socat -t 60 - VSOCK-CONNECT:2:52\n")
        t.expect("\nfrom the guest\r")

    def serve(self, t):
        t.send("vsock_load serve 1000 &\n")
        t.expect(vm.PROMPT)
        while True:
            s = self.host.connect(1000)
            if s:
                return s.close()

    def everything(self, *args, kernel=None, size=64 * MIB, n=1000, at_once=500, first=""):
        self.host.listen(52, echo)
        t = self.guest(*args, kernel=kernel)
        t.send(f"{first}echo $((6*7))-ready\n")
        t.expect("42-ready\r")
        self.socat(t)
        self.refused(t)
        self.serve(t)
        self.to_the_guest(t, size)
        self.to_the_host(t, size)
        self.calls_of_the_host(n, 1)
        self.calls_of_the_guest(t, n, 1)
        self.calls_of_the_host(at_once, at_once)
        self.calls_of_the_guest(t, at_once, at_once)
        return t


class Vsock(VsockCase):
    once = "sanitized"  # its connections are mvm's own code

    def test_programs_talk_both_ways_over_pci(self):
        self.end(self.everything("--transport", "pci"))

    def test_programs_talk_both_ways_over_mmio(self):
        self.end(self.everything("--transport", "mmio", size=8 * MIB, n=100, at_once=100))

    def test_programs_of_debian_talk_both_ways(self):
        """Its driver is in modules, which a root has and udev loads; here the test does both."""
        kernel, modules = vm.debian()
        names = ("vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport")
        files = []
        for name in names:
            files += ["--file", f"{modules}/kernel/net/vmw_vsock/{name}.ko:/{name}.ko"]
        self.image = self.rootfs("--size", "64M", "--with", "socat", "--file", self.program,
                                 *files, name="debian.img")
        self.end(self.everything("--modules", modules, kernel=kernel, size=8 * MIB, n=100, at_once=100,
                                 first="".join(f"insmod /{name}.ko; " for name in names)))

    def test_after_a_reboot_the_socket_is_still_there(self):
        self.host.listen(52, echo)
        t = self.guest()
        self.serve(t)
        s = self.host.connect(1000)
        s.sendall(b"before")
        self.assertEqual(exactly(s, 6), b"before")
        inode = os.stat(self.host.path).st_ino
        t.send("reboot -f\n")
        self.assertEqual(s.recv(1), b"")  # what was open ends
        s.close()
        t.expect(vm.PROMPT)
        self.assertEqual(os.stat(self.host.path).st_ino, inode)
        self.serve(t)
        self.calls_of_the_host(20, 20)
        self.calls_of_the_guest(t, 20, 20)
        self.end(t)

    def test_the_last_words_of_a_guest_arrive(self):
        """Its result goes out and it powers off: nobody waits for anything."""
        got, heard = [], threading.Event()

        def take(s):
            data = b""
            while True:
                more = s.recv(4096)
                if not more:
                    break
                data += more
            got.append(data)
            heard.set()

        self.host.listen(54, take)
        t = self.guest()
        t.send("echo the result | socat -u - VSOCK-CONNECT:2:54; poweroff -f\n")
        self.assertEqual(t.wait(), 0, t.out)
        self.assertTrue(heard.wait(vm.LIMIT))
        self.assertEqual(got, [b"the result\n"])
