# SPDX-License-Identifier: Apache-2.0
"""Looking at a VMM from outside: exits, CPU time, memory; and two of them side by side."""
import os
import re
import statistics
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRACE = "/sys/kernel/tracing"
KVM_STATS = "/sys/kernel/debug/kvm"
QEMU = "qemu-system-x86_64"
MIB = 512


def sh(*cmd, **kw):
    return subprocess.run(list(map(str, cmd)), check=True, stdout=subprocess.PIPE, **kw).stdout.decode()


def put(path, text):
    with open(path, "w") as f:
        f.write(text)


def get(path):
    with open(path) as f:
        return f.read()


# ------------------------------------------------------------ looking at a VMM

class Exits:
    """KVM's own counters, all VMs of the host together: only ours runs."""
    KINDS = ("exits", "io_exits", "mmio_exits", "halt_exits", "irq_injections")

    def now(self):
        return {k: int(get(f"{KVM_STATS}/{k}")) for k in self.KINDS}

    def __enter__(self):
        self.base = self.now()
        return self

    def __exit__(self, *_):
        pass

    def so_far(self):
        now = self.now()
        return {k: now[k] - self.base[k] for k in self.KINDS}


def vm_exits(pid):
    """So far, of the VMs of one process."""
    return sum(int(get(f"{KVM_STATS}/{d}/exits")) for d in os.listdir(KVM_STATS) if d.startswith(f"{pid}-"))


def cpu_ms(pid):
    """CPU time of a process without what its guest used, ms (jiffies: sum over runs to resolve it)."""
    total = 0
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            f = get(f"/proc/{pid}/task/{tid}/stat").rsplit(")", 1)[1].split()
        except OSError:
            continue  # a thread that ended meanwhile
        total += int(f[11]) + int(f[12]) - int(f[40])  # utime + stime - guest_time
    return total * 1000 / os.sysconf("SC_CLK_TCK")


def work_ms(pid):
    """
    CPU time of a process but for what its vCPU threads spend in user space, ms. The kernel scales
    user and system time to what a thread ran, and counts guest time by ticks: over a load that
    keeps the guest busy cpu_ms is the small difference of two large numbers of different measure.
    Of a vCPU's thread only system time is known well, of others all.
    """
    total = 0
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            f = get(f"/proc/{pid}/task/{tid}/stat").rsplit(")", 1)[1].split()
            ran = int(get(f"/proc/{pid}/task/{tid}/schedstat").split()[0])
        except OSError:
            continue  # a thread that ended meanwhile
        total += int(f[12]) * 1000 / os.sysconf("SC_CLK_TCK") if int(f[40]) else ran / 1e6
    return total


def mappings(pid):
    out = []
    for line in get(f"/proc/{pid}/smaps").splitlines():
        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if m:
            out.append([int(m[1], 16), int(m[2], 16), 0])
        elif line.startswith("Pss:"):
            out[-1][2] = int(line.split()[1])
    return out


def pss_kib(pid, guest_bytes):
    """PSS of all but guest memory, KiB. Guest memory: neighbours that sum up to its size, the largest among them."""
    maps = mappings(pid)
    big = max(range(len(maps)), key=lambda i: maps[i][1] - maps[i][0])
    for first in range(big, -1, -1):
        for last in range(big, len(maps)):
            if maps[last][1] - maps[first][0] == guest_bytes:
                return sum(m[2] for m in maps[:first] + maps[last + 1:])
    raise RuntimeError("guest memory was not found among the mappings")


class Mark:
    """The moment a guest writes the init port, on CLOCK_MONOTONIC, from the kvm_pio trace event."""
    ours = False  # the event is on, and we did it

    def __enter__(self):
        if not os.path.exists(f"{TRACE}/trace"):
            sh("mount", "-t", "tracefs", "tracefs", TRACE)
        put(f"{TRACE}/trace", "")
        # Once and for all: each change patches KVM's code, which an emulated host may not survive.
        if get(f"{TRACE}/events/kvm/kvm_pio/enable").strip() != "1":
            put(f"{TRACE}/trace_clock", "mono")
            put(f"{TRACE}/events/kvm/kvm_pio/filter", "port == 0x5f0")
            put(f"{TRACE}/events/kvm/kvm_pio/enable", "1")
            Mark.ours = True
        return self

    def __exit__(self, *_):
        pass

    @staticmethod
    def off():
        if Mark.ours:
            put(f"{TRACE}/events/kvm/kvm_pio/enable", "0")

    def wait(self, proc, limit=120):
        end = time.monotonic() + limit
        while time.monotonic() < end and proc.poll() is None:
            m = re.search(r"(\d+\.\d+): kvm_pio: .*pio_write at 0x5f0", get(f"{TRACE}/trace"))
            if m:
                return float(m[1])
            time.sleep(0.05)
        raise RuntimeError(f"init was not reached: status {proc.poll()}")


def median(runs, key):
    return statistics.median(r[key] for r in runs)


def compare(title, a, b, keys, bars, names=("mvm", "QEMU")):
    print(f"\n{title}: medians of {len(a)} runs each, taking turns")
    print(f"{'':22} {names[0]:>12} {names[1]:>12} {'ratio':>8}  bar")
    out = {}
    for key, text in keys:
        x, y = median(a, key), median(b, key)
        ratio = x / y if y else float("nan")
        out[key] = {"mvm": x, "qemu": y, "ratio": ratio}
        print(f"{text:22} {x:12.1f} {y:12.1f} {ratio:8.2f}  {bars.get(key, '')}")
    return out


def compare_pairs(title, a, b, keys, bars, names=("mvm", "QEMU")):
    """As compare, for runs that were made one right after the other: the ratio is the median of the pairs'."""
    print(f"\n{title}: medians of {len(a)} pairs")
    print(f"{'':22} {names[0]:>12} {names[1]:>12} {'ratio':>8} {'of half':>13}  bar")
    out = {}
    for key, text in keys:
        x, y = median(a, key), median(b, key)
        ratios = sorted(i[key] / j[key] for i, j in zip(a, b) if j[key])
        ratio = statistics.median(ratios or [float("nan")])
        low, high = (ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]) if ratios else (ratio, ratio)
        out[key] = {"mvm": x, "qemu": y, "ratio": ratio, "half": [low, high]}
        print(f"{text:22} {x:12.1f} {y:12.1f} {ratio:8.2f} {low:6.2f}-{high:6.2f}  {bars.get(key, '')}")
    return out
