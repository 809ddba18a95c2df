# SPDX-License-Identifier: Apache-2.0
"""A kernel's file is borrowed while the guest starts, unless somebody wants to write it."""
import shutil

from tests.lib import borrow, vm


class KernelFile(borrow.TestCase):
    def setUp(self):
        super().setUp()
        shutil.copy(vm.lean(), self.kernel)
        self.args = ["--rootfs", self.rootfs(), "--cpus", "2", "--timeout", 200]

    def finish(self, t):
        """What is there is as good as ever, what was not touched before included."""
        t.expect(vm.PROMPT)
        t.send("find /bin /sys -xdev | wc -l; mount -t tmpfs t /tmp; dd if=/dev/zero of=/tmp/x bs=64k "
               f"count=100; md5sum /tmp/x; dmesg | grep -cE '{vm.TROUBLE}'; echo done-$((6*7))\n")
        t.expect(r"\n0\r\n(.|\n)*done-42\r")
        t.expect(vm.PROMPT)
        t.send("poweroff -f\n")
        self.assertEqual(t.wait(), 0, t.out)

    def test_guest_goes_on_when_its_kernel_is_overwritten_while_it_starts(self):
        t = self.catch(*self.args)
        self.write(t, self.overwrite)
        self.finish(t)

    def test_guest_goes_on_when_its_kernel_is_overwritten_at_the_prompt(self):
        t = vm.Terminal("boot", "--kernel", self.kernel, *self.args)
        self.addCleanup(t.close)
        t.expect(vm.PROMPT)
        self.assertFalse(self.borrowed(t))
        self.overwrite()
        t.send("\n")
        self.finish(t)

    def test_reboot_takes_the_kernel_that_is_there_then(self):
        t = self.catch(*self.args)
        self.write(t, lambda: shutil.copy(vm.lean(), self.kernel))
        t.expect(vm.PROMPT)
        t.send("reboot -f\n")
        self.finish(t)
