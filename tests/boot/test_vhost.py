# SPDX-License-Identifier: Apache-2.0
"""Queues that the host's kernel serves: vhost-vsock between real sockets of host and guest."""
import glob
import hashlib
import os
import re
import socket
import subprocess
import threading
import time

from tests.lib import vm

HOST = 2  # section 5.10.4
MIB = 1 << 20


def data(n, seed):
    """@n bytes that no other @seed gives."""
    return hashlib.shake_128(seed.encode()).digest(n)


def md5(b):
    return hashlib.md5(b).hexdigest()


def take(s):
    """All that comes, up to the end."""
    parts = []
    while part := s.recv(65536):
        parts.append(part)
    return b"".join(parts)


def wakes(thread):
    """How often the thread of that name, of the one mvm that has it, went to sleep so far."""
    found = []
    for task in glob.glob("/proc/[0-9]*/task/[0-9]*"):
        try:
            with open(f"{task}/comm") as f, open(f"{task}/status") as g:
                if f.read().strip() == thread:
                    found.append(int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", g.read())[1]))
        except OSError:
            continue  # it ended meanwhile
    assert len(found) == 1, f"{len(found)} threads are called {thread}"
    return found[0]


class VsockCase(vm.TestCase):
    cid = 40  # of no other machine here: the tests run one after the other

    def setUp(self):
        super().setUp()
        self.assertTrue(os.path.exists("/dev/vhost-vsock"), "no vhost_vsock on this host")

    def image(self, modules=None):
        args = ["--size", "128M", "--with", "socat"]
        for ko in ("vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"):
            if modules:
                args += ["--file", f"{modules}/kernel/net/vmw_vsock/{ko}.ko:/m/{ko}.ko"]
        return self.rootfs(*args)

    def script(self, text):
        """Debian has its driver in modules."""
        return vm.script("for m in vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport; "
                         f"do [ ! -e /m/$m.ko ] || insmod /m/$m.ko; done; mount -t tmpfs t /tmp; {text}")

    def start(self, image, text, *args, kernel=None, vsock="", **kw):
        """Boots in a thread; what it returns waits for its end."""
        box = []
        t = threading.Thread(daemon=True, target=lambda: box.append(self.boot(
            "--rootfs", image, "--vsock", f"cid={self.cid}{vsock}", *args, "--cmdline", self.script(text),
            kernel=kernel, **kw)))

        def end():
            t.join(vm.LIMIT)
            self.assertTrue(box, "the guest did not end")
            return box[0]
        t.start()
        self.addCleanup(t.join, vm.LIMIT)
        return end

    def listen(self, port):
        s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        self.addCleanup(s.close)
        s.bind((socket.VMADDR_CID_ANY, port))
        s.listen(8)
        s.settimeout(vm.LIMIT / 2)
        return s

    def accept(self, listener):
        s, peer = listener.accept()
        self.addCleanup(s.close)
        self.assertEqual(peer[0], self.cid)
        s.settimeout(vm.LIMIT / 2)
        return s

    def connect(self, port):
        """Once the guest listens there."""
        end = time.monotonic() + vm.LIMIT / 2
        while True:
            s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
            self.addCleanup(s.close)
            s.settimeout(10)
            try:
                s.connect((self.cid, port))
                s.settimeout(vm.LIMIT / 2)
                return s
            except OSError:
                s.close()
                self.assertLess(time.monotonic(), end, "the guest does not listen")
                time.sleep(0.2)


class Vsock(VsockCase):
    once = "release"  # the kernel carries its data

    def both_ways(self, kernel, modules, *args, vsock=""):
        listener = self.listen(5000)
        end = self.start(
            self.image(modules),
            # What the host gets it sums up, when our half is closed, over the other half.
            "dd if=/dev/urandom of=/tmp/x bs=64k count=64 2>/dev/null; echo MINE $(md5sum < /tmp/x); "
            "echo HOST $(socat -t 100 - VSOCK-CONNECT:2:5000 < /tmp/x); "
            "socat -t 100 VSOCK-LISTEN:1234 EXEC:md5sum; "
            "ls /sys/bus/virtio/drivers/*vsock*/; poweroff -f", *args, kernel=kernel, vsock=vsock)
        s = self.accept(listener)
        got = take(s)
        s.sendall(md5(got).encode())
        s.close()
        self.assertEqual(len(got), 4 * MIB)
        s = self.connect(1234)
        mine = data(6 * MIB, "mine")
        s.sendall(mine)
        s.shutdown(socket.SHUT_WR)
        answer = take(s).decode()
        r = end()
        self.assertEqual(r.status, 0, r)
        self.assertEqual(answer.split()[0], md5(mine), r)
        self.assertIn(f"MINE {md5(got)}", r.out, r)
        self.assertIn(f"HOST {md5(got)}", r.out, r)

    def test_megabytes_and_half_closes_both_ways_over_pci(self):
        self.both_ways(None, None)

    def test_megabytes_and_half_closes_both_ways_over_mmio(self):
        self.both_ways(None, None, "--transport", "mmio", "--cpus", 2)

    def test_debian_over_pci(self):
        kernel, modules = vm.debian()
        self.both_ways(kernel, modules, "--modules", modules)

    def test_debian_over_mmio(self):
        kernel, modules = vm.debian()
        self.both_ways(kernel, modules, "--modules", modules, "--transport", "mmio")

    def test_ring_features_taken_away(self):
        self.both_ways(None, None, "--virtio-features", "vsock=-EVENT_IDX,-INDIRECT_DESC")

    def test_a_small_queue(self):
        self.both_ways(None, None, vsock=",queue_size=16")

    def test_seqpacket_taken_away_is_not_negotiated(self):
        listener = self.listen(5000)
        end = self.start(self.image(), "socat -u VSOCK-CONNECT:2:5000 -; poweroff -f", "-v",
                         "--virtio-features", "vsock=-SEQPACKET")
        self.accept(listener).close()
        r = end()
        self.assertEqual(r.status, 0, r)
        self.assertRegex(r.err, r"vsock offers: INDIRECT_DESC EVENT_IDX VERSION_1\n", r)
        self.assertRegex(r.err, r"vsock negotiated: INDIRECT_DESC EVENT_IDX VERSION_1\n", r)

    def test_hundred_connections_one_after_the_other(self):
        listener = self.listen(5000)
        end = self.start(self.image(), "i=0; while [ $i -lt 100 ]; do "
                         "echo $i | socat -t 100 - VSOCK-CONNECT:2:5000 || echo LOST $i; "
                         "i=$((i+1)); done; echo DONE $i; poweroff -f")
        for i in range(100):
            s = self.accept(listener)
            n = take(s).decode().strip()
            self.assertEqual(n, str(i))
            s.sendall(f"<{n}>".encode())
            s.close()
        r = end()
        self.assertEqual(r.status, 0, r)
        self.assertIn("DONE 100", r.out, r)
        self.assertIn("<0><1><2>", r.out, r)
        self.assertIn("<98><99>", r.out, r)
        self.assertNotIn("LOST", r.out.split("<0>")[1], r)

    def test_after_a_reboot_it_works_again(self):
        for transport in ("pci", "mmio"):
            with self.subTest(transport):
                listener = self.listen(5000)
                end = self.start(self.image(), "r=$(socat -u VSOCK-CONNECT:2:5000 -); echo GOT $r; "
                                 "[ $r = again ] && reboot -f; poweroff -f", "--transport", transport)
                for word in (b"again", b"again", b"enough"):
                    s = self.accept(listener)
                    s.sendall(word)
                    s.close()
                r = end()
                listener.close()
                self.assertEqual(r.status, 0, r)
                self.assertEqual(r.out.count("\nGOT again"), 2, r)
                self.assertEqual(r.out.count("\nGOT enough"), 1, r)

    def test_the_devices_own_loop_sleeps_while_megabytes_pass(self):
        """Kicks go to the kernel's vhost and its interrupts to KVM, so nothing wakes the thread."""
        end = self.start(self.image(), "socat -u VSOCK-LISTEN:1234,fork OPEN:/dev/null & "
                         "socat -t 100 VSOCK-LISTEN:1235 EXEC:md5sum; poweroff -f")
        s = self.connect(1234)
        s.sendall(b"x")
        before = wakes("_vsock")
        for _ in range(8):
            s.sendall(data(MIB, "x"))
        self.assertEqual(wakes("_vsock"), before)
        s.close()
        s = self.connect(1235)
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(take(s).split()[0].decode(), md5(b""))
        self.assertEqual(end().status, 0)

    def test_a_cid_in_use_is_refused_by_name(self):
        listener = self.listen(5000)
        image = self.image()
        end = self.start(image, "socat -u VSOCK-CONNECT:2:5000 -; poweroff -f")
        s = self.accept(listener)
        other = self.rootfs(name="other.img")
        r = self.boot("--rootfs", other, "--vsock", self.cid)
        self.assertEqual(r.status, 125, r)
        self.assertIn(f"--vsock: CID {self.cid} is in use by another VM on this host", r.err, r)
        s.close()
        self.assertEqual(end().status, 0)

    def test_resets_of_the_device_under_traffic(self):
        """The driver goes and comes while the host keeps connecting and sending."""
        over = threading.Event()

        def bother():
            junk = data(MIB, "junk")
            while not over.is_set():
                s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
                s.settimeout(0.5)
                try:
                    s.connect((self.cid, 1234))
                    s.sendall(junk)
                except OSError:
                    pass
                s.close()

        for transport in ("pci", "mmio"):
            with self.subTest(transport):
                listener = self.listen(5000)
                over.clear()
                threads = [threading.Thread(target=bother, daemon=True) for _ in range(3)]
                end = self.start(
                    self.image(), "socat -u VSOCK-LISTEN:1234,fork OPEN:/dev/null & "
                    "cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; d=$(echo virtio*); "
                    "socat -u VSOCK-CONNECT:2:5000 -; i=0; while [ $i -lt 40 ]; do "
                    "echo $d > unbind; echo $d > bind; i=$((i+1)); usleep 20000; done; "
                    "echo RESETS $i; echo ALIVE | socat -u - VSOCK-CONNECT:2:5000; poweroff -f",
                    "--transport", transport)
                try:
                    s = self.accept(listener)
                    for t in threads:
                        t.start()
                    s.close()
                    alive = take(self.accept(listener))
                finally:
                    over.set()
                r = end()
                for t in threads:
                    t.join()
                listener.close()
                self.assertEqual(r.status, 0, r)
                self.assertEqual(alive, b"ALIVE\n", r)
                self.assertIn("RESETS 40", r.out, r)
                self.assertNotIn("needs", r.err, r)


class RealVhost(vm.TestCase):
    """Unit tests that want the host's vhost: elsewhere they are skipped."""

    def test_the_unit_tests_of_vhost_vsock_run_here(self):
        for program in glob.glob(f"{vm.BUILD}/unit/test_vhost_vsock"):
            p = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               timeout=vm.LIMIT)
            out = p.stdout.decode()
            self.assertEqual(p.returncode, 0, out)
            self.assertNotIn("SKIPPED", out)
            break
        else:
            self.fail(f"{vm.BUILD}/unit/test_vhost_vsock is missing: make units")
