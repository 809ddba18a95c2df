#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the tests and counts them.

  tests/run.py [--build DIR] [-k WORD] [STAGE ...]

Stages, in order: lint (clang-format, cppcheck, shellcheck), unit (cmocka
programs), native (any /dev/kvm, freestanding guests), boot (real kernels: needs
hardware KVM, so on other hosts this stage runs itself inside the nested test
host), sanitized (unit, native and boot again under ASan and UBSan; beside boot
where that is in a nested host). Where both builds are run, some long tests run
with one of them: the class says which (`once`). The stage soak, the long loads,
runs only when named. One line a test, and at the end `N passed, N failed, N skipped`.
"""
import argparse
import ctypes
import glob
import importlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from tests.lib import emulator  # noqa: E402
STAGES = ("lint", "unit", "native", "boot", "sanitized")
LIBC = ctypes.CDLL(None)
LINE = re.compile(r"^(ok|not ok|skip) (\S+)(?: # (.*))?$")


class Tally:
    def __init__(self):
        self.passed, self.failed, self.skipped = [], [], []
        self.lock = threading.Lock()

    def add(self, verdict, name, note=""):
        with self.lock:
            {"ok": self.passed, "not ok": self.failed, "skip": self.skipped}[verdict].append(name)
            print(f"{verdict} {name}" + (f" # {note}" if note else ""), flush=True)

    def close(self):
        if self.failed:
            print("failed:", *self.failed, sep="\n  ")
        print(f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped")
        return 1 if self.failed or not self.passed else 0


LAYOUT = "14"  # the release of clang-format whose layout it is; others differ in details


def why_no_lint(tool):
    if not shutil.which(tool):
        return f"{tool} is missing: tools/deps lint"
    if tool == "clang-format":
        version = subprocess.run([tool, "--version"], stdout=subprocess.PIPE, check=True).stdout
        if f"version {LAYOUT}." not in version.decode():
            return f"the layout is that of clang-format {LAYOUT}"
    return None


def run_lint(tally, opts):
    for part, tool in (("format", "clang-format"), ("cppcheck",) * 2, ("shellcheck",) * 2):
        name = f"lint.{part}"
        if opts.k and opts.k not in name:
            continue
        reason = why_no_lint(tool)
        if reason:
            tally.add("skip", name, reason)
            continue
        p = subprocess.run(["make", "-s", f"lint-{part}"], cwd=ROOT, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if p.returncode:
            print(p.stdout.decode(errors="replace"))
        tally.add("not ok" if p.returncode else "ok", name)


def unbuilt(opts, stage):
    """What a stage needs and is not there."""
    needs = {"unit": "unit", "native": "payload", "boot": "mvm", "soak": "mvm"}.get(stage)
    if not needs or os.path.exists(f"{opts.build}/{needs}"):
        return None
    return f"{os.path.relpath(opts.build)}/{needs} is missing: make all units payload"


def run_units(tally, opts):
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    for src in sorted(glob.glob(f"{ROOT}/tests/unit/test_*.c")):
        name = os.path.basename(src)[len("test_"):-2]
        if opts.k and opts.k not in f"unit.{name}":
            continue
        prog = f"{opts.build}/unit/test_{name}"
        try:
            p = subprocess.run([prog], env=env, stdin=subprocess.DEVNULL, timeout=300,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
        except (OSError, subprocess.TimeoutExpired) as e:
            tally.add("not ok", f"unit.{name}", str(e))
            continue
        out = p.stdout.decode(errors="replace")
        bad = count = 0
        # A test that skips itself says why on the line before ("SKIPPED, NOT TESTED: ...").
        for m in re.finditer(r"^(?:SKIPPED[^:]*: (.*)\n)?(not ok|ok) \d+ (-|# SKIP) ([\w.]+)", out, re.M):
            verdict = "skip" if "SKIP" in m[3] else m[2]
            bad += verdict == "not ok"
            count += 1
            tally.add(verdict, f"unit.{name}.{m[4]}", m[1] or "")
        if (p.returncode and not bad) or not count:
            tally.add("not ok", f"unit.{name}", f"exit status {p.returncode}")
            bad = 1
        if bad:
            print(out)


class Result(unittest.TestResult):
    """Prints a line as each test ends. On an emulated processor, one that failed while that was seen
    at fault is kept for once more."""

    def __init__(self, tally, watched):
        super().__init__()
        self.tally, self.watched, self.again = tally, watched, []

    def name(self, test):
        return test.id()[6:] if test.id().startswith("tests.") else test.id().replace(" ", "_")

    def startTest(self, test):
        super().startTest(test)
        self.t0 = time.monotonic()
        self.faults = emulator.faults() if self.watched else 0

    def addSuccess(self, test):
        self.tally.add("ok", self.name(test), f"{time.monotonic() - self.t0:.1f} s")

    def addSkip(self, test, reason):
        self.tally.add("skip", self.name(test), reason)

    def _bad(self, test, part, err):
        traceback.print_exception(*err, file=sys.stdout)
        if self.watched and emulator.faults() > self.faults:
            print(f"# {self.name(part)}: once more later: a guest got an interrupt twice", flush=True)
            if test not in self.again:
                self.again.append(test)
        else:
            self.tally.add("not ok", self.name(part))

    def addFailure(self, test, err):
        self._bad(test, test, err)

    def addError(self, test, err):
        self._bad(test, test, err)

    def addSubTest(self, test, subtest, err):
        if err:
            self._bad(test, subtest, err)


def elsewhere(test, opts, stage):
    """The stage is run with both builds, and this test is the other one's."""
    ours = "sanitized" if opts.build.endswith("-san") else "release"
    return stage in os.environ.get("MVM_TESTS_BOTH", "").split() and getattr(test, "once", ours) != ours


