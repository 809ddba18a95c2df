# SPDX-License-Identifier: Apache-2.0
"""Bad input for networks, sockets and shares: one line that says what, which and why."""
import os
import socket
import subprocess

from tests.lib import vm
from tests.native import test_cli, test_resets


class Cli(test_cli.Cli):
    def all_refused(self, option, *cases):
        for value, *says in cases:
            with self.subTest(value):
                self.refused(option, value, says=[option, *says])

    def boot(self, *args, before=None):
        return vm.mvm(*self.boot_args(*args), limit=60, before=before)


class Net(Cli):
    def test_bad_values(self):
        self.all_refused(
            "--net", ("tap=averyveryverylongname", "longer than 15"), ("tap=a/b", "a/b"), ("tap=", "tap"),
            ("t0,mac=01:00:00:00:00:00", "multicast"), ("t0,mac=02:00", "02:00"), ("t0,mac=00:00:00:00:00:00", "mac"),
            ("t0,mtu=67", "68 to 65535"), ("t0,mtu=65536", "68 to 65535"), ("t0,queues=0", "1 to 16"),
            ("t0,queues=17", "1 to 16"), ("t0,queue_size=100", "power of two"), ("t0,queue_size=2048", "1024"),
            ("t0,vhost=maybe", "auto"), ("t0,offload=1", "on"), ("fd=99", "99 is not open"), ("fd=0", "fd"),
            ("fd=x", "fd"), ("colour=blue", "colour"), ("user,queues=2", "queues"), ("user,fd=3", "fd"))

    def test_a_file_that_is_no_tap(self):
        with open(self.file("plain")) as f:
            fd = os.dup2(f.fileno(), 17, inheritable=True)
            self.addCleanup(os.close, fd)
            r = subprocess.run([vm.MVM, *self.boot_args("--net", "fd=17")], pass_fds=[17], capture_output=True)
        self.assertEqual(r.returncode, 125, r)
        self.assertRegex(r.stderr.decode(), r"^mvm: .*fd.*17.*\n$")

    def test_one_tap_for_two_devices(self):
        self.refused("--net", "t0", "--net", "t0", says=["TAP t0", "two devices"])

    def test_a_tap_in_use_is_told_with_its_holder(self):
        script = (f"ip tuntap add busy0 mode tap; exec 9<>/dev/net/tun; "
                  "python3 -c 'import fcntl, struct; fcntl.ioctl(9, 0x400454ca, "
                  "struct.pack(\"16sH22x\", b\"busy0\", 0x1002))'; sleep 30 & exec 9>&-; \"$@\"; s=$?; kill $!; exit $s")
        r = subprocess.run(["bash", "-c", script, "sh", vm.MVM, *self.boot_args("--net", "busy0,vhost=off")],
                              capture_output=True, preexec_fn=test_resets.network_of_its_own)
        self.assertEqual(r.returncode, 125, r)
        self.assertRegex(r.stderr.decode(), r"^mvm: .*busy0.*in use.*sleep.*\n$")

    def test_a_tap_of_ours_is_gone_after_a_failure(self):
        script = '"$@"; ls /sys/class/net'
        r = subprocess.run(
            ["unshare", "-m", "sh", "-c", "mount -t sysfs s /sys; " + script, "sh", vm.MVM,
             *self.boot_args("--net", "gone0,vhost=off", "--fs", "tag=x,socket=/nowhere")],
            capture_output=True, preexec_fn=test_resets.network_of_its_own)
        self.assertRegex(r.stderr.decode(), r"^mvm: .*/nowhere.*\n$")
        self.assertNotIn(b"gone0", r.stdout)


class Vsock(Cli):
    def test_bad_values(self):
        self.all_refused(
            "--vsock", ("0", "0"), ("2", "2 is the host's"), ("4294967295", "4294967295"), ("cid=x", "cid"),
            ("cid=3,socket=", "socket"), (f"cid=3,socket=/{'x' * 120}", "socket"), ("socket=/x", "cid"),
            ("3,queue_size=3", "power of two"), ("3,sokcet=/x", "sokcet", "socket"))

    def test_a_socket_that_somebody_listens_on(self):
        path = self.path("s")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
            s.listen(1)
            self.refused("--vsock", f"3,socket={path}", says=[path, "in use"])

    def test_what_is_no_socket_stays(self):
        path = self.file("precious", b"data")
        self.refused("--vsock", f"3,socket={path}", says=[path])
        with open(path, "rb") as f:
            self.assertEqual(f.read(), b"data")

    def test_the_socket_is_gone_after_a_failure(self):
        self.refused("--vsock", f"3,socket={self.path('s')}", "--fs", "tag=x,socket=/nowhere", says=["/nowhere"])


class Fs(Cli):
    def test_bad_values(self):
        here = self.dir
        self.all_refused(
            "--fs", ("dir=/", "tag"), ("tag=x", "dir=DIR or socket=PATH"), (f"tag=x,dir={here},socket=/x", "one of them"),
            ("tag=x,dir=/nowhere", "/nowhere"), (f"tag=x,dir={self.file('plain')}", "plain"),
            (f"tag={'x' * 37},dir={here}", "36"), (f"tag=,dir={here}", "tag"), (f"tag=mvm.root,dir={here}", "mvm.root"),
            (f"tag=x,dir={here},cache=maybe", "auto"), (f"tag=x,dir={here},queues=0", "queues"),
            (f"tag=x,dir={here},queue_size=5", "power of two"), ("tag=x,socket=/nowhere", "/nowhere"),
            ("tag=x,socket=/nowhere,ro", "ro"))

    def test_one_tag_for_two_shares(self):
        self.refused("--fs", f"tag=x,dir={self.dir}", "--fs", f"tag=x,dir={self.dir}", says=["--fs", "x"])

    def test_a_peer_that_hangs_up(self):
        path = self.path("s")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
            s.listen(1)
            if os.fork() == 0:
                s.accept()[0].close()
                os._exit(0)
            r = self.boot("--fs", f"tag=x,socket={path}")
            os.wait()
        self.check(r, ["--fs tag=x"])


class Disk(Cli):
    def test_bad_values(self):
        self.all_refused("--disk", ("socket=/nowhere", "/nowhere"), ("socket=/nowhere,direct=on", "direct"),
                         ("path=/x,socket=/y", "socket"))
