# SPDX-License-Identifier: Apache-2.0
"""Network, sockets and shared directories: mvm beside QEMU with its best configuration of the same device."""
import os
import re
import subprocess
import sys

from tests.bench.measure import MIB, QEMU, ROOT, Exits, compare, cpu_ms, get, pss_kib, sh

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
        f"file={root_image(d)},id=a,format=raw,if=none,readonly=on", "-device", "virtio-blk-pci,drive=a",
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

def watch(cmd, unit):
    """Runs a guest that prints "BEGIN what" and "LOAD what rate units": figures by what."""
    seen, said = {}, []
    with Exits() as exits:
        p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for raw in p.stdout:
            line = raw.decode(errors="replace").strip()
            said.append(line)
            if m := re.search(r"BEGIN (\w+)$", line):
                begun = exits.so_far()["exits"], cpu_ms(p.pid) + vhost_ms(p.pid)
            elif m := re.search(r"LOAD (\w+) (\d+) (\d+)$", line):
                ops = max(int(m[3]) / unit.get(m[1], 1), 1)
                seen[m[1]] = {"rate": int(m[2]) / unit.get(m[1], 1),
                              "exits": (exits.so_far()["exits"] - begun[0]) / ops,
                              "cpu": (cpu_ms(p.pid) + vhost_ms(p.pid) - begun[1]) * 1000 / ops}
        p.wait(60)
        err = p.stderr.read().decode(errors="replace")
    if p.returncode or not seen:
        raise RuntimeError(f"status {p.returncode}: {cmd}: {said[-20:]} {err[-2000:]}")
    return seen


def attempt(cmd, unit):
    """An emulated processor now and then kills a guest's kernel, with either VMM: made again then."""
    for left in (2, 1, 0):
        try:
            return watch(cmd, unit)
        except RuntimeError as e:
            if not left or "anic" not in str(e):
                raise
            print(f"  once more: {e}", file=sys.stderr)


def turns(o, a, b, unit, what):
    """Two commands in turn, each first in every other round; their runs, for table()."""
    runs = [], []
    for i in range(o.device_runs):
        pair = list(zip(runs, (a, b)))
        for out, cmd in pair if i % 2 == 0 else pair[::-1]:
            out.append(attempt(cmd, unit))
        print(f"  {what} {i}: " + " ".join(
            f"{k} {x['rate']:.0f}/{runs[1][-1][k]['rate']:.0f}" for k, x in runs[0][-1].items()), file=sys.stderr)
    return runs


def table(title, runs, loads, names=("mvm", "QEMU")):
    out = {}
    for load, (text, bar) in loads.items():
        one = "operation" if "/s" in text and "MiB" not in text else "MiB"
        out[load] = compare(f"{title}, {load}", [r[load] for r in runs[0]], [r[load] for r in runs[1]],
                            (("rate", text), ("exits", f"exits a {one}"), ("cpu", f"VMM CPU, us/{one}")),
                            {"rate": bar, "exits": "< 1.0", "cpu": "< 1.0"}, names)
    return out


STREAM = {"send": 1 << 20, "recv": 1 << 20}


def stream_loads(bar):
    return {"send": ("guest to host, MiB/s", bar), "recv": ("host to guest, MiB/s", bar),
            "ping": ("round trips/s", bar)}


def stream_script(o, address):
    loads = "; ".join(f"echo BEGIN {m}; load {m} {address} {o.seconds}" for m in ("send", "recv", "ping"))
    return f"{loads}; poweroff -f"


# ------------------------------------------------------------------ benches

def bench_net(o, d):
    """A TAP in a network namespace of its own, TCP to a server there."""
    ns, tap, mac = f"mvm-bench-{os.getpid()}", "mvmbench0", "02:6d:76:6d:00:01"
    into = ["ip", "netns", "exec", ns]
    script = f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up; " + stream_script(o, f"tcp:{HOST}:{PORT}")
    result = {}
    sh("ip", "netns", "add", ns)
    try:
        sh(*into, "ip", "tuntap", "add", tap, "mode", "tap")
        sh(*into, "ip", "addr", "add", f"{HOST}/24", "dev", tap)
        sh(*into, "ip", "link", "set", tap, "up")
        sh(*into, "ip", "link", "set", "lo", "up")
        with Server(d, f"tcp:{HOST}:{PORT}", into):
            for vhost, bar in (("on", ">= 1.0"), ("off", ">= 1.3")):
                a = into + mvm_cmd(o, d, script, "--net", f"tap={tap},mac={mac},vhost={vhost}")
                b = into + qemu_cmd(d, script, "-netdev",
                                    f"tap,id=n,ifname={tap},script=no,downscript=no,vhost={vhost}",
                                    "-device", f"virtio-net-pci,netdev=n,mac={mac}")
                runs = turns(o, a, b, STREAM, f"net vhost={vhost}")
                result[vhost] = table(f"Network, vhost={vhost}", runs, stream_loads(bar))
    finally:
        sh("ip", "netns", "del", ns)
    return result


