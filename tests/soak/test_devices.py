# SPDX-License-Identifier: Apache-2.0
"""All devices of a machine at once, busy for minutes: none may stall."""
import os
import re
import subprocess

from tests.lib import emulator, vm

SECONDS = 600
LOOK = 20  # seconds between two looks at the counters
# Emulated processors share two real ones: a load may have to wait its turn, but not for this long.
STALL = 6  # looks

# What each load has done so far, as the guest's kernel or the load's own file says.
COUNTERS = {
    "net0": "echo $(($(cat /sys/class/net/eth0/statistics/rx_bytes)+$(cat /sys/class/net/eth0/statistics/tx_bytes)))",
    "net1": "echo $(($(cat /sys/class/net/eth1/statistics/rx_bytes)+$(cat /sys/class/net/eth1/statistics/tx_bytes)))",
    "vsock": "wc -l < /tmp/vsock",
    "disk": "set -- $(cat /sys/block/vdb/stat); echo $(($1+$5))",
    "fs": "wc -l < /tmp/fs",
}


class Devices(vm.TestCase):
    def network(self):
        """A namespace with two TAPs, servers in it; gone afterwards. Returns the prefix of commands in it."""
        ns = f"mvm-soak-{os.getpid()}"
        into = ["ip", "netns", "exec", ns]
        subprocess.run(["ip", "netns", "add", ns], check=True)
        self.addCleanup(subprocess.run, ["ip", "netns", "del", ns])
        for i in (0, 1):
            for cmd in (f"ip tuntap add t{i} mode tap multi_queue", f"ip addr add 10.9.{i}.1/24 dev t{i}",
                        f"ip link set t{i} up"):
                subprocess.run([*into, *cmd.split()], check=True)
            self.server([*into, "iperf3", "-s", "-B", f"10.9.{i}.1"])
        subprocess.run([*into, "ip", "link", "set", "lo", "up"], check=True)
        return into

    def server(self, cmd):
        p = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)

    def load_program(self):
        out = self.path("load")
        subprocess.run(["musl-gcc", "-static", "-Os", "-s", "-idirafter", "/usr/include", "-idirafter",
                        "/usr/include/x86_64-linux-gnu", "-o", out, f"{vm.ROOT}/tests/bench/load.c"], check=True)
        return out

    def script(self):
        """Each load goes on for ever; the counters are printed, and the machine ends when its time is over."""
        loads = (
            "while :; do iperf3 -c 10.9.0.1 -t 30 -P 8 --bidir; done > /dev/null 2>&1 & ",
            "while :; do iperf3 -c 10.9.1.1 -t 30 -P 8 --bidir; done > /dev/null 2>&1 & ",
            "while :; do load send vsock:2:5001 3 && load recv vsock:2:5001 3 && load ping vsock:2:5001 1; "
            "done > /tmp/vsock 2>&1 & ",
            "while :; do fio --name=d --filename=/dev/vdb --rw=randrw --bsrange=4k-64k --size=64M --iodepth=16 "
            "--ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --runtime=30 > /tmp/o || touch /tmp/bad; "
            "done & ",
            "while :; do fio --name=s --directory=/mnt --rw=randrw --bsrange=4k-64k --size=2M --ioengine=psync "
            "--verify=crc32c --verify_fatal=1 > /tmp/p && echo 1 >> /tmp/fs || touch /tmp/bad; done & ")
        print_all = "; ".join(f"echo COUNT {k} $({c})" for k, c in COUNTERS.items())
        return ("mount -t tmpfs t /tmp; cd /tmp; mount -t virtiofs work /mnt; touch vsock fs; "
                "for i in 0 1; do ip addr add 10.9.$i.2/24 dev eth$i; ip link set eth$i up; done; " +
                "".join(loads) +
                f"while [ $(cut -d. -f1 /proc/uptime) -lt {SECONDS} ]; do sleep {LOOK}; {print_all}; done; "
                "[ -e /tmp/bad ] && echo BAD; dmesg | grep -E '[s]tall|[h]ung|[B]UG|[W]ARN|I/O [e]rror'; echo END; "
                # See tests/boot/test_vhost_net.py, resets().
                "for i in 0 1; do ip link set eth$i down; done; poweroff -f")

    def look(self, out):
        """Whether every counter rose within any STALL looks."""
        for name in COUNTERS:
            values = [int(v) for v in re.findall(rf"COUNT {name} (\d+)", out)]
            self.assertGreater(len(values), STALL, f"{name}: {values}\n{out[-3000:]}")
            for a, b in zip(values, values[STALL:]):
                self.assertLess(a, b, f"{name} stood still: {values}")

    def busy(self, transport, vsock):
        into = self.network()
        work, data, image = self.path("work"), self.disk("data.img", 128), self.path("root.img")
        os.mkdir(work)
        script = self.path("run.sh")
        with open(script, "w") as f:
            f.write(self.script())
        subprocess.run([f"{vm.ROOT}/tools/mkrootfs", "--size", "160M", "--with", "fio", "--with", "iperf3", "--file",
                        f"{self.load_program()}:usr/bin/load", "--file", f"{script}:run.sh", image], check=True)
        self.server([self.path("load"), "serve", "vsock:4294967295:5001"] if "socket" not in vsock else
                    [self.path("load"), "serve", f"unix:{self.path('v.sock')}_5001"])
        out = subprocess.run(
            [*into, vm.MVM, "boot", "--kernel", vm.lean(), "--rootfs", f"{image},readonly=on", "--disk",
             f"path={data},direct=on", "--net", "tap=t0,vhost=on,queues=4", "--net", "tap=t1,vhost=off,queues=2",
             "--fs", f"tag=work,dir={work}", "--vsock", vsock.format(self.path("v.sock")), "--cpus", "8", "--memory",
             "1G", "--transport", transport, "--timeout", str(SECONDS * 3),
             *emulator.cmdline("init=/bin/sh -- /run.sh")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS * 3 + 60)
        text = out.stdout.decode(errors="replace")
        self.assertEqual(out.returncode, 0, text[-4000:])
        self.assertIn("END", text)
        self.assertNotRegex(text, r"\bBAD\b|stall|hung_task|BUG:|WARNING:")
        self.look(text)

    def test_all_devices_over_pci_with_the_kernels_vsock(self):
        self.busy("pci", "cid=77")

    def test_all_devices_over_mmio_with_vsock_in_user_space(self):
        self.busy("mmio", "cid=78,socket={}")
