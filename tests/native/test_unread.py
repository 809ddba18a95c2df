# SPDX-License-Identifier: Apache-2.0
"""Whoever started mvm does not read what it says: no guest can stop it that way."""
import fcntl
import os
import signal
import subprocess

from tests.lib import vm


def full_pipe():
    """(read end, write end) of a pipe that takes nothing more."""
    r, w = os.pipe()
    os.set_blocking(w, False)
    size = fcntl.fcntl(w, fcntl.F_GETPIPE_SZ)
    assert os.write(w, b"." * size) == size
    os.set_blocking(w, True)
    return r, w


class Unread(vm.TestCase):
    def start(self, how, *args, serial="null", stdout=subprocess.DEVNULL):
        """Standard error is full from the start, the read end self.unread."""
        self.unread, w = full_pipe()
        self.addCleanup(os.close, self.unread)
        p = subprocess.Popen([vm.MVM, "boot", "--software-kvm", "--kernel",
                              f"{vm.BUILD}/payload/guest_end.elf", "--console", "off", "--serial",
                              serial, "--no-reboot", "--memory", "128M", "--no-default-cmdline",
                              "--cmdline", how, *args], stdin=subprocess.DEVNULL,
                             stdout=w if stdout is None else stdout, stderr=w)
        self.addCleanup(self.reap, p)
        os.close(w)
        return p

    @staticmethod
    def reap(p):
        p.kill()
        p.wait()
        if p.stdout:
            p.stdout.close()

    def terminate(self, p):
        """SIGTERM until it ends: two that come together are one."""
        for _ in range(vm.LIMIT):
            p.send_signal(signal.SIGTERM)
            try:
                p.wait(1)
                return
            except subprocess.TimeoutExpired:
                pass
        self.fail("no SIGTERM ends it")

    def said(self):
        """All that stands in the pipe, but for what filled it."""
        text = b""
        while data := os.read(self.unread, 65536):
            text += data
        return text.decode().lstrip(".")

    def test_guest_that_logs_runs_into_the_time_limit(self):
        p = self.start("crash-kernels spin", "-v", "--timeout", "5")
        self.assertEqual(p.wait(vm.LIMIT), 124)

    def test_guest_that_logs_ends_at_the_second_sigterm(self):
        p = self.start("crash-kernels spin", "-v", serial="tty", stdout=subprocess.PIPE)
        self.assertEqual(p.stdout.readline().strip(), b"crashed")
        self.terminate(p)
        self.assertEqual(p.returncode, 143)

    def test_standard_output_in_the_same_pipe(self):
        p = self.start("crash-kernels marks", "-v", "--timeout", "100", serial="tty", stdout=None)
        self.assertEqual(p.wait(vm.LIMIT), 0)

    def test_reader_that_comes_late_learns_why_it_ended_and_what_is_lost(self):
        p = self.start("crash-kernels panic marks", "-v", "--timeout", "100", serial="tty",
                       stdout=subprocess.PIPE)
        while b"console" not in p.stdout.readline():
            pass
        text = self.said()
        self.assertEqual(p.wait(vm.LIMIT), 122)
        self.assertRegex(text, r"lines? of log lost\n")
        self.assertIn("mvm: the guest's kernel panicked\n", text)

    def test_timeline_waits_for_its_reader(self):
        p = self.start("marks", "--timeline", "--timeout", "100", serial="tty",
                       stdout=subprocess.PIPE)
        while b"end" not in p.stdout.readline():
            pass
        self.assertRegex(self.said(), r"^stage .*\n(.*\n)+machine ended .*\n$")
        self.assertEqual(p.wait(vm.LIMIT), 0)

    def test_timeline_that_waits_for_ever_ends_at_sigterm(self):
        p = self.start("marks", "--timeline", "--timeout", "100", serial="tty",
                       stdout=subprocess.PIPE)
        while b"end" not in p.stdout.readline():
            pass
        self.terminate(p)
        self.assertEqual(p.returncode, -signal.SIGTERM)