def run_python(tally, opts, stage):
    suite = unittest.TestSuite()
    done = os.environ.get("MVM_TESTS_DONE", "").split()
    for path in sorted(glob.glob(f"{ROOT}/tests/{stage}/test_*.py")):
        module = importlib.import_module(f"tests.{stage}.{os.path.basename(path)[:-3]}")
        for case in unittest.defaultTestLoader.loadTestsFromModule(module):
            for test in case:
                name = test.id()[len("tests."):]
                if opts.k and opts.k not in test.id() or name in done or elsewhere(test, opts, stage):
                    continue
                suite.addTest(test)
    result = Result(tally, stage != "native" and emulator.watch())
    suite.run(result)
    unittest.TestSuite(result.again).run(Result(tally, False))


def host_kind():
    return subprocess.run([f"{ROOT}/tools/testhost", "kind"], stdout=subprocess.PIPE,
                          check=True).stdout.decode().strip()


# Seconds without a line: longer than any test may take, so the nested host hangs.
STALL = 420
STALL_SOAK = 2400


def lines(p, limit):
    """The lines a process prints; ends early when none comes for so long."""
    buf = b""
    while True:
        ready, _, _ = select.select([p.stdout], [], [], limit)
        data = os.read(p.stdout.fileno(), 65536) if ready else b""
        if not data:
            return
        buf += data
        *whole, buf = buf.split(b"\n")
        for raw in whole:
            yield raw.decode(errors="replace").rstrip("\r")


def end_with_parent():
    """In a child: nobody else ends its nested host when this program is killed."""
    LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def end(p):
    """A child that has closed its output, or prints nothing any more."""
    for how, limit in ((lambda: None, 5), (p.terminate, 60), (p.kill, None)):
        how()
        try:
            p.wait(limit)
            return
        except subprocess.TimeoutExpired:
            pass


