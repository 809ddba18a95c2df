#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mvm beside QEMU: same kernel, same initrd, same memory, same run, taking turns.

  tests/bench/run.py [--runs N] [--only boot|disk|start|net|vsock|fs|memory] [--build DIR]

Where there is no hardware KVM it runs itself inside the nested test host. There
wall time means nothing alone; ratios, exits and CPU time are what to read. The
method stands in tests/bench/README.md.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tests.bench import devices  # noqa: E402
from tests.bench.measure import (MIB, QEMU, Exits, Mark, compare, cpu_ms, get, median, pss_kib, put,  # noqa: E402
                                 sh)

# ---------------------------------------------------------------------- boots

def mvm_cmd(o, kernel, initrd, cmdline="", extra=()):
    return [f"{o.build}/mvm", "boot", "--kernel", kernel, "--initrd", initrd, "--memory",
            f"{MIB}M", "--console", "null", "--no-reboot", "--cmdline", cmdline or "quiet", *extra]


def qemu_cmd(kernel, initrd, cmdline="", extra=(), machine="microvm,pit=off,pic=off,rtc=off,isa-serial=off"):
    return [QEMU, "-M", machine, "-enable-kvm", "-cpu", "host", "-m", f"{MIB}", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-kernel", kernel, "-initrd",
            initrd, "-append", f"console=hvc0 panic=-1 {cmdline or 'quiet'}",
            "-chardev", "null,id=c", "-device", "virtio-serial-device", "-device",
            "virtconsole,chardev=c", "-object", "rng-random,id=r,filename=/dev/urandom",
            "-device", "virtio-rng-device,rng=r", *extra]


def boot_once(cmd):
    with Mark() as mark, Exits() as exits:
        t0 = time.clock_gettime(time.CLOCK_MONOTONIC)
        p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        try:
            at = mark.wait(p)
            seen = {"ms": (at - t0) * 1000, **exits.so_far(), "cpu_ms": cpu_ms(p.pid),
                    "pss_kib": pss_kib(p.pid, MIB << 20)}
            p.wait(30)
        finally:
            if p.poll() is None:
                p.kill()
                p.wait()
    return seen


def bench_initrd(o, d):
    """The same archive for both: the bench's init and a console node."""
    sh("musl-gcc", "-static", "-Os", "-s", "-idirafter", "/usr/include", "-idirafter",
       "/usr/include/x86_64-linux-gnu", "-o", f"{d}/init", f"{ROOT}/tests/bench/init.c")
    os.makedirs(f"{d}/dev", exist_ok=True)
    sh("mknod", f"{d}/dev/console", "c", "5", "1")
    out = f"{d}/initrd.cpio"
    subprocess.run(f"cd {d} && printf 'init\\ndev\\ndev/console\\n' | cpio -o -H newc --quiet > {out}",
                   shell=True, check=True)
    return out


def bench_boot(o, d):
    initrd = bench_initrd(o, d)
    lean = sh(f"{ROOT}/tools/kernels", "lean").strip().splitlines()[-1]
    result = {}
    for image in ("vmlinux", "bzImage"):
        a, b = [], []
        for i in range(o.runs + 1):
            x = boot_once(mvm_cmd(o, f"{lean}/{image}", initrd))
            y = boot_once(qemu_cmd(f"{lean}/{image}", initrd))
            if i:  # the first pair warms caches
                a.append(x)
                b.append(y)
            print(f"  {image} {i}: {x['ms']:.0f} ms, {y['ms']:.0f} ms", file=sys.stderr)
        result[image] = compare(
            f"Boot of the lean kernel ({image}) to init", a, b,
            (("ms", "exec to init, ms"), ("exits", "exits to init"), ("io_exits", "  port I/O"),
             ("mmio_exits", "  MMIO"), ("irq_injections", "interrupts"),
             ("cpu_ms", "VMM CPU, ms"), ("pss_kib", "VMM memory, KiB")),
            {"ms": "<= 0.5", "exits": "<= 0.5", "cpu_ms": "<= 0.3", "pss_kib": "<= 0.1 and 3072"})
    Mark.off()
    return result


# --------------------------------------------------------------------- start

