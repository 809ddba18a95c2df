# SPDX-License-Identifier: Apache-2.0
"""vhost-net: a TAP whose queues the host's kernel serves."""
import json
import os
import subprocess
import threading
import time

from tests.boot.test_vhost import wakes
from tests.lib import vm

HOST, GUEST = "10.97.0.1", "10.97.0.2"


def ip(*args):
    subprocess.run(["ip", *args], check=True)


class VhostNet(vm.TestCase):
    once = "release"  # the kernel carries its data

    def setUp(self):
        super().setUp()
        self.assertTrue(os.path.exists("/dev/vhost-net"), "no vhost_net on this host")

    def tap(self, *opts):
        ip("tuntap", "add", "dev", "mvmt0", "mode", "tap", "vnet_hdr", *opts)
        self.addCleanup(ip, "link", "del", "mvmt0")
        ip("addr", "add", f"{HOST}/24", "dev", "mvmt0")
        ip("link", "set", "mvmt0", "up")

    def start(self, net, text, *args):
        """Boots in a thread; what it returns waits for the guest's end."""
        box = []
        image = self.rootfs("--size", "128M", "--with", "iperf3")
        t = threading.Thread(daemon=True, target=lambda: box.append(self.boot(
            "-v", "--rootfs", image, "--net", f"tap=mvmt0,vhost=on{net}", *args, "--cmdline",
            vm.script("mount -t tmpfs t /tmp; ip link set lo up; "
                      f"up() {{ ip addr add {GUEST}/24 dev eth0; ip link set eth0 up; }}; up; {text}"))))

        def end():
            t.join(vm.LIMIT)
            self.assertTrue(box, "the guest did not end")
            return box[0]
        t.start()
        self.addCleanup(t.join, vm.LIMIT)
        return end

    def iperf(self, *args, port=5201):
        """Bytes that arrived; tries until the guest listens."""
        end = time.monotonic() + vm.LIMIT / 2
        while True:
            p = subprocess.run(["iperf3", "-J", "--connect-timeout", "3000", "-c", GUEST, "-p",
                                str(port), *args], stdout=subprocess.PIPE, timeout=vm.LIMIT / 2)
            # With -J some versions put the error there and succeed.
            said = json.loads(p.stdout)
            if "error" not in said:
                return said["end"]["sum_received"]["bytes"]
            self.assertLess(time.monotonic(), end, p.stdout)
            time.sleep(0.3)

    def both_ways(self, net, queues, *args):
        end = self.start(net, "iperf3 -s -D; iperf3 -s -1 -p 5300; ls /sys/class/net/eth0/queues; "
                         "ip link set eth0 down; poweroff -f", *args)
        self.iperf("-n", "64K")
        before = wakes("_net0_qp0")
        for way in ([], ["-R"]):
            self.assertGreater(self.iperf("-n", "32M", "-P", "2", *way), 16 << 20)
        self.assertEqual(wakes("_net0_qp0"), before, "kicks or interrupts came by mvm")
        self.iperf("-n", "64K", port=5300)
        r = end()
        self.assertEqual(r.status, 0, r)
        self.assertIn("served by the host's kernel (vhost-net)", r.err, r)
        self.assertIn(f"tx-{queues - 1}", r.out, r)

    def test_tcp_both_ways_over_pci(self):
        self.tap()
        self.both_ways("", 1)

    def test_tcp_both_ways_over_mmio(self):
        self.tap()
        self.both_ways("", 1, "--transport", "mmio")

    def test_tcp_both_ways_with_two_queue_pairs(self):
        self.tap("multi_queue")
        self.both_ways(",queues=2", 2, "--cpus", 2)

    def resets(self, *args):
        """The link goes down before the power: Linux that breaks its queues at the end can spin for ever
        in virtnet_poll_cleantx when frames still pass (6.1.192 does, whoever serves the queues)."""
        self.tap()
        end = self.start("", f"iperf3 -c {HOST} -u -b 200M -t 100 >/dev/null 2>&1 & "
                         "cd /sys/bus/virtio/drivers/virtio_net; d=$(echo virtio*); i=0; "
                         "while [ $i -lt 40 ]; do echo $d > unbind; echo $d > bind; up; "
                         "usleep 30000; i=$((i+1)); done; echo RESETS $i; "
                         f"ping -c 3 {HOST}; ip link set eth0 down; poweroff -f", *args)
        server = subprocess.Popen(["iperf3", "-s"], stdout=subprocess.DEVNULL)
        try:
            r = end()
        finally:
            server.kill()
            server.wait()
        self.assertEqual(r.status, 0, r)
        self.assertIn("RESETS 40", r.out, r)
        self.assertRegex(r.out, r"3 packets transmitted, [123] packets received", r)
        self.assertNotIn("broken", r.err, r)

    def test_resets_of_the_device_under_traffic_over_pci(self):
        self.resets()

    def test_resets_of_the_device_under_traffic_over_mmio(self):
        self.resets("--transport", "mmio")
