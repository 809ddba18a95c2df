# SPDX-License-Identifier: Apache-2.0
"""How a machine ends: every way Linux knows, and what the exit status says of it."""
import re
import signal

from tests.lib import vm


class Ends(vm.TestCase):
    def setUp(self):
        super().setUp()
        self.image = self.rootfs()

    def assertSaid(self, r, *words):
        """Each a line of its own, in this order: the kernel's log holds its command line too."""
        lines = re.findall(rf"(?m)^({'|'.join(words)})\r?$", r.out)
        self.assertEqual(lines, list(words), r)

    def end(self, command, *args, cmdline="", **kw):
        return self.boot("--rootfs", self.image, *args, "--cmdline",
                         f"{cmdline} {vm.script(command)}", **kw)

    def test_power_off_is_0(self):
        r = self.end("poweroff -f")
        self.assertEqual(r.status, 0, r)

    def test_panic_is_122(self):
        r = self.end("echo c > /proc/sysrq-trigger; sleep 60")
        self.assertEqual(r.status, 122, r)
        self.assertIn("panicked", r.err, r)

    def test_panic_of_debian_is_122(self):
        kernel, modules = vm.debian()
        r = self.end("echo c > /proc/sysrq-trigger; sleep 60", "--modules", modules, kernel=kernel)
        self.assertEqual(r.status, 122, r)

    def test_init_that_exits_panics_the_guest(self):
        r = self.end("exit 3")
        self.assertEqual(r.status, 122, r)

    def test_reset_before_init_is_122_and_no_endless_restart(self):
        """Without its drivers a stock kernel panics, and has nobody to tell the host."""
        kernel, modules = vm.debian()
        r = self.end("true", "--modules", modules, kernel=kernel, cmdline="rdinit=/none")
        self.assertEqual(r.status, 122, r)
        self.assertIn("before it ran an init", r.err, r)

    def test_timeout_is_124(self):
        r = self.end("echo UP; sleep 1000", timeout=15)
        self.assertEqual(r.status, 124, r)

    def reboot_twice(self, how, *args, **kw):
        """The first boot leaves a mark on the disk and reboots; the second finds it."""
        cmd = ("if [ -e /mark ]; then echo SECOND; poweroff -f; fi; "
               "echo FIRST; touch /mark; sync; reboot -f")
        return self.end(cmd, *args, cmdline=how, **kw)

    def test_reboot_restarts_through_the_reset_register(self):
        r = self.reboot_twice("")
        self.assertEqual(r.status, 0, r)
        self.assertSaid(r, "FIRST", "SECOND")

    def test_debian_reboots_through_the_reset_vector(self):
        """With CONFIG_EFI and hardware-reduced ACPI Linux ignores the reset register."""
        kernel, modules = vm.debian()
        r = self.reboot_twice("", "--modules", modules, kernel=kernel)
        self.assertEqual(r.status, 0, r)
        self.assertSaid(r, "FIRST", "SECOND")

    def test_reboot_restarts_through_i8042(self):
        r = self.reboot_twice("reboot=k")
        self.assertEqual(r.status, 0, r)
        self.assertSaid(r, "FIRST", "SECOND")

    def test_reboot_restarts_through_a_triple_fault(self):
        r = self.reboot_twice("reboot=t")
        self.assertEqual(r.status, 0, r)
        self.assertSaid(r, "FIRST", "SECOND")

    def test_no_reboot_ends_instead(self):
        r = self.reboot_twice("", "--no-reboot")
        self.assertEqual(r.status, 0, r)
        self.assertSaid(r, "FIRST")
        self.assertNotRegex(r.out, r"(?m)^SECOND")

    def test_reboot_over_mmio(self):
        r = self.reboot_twice("", "--transport", "mmio")
        self.assertEqual(r.status, 0, r)
        self.assertSaid(r, "FIRST", "SECOND")


