# SPDX-License-Identifier: Apache-2.0
"""--virtio-queue-sizes: what the guest's drivers then have, over both transports."""
from tests.lib import vm


class QueueSizes(vm.TestCase):
    def test_each_device_has_the_queues_it_was_given(self):
        """A disk's tags are its first ring's size; what goes over the small console and rng is whole."""
        for transport in ("pci", "mmio"):
            with self.subTest(transport):
                r = self.boot("-v", "--rootfs", self.rootfs(), "--transport", transport, "--cpus", 2,
                              "--virtio-queue-sizes", "disk0=64:16",
                              "--virtio-queue-sizes", "console=8:2",
                              "--virtio-queue-sizes", "rng=4", "--cmdline", vm.script(
                                  "cat /sys/block/vda/mq/*/nr_tags; cat /sys/block/vda/queue/max_segments; "
                                  "dd if=/dev/hwrng bs=4096 count=4 2>/dev/null | wc -c; "
                                  "dd if=/dev/urandom of=/f bs=1M count=4 2>/dev/null; sync; "
                                  "echo 3 > /proc/sys/vm/drop_caches; md5sum /f > /s; md5sum -c /s; "
                                  "seq 1 600 | tr '\\n' ' '; echo; echo END; poweroff -f"))
                self.assertEqual(r.status, 0, r)
                # Linux goes by the first queue; a request's segments fit into the smallest.
                self.assertRegex(r.out, r"64\s+64\s+14\s+16384\s+(\[.*\s+)?/f: OK", r)
                self.assertIn(" ".join(map(str, range(1, 601))), r.out, r)
                self.assertRegex(r.err, r"disk0: 2 queues of 64:16\n", r)
                self.assertRegex(r.err, r"console: 2 queues of 8:2\n", r)
                self.assertRegex(r.err, r"rng: 1 queue of 4\n", r)

    def test_sizes_for_no_device_and_for_no_use_are_refused(self):
        for text, why in (("disk3=64", "--virtio-queue-sizes disk3: this machine has none; it has "),
                          ("disk0=2", "--virtio-queue-sizes: disk0: 2 is too small"),
                          ("rng=8:8", "--virtio-queue-sizes: rng: 2 sizes, but it has 1 queue"),
                          ("disk0=100", "--virtio-queue-sizes disk0=100: 100 is not a power of two")):
            r = self.boot("--rootfs", self.rootfs(), "--virtio-queue-sizes", text)
            self.assertEqual(r.status, 125, r)
            self.assertIn(why, r.err)
            self.assertEqual(r.err.count("\n"), 1, r)
