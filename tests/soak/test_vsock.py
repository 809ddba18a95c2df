# SPDX-License-Identifier: Apache-2.0
"""AF_VSOCK over Unix sockets, for long."""
import os

from tests.boot.test_vsock import VsockCase, echo

GIB = 1 << 30


class LongVsock(VsockCase):
    def test_a_gibibyte_each_way_and_twenty_thousand_connections_leave_nothing(self):
        self.host.listen(52, echo)
        t = self.guest(timeout=7200)
        self.serve(t)
        fds = f"/proc/{t.proc.pid}/fd"
        before = len(os.listdir(fds))
        self.to_the_guest(t, GIB)
        self.to_the_host(t, GIB)
        for _ in range(10):
            self.calls_of_the_host(1000, 500)
            self.calls_of_the_guest(t, 1000, 500)
        # The guest's kernel takes up to 8 s for its part of the last ends.
        t.send("sleep 10; echo SLE''PT\n")
        t.expect(r"SLEPT\r")
        self.assertEqual(len(os.listdir(fds)), before)
        self.end(t)
