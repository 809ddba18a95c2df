# SPDX-License-Identifier: Apache-2.0
"""Starting mvm from a test: with pipes, or on a pseudo-terminal."""
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest

from tests.lib import emulator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("MVM_BUILD", f"{ROOT}/build")
MVM = f"{BUILD}/mvm"
LIMIT = 240  # seconds after which a hung guest fails the test; emulated hosts are slow
PROMPT = r"~ # "  # of the shell in tools/mkrootfs' images


class Done:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __repr__(self):
        return f"status {self.status}\n--- out\n{self.out[-6000:]}\n--- err\n{self.err[-3000:]}"


def mvm(*args, stdin=b"", limit=LIMIT, before=None):
    """Runs mvm to its end; standard input is what is given, then closed.

    @before is called in the new process before mvm starts in it."""
    p = subprocess.run([MVM, *map(str, args)], input=stdin, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=limit, preexec_fn=before)
    return Done(p.returncode, p.stdout.decode(errors="replace"), p.stderr.decode(errors="replace"))


_kernels = {}


def kernels(which):
    """The directory tools/kernels prints: debian, lean or lean-bare."""
    if which not in _kernels:
        p = subprocess.run([f"{ROOT}/tools/kernels", which], stdout=subprocess.PIPE, check=True)
        _kernels[which] = p.stdout.decode().strip().splitlines()[-1]
    return _kernels[which]


def debian():
    """(kernel, modules directory) of Debian's cloud kernel."""
    d = kernels("debian")
    image = sorted(f for f in os.listdir(f"{d}/boot") if f.startswith("vmlinuz-"))[-1]
    return f"{d}/boot/{image}", f"{d}/lib/modules/{image[len('vmlinuz-'):]}"


def lean(name="vmlinux"):
    return f"{kernels('lean')}/{name}"


# What no guest's log may hold. The kernel shows hvc0 nothing of what it logged before that
# console came, so scripts print such lines of the log so far; the brackets keep the pattern
# from finding itself in the command line.
TROUBLE = "WARNING:|BUG:|Firmware Bug|Call Trace|Oops|I/O error|ACPI.*(Error|Warning)|stalls? on"


def script(text):
    """--cmdline that runs a shell script as the root's init; it must end the machine itself."""
    pattern = re.sub(r"(\w)(?=[:|) ]|$)", r"[\1]", TROUBLE)
    text = f"dmesg | grep -E '{pattern}'; {text}"
    assert '"' not in text and len(text) < 1700, "double quotes end the kernel's parameter"
    return f'init=/bin/sh -- -c "{text}"'


def steady(args):
    """Of several processors one that halts too early might sleep for ever: see lib/emulator.py."""
    args = [str(a) for a in args]
    return args + emulator.cmdline() if "--cpus" in args and "--cmdline" not in args else args


class TestCase(unittest.TestCase):
    """A directory of its own for each test, gone afterwards; images from tools/mkrootfs are shared."""
    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="mvm-test-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def rootfs(self, *args, name="root.img"):
        out = self.path(name)
        subprocess.run([f"{ROOT}/tools/mkrootfs", *args, out], check=True,
                       stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        return out

    def cache_dir(self):
        """In the cache directory: /tmp may be a tmpfs, which has no direct I/O or extended attributes."""
        cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "mvm")
        where = tempfile.mkdtemp(prefix="test-", dir=cache)
        self.addCleanup(shutil.rmtree, where, True)
        return where

    def disk(self, name, mib):
        path = os.path.join(self.cache_dir(), name)
        with open(path, "wb") as f:
            f.truncate(mib << 20)
        return path

    def boot(self, *args, kernel=None, stdin=b"", limit=LIMIT, timeout=200):
        """Runs a guest to its end; one that ends well leaves a log without trouble in it."""
        r = mvm("boot", "--kernel", kernel or lean(), "--timeout", timeout, *steady(args),
                stdin=stdin, limit=limit)
        if r.status == 0:
            self.assertNotRegex(r.out, TROUBLE)
        return r

    def timeline(self, path):
        with open(path) as f:
            return {s["stage"]: s for s in json.load(f)["stages"]}


class Terminal:
    """mvm on a pseudo-terminal, driven like a person would."""

    def __init__(self, *args, cols=100, rows=30, env={}):
        self.master, slave = pty.openpty()
        self.resize(cols, rows)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.out = ""
        self.proc = subprocess.Popen([MVM, *steady(args)], stdin=slave, stdout=slave,
                                     stderr=slave, start_new_session=True,
                                     env=dict(os.environ, TERM="xterm-256color", **env),
                                     preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def resize(self, cols, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def send(self, text):
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def expect(self, pattern, limit=LIMIT):
        """Waits until the output since the last match holds the pattern; returns the match."""
        end = time.monotonic() + limit
        while True:
            m = re.search(pattern, self.out)
            if m:
                self.out = self.out[m.end():]
                return m
            left = end - time.monotonic()
            if left <= 0 or not self.read(left):
                raise AssertionError(f"{pattern!r} did not come; there was:\n{self.out[-4000:]}")

    def read(self, wait):
        ready, _, _ = select.select([self.master], [], [], min(wait, 1))
        if not ready:
            return self.proc.poll() is None
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.out += data.decode(errors="replace")
        return True

    def wait(self, limit=LIMIT):
        end = time.monotonic() + limit
        while self.proc.poll() is None and time.monotonic() < end:
            self.read(0.2)
        while self.read(0) and select.select([self.master], [], [], 0)[0]:
            pass
        return self.proc.poll()

    def restored(self):
        """Whether the terminal's settings are as mvm found them."""
        return termios.tcgetattr(self.slave) == self.before

    def kill(self, sig):
        os.kill(self.proc.pid, sig)

    def close(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGKILL)
            self.proc.wait()
        os.close(self.slave)
        os.close(self.master)
