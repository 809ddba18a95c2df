# SPDX-License-Identifier: Apache-2.0
"""Network, sockets and shared directories: mvm beside QEMU with its best configuration of the same device."""
import os
import re
import subprocess
import sys

from tests.bench.measure import MIB, QEMU, ROOT, compare_pairs, get, pss_kib, sh, vm_exits, work_ms

HOST, GUEST, PORT = "10.9.0.1", "10.9.0.2", 5001
CID = 42


# ------------------------------------------------------------------ the parts

def compile_load(d):
    out = f"{d}/load"
    if not os.path.exists(out):
        sh("musl-gcc", "-static", "-Os", "-s", "-idirafter", "/usr/include", "-idirafter",
           "/usr/include/x86_64-linux-gnu", "-o", out, f"{ROOT}/tests/bench/load.c")
    return out


def root_image(d):
    out = f"{d}/devices.img"
    if not os.path.exists(out):
        sh(f"{ROOT}/tools/mkrootfs", "--with", "fio", "--file", f"{compile_load(d)}:usr/bin/load", out)
    return out


def lean(image):
    return sh(f"{ROOT}/tools/kernels", "lean").strip().splitlines()[-1] + "/" + image


def cmdline(script):
    assert '"' not in script
    return f'ro quiet root=/dev/vda init=/bin/sh -- -c "{script}"'


def mvm_cmd(o, d, script, *extra):
    return [str(a) for a in (f"{o.build}/mvm", "boot", "--kernel", lean("vmlinux"), "--rootfs",
                             f"{root_image(d)},readonly=on", "--memory", f"{MIB}M", "--no-reboot",
                             "--cpus", 1, *extra, "--cmdline", cmdline(script))]


def qemu_cmd(d, script, *extra):
    return [str(a) for a in (
        QEMU, "-M", "q35", "-enable-kvm", "-cpu", "host", "-m", MIB, "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", "-kernel", lean("bzImage"), "-append",
        f"console=hvc0 panic=-1 {cmdline(script)}", "-drive",
        f"file={root_image(d)},file.locking=off,id=a,format=raw,if=none,readonly=on", "-device", "virtio-blk-pci,drive=a",
        "-chardev", "stdio,id=c", "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=c",
        *extra)]


class Server:
    """The load program on the host's side."""

    def __init__(self, d, address, prefix=()):
        self.p = subprocess.Popen([*prefix, compile_load(d), "serve", address], stdout=subprocess.PIPE)
        assert b"SERVING" in self.p.stdout.readline(), address

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.kill()
        self.p.wait()


def vhost_ms(pid):
    """What the kernel's threads do for a VMM; from Linux 6.4 on they are threads of its own."""
    total = 0
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            name, rest = get(f"/proc/{p}/stat").rsplit(")", 1)
        except OSError:
            continue
        if name.endswith(f"(vhost-{pid}"):
            total += int(rest.split()[12])
    return total * 1000 / os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------ a guest's loads

AWAKE = "echo READY; while read w; do [ $w = end ] && { ip link set eth0 down 2>/dev/null; poweroff -f; }; echo BEGIN $w; "


class Guest:
    """A guest that stays, and does a load when it is told: it prints "LOAD what units-a-second units" then."""

    def __init__(self, cmd, unit):
        self.cmd, self.unit, self.said = cmd, unit, []
        self.p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.line("READY$")

    def line(self, pattern):
        for raw in self.p.stdout:
            text = raw.decode(errors="replace").strip()
            self.said.append(text)
            if m := re.search(pattern, text):
                return m
        self.p.wait(60)
        err = self.p.stderr.read().decode(errors="replace")
        raise RuntimeError(f"status {self.p.returncode}: {self.cmd}: {self.said[-20:]} {err[-2000:]}")

    def tell(self, word):
        self.p.stdin.write(f"{word}\n".encode())
        self.p.stdin.flush()

    def spent(self):
        return vm_exits(self.p.pid), work_ms(self.p.pid) + vhost_ms(self.p.pid)

    def load(self, what):
        """Figures of one load; exits and CPU time (us) for each unit."""
        self.tell(what)
        self.line(f"BEGIN {what}$")
        exits, cpu = self.spent()
        m = self.line(rf"LOAD {what} (\d+) (\d+)$")
        exits, cpu = (now - then for now, then in zip(self.spent(), (exits, cpu)))
        unit = self.unit.get(what, 1)
        n = max(int(m[2]) / unit, 1)
        return {"rate": int(m[1]) / unit, "exits": exits / n, "cpu": cpu * 1000 / n}

    def end(self):
        if self.p.poll() is None:
            self.tell("end")
        try:
            self.p.wait(20)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()