def bench_vsock(o, d):
    result = {}
    script = stream_script(o, f"vsock:2:{PORT}")
    kernel = mvm_cmd(o, d, script, "--vsock", f"cid={CID}")
    with Server(d, f"vsock:4294967295:{PORT}"):
        runs = turns(o, kernel, qemu_cmd(d, script, "-device", f"vhost-vsock-pci,guest-cid={CID}"), STREAM,
                     "vsock vhost")
        result["vhost"] = table("Sockets, vhost-vsock", runs, stream_loads(">= 1.0"))
        path = f"{d}/vsock.sock"
        with Server(d, f"unix:{path}_{PORT}"):
            runs = turns(o, mvm_cmd(o, d, script, "--vsock", f"cid={CID},socket={path}"), kernel, STREAM,
                         "vsock user space")
    result["user"] = table("Sockets, user space beside vhost-vsock, both mvm", runs, stream_loads(">= 0.7"),
                           ("user", "vhost"))
    return result


VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
FS_LOADS = {"seqread": ("MiB/s", ">= 1.0"), "seqwrite": ("MiB/s", ">= 1.0"), "randread": ("operations/s", ">= 1.0"),
            "files": ("files/s", ">= 1.0")}
FS_UNITS = {"seqread": 1 << 20, "seqwrite": 1 << 20, "randread": 4096}


def fs_script(o):
    """Bytes and operations past the guest's page cache, and names made and removed."""
    jobs = (("seqread", "read", "1M", 7, 6), ("seqwrite", "write", "1M", 48, 47), ("randread", "randread", "4k", 7, 6))
    parts = ["mount -t virtiofs bench /mnt", "mount -t tmpfs t /tmp", "cd /tmp"]
    fio = "fio --name=b --filename=/mnt/data --direct=1 --ioengine=psync --size=64M --time_based"
    parts.append(f"{fio} --runtime=1 --rw=read --bs=1M > o")  # else the first load would load fio from the disk
    for name, rw, bs, rate, total in jobs:
        parts.append(f"echo BEGIN {name}; {fio} --runtime={o.seconds} --rw={rw} --bs={bs} --output-format=terse "
                     f"--terse-version=3 > o; echo LOAD {name} $(($(cut -d\\; -f{rate} o)*1024)) "
                     f"$(($(cut -d\\; -f{total} o)*1024))")
    parts.append(f"echo BEGIN files; load files /mnt {o.seconds}")
    return "; ".join(parts + ["poweroff -f"])


def bench_fs(o, d):
    """The same program, options and directory for both; each VMM run has a virtiofsd of its own."""
    share = f"{d}/share"
    os.makedirs(share, exist_ok=True)
    with open(f"{share}/data", "wb") as f:
        for _ in range(64):
            f.write(os.urandom(1 << 20))
    script, sock = fs_script(o), f"{d}/fs.sock"
    server = f"{VIRTIOFSD} --socket-path={sock} -o source={share} -o cache=auto -o sandbox=chroot"
    wait = f"& until [ -S {sock} ]; do sleep 0.05; done; exec"

    def behind(cmd):  # the pid stays the VMM's
        return ["bash", "-c", f"rm -f {sock}; {server} >/dev/null 2>&1 {wait} \"$@\"", "sh", *cmd]

    a = behind(mvm_cmd(o, d, script, "--fs", f"tag=bench,socket={sock}"))
    b = behind(qemu_cmd(d, script, "-object", f"memory-backend-memfd,id=mem,size={MIB}M,share=on", "-machine",
                        "memory-backend=mem", "-chardev", f"socket,id=f,path={sock}", "-device",
                        "vhost-user-fs-pci,chardev=f,tag=bench,queue-size=1024"))
    return table("Shared directory", turns(o, a, b, FS_UNITS, "fs"), FS_LOADS)


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
