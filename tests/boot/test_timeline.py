# SPDX-License-Identifier: Apache-2.0
"""--timeline: stages in order, on one clock, with exits counted up to each."""
from tests.lib import vm


class Timeline(vm.TestCase):
    def test_stages_are_reached_in_order_and_exits_grow(self):
        out = self.path("t.json")
        r = self.boot("--rootfs", self.rootfs(), f"--timeline={out}", "--cmdline",
                      vm.script("poweroff -f"))
        self.assertEqual(r.status, 0, r)
        t = self.timeline(out)
        order = ["start", "vm", "memory", "kernel", "run", "entry", "console", "init", "root",
                 "root_init", "end"]
        self.assertEqual(list(t), order)
        for a, b in zip(order, order[1:]):
            self.assertLessEqual(t[a]["wall_ns"], t[b]["wall_ns"], (a, b))
            self.assertLessEqual(t[a]["exits"]["exits"], t[b]["exits"]["exits"], (a, b))
        self.assertEqual(t["kernel"]["exits"]["exits"], 0)
        self.assertGreater(t["init"]["exits"]["exits"], 100)

    def test_console_of_a_stock_kernel_speaks_after_init_has_started(self):
        out = self.path("t.json")
        kernel, modules = vm.debian()
        r = self.boot("--rootfs", self.rootfs(), "--modules", modules, f"--timeline={out}", "--timeline",
                      "--cmdline", vm.script("poweroff -f"), kernel=kernel)
        self.assertEqual(r.status, 0, r)
        stages = list(self.timeline(out))
        self.assertLess(stages.index("init"), stages.index("console"))
        self.assertNotRegex(r.err, r"(?m)^\D+[\d.]+ +-")

    def test_printed_table_names_every_stage(self):
        r = self.boot("--rootfs", self.rootfs(), "--timeline", "--cmdline",
                      vm.script("poweroff -f"))
        for words in ("process started", "VM created", "first KVM_RUN", "init started",
                      "machine ended"):
            self.assertIn(words, r.err)
