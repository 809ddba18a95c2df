# SPDX-License-Identifier: Apache-2.0
"""Freestanding guests on whatever KVM this host has: each of their lines is a test."""
import datetime
import json
import re

from tests.native import guests
from tests.native.guests import lines_of, sector


@lines_of("platform")
class Platform(guests.Guest):
    @classmethod
    def args(cls):
        cls.before = datetime.datetime.now(datetime.timezone.utc)
        return super().args()[:2]

    def test_string_output_is_whole_on_the_host(self):
        self.assertIn("# 0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ",
                      self.lines)

    def test_cmos_time_is_the_hosts(self):
        m = re.search(r"^# time (\d+) (\d+) (\d+) (\d+) (\d+) (\d+) ", self.done.out, re.M)
        self.assertTrue(m, self.done)
        y, *rest = map(int, m.groups())
        t = datetime.datetime(2000 + y, *rest, tzinfo=datetime.timezone.utc)
        now = datetime.datetime.now(datetime.timezone.utc)
        slack = datetime.timedelta(seconds=2)
        self.assertLess(self.before - slack, t)
        self.assertLess(t, now + slack)


class Virtio(guests.Guest):
    @classmethod
    def args(cls):
        first, second = super().args()[:2], super().args()[2:]
        return [*first, second[0], second[1] + ",readonly=on"]

    def exits(self, stage):
        with open(f"{self.dir}/timeline.json") as f:
            stages = {s["stage"]: s["exits"] for s in json.load(f)["stages"]}
        return stages[stage]["mmio_exits"]

    def host_sees_what_was_written(self):
        self.assertImage(0, {100 + i: sector(7000 + i) for i in range(8)})

    def host_sees_nothing_on_the_readonly_disk(self):
        self.assertImage(1)

    def kicks_end_in_kvm(self):
        start = self.exits("init")
        if not self.exits("end"):
            self.skipTest("this KVM does not count MMIO exits")
        self.assertEqual(self.exits("root") - start, 0)
        # Without an ioeventfd each would have been an exit, as these are.
        self.assertEqual(self.exits("root_init") - self.exits("root"), 200)


class Interrupts(guests.Guest):
    pass


class Hostile(guests.Guest):
    def images_are_untouched(self):
        self.assertImage(0)
        self.assertImage(1)


class Smp(guests.Guest):
    @classmethod
    def args(cls):
        return [*super().args(), "--cpus", "4"]

    def images_are_untouched(self):
        self.assertImage(0)
        self.assertImage(1)


def both(base, guest):
    """The class for each transport, with its host-side checks as tests."""
    for transport in ("pci", "mmio"):
        name = base.__name__ + transport.capitalize()
        body = {"transport": transport, "__module__": __name__}
        for check in [c for c in vars(base) if c.startswith(("host_", "kicks_", "images_"))]:
            body[f"test_{check}"] = vars(base)[check]
        globals()[name] = lines_of(guest)(type(name, (base,), body))
    del globals()[base.__name__]


both(Virtio, "virtio")
both(Interrupts, "interrupts")
both(Hostile, "hostile")
both(Smp, "smp")
