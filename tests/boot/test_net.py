# SPDX-License-Identifier: Apache-2.0
"""Network devices under a real guest: TAPs in a network namespace of the test's own, and passt."""
import itertools
import os
import re
import shutil
import subprocess
import unittest

from tests.lib import vm

HOST, GUEST = "10.98.7.1", "10.98.7.2"
names = (f"mvm-test-{os.getpid()}-{i}" for i in itertools.count())


class Net(vm.TestCase):
    """mvm, and whom it talks to, run in a namespace where nothing else is."""

    def setUp(self):
        super().setUp()
        self.ns = next(names)
        self.run_ok("ip", "netns", "add", self.ns)
        self.addCleanup(subprocess.run, ["ip", "netns", "delete", self.ns])
        self.ip("link", "set", "lo", "up")

    def run_ok(self, *args):
        subprocess.run(args, check=True, stdin=subprocess.DEVNULL)

    def ip(self, *args):
        self.run_ok("ip", "-n", self.ns, *args)

    def tap(self, *opts, mtu=1500):
        self.ip("tuntap", "add", "tap0", "mode", "tap", *opts)
        self.ip("address", "add", f"{HOST}/24", "dev", "tap0")
        self.ip("link", "set", "tap0", "mtu", str(mtu), "up")

    def inside(self, *args):
        """A process of the namespace that lives as long as the test."""
        p = subprocess.Popen(["ip", "netns", "exec", self.ns, *args], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        return p

    def guest(self, net, commands, *args, image=None, config=True, **kw):
        """Boots with --net and runs the commands, the guest's address being set."""
        up = f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up; " if config else ""
        image = image or self.rootfs("--size", "128M", "--with", "iperf3")
        old = vm.MVM
        try:
            vm.MVM = self.wrapper()
            r = self.boot("-v", "--rootfs", image, "--net", net, *args, "--cmdline",
                          vm.script(f"{up}{commands}; {self.DOWN}; poweroff -f"), **kw)
        finally:
            vm.MVM = old
        self.assertEqual(r.status, 0, r)
        return r

    def wrapper(self):
        path = self.path("mvm-inside")
        with open(path, "w") as f:
            f.write(f"#!/bin/sh\nexec ip netns exec {self.ns} {vm.MVM} \"$@\"\n")
        os.chmod(path, 0o755)
        return path

    # The guest's kernel may hang in its end if it sends after the device went: see README's limits.
    DOWN = "ip link set eth0 down"
    PING = f"ping -c 2 -w 20 {HOST} > /dev/null && echo PING OK"

    def traffic(self, *args):
        return "".join(f"iperf3 -c {HOST} -t 1 {a} > /out && echo TCP OK; " for a in args)


class Taps(Net):
    def both_ways(self, transport, net="tap0,vhost=off", mtu=1500, cpus=1, more=""):
        self.inside("iperf3", "-s")
        return self.guest(net, f"ip link set eth0 mtu {mtu}; {self.PING}; "
                          + self.traffic("", "-R", "-u -b 20M", "-u -b 20M -R") + more + "true",
                          "--transport", transport, "--cpus", cpus)

    def assertTraffic(self, r):
        self.assertIn("PING OK", r.out, r)
        self.assertEqual(len(re.findall(r"(?m)^TCP OK", r.out)), 4, r)

    def test_traffic_both_ways_over_pci(self):
        self.tap()
        self.assertTraffic(self.both_ways("pci"))

    def test_traffic_both_ways_over_mmio_with_large_frames(self):
        self.tap(mtu=9000)
        r = self.both_ways("mmio", "tap0,vhost=off,mtu=9000", mtu=9000,
                           more="cat /sys/class/net/eth0/mtu; ")
        self.assertTraffic(r)
        self.assertRegex(r.out, r"(?m)^9000\r?$", r)

    def test_several_queues_carry_traffic(self):
        self.tap("multi_queue")
        r = self.both_ways("pci", "tap0,vhost=off,queues=2", cpus=2,
                           more="ls -d /sys/class/net/eth0/queues/rx-*; ")
        self.assertTraffic(r)
        self.assertIn("rx-1", r.out, r)
        self.assertRegex(r.err, r"net0 negotiated: .*\bMQ\b", r)

    def test_sixty_four_streams_at_once(self):
        """Each way, by us and by the host's kernel; each stream's own line says that it carried something."""
        self.tap("multi_queue")
        self.inside("iperf3", "-s")
        image = self.rootfs("--size", "128M", "--with", "iperf3")
        for vhost in ("on", "off"):
            with self.subTest(vhost=vhost):
                ways = "; ".join(f"iperf3 -c {HOST} -P 64 -t 3 {way} > /out 2>&1; echo STATUS=$?; "
                                 f"grep -c '[1-9].*Bytes .*{end}' /out" for way, end in (("", "receiver"),
                                                                                         ("-R", "receiver")))
                r = self.guest(f"tap0,vhost={vhost},queues=2", f"{ways}; ip link set eth0 down", "--cpus", 2,
                               image=image)
                self.assertEqual(len(re.findall(r"(?m)^STATUS=0\r?$", r.out)), 2, r)
                # Sixty-four streams, and their sum.
                self.assertEqual(len(re.findall(r"(?m)^65\r?$", r.out)), 2, r)

    def test_features_taken_away(self):
        self.tap("multi_queue")
        self.inside("iperf3", "-s")
        image = self.rootfs("--size", "128M", "--with", "iperf3")
        for without in ("MRG_RXBUF", "CSUM,-GUEST_CSUM", "CTRL_VQ", "MQ,-EVENT_IDX,-INDIRECT_DESC",
                        "MRG_RXBUF,-GUEST_TSO4,-GUEST_TSO6"):
            with self.subTest(without):
                r = self.guest("tap0,vhost=off,queues=2",
                               f"{self.PING}; {self.traffic('', '-R')} true",
                               "--virtio-features", f"net0=-{without}", image=image)
                self.assertIn("PING OK", r.out, r)
                self.assertEqual(len(re.findall(r"(?m)^TCP OK", r.out)), 2, r)
                first = without.split(",")[0]
                self.assertNotRegex(r.err, rf"net0 negotiated: .*\b{first}\b", r)

    def test_a_tap_that_is_not_there_is_made(self):
        r = self.guest("fresh,mac=52:54:00:00:00:07,vhost=off",
                       "cat /sys/class/net/eth0/address; cat /sys/class/net/eth0/carrier")
        self.assertIn("52:54:00:00:00:07", r.out, r)
        self.assertRegex(r.err, "TAP fresh: made", r)
        self.assertNotIn("fresh", subprocess.run(["ip", "-n", self.ns, "link"], check=True,
                                                 stdout=subprocess.PIPE).stdout.decode())

    def terminal(self, *args):
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--timeout", 200, *args)
        self.addCleanup(t.close)
        return t

    def test_link_down_and_up_and_busy(self):
        self.tap()
        old, vm.MVM = vm.MVM, self.wrapper()
        try:
            t = self.terminal("--rootfs", self.rootfs(), "--net", "tap0,vhost=off")
            t.expect(vm.PROMPT)
            r = self.boot("--rootfs", self.rootfs(name="b.img"), "--net", "tap0,vhost=off")
            self.assertEqual(r.status, 125, r)
            self.assertRegex(r.err, rf"TAP tap0: in use by process {t.proc.pid} \(mvm\)", r)
        finally:
            vm.MVM = old
        t.send(f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up; {self.PING}\n")
        t.expect(r"\nPING OK")
        down = "while [ $(cat /sys/class/net/eth0/carrier) = {} ]; do sleep 0.2; done; echo IS {}\n"
        self.ip("link", "set", "tap0", "down")
        t.send(down.format(1, "DOWN"))
        t.expect(r"\nIS DOWN")
        self.ip("link", "set", "tap0", "up")
        t.send(down.format(0, "UP"))
        t.expect(r"\nIS UP")
        t.send(self.PING + "\n")
        t.expect(r"\nPING OK")
        self.ip("link", "delete", "dev", "tap0")
        t.expect(r"TAP tap0: it was deleted")
        t.send(down.format(1, "GONE") + f"{self.DOWN}; poweroff -f\n")
        t.expect(r"\nIS GONE")
        self.assertEqual(t.wait(), 0)

    def test_a_reboot_keeps_the_tap(self):
        self.tap()
        r = self.guest("tap0,vhost=off", f"{self.PING}; {self.DOWN}; [ -e /m ] && poweroff -f; touch /m; "
                       "sync; reboot -f")
        self.assertEqual(len(re.findall(r"(?m)^PING OK", r.out)), 2, r)

    def test_without_permission_it_is_said_what_is_missing(self):
        def nobody():
            os.setgroups([])
            os.setuid(65534)
        kernel = vm.lean()
        r = vm.mvm("boot", "--kernel", kernel, "--net", "nobodys,vhost=off", before=nobody)
        self.assertEqual(r.status, 125, r)
        self.assertRegex(r.err, "TAP nobodys: .*(CAP_NET_ADMIN|/dev/net/tun: Permission denied)", r)


class User(Net):
    def setUp(self):
        super().setUp()
        if not shutil.which("passt"):
            self.fail("passt is missing: apt-get install passt")

    def test_the_guest_reaches_the_host_through_passt(self):
        self.ip("link", "add", "up0", "type", "dummy")
        self.ip("address", "add", "192.0.2.2/24", "dev", "up0")
        self.ip("link", "set", "up0", "up")
        self.ip("route", "add", "default", "via", "192.0.2.1")
        self.inside("iperf3", "-s", "-B", "127.0.0.1")
        # Its gateway's address is the host's loopback.
        r = self.guest("user", "ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up; "
                       "iperf3 -c 192.0.2.1 -t 1 > /o && echo TCP OK; iperf3 -R -c 192.0.2.1 -t 1 "
                       "> /o && echo TCP OK; cat /sys/class/net/eth0/carrier", config=False)
        self.assertEqual(len(re.findall(r"(?m)^TCP OK", r.out)), 2, r)

    def test_how_passt_ended_is_said_and_the_guest_goes_on(self):
        self.ip("link", "add", "up0", "type", "dummy")
        self.ip("address", "add", "192.0.2.2/24", "dev", "up0")
        self.ip("link", "set", "up0", "up")
        self.ip("route", "add", "default", "via", "192.0.2.1")
        # The host's part of this test, in the same namespace: it ends the one passt that is there.
        self.inside("sh", "-c", "until p=$(pgrep -x passt.avx2 || pgrep -x passt); do sleep 0.2; done; "
                    "sleep 3; for i in $p; do grep -q mvm /proc/$(ps -o ppid= -p $i | tr -d ' ')/comm && "
                    "kill -9 $i; done")
        r = self.guest("user", "ip link set eth0 up; n=0; while [ $(cat /sys/class/net/eth0/carrier) = 1 ] && "
                       "[ $n -lt 60 ]; do n=$((n+1)); sleep 1; done; "
                       "echo CARRIER $(cat /sys/class/net/eth0/carrier)", config=False)
        self.assertIn("CARRIER 0", r.out, r)
        self.assertRegex(r.err, r"net0: passt was killed by signal 9 .*; the guest's link is down\n", r)

    def test_what_passt_lacks_is_said(self):
        old, vm.MVM = vm.MVM, self.wrapper()
        try:
            r = vm.mvm("boot", "--kernel", vm.lean(), "--net", "user")
        finally:
            vm.MVM = old
        self.assertEqual(r.status, 125, r)
        self.assertRegex(r.err, "net0: passt ended with status 1: .*[Ii]nterface", r)


if __name__ == "__main__":
    unittest.main()