def run_child(tally, opts, cmd, limit, prefix="", done=()):
    """This program once more; its lines are counted as they come. True when it ran to its end."""
    if opts.k:
        cmd = cmd + ["-k", opts.k]
    env = dict(os.environ, MVM_TESTS_DONE=" ".join(done))
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT, env=env,
                         preexec_fn=end_with_parent)
    closed = False
    for line in lines(p, limit):
        m = LINE.match(line)
        if m:
            tally.add(m[1], prefix + m[2], m[3] or "")
        elif re.match(r"^\d+ passed, \d+ failed, \d+ skipped$", line):
            closed = True
        else:
            print(line, flush=True)
    end(p)
    return closed


def build_kernels():
    """Before a nested host starts: inside it would take hours."""
    for kernel in ("debian", "lean", "lean-bare"):
        subprocess.run([f"{ROOT}/tools/kernels", kernel], stdout=subprocess.DEVNULL, check=True)


def run_nested(tally, opts, stage):
    """An emulated host may hang as a whole: what it left is run in a new one, three hosts at most."""
    build_kernels()
    cmd = [f"{ROOT}/tools/testhost", "run", "--cpus", "2", "--memory", "8G", "--", sys.executable,
           f"{ROOT}/tests/run.py", "--build", opts.build, stage]
    for _ in range(3):
        # This stage's alone: all of them are longer than an environment's string may be.
        done = [n for n in tally.passed + tally.failed + tally.skipped if n.startswith(f"{stage}.")]
        if run_child(tally, opts, cmd, STALL_SOAK if stage == "soak" else STALL, done=done):
            return
        print(f"the nested host ended or hung in the stage {stage}", flush=True)
    tally.add("not ok", f"{stage}.nested_host", "it ended early or hung three times")


def run_sanitized(tally, opts):
    """Everything once more with the build under ASan and UBSan."""
    cmd = [sys.executable, f"{ROOT}/tests/run.py", "--build", f"{opts.build}-san", "unit", "native", "boot"]
    # It waits for its nested host itself, and may have to build kernels.
    if not run_child(tally, opts, cmd, 3 * STALL, "sanitized."):
        tally.add("not ok", "sanitized.run", "ended early")


def run_stage(tally, opts, stage, kind):
    if unbuilt(opts, stage):
        tally.add("not ok", stage, unbuilt(opts, stage))
    elif stage == "lint":
        run_lint(tally, opts)
    elif stage == "unit":
        run_units(tally, opts)
    elif stage == "sanitized":
        run_sanitized(tally, opts)
    elif stage == "native" and kind == "none":
        tally.add("skip", "native", "this host has no /dev/kvm; the boot stage brings its own")
    elif stage in ("boot", "soak") and kind != "hardware":
        run_nested(tally, opts, stage)
    else:
        run_python(tally, opts, stage)


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default=f"{ROOT}/build")
    ap.add_argument("-k", help="only tests whose name holds this word")
    ap.add_argument("stage", nargs="*", choices=[*STAGES, "soak", []])
    opts = ap.parse_args()
    opts.build = os.path.abspath(opts.build)
    os.environ["MVM_BUILD"] = opts.build
    tally = Tally()
    kind = host_kind()
    stages = opts.stage or STAGES
    if "sanitized" in stages:
        os.environ["MVM_TESTS_BOTH"] = " ".join({"native", "boot"} & set(stages))
    # A boot in a nested host keeps about one processor busy: two such hosts run side by side.
    both = {"boot", "sanitized"} if kind != "hardware" and {"boot", "sanitized"} <= set(stages) else {}
    for stage in stages:
        if stage not in both:
            run_stage(tally, opts, stage, kind)
    if both:
        build_kernels()

        def run(stage):
            try:
                run_stage(tally, opts, stage, kind)
            except Exception as e:  # a thread's own would be forgotten
                tally.add("not ok", stage, repr(e))

        threads = [threading.Thread(target=run, args=(stage,)) for stage in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return tally.close()


if __name__ == "__main__":
    sys.exit(main())
