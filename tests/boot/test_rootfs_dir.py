# SPDX-License-Identifier: Apache-2.0
"""A directory as the root: shared by virtio-fs, by default with the guest's writes in its memory."""
import hashlib
import os
import subprocess

from tests.lib import vm


def tree(top):
    """Every file below: mode, owner, contents or target."""
    found = {}
    for where, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(where, name)
            st = os.lstat(path)
            what = b""
            if os.path.islink(path):
                what = os.readlink(path).encode()
            elif os.path.isfile(path):
                with open(path, "rb") as f:
                    what = hashlib.sha1(f.read()).digest()
            found[os.path.relpath(path, top)] = (st.st_mode, st.st_uid, st.st_gid, what)
    return found


class Directories(vm.TestCase):
    def setUp(self):
        super().setUp()
        self.tree = f"{self.cache_dir()}/tree"
        subprocess.run([f"{vm.ROOT}/tools/mkrootfs", "--type", "dir", self.tree], check=True)

    def shapes(self):
        """Lean and stock kernels over both transports."""
        kernel, modules = vm.debian()
        for transport in ("pci", "mmio"):
            yield vm.lean(), ("--transport", transport)
            yield kernel, ("--transport", transport, "--modules", modules)

    def test_writes_are_gone_at_the_end(self):
        before = tree(self.tree)
        for kernel, args in self.shapes():
            r = self.boot("--rootfs", self.tree, *args, "--cmdline", vm.script(
                "grep -E ' / ' /proc/mounts; echo new > /new; echo changed > /etc/passwd; rm /etc/hosts; "
                "mv /var /var2; mkdir -p /a/b; ln -s x /a/l; chown 7:8 /etc/group; chmod 600 /etc/group; "
                "cat /new /etc/passwd; ls /etc/hosts; ls /var2; rm -r /var2 /home; mkdir /home; ls -a /home; "
                "sync; poweroff -f"), kernel=kernel)
            self.assertEqual(r.status, 0, r)
            self.assertRegex(r.out, r"overlay / overlay rw,", r)
            self.assertRegex(r.out, r"new\s+changed\s", r)
            self.assertIn("/etc/hosts: No such file", r.out, r)
            self.assertEqual(tree(self.tree), before)

    def test_writes_go_through_with_rw(self):
        for kernel, args in self.shapes():
            r = self.boot("--rootfs", f"{self.tree},rw", *args, "--cmdline", vm.script(
                "grep -E ' / ' /proc/mounts; echo new > /new; echo changed > /etc/hosts; mkdir -p /a/b; "
                "ln -s x /a/l; chown 7:8 /new; chmod 600 /new; mv /mnt /mnt2; sync; poweroff -f"),
                kernel=kernel)
            self.assertEqual(r.status, 0, r)
            self.assertRegex(r.out, r"mvm.root / virtiofs rw,", r)
            now = tree(self.tree)
            self.assertEqual(now["new"][:3], (0o100600, 7, 8))
            with open(f"{self.tree}/etc/hosts") as f:
                self.assertEqual(f.read(), "changed\n")
            self.assertEqual(os.readlink(f"{self.tree}/a/l"), "x")
            self.assertIn("mnt2", now)
            self.assertNotIn("mnt", now)
            subprocess.run(["rm", "-r", f"{self.tree}/new", f"{self.tree}/a"], check=True)
            os.rename(f"{self.tree}/mnt2", f"{self.tree}/mnt")

    def test_the_host_refuses_writes_below_the_overlay(self):
        """A guest that mounts the share itself, writable, still cannot write: the host is in the way."""
        before = tree(self.tree)
        r = self.boot("--rootfs", self.tree, "--cmdline", vm.script(
            "mkdir /x; mount -t virtiofs mvm.root /x; echo M=$?; echo a > /x/a; echo W=$?; rm -f /x/etc/hosts; "
            "echo R=$?; chmod 777 /x/etc/passwd; echo C=$?; truncate -s 0 /x/etc/passwd; echo T=$?; mkdir /x/d; "
            "echo D=$?; mv -f /x/mnt /x/mnt2; echo V=$?; touch /x/etc/group; echo U=$?; "
            "mount -o remount,rw /x; echo b > /x/b; echo B=$?; poweroff -f"))
        self.assertEqual(r.status, 0, r)
        self.assertIn("M=0", r.out, r)
        for mark in "WRCTDVUB":
            self.assertRegex(r.out, rf"{mark}=[1-9]", r)
        self.assertIn("Read-only file system", r.out, r)
        self.assertEqual(tree(self.tree), before)

    def test_shell_is_this_machines_and_poweroff_ends_it(self):
        for rw in ("", ",rw"):
            with self.subTest(rw):
                t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.tree + rw, "--timeout", 200)
                self.addCleanup(t.close)
                t.expect(vm.PROMPT)
                t.send("hostname; pwd; echo $HOME; touch /tmp/t /run/r; ping -c 1 127.0.0.1 | grep ' 0%'\n")
                t.expect(r"mvm\s+/root\s+/root\s")
                t.expect("0% packet loss")
                t.expect(vm.PROMPT)
                t.send("poweroff\n")
                self.assertEqual(t.wait(), 0, t.out)
                self.assertEqual(os.listdir(f"{self.tree}/tmp"), [])
                self.assertEqual(os.listdir(f"{self.tree}/run"), [])

    def test_directory_runs_its_own_init_unless_a_shell_is_asked_for(self):
        with open(f"{self.tree}/usr/bin/init", "w") as f:
            f.write("#!/bin/sh\necho OWN-INIT\npoweroff -f\n")
        os.chmod(f"{self.tree}/usr/bin/init", 0o755)
        for words in ("", "mvm.shell mvm.shell=0"):
            r = self.boot("--rootfs", self.tree, "--cmdline", words)
            self.assertEqual(r.status, 0, r)
            self.assertIn("OWN-INIT", r.out, r)
        t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.tree, "--cmdline", "mvm.shell")
        self.addCleanup(t.close)
        t.expect(vm.PROMPT)
        self.assertNotIn("OWN-INIT", t.out)
        t.send("exit\n")
        self.assertEqual(t.wait(), 0, t.out)

    def test_what_the_host_changes_shows_in_the_guest(self):
        """New files, and new contents of files that were read; without an overlay, replaced files, too."""
        for rw in ("", ",rw"):
            with self.subTest(rw):
                for name in ("word", "other"):
                    with open(f"{self.tree}/etc/{name}", "w") as f:
                        f.write("before\n")
                t = vm.Terminal("boot", "--kernel", vm.lean(), "--rootfs", self.tree + rw, "--timeout", 200)
                self.addCleanup(t.close)
                t.expect(vm.PROMPT)
                t.send("cat /etc/word /etc/other; ls /etc/late\n" if rw else "cat /etc/word\n")
                t.expect(r"before\s[^~]*late: No such file" if rw else r"before\s")
                t.expect(vm.PROMPT)
                for name in ("late", "new", "word"):
                    with open(f"{self.tree}/etc/{name}", "w") as f:
                        f.write("afterwards\n")
                os.rename(f"{self.tree}/etc/new", f"{self.tree}/etc/other")
                # Each for itself may be a second old.
                t.send("until [ $(cat /etc/word /etc/late /etc/other | grep -c after) = 3 ]; do sleep 1; done; "
                       "echo E''ND\n")
                t.expect("END")
                t.send("poweroff\n")
                self.assertEqual(t.wait(), 0, t.out)
                os.unlink(f"{self.tree}/etc/late")

    def test_share_beside_a_disk_as_the_root(self):
        """root= of the user's own, in both spellings; the disks begin at vda."""
        image = self.rootfs()
        for words in ("root=virtiofs:tree ro", "rootfstype=virtiofs root=tree rw mvm.overlay"):
            r = self.boot("--fs", f"tag=tree,dir={self.tree}", "--disk", image, "--cmdline",
                          words + " " + vm.script("grep -E ' / ' /proc/mounts; ls /dev/vd*; poweroff -f"))
            self.assertEqual(r.status, 0, r)
            self.assertRegex(r.out, r" / (virtiofs ro|overlay rw),", r)
            self.assertRegex(r.out, r"/dev/vda\s", r)

    def test_overlay_keeps_a_disk_as_it_is(self):
        image = self.rootfs()
        for kernel, args in self.shapes():
            r = self.boot("--rootfs", image, *args, "--cmdline", "mvm.overlay " + vm.script(
                "grep -E ' / ' /proc/mounts; ls /mark; echo 1 > /mark; cat /mark; poweroff -f"), kernel=kernel)
            self.assertEqual(r.status, 0, r)
            self.assertRegex(r.out, r"overlay / overlay rw,", r)
            self.assertIn("/mark: No such file", r.out, r)

    def test_root_that_is_not_there_says_so(self):
        r = self.boot("--fs", f"tag=tree,dir={self.tree}", "--cmdline", "root=virtiofs:other")
        self.assertEqual(r.status, 125, r)
        self.assertIn("guest init: cannot mount the root virtiofs:other: ", r.out, r)
        self.assertIn("shares no directory of this tag", r.out, r)
        self.assertIn("could not reach the root", r.err, r)

    def test_verbose_says_what_the_root_is(self):
        for key, words in (("", "read-only; what the guest writes is in its memory"),
                           (",rw", "written through")):
            r = self.boot("-v", "--rootfs", self.tree + key, "--cmdline", vm.script("poweroff -f"))
            self.assertEqual(r.status, 0, r)
            self.assertIn(f"root: the directory {self.tree}, {words}", r.err, r)

    def test_timeline_has_the_stages_of_the_root(self):
        path = self.path("t.json")
        r = self.boot("--rootfs", self.tree, f"--timeline={path}", "--cmdline", vm.script("poweroff -f"))
        self.assertEqual(r.status, 0, r)
        stages = self.timeline(path)
        for stage in ("init", "root", "root_init"):
            self.assertIn(stage, stages, stages)


