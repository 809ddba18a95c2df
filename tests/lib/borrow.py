# SPDX-License-Identifier: Apache-2.0
"""Machines whose kernel's file is borrowed (vmm/pages.h), which they are only for a moment."""
import os
import shutil
import signal
import tempfile
import threading
import time

from tests.lib import vm


class TestCase(vm.TestCase):
    def setUp(self):
        """The kernel is on tmpfs: what the directory of temporary files is on may have no leases."""
        super().setUp()
        self.shm = tempfile.mkdtemp(prefix="mvm-test-", dir="/dev/shm")
        self.addCleanup(shutil.rmtree, self.shm, True)
        self.kernel = f"{self.shm}/kernel"

    def borrowed(self, t):
        try:
            with open(f"/proc/{t.proc.pid}/maps") as f:
                return self.kernel in f.read()
        except OSError:
            return False

    def await_settled(self, t):
        end = time.monotonic() + vm.LIMIT
        while self.borrowed(t):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def catch(self, *args, env={}):
        """A machine that was stopped right after its start, with the kernel still borrowed."""
        for _ in range(20):
            t = vm.Terminal("boot", "--kernel", self.kernel, *args, env=env)
            self.addCleanup(t.close)
            end = time.monotonic() + 5  # on a busy host the moment can be missed
            while time.monotonic() < end and t.proc.poll() is None:
                if self.borrowed(t):
                    break
            if t.proc.poll() is None:
                t.kill(signal.SIGSTOP)
                os.waitid(os.P_PID, t.proc.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                if self.borrowed(t):
                    return t
                t.proc.kill()
        self.fail("the kernel was never seen borrowed")

    def write(self, t, change):
        """What @change does to the file waits for the stopped machine, and not any longer."""
        w = threading.Thread(target=change, daemon=True)
        w.start()
        w.join(0.2)
        self.assertTrue(w.is_alive(), "the file could be changed while it was borrowed")
        t.kill(signal.SIGCONT)
        w.join(vm.LIMIT)
        self.assertFalse(w.is_alive())
        self.assertFalse(self.borrowed(t))

    def overwrite(self, flags=0):
        """In place, as a build or a copy does it; in the end the file is empty."""
        size = os.path.getsize(self.kernel)
        fd = os.open(self.kernel, os.O_WRONLY | flags)
        os.write(fd, os.urandom(size))
        os.ftruncate(fd, 0)
        os.close(fd)
