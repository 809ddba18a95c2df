# SPDX-License-Identifier: Apache-2.0
"""How a machine ends, and what the exit status and standard error say of it."""
import json
import os
import resource
import signal

from tests.lib import vm
from tests.native import guests


class Ends(vm.TestCase):
    def end(self, how, *args, timeout=60, **kw):
        return guests.run("end", *args, cmdline=how, timeout=timeout, **kw)

    def check(self, r, status, why=None):
        self.assertEqual(r.status, status, r)
        if why:
            self.assertEqual(r.err.count("\n"), 1, r)
            self.assertIn(why, r.err, r)
        else:
            self.assertEqual(r.err, "", r)

    def test_power_off_is_0(self):
        self.check(self.end("off"), 0)

    def test_triple_fault_is_123(self):
        self.check(self.end("triple"), 123, "triple")

    def test_triple_fault_that_was_meant_is_a_reset(self):
        self.check(self.end("triple-reset"), 0)

    def test_i8042_reset_with_no_reboot_is_0(self):
        self.check(self.end("i8042"), 0)

    def test_reset_register_with_no_reboot_is_0(self):
        self.check(self.end("reset"), 0)

    def test_panic_of_a_guest_that_halts_is_122(self):
        self.check(self.end("panic"), 122, "panicked")

    def test_panic_of_a_guest_that_resets_is_122(self):
        self.check(self.end("panic-reset"), 122, "panicked")

    def test_crash_kernel_ends_as_it_says(self):
        self.check(self.end("crash-kernel"), 0)

    def test_halted_guest_runs_into_the_time_limit(self):
        self.check(self.end("halt", timeout=2), 124, "--timeout 2: time limit reached")

    def test_spinning_guest_ends_though_the_caller_blocked_the_signal(self):
        """A signal takes vCPUs out of the guest, and whoever starts mvm hands its mask on."""
        blocked = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
        r = self.end("spin", timeout=1,
                     before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked))
        self.check(r, 124, "time limit")

    def test_crash_kernels_without_end_do_not_fill_the_log(self):
        r = self.end("crash-kernels", "-v")
        self.assertEqual(r.status, 0, r)
        self.assertEqual(r.err.count("its crash kernel takes over"), 16, r)
        self.assertEqual(r.err.count("further messages of this kind are dropped"), 1, r)

    def test_eight_cpus_end_together(self):
        self.check(self.end("off", "--cpus", "8"), 0)
        self.check(self.end("triple", "--cpus", "8"), 123, "triple")

    def test_all_cpus_triple_fault_together(self):
        r = guests.run("smp", "--cpus", "4", cmdline="triple")
        self.check(r, 123, "triple")

    def test_all_cpus_reset_together(self):
        self.check(guests.run("smp", "--cpus", "4", cmdline="reset"), 0)

    def test_all_cpus_reset_together_again_and_again(self):
        r = vm.mvm("boot", "--software-kvm", "--kernel", f"{vm.BUILD}/payload/guest_smp.elf",
                   "--console", "off", "--memory", "128M", "--timeout", "4", "-v", "--cmdline", "reset",
                   "--cpus", "4")
        self.assertEqual(r.status, 124, r)
        self.assertGreaterEqual(r.err.count("the guest restarts"), 1, r)

    def test_memory_above_4_gib(self):
        self.check(self.end("off", memory="5G"), 0)

    def test_reset_restarts_until_the_time_limit(self):
        """Without --no-reboot: a machine that always resets is built again and again."""
        r = vm.mvm("boot", "--software-kvm", "--kernel", f"{vm.BUILD}/payload/guest_end.elf",
                   "--console", "off", "--memory", "128M", "--timeout", "2", "-v", "--cmdline", "reset")
        self.assertEqual(r.status, 124, r)
        self.assertGreaterEqual(r.err.count("the guest restarts"), 1, r)

    def test_restart_does_not_repeat_what_the_start_said(self):
        path = self.path("odd.img")
        with open(path, "wb") as f:
            f.truncate((1 << 20) + 100)
        r = vm.mvm("boot", "--software-kvm", "--kernel", f"{vm.BUILD}/payload/guest_end.elf",
                   "--console", "off", "--memory", "128M", "--timeout", "3", "-v", "--cmdline",
                   "reset", "--disk", path)
        self.assertEqual(r.status, 124, r)
        self.assertGreaterEqual(r.err.count("the guest restarts"), 1, r)
        self.assertEqual(r.err.count("not a multiple of 512"), 1, r)

    def test_timeline_has_each_stage_in_order(self):
        path = self.path("timeline.json")
        r = self.end("marks", f"--timeline={path}")
        self.check(r, 0)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with open(path) as f:
            text = f.read()
        self.assertTrue(text.endswith("}\n"), text)
        stages = json.loads(text)["stages"]
        self.assertEqual([s["stage"] for s in stages],
                         ["start", "vm", "memory", "kernel", "run", "console", "init", "root",
                          "root_init", "end"])
        for earlier, later in zip(stages, stages[1:]):
            self.assertLessEqual(earlier["wall_ns"], later["wall_ns"])
            self.assertLessEqual(earlier["cpu_ns"], later["cpu_ns"])
            self.assertLessEqual(earlier["exits"]["exits"], later["exits"]["exits"])
        self.assertGreater(stages[-1]["exits"]["exits"], 0)

    def test_timeline_replaces_an_older_one(self):
        path = self.path("timeline.json")
        with open(path, "w") as f:
            f.write("x" * 100000)
        self.check(self.end("off", f"--timeline={path}"), 0)
        with open(path) as f:
            self.assertEqual(json.load(f)["stages"][-1]["stage"], "end")

    def test_timeline_that_cannot_be_written_is_125(self):
        self.check(self.end("off", "--timeline=/dev/full"), 125, "No space left")

    def test_timeline_that_cannot_be_written_does_not_hide_how_the_guest_ended(self):
        r = self.end("triple", "--timeline=/dev/full")
        self.assertEqual(r.status, 123, r)
        self.assertEqual(r.err.count("\n"), 2, r)
        self.assertIn("triple-faulted", r.err, r)
        self.assertIn("timeline: write /dev/full: No space left", r.err, r)

    def test_timeline_is_printed(self):
        r = self.end("marks", "--timeline")
        self.assertEqual(r.status, 0, r)
        for word in ("process started", "VM created", "first KVM_RUN", "init started",
                     "machine ended"):
            self.assertIn(word, r.err, r)

    def test_serial_output_goes_to_a_file(self):
        path = self.path("serial.log")
        r = vm.mvm("boot", "--software-kvm", "--kernel", f"{vm.BUILD}/payload/guest_end.elf",
                   "--console", "off", "--memory", "128M", "--timeout", "60", "--cmdline", "marks",
                   "--serial", f"file={path}")
        self.check(r, 0)
        with open(path) as f:
            self.assertEqual(f.read().replace("\r", ""), "console\nend\n")


    def test_file_size_limit_of_the_caller_costs_output_alone(self):
        """What is beyond it would be a fatal signal, SIGXFSZ, by default."""
        path = self.path("serial.log")
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        r = vm.mvm("boot", "--software-kvm", "--kernel", f"{vm.BUILD}/payload/guest_end.elf",
                   "--console", "off", "--memory", "128M", "--timeout", "60", "--cmdline", "marks",
                   "--serial", f"file={path}",
                   before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4, limit)))
        self.check(r, 0, f"serial: write {path}: File too large: output is lost")
        with open(path) as f:
            self.assertEqual(f.read(), "cons")

    def test_file_size_limit_of_the_caller_leaves_no_half_timeline(self):
        path = self.path("timeline.json")
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        r = self.end("off", f"--timeline={path}",
                     before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit)))
        self.check(r, 125, "File too large")
        self.assertFalse(os.path.exists(path))


class AtATerminal(vm.TestCase):
    """The settings come back however the machine ends."""

    def terminal(self, how, *args):
        t = vm.Terminal("boot", "--software-kvm", "--kernel", f"{vm.BUILD}/payload/guest_end.elf",
                        "--console", "off", "--serial", "tty", "--memory", "128M", "--no-reboot",
                        "--cmdline", how, *args)
        self.addCleanup(t.close)
        return t

    def test_restored_after_every_end(self):
        for how, status in (("off", 0), ("triple", 123), ("panic", 122), ("i8042", 0)):
            with self.subTest(how):
                t = self.terminal(how)
                self.assertEqual(t.wait(), status, t.out)
                self.assertTrue(t.restored())

    def test_restored_after_the_time_limit(self):
        t = self.terminal("halt", "--timeout", "1")
        self.assertEqual(t.wait(), 124, t.out)
        self.assertTrue(t.restored())