def rounds(o, a, b, unit, loads, what):
    """
    Two guests that are there at the same time, one load at a time, each first in every other
    round: what else the machine does meets both. New ones every fourth round. Their figures by
    load, for table().
    """
    runs = {load: ([], []) for load in loads}
    guests = [None, None]
    try:
        for i in range(o.device_runs):
            # A guest's own state makes it faster or slower than its like for as long as it lives.
            if i % 4 == 0:
                for g in filter(None, guests):
                    g.end()
                guests[:] = [None, None]
            for load in loads:
                pair = {}
                for k in ((0, 1), (1, 0))[i % 2]:
                    pair[k] = once(guests, k, (a, b)[k], unit, load)
                for k in pair:
                    runs[load][k].append(pair[k])
            print(f"  {what} {i}: " + " ".join(f"{load} {x[-1]['rate']:.0f}/{y[-1]['rate']:.0f}"
                                              for load, (x, y) in runs.items()), file=sys.stderr)
    finally:
        for g in filter(None, guests):
            g.end()
    return runs


def once(guests, k, cmd, unit, load):
    """An emulated processor now and then kills a guest's kernel, with either VMM: made again then."""
    for left in (2, 1, 0):
        try:
            guests[k] = guests[k] or Guest(cmd, unit)
            return guests[k].load(load)
        except RuntimeError as e:
            guests[k] = None
            if not left or "anic" not in str(e):
                raise
            print(f"  once more: {e}", file=sys.stderr)


def table(title, runs, loads, names=("mvm", "QEMU")):
    out = {}
    for load, (text, bar) in loads.items():
        one = "operation" if "/s" in text and "MiB" not in text else "MiB"
        out[load] = compare_pairs(f"{title}, {load}", *runs[load],
                                  (("rate", text), ("exits", f"exits a {one}"), ("cpu", f"VMM CPU, us/{one}")),
                                  {"rate": bar, "exits": "< 1.0", "cpu": "< 1.0"}, names)
    return out


STREAM = {load: 1 << 20 for load in ("send", "recv", "send4", "recv4")}


def stream_loads(bar):
    return {"send": ("guest to host, MiB/s", bar), "recv": ("host to guest, MiB/s", bar),
            "ping": ("round trips/s", bar)}


def stream_script(o, address):
    return f"{AWAKE}load $w {address} {o.device_seconds}; done"


# ------------------------------------------------------------------ benches

def bench_net(o, d):
    """TAPs in a network namespace of their own, TCP to a server there."""
    ns = f"mvm-bench-{os.getpid()}"
    into = ["ip", "netns", "exec", ns]
    result = {}

    def link(i):
        tap, host, guest = f"mvmbench{i}", f"10.9.{i}.1", f"10.9.{i}.2"
        sh(*into, "ip", "tuntap", "add", tap, "mode", "tap")
        sh(*into, "ip", "addr", "add", f"{host}/24", "dev", tap)
        sh(*into, "ip", "link", "set", tap, "up")
        return tap, (f"ip addr add {guest}/24 dev eth0; ip link set eth0 up; "
                     + stream_script(o, f"tcp:{host}:{PORT}"))

    sh("ip", "netns", "add", ns)
    try:
        (tap0, script0), (tap1, script1) = link(0), link(1)
        with Server(d, f"tcp:0.0.0.0:{PORT}", into):
            for vhost, bar in (("on", ">= 1.0"), ("off", ">= 1.3")):
                if vhost not in o.vhost:
                    continue
                a = into + mvm_cmd(o, d, script0, "--net", f"tap={tap0},mac=02:6d:76:6d:00:01,vhost={vhost}")
                b = into + qemu_cmd(d, script1, "-netdev",
                                    f"tap,id=n,ifname={tap1},script=no,downscript=no,vhost={vhost}",
                                    "-device", "virtio-net-pci,netdev=n,mac=02:6d:76:6d:00:02,rx_queue_size=1024")
                loads = stream_loads(bar) | {
                    "send4": ("four streams guest to host, MiB/s", ">= 1.0"),
                    "recv4": ("four streams host to guest, MiB/s", ">= 1.0")}
                result[vhost] = table(f"Network, vhost={vhost}", rounds(o, a, b, STREAM, loads, f"net vhost={vhost}"),
                                      loads)
    finally:
        sh("ip", "netns", "del", ns)
    return result


def bench_vsock(o, d):
    result = {}
    script = stream_script(o, f"vsock:2:{PORT}")
    kernel = mvm_cmd(o, d, script, "--vsock", f"cid={CID}")
    with Server(d, f"vsock:4294967295:{PORT}"):
        loads = stream_loads(">= 1.0")
        qemu = qemu_cmd(d, script, "-device", f"vhost-vsock-pci,guest-cid={CID + 1}")
        result["vhost"] = table("Sockets, vhost-vsock", rounds(o, kernel, qemu, STREAM, loads, "vsock vhost"), loads)
        path, loads = f"{d}/vsock.sock", stream_loads(">= 0.7")
        with Server(d, f"unix:{path}_{PORT}"):
            user = mvm_cmd(o, d, script, "--vsock", f"cid={CID + 1},socket={path}")
            result["user"] = table("Sockets, user space beside vhost-vsock, both mvm",
                                   rounds(o, user, kernel, STREAM, loads, "vsock user space"), loads,
                                   ("user", "vhost"))
    return result


VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
FS_LOADS = {"seqread": ("MiB/s", ">= 1.0"), "seqwrite": ("MiB/s", ">= 1.0"), "randread": ("operations/s", ">= 1.0"),
            "files": ("files/s", ">= 1.0")}
FS_UNITS = {"seqread": 1 << 20, "seqwrite": 1 << 20, "randread": 4096}


def fs_script(o):
    """Bytes and operations past the guest's page cache, and names made and removed."""
    fio = "fio --name=b --filename=/mnt/data --direct=1 --ioengine=psync --size=64M --time_based"
    return (f"mount -t virtiofs bench /mnt; mount -t tmpfs t /tmp; cd /tmp; "
            f"f() {{ {fio} --runtime=$2 --rw=$3 --bs=$4 --output-format=terse --terse-version=3 > o; "
            "echo LOAD $1 $(($(cut -d\\; -f$5 o)*1024)) $(($(cut -d\\; -f$6 o)*1024)); }; "
            "f warm 1 read 1M 7 6; "  # else the first load would load fio from the disk
            f"{AWAKE}case $w in seqread) f $w {o.device_seconds} read 1M 7 6;; "
            f"seqwrite) f $w {o.device_seconds} write 1M 48 47;; randread) f $w {o.device_seconds} randread 4k 7 6;; "
            f"*) load $w /mnt {o.device_seconds};; esac; done")


def bench_fs(o, d):
    """The same program, options and directory for both; each VMM has a virtiofsd of its own."""
    share = f"{d}/share"
    os.makedirs(share, exist_ok=True)
    with open(f"{share}/data", "wb") as f:
        for _ in range(64):
            f.write(os.urandom(1 << 20))

    def behind(sock, cmd):  # the pid stays the VMM's
        server = f"{VIRTIOFSD} --socket-path={sock} -o source={share} -o cache=auto -o sandbox=chroot"
        wait = f"& until [ -S {sock} ]; do sleep 0.05; done; exec"
        return ["bash", "-c", f"rm -f {sock}; {server} >/dev/null 2>&1 </dev/null {wait} \"$@\"", "sh", *cmd]

    script, socks = fs_script(o), (f"{d}/fs0.sock", f"{d}/fs1.sock")
    a = behind(socks[0], mvm_cmd(o, d, script, "--fs", f"tag=bench,socket={socks[0]}"))
    b = behind(socks[1], qemu_cmd(
        d, script, "-object", f"memory-backend-memfd,id=mem,size={MIB}M,share=on", "-machine", "memory-backend=mem",
        "-chardev", f"socket,id=f,path={socks[1]}", "-device", "vhost-user-fs-pci,chardev=f,tag=bench,queue-size=1024"))
    return table("Shared directory", rounds(o, a, b, FS_UNITS, FS_LOADS, "fs"), FS_LOADS)


def bench_memory(o, d):
    """What mvm itself takes with one of each device in use, beside the guest's own memory."""
    ns, share = f"mvm-bench-{os.getpid()}", f"{d}/share"
    os.makedirs(share, exist_ok=True)
    into = ["ip", "netns", "exec", ns]
    script = ("ip addr add {0}/24 dev eth0; ip link set eth0 up; mount -t virtiofs bench /mnt; "
              "for m in send recv; do load $m tcp:{1}:{2} 2; load $m vsock:2:{2} 2; done; ls /mnt; "
              "echo READY; sleep 5; poweroff -f").format(GUEST, HOST, PORT)
    sh("ip", "netns", "add", ns)
    try:
        sh(*into, "ip", "tuntap", "add", "mvmbench0", "mode", "tap")
        sh(*into, "ip", "addr", "add", f"{HOST}/24", "dev", "mvmbench0")
        sh(*into, "ip", "link", "set", "mvmbench0", "up")
        path = f"{d}/vsock.sock"
        with Server(d, f"tcp:{HOST}:{PORT}", into), Server(d, f"unix:{path}_{PORT}"):
            cmd = mvm_cmd(o, d, script, "--net", "tap=mvmbench0,vhost=off", "--fs", f"tag=bench,dir={share}",
                          "--vsock", f"cid={CID},socket={path}")
            p = subprocess.Popen(into + cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            kib = None
            for raw in p.stdout:
                if raw.strip() == b"READY":
                    kib = pss_kib(p.pid, MIB << 20)
            p.wait(60)
    finally:
        sh("ip", "netns", "del", ns)
    if kib is None:
        raise RuntimeError(f"the guest was not ready: status {p.returncode}")
    print(f"\nmemory of mvm beside the guest's, with net, vsock and fs in use: {kib} KiB (bar 4096)")
    return {"kib": kib}


BENCHES = {"net": bench_net, "vsock": bench_vsock, "fs": bench_fs, "memory": bench_memory}