class PowerButton(vm.TestCase):
    def press(self, kernel, *args):
        t = vm.Terminal("boot", "--kernel", kernel, "--rootfs", self.rootfs(), "--timeout", 200,
                        *args)
        self.addCleanup(t.close)
        t.expect(vm.PROMPT)
        t.kill(signal.SIGTERM)
        self.assertEqual(t.wait(), 0, t.out)
        self.assertTrue(t.restored())

    def test_sigterm_presses_the_power_button_and_the_guest_powers_off(self):
        self.press(vm.lean())

    def test_sigterm_powers_debian_off(self):
        kernel, modules = vm.debian()
        self.press(kernel, "--modules", modules)

    def test_sigterm_forces_a_deaf_guest_after_the_grace_time(self):
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.rootfs(), "--timeout", 200,
                        "--cmdline", vm.script("trap : TERM; echo DEAF; sleep 1000"))
        self.addCleanup(t.close)
        t.expect(r"\nDEAF\r")
        t.kill(signal.SIGTERM)
        t.expect("did not power off within")
        self.assertEqual(t.wait(), 143, t.out)
        self.assertTrue(t.restored())

    def test_second_sigterm_does_not_wait(self):
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.rootfs(), "--timeout", 200,
                        "-v", "--cmdline", vm.script("echo DEAF; sleep 1000"))
        self.addCleanup(t.close)
        t.expect(r"\nDEAF\r")
        t.kill(signal.SIGTERM)
        t.expect("asking the guest to power off")
        t.kill(signal.SIGTERM)
        self.assertEqual(t.wait(), 143, t.out)
        self.assertNotIn("did not power off within", t.out)


class AtATerminal(vm.TestCase):
    def terminal(self, *args, kernel=None, **kw):
        t = vm.Terminal("boot", "--kernel", kernel or vm.lean(), "--rootfs", self.rootfs(),
                        "--timeout", 200, *args, **kw)
        self.addCleanup(t.close)
        return t

    def test_shell_ctrl_c_window_size_and_quit(self):
        t = self.terminal(cols=101, rows=31)
        t.expect(vm.PROMPT)
        t.send("echo $((6*7))\n")
        t.expect(r"\r\n42\r\n")
        t.send("echo $TERM\n")
        t.expect(r"\r\nxterm-256color\r\n")
        t.send("stty size\n")
        t.expect(r"\n31 101\r")
        t.resize(77, 22)
        t.kill(signal.SIGWINCH)
        t.send("until stty size | grep ^22; do sleep 1; done\n")
        t.expect(r"\n22 77\r")
        # It speaks when the other is in the foreground: a Ctrl-C before that would reach the shell alone.
        t.send("(sleep 2; echo BUSY) & sleep 1000\n")
        t.expect(r"\nBUSY\r")
        t.send("\x03")
        t.expect(vm.PROMPT)
        t.send("echo $?\n")
        t.expect(r"\n130\r")
        t.send("\x01h")
        t.expect("quit")
        t.send("\x01x")
        self.assertEqual(t.wait(), 130, t.out)
        self.assertTrue(t.restored())

    def test_terminal_is_restored_after_power_off_and_panic(self):
        for how, status in (("poweroff -f\n", 0), ("echo c > /proc/sysrq-trigger\n", 122)):
            with self.subTest(how=how):
                t = self.terminal()
                t.expect(vm.PROMPT)
                t.send(how)
                self.assertEqual(t.wait(), status, t.out)
                self.assertTrue(t.restored())

    def serial_console(self, *args, **kw):
        t = self.terminal("--console", "off", "--serial", "tty", *args, **kw)
        t.expect(vm.PROMPT)
        t.send("echo serial-$((6*7)); poweroff -f\n")
        t.expect("serial-42")
        self.assertEqual(t.wait(), 0, t.out)
        self.assertTrue(t.restored())

    def test_serial_console_takes_what_was_piped_in_before_it_was_there(self):
        for kernel, args in ((vm.lean(), []), (vm.debian()[0], ["--modules", vm.debian()[1]])):
            r = self.boot("--rootfs", self.rootfs(), "--console", "off", "--serial", "tty", *args,
                          kernel=kernel, stdin=b"echo $((6*7))-shell\nexit\n")
            self.assertEqual(r.status, 0, r)
            self.assertIn("42-shell", r.out, r)

    def test_serial_console_takes_input(self):
        self.serial_console()

    def test_serial_console_of_debian_takes_input(self):
        kernel, modules = vm.debian()
        self.serial_console("--modules", modules, kernel=kernel)

    def test_both_on_the_terminal_and_ctrl_a_c_moves_the_keyboard(self):
        t = self.terminal("--serial", "tty", "--cmdline",
                          vm.script("(echo SERIAL-UP; exec sh) < /dev/ttyS0 > /dev/ttyS0 2>&1 & "
                                    "read a; echo HVC=$a; read a; poweroff -f"))
        t.expect(r"\nSERIAL-UP\r")
        t.send("one\n")
        t.expect(r"\nHVC=one\r")
        t.send("\x01c")
        t.send("echo on-$((6*7))-serial\n")
        t.expect(r"\non-42-serial\r")
        t.send("\x01c")
        t.send("\n")
        self.assertEqual(t.wait(), 0, t.out)