def bench_start(o, d):
    """CPU time from exec to the first KVM_RUN, 15 MB of kernel and 1 MB of initrd, on any KVM."""
    kernel, initrd, out = f"{d}/kernel.elf", f"{d}/big.img", f"{d}/t.json"
    sh(sys.executable, f"{ROOT}/tests/bench/big_kernel.py", kernel, 15_000_000)
    put(initrd, "x" * 1_000_000)
    runs = []
    for i in range(o.runs + 1):
        subprocess.run([f"{o.build}/mvm", "boot", "--software-kvm", "--kernel", kernel, "--initrd",
                        initrd, "--console", "off", f"--timeline={out}", "--timeout", "30"],
                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        t = {s["stage"]: s for s in json.loads(get(out))["stages"]}
        if i:
            runs.append({k: t["run"][f"{k}_ns"] / 1e6 for k in ("cpu", "wall")})
    print(f"\nexec to first KVM_RUN, 15 MB kernel, 1 MB initrd: median of {len(runs)} runs: "
          f"{median(runs, 'cpu'):.2f} ms of CPU (bar 5), {median(runs, 'wall'):.2f} ms of wall time")
    return {"cpu_ms": median(runs, "cpu"), "wall_ms": median(runs, "wall")}


# ---------------------------------------------------------------------- disk

LOADS = {"randread": ("--rw=randread --bs=4k --iodepth=32", 4096, 7, 6, "operations/s"),
         "seqread": ("--rw=read --bs=1M --iodepth=4", 1 << 20, 7, 6, "MiB/s")}


def fio_script(o, loads):
    fio = "fio --name=b --filename=/dev/vdb --direct=1 --ioengine=libaio --time_based --size=256M --group_reporting"
    return (f"mount -t tmpfs t /tmp; cd /tmp; f() {{ n=$1; s=$2; shift 2; {fio} --runtime=$s $* "
            "--output-format=terse --terse-version=3 > o; "
            "echo LOAD $n $(($(cut -d\\; -f7 o)*1024)) $(($(cut -d\\; -f6 o)*1024)); }; "
            "f warm 1 --rw=read --bs=1M; "  # else the first load would load fio from the disk
            + devices.AWAKE + "case $w in " +
            "".join(f"{name}) f $w {o.device_seconds} {LOADS[name][0]};; " for name in loads) + "esac; done")


def data_file():
    """256 MiB of noise in the cache directory, where O_DIRECT works."""
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "mvm")
    path = f"{cache}/bench-data.img"
    os.makedirs(cache, exist_ok=True)
    if not os.path.exists(path) or os.path.getsize(path) != 256 << 20:
        with open(path, "wb") as f:
            for _ in range(256):
                f.write(os.urandom(1 << 20))
    return path


def bench_disk(o, d):
    lean = sh(f"{ROOT}/tools/kernels", "lean").strip().splitlines()[-1]
    root, data = f"{d}/root.img", o.data
    sh(f"{ROOT}/tools/mkrootfs", "--with", "fio", root)
    root_tail = f'root=/dev/vda init=/bin/sh -- -c "{fio_script(o, o.loads)}"'
    mvm = [f"{o.build}/mvm", "boot", "--kernel", f"{lean}/vmlinux", "--rootfs", f"{root},readonly=on", "--disk",
           f"path={data},direct=on,queues=1,readonly=on", "--memory", f"{MIB}M", "--cmdline", f"ro quiet {root_tail}"]
    drive = "file.locking=off,format=raw,if=none,readonly=on"
    qemu = [QEMU, "-M", "q35", "-enable-kvm", "-cpu", "host", "-m", str(MIB), "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-kernel", f"{lean}/bzImage",
            "-append", f"console=hvc0 panic=-1 ro quiet {root_tail}", "-object", "iothread,id=io",
            "-drive", f"file={root},id=a,{drive}", "-device", "virtio-blk-pci,drive=a",
            "-drive", f"file={data},id=b,cache=none,aio=native,{drive}",
            "-device", "virtio-blk-pci,drive=b,iothread=io,num-queues=1",
            "-chardev", "stdio,id=c", "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=c"]
    units = {load: LOADS[load][1] for load in o.loads}
    return devices.table("Disk", devices.rounds(o, mvm, qemu, units, o.loads, "disk"),
                         {load: (LOADS[load][4], ">= 1.0") for load in o.loads})


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default=f"{ROOT}/build")
    ap.add_argument("--runs", type=int, default=10)
    ap.add_argument("--device-runs", type=int, default=12, help="pairs of each load of a disk or device")
    ap.add_argument("--device-seconds", type=int, default=2, help="of each of them")
    ap.add_argument("--vhost", nargs="*", choices=("on", "off"), default=("on", "off"), help="what --only net does")
    ap.add_argument("--loads", nargs="*", choices=list(LOADS), default=list(LOADS))
    ap.add_argument("--only", choices=("start", "boot", "disk", *devices.BENCHES))
    ap.add_argument("--json", help="the figures, too")
    ap.add_argument("--data", help="the disk that fio reads: a file or a block device")
    ap.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    o = ap.parse_args()
    o.build = os.path.abspath(o.build)
    kind = sh(f"{ROOT}/tools/testhost", "kind").strip()
    result = {}
    with tempfile.TemporaryDirectory(prefix="mvm-bench-") as d:
        if not o.inside and o.only in (None, "start") and kind != "none":
            result["start"] = bench_start(o, d)
        if o.only != "start" and kind != "hardware":
            print("\nNo hardware KVM here: the rest runs in the nested host.", flush=True)
            args = [a for a in sys.argv[1:]] + ["--inside"]
            sys.exit(subprocess.run([f"{ROOT}/tools/testhost", "run", "--memory", "6G", "--disk",
                                     data_file(), "--", sys.executable, __file__, "--data", "/dev/vda",
                                     *args]).returncode)
        if o.only in (None, "boot"):
            result["boot"] = bench_boot(o, d)
        if o.only in (None, "disk"):
            o.data = o.data or data_file()
            result["disk"] = bench_disk(o, d)
        for name, bench in devices.BENCHES.items():
            if o.only in (None, name):
                result[name] = bench(o, d)
    if o.json:
        put(o.json, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