class HostsRoot(vm.TestCase):
    """--rootfs /: its programs run, its files can be changed, and it does not see any of it."""

    once = "release"  # its time goes to the guest and virtiofsd

    def shell(self, *args):
        mark = f"/etc/mvm-test-{os.getpid()}"
        t = vm.Terminal("boot", *args, "--rootfs", "/", "--memory", "1G", "--timeout", 380)
        self.addCleanup(t.close)
        t.expect(r"root@mvm:~# ")
        t.send(f"bind 'set enable-bracketed-paste off'; PS1='next> '; echo gone > {mark}\n")
        t.expect("next> ")
        t.send("python3 -c 'print(6*7)'; git --version; pwd; whoami\n")
        t.expect(r"42\s+git version [\d.]+\s+/root\s+root\s")
        t.send("cd /tmp; echo 'int main(){return 7;}' > t.c; gcc -o t t.c; ./t; echo EXIT=$?\n")
        t.expect("EXIT=7")
        t.send(f"rm -r /etc/apt; ls -d /etc/apt; cat {mark}; grep ' / ' /proc/mounts\n")
        t.expect(r"No such file.*\s+gone\s+overlay / overlay rw")
        t.send("poweroff\n")
        self.assertEqual(t.wait(), 0, t.out)
        self.assertFalse(os.path.exists(mark))
        self.assertTrue(os.path.isdir("/etc/apt"))

    def test_shell_on_a_view_of_this_machine(self):
        self.shell("--kernel", vm.lean())

    def test_shell_on_a_view_of_this_machine_with_its_own_kernel(self):
        kernel, modules = vm.debian()
        self.shell("--kernel", kernel, "--modules", modules, "--transport", "mmio")


class Loads(vm.TestCase):
    once = "release"  # its time goes to the guest and virtiofsd

    def test_loads_give_what_they_give_on_the_host(self):
        """tests/lib/fs_load.py in a shared directory, by a guest on a view of this machine, and here."""
        where = self.cache_dir()
        os.mkdir(f"{where}/here")
        os.mkdir(f"{where}/there")
        prog = f"python3 {vm.ROOT}/tests/lib/fs_load.py"
        want = subprocess.run(f"{prog} {where}/here", shell=True, check=True,
                              stdout=subprocess.PIPE).stdout.decode()
        self.assertNotIn("failed", want)
        r = self.boot("--rootfs", "/", "--fs", f"tag=work,dir={where}/there", "--memory", "1G", "--cpus", 2,
                      "--cmdline", vm.script(f"export PATH=$PATH:/usr/sbin:/sbin:/usr/bin; export HOME=/root; "
                                             f"mount -t virtiofs work /mnt && {prog} /mnt > /mnt/got 2>&1; "
                                             "cat /mnt/got; poweroff -f"), limit=400, timeout=380)
        self.assertEqual(r.status, 0, r)
        with open(f"{where}/there/got") as f:
            self.assertEqual(f.read(), want, r)
