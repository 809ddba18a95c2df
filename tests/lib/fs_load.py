#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loads for a file system, each with a result that does not depend on where it runs.

  fs_load.py DIR [--long] [--source TREE] [LOAD ...]

Prints `LOAD: RESULT`, a line each. The same program run in the directory itself and,
through virtio-fs, in a guest has to print the same. What a guest lacks (a program)
is no load: both sides leave it out only if neither has it.
"""
import argparse
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time

LOADS = {}
LONG = False
SOURCE = None


def load(f):
    LOADS[f.__name__] = f
    return f


def sum_of(*parts):
    h = hashlib.sha1()
    for p in parts:
        h.update(p if isinstance(p, bytes) else str(p).encode())
        h.update(b"\0")
    return h.hexdigest()[:16]


def tree_sum(top):
    """Names, kinds, permissions, sizes, contents."""
    parts, n = [], 0
    for where, dirs, files in os.walk(top):
        dirs.sort()
        for name in sorted(dirs + files):
            path = os.path.join(where, name)
            st = os.lstat(path)
            parts += [os.path.relpath(path, top), oct(st.st_mode)]
            n += 1
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    parts.append(f.read())
            elif stat.S_ISLNK(st.st_mode):
                parts.append(os.readlink(path))
    return f"{n} files, {sum_of(*parts)}"


def run(*args, cwd=None):
    p = subprocess.run(args, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT)
    if p.returncode:
        raise RuntimeError(f"{args[0]}: status {p.returncode}: {p.stdout.decode()[-300:]}")
    return p.stdout.decode()


def name_of(call):
    """What a call gave: ok, or the error's name."""
    try:
        r = call()
        if isinstance(r, int) and not isinstance(r, bool) and r > 2:
            os.close(r)
        return "ok"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))


# ---------------------------------------------------------------- data

@load
def contents(top):
    """Reads and writes of all sorts against a model in memory."""
    rnd, size, model = random.Random(1), 1 << 20, bytearray()
    fd = os.open(f"{top}/f", os.O_RDWR | os.O_CREAT)
    for _ in range(20000 if LONG else 400):
        what, at, n = rnd.randrange(7), rnd.randrange(size), rnd.randrange(1, 70000)
        data = rnd.randbytes(min(n, size - at))
        if what == 0:
            if len(model) < at + len(data):
                model.extend(bytes(at + len(data) - len(model)))
            model[at:at + len(data)] = data
            os.pwrite(fd, data, at)
        elif what == 1:
            assert os.pread(fd, n, at) == bytes(model[at:at + n]), "read"
        elif what == 2:
            os.ftruncate(fd, at)
            model = model[:at] + bytes(max(0, at - len(model)))
        elif what == 3 and model:
            at %= len(model)
            with mmap.mmap(fd, len(model)) as m:
                data = data[:len(model) - at]
                m[at:at + len(data)] = data
                model[at:at + len(data)] = data
        elif what == 4 and model:
            with mmap.mmap(fd, len(model), prot=mmap.PROT_READ) as m:
                assert m[:] == bytes(model), "mapped read"
        elif what == 5:
            os.fsync(fd) if n & 1 else os.fdatasync(fd)
        elif what == 6:
            os.close(fd)
            fd = os.open(f"{top}/f", os.O_RDWR)
        assert os.fstat(fd).st_size == len(model), "size"
    os.close(fd)
    with open(f"{top}/f", "rb") as f:
        assert f.read() == model, "in the end"
    return sum_of(bytes(model))


@load
def mapped(top):
    """A shared mapping, written by two processes in turn."""
    with open(f"{top}/m", "wb") as f:
        f.truncate(1 << 20)
    fd = os.open(f"{top}/m", os.O_RDWR)
    m = mmap.mmap(fd, 1 << 20)
    for i in range(8):
        pid = os.fork()
        if not pid:
            mine = mmap.mmap(os.open(f"{top}/m", os.O_RDWR), 1 << 20)
            for at in range(i, 1 << 20, 4096):
                mine[at] = mine[max(0, at - 1)] + 1 & 255
            os._exit(0)
        os.waitpid(pid, 0)
        m.flush()
    return sum_of(m[:], os.pread(fd, 1 << 20, 0))


@load
def sparse(top):
    """5 GiB with two islands of data."""
    fd = os.open(f"{top}/s", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 5 << 30)
    os.pwrite(fd, b"low", 1 << 20)
    os.pwrite(fd, b"high", (4 << 30) + 123)
    os.fsync(fd)
    st = os.fstat(fd)
    out = [st.st_size, st.st_blocks < 4096, os.lseek(fd, 0, os.SEEK_DATA) <= 1 << 20,
           os.lseek(fd, 2 << 30, os.SEEK_DATA) > 3 << 30, os.pread(fd, 9, (4 << 30) + 120),
           os.pread(fd, 9, (5 << 30) - 4), name_of(lambda: os.pwrite(fd, b"x", 1 << 62))]
    os.close(fd)
    os.unlink(f"{top}/s")
    return out


@load
def appends(top):
    """Four processes append; no line is torn, none is lost."""
    pids = []
    for i in range(4):
        pid = os.fork()
        if not pid:
            fd = os.open(f"{top}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for k in range(100):
                os.write(fd, b"%d %d %s\n" % (i, k, b"x" * 100))
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    with open(f"{top}/log", "rb") as f:
        return sum_of(*sorted(f.read().split(b"\n")))


# ---------------------------------------------------------------- names

@load
def renames(top):
    """Threads rename files within and between directories; readers never miss one that stays."""
    rounds = 400 if LONG else 40
    for d in "abcd":
        os.mkdir(f"{top}/{d}")
    with open(f"{top}/a/steady", "w") as f:
        f.write("here")
    bad = []

    def storm(me):
        rnd, at = random.Random(me), f"{top}/a/{me}"
        with open(at, "w") as f:
            f.write(str(me))
        for i in range(rounds):
            to = f"{top}/{rnd.choice('abcd')}/{me}.{i}"
            os.rename(at, to)
            at = to
            with open(f"{top}/a/steady") as f:
                if f.read() != "here":
                    bad.append(me)
        os.rename(at, f"{top}/d/last.{me}")

    threads = [threading.Thread(target=storm, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for i in range(rounds):  # and one name is replaced all the time
        with open(f"{top}/a/new", "w") as f:
            f.write("here")
        os.rename(f"{top}/a/new", f"{top}/a/steady")
    for t in threads:
        t.join()
    return tree_sum(top), bad


@load
def directories(top):
    """Many entries, of which half go away while they are listed."""
    n = 3000 if LONG else 300
    for i in range(n):
        with open(f"{top}/{i:05}-{'n' * (i % 200)}", "w") as f:
            f.write(str(i))
    with os.scandir(top) as it:
        for e in it:
            if int(e.name[:5]) % 2:
                os.unlink(e.path)
    deep = top + "/d" * 60
    os.makedirs(deep)
    return len(os.listdir(top)), sum_of(*sorted(os.listdir(top))), os.path.isdir(deep)


@load
def errors(top):
    """What each call says of things that are not there, or not so."""
    os.mkdir(f"{top}/dir")
    os.mkdir(f"{top}/full")
    for name in ("file", "full/x", "other"):
        with open(f"{top}/{name}", "w") as f:
            f.write(name)
    os.symlink("loop", f"{top}/loop")
    os.symlink("gone", f"{top}/dangling")
    t, long = top, "n" * 256
    opened = os.open(f"{t}/file", os.O_RDONLY)
    calls = [
        lambda: os.open(f"{t}/none", os.O_RDONLY), lambda: os.open(f"{t}/file/x", os.O_RDONLY),
        lambda: os.open(f"{t}/dir", os.O_WRONLY), lambda: os.open(f"{t}/loop", os.O_RDONLY),
        lambda: os.open(f"{t}/dangling", os.O_RDONLY),
        lambda: os.open(f"{t}/file", os.O_CREAT | os.O_EXCL | os.O_RDWR),
        lambda: os.open(f"{t}/dangling", os.O_CREAT | os.O_EXCL | os.O_RDWR),
        lambda: os.open(f"{t}/loop", os.O_RDONLY | os.O_NOFOLLOW),
        lambda: os.open(f"{t}/file", os.O_RDONLY | os.O_DIRECTORY),
        lambda: os.open(f"{t}/{long}", os.O_CREAT | os.O_RDWR),
        lambda: os.open(f"{t}/{long[1:]}", os.O_CREAT | os.O_RDWR),
        lambda: os.mkdir(f"{t}/dir"), lambda: os.mkdir(f"{t}/none/x"), lambda: os.mkdir(f"{t}/file/x"),
        lambda: os.mkdir(f"{t}/dangling"), lambda: os.rmdir(f"{t}/full"), lambda: os.rmdir(f"{t}/file"),
        lambda: os.rmdir(f"{t}/none"), lambda: os.unlink(f"{t}/dir"), lambda: os.unlink(f"{t}/none"),
        lambda: os.rename(f"{t}/dir", f"{t}/full"), lambda: os.rename(f"{t}/dir", f"{t}/file"),
        lambda: os.rename(f"{t}/file", f"{t}/dir"), lambda: os.rename(f"{t}/full", f"{t}/full/y"),
        lambda: os.rename(f"{t}/none", f"{t}/y"), lambda: os.rename(f"{t}/file", f"{t}/file"),
        lambda: os.link(f"{t}/dir", f"{t}/l"), lambda: os.link(f"{t}/file", f"{t}/other"),
        lambda: os.link(f"{t}/file", f"{t}/hard"), lambda: os.symlink("x", f"{t}/file"),
        lambda: os.symlink("x", f"{t}/{long}"), lambda: os.readlink(f"{t}/file") and None,
        lambda: os.truncate(f"{t}/dir", 1), lambda: os.truncate(f"{t}/none", 1),
        lambda: os.truncate(f"{t}/file", -1), lambda: os.write(opened, b"x") and None,
        lambda: os.mkfifo(f"{t}/fifo"), lambda: os.mkfifo(f"{t}/fifo"),
        lambda: os.mknod(f"{t}/sock", stat.S_IFSOCK | 0o600), lambda: os.listdir(f"{t}/file") and None,
        lambda: os.chmod(f"{t}/none", 0o600), lambda: os.utime(f"{t}/none"),
        lambda: os.rename(f"{t}/dir", f"{t}/{long}"), lambda: os.statvfs(f"{t}/none") and None,
    ]
    out = [name_of(c) for c in calls]
    os.close(opened)
    return " ".join(out)


# ---------------------------------------------------------------- attributes

@load
def attributes(top):
    """Modes, owners, times, link counts; what a write takes away."""
    out, f = [], f"{top}/f"
    fd = os.open(f, os.O_RDWR | os.O_CREAT, 0o640)

    def look(path=f):
        st = os.lstat(path)
        out.append((oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, st.st_size))

    os.fchmod(fd, 0o4755)
    look()
    os.fchown(fd, 1234, 5678)
    look()
    os.fchmod(fd, 0o6777)
    os.link(f, f"{top}/l")
    look()
    os.unlink(f"{top}/l")
    os.write(fd, b"data")
    os.utime(f, ns=(1_111_111_111_222_333_444, 1_555_555_555_666_777_888))
    st = os.stat(f)
    out.append((st.st_atime_ns, st.st_mtime_ns))
    look()
    before = st.st_ctime_ns
    time.sleep(0.05)
    os.chmod(f, 0o600)
    out.append(os.stat(f).st_ctime_ns > before)
    old = os.umask(0o027)
    os.mkdir(f"{top}/d", 0o2777)
    os.umask(old)
    look(f"{top}/d")
    out[-1] = out[-1][:3]  # sizes and link counts of directories differ by file system
    os.unlink(f)
    out.append((os.fstat(fd).st_nlink, os.pread(fd, 9, 0)))  # it lives on while it is open
    os.close(fd)
    return out


@load
def xattrs(top):
    f, out = f"{top}/f", []
    with open(f, "w"):
        pass

    def note(call):
        try:
            out.append(call())
        except OSError as e:
            out.append(errno.errorcode[e.errno])

    note(lambda: os.setxattr(f, "user.a", b"1" * 200))
    note(lambda: os.setxattr(f, "user.b", b""))
    note(lambda: os.setxattr(f, "user.a", b"2", os.XATTR_CREATE))
    note(lambda: os.setxattr(f, "user.c", b"2", os.XATTR_REPLACE))
    note(lambda: os.getxattr(f, "user.a"))
    note(lambda: sorted(os.listxattr(f)))
    note(lambda: os.getxattr(f, "user.none"))
    note(lambda: os.removexattr(f, "user.a"))
    note(lambda: os.removexattr(f, "user.a"))
    note(lambda: sorted(os.listxattr(f)))
    return out


@load
def locks(top):
    """flock and fcntl locks between two processes."""
    out, f = [], f"{top}/lock"
    with open(f, "w") as h:
        h.truncate(100)
    for kind in ("flock", "fcntl"):
        def take(fd, how, at=0, n=0):
            if kind == "flock":
                fcntl.flock(fd, how)
            else:
                fcntl.lockf(fd, how, n, at)

        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            fd = os.open(f, os.O_RDWR)
            take(fd, fcntl.LOCK_EX, 10, 10)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        fd = os.open(f, os.O_RDWR)
        out.append(name_of(lambda: take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 15, 1)))
        out.append(name_of(lambda: take(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 19, 5)))
        out.append(name_of(lambda: take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 20, 5)))
        os.write(go[1], b"x")
        os.waitpid(pid, 0)
        out.append(name_of(lambda: take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 100)))
        out.append(name_of(lambda: take(fd, fcntl.LOCK_UN, 0, 100)))
        os.close(fd)
    return " ".join(out)


# ---------------------------------------------------------------- programs

@load
def archive(top):
    """Part of a kernel's source packed, unpacked and compiled."""
    parts = ["lib/zlib_inflate", "lib/zlib_deflate", "include/linux/zlib.h"]
    if LONG:
        parts += ["lib", "include", "scripts", "tools/lib", "tools/include", "tools/build", "tools/scripts"]
    run("tar", "-cf", f"{top}/part.tar", "-C", SOURCE, *parts)
    os.mkdir(f"{top}/tree")
    run("tar", "-xf", f"{top}/part.tar", "-C", f"{top}/tree")
    out = [tree_sum(f"{top}/tree")]
    with open(f"{top}/tree/Makefile", "w") as f:
        f.write("all: sums\nsums: $(patsubst %.c,%.i,$(wildcard lib/zlib_inflate/*.c))\n"
                "\tcat $^ | md5sum >$@\n%.i: %.c\n\tgcc -fpreprocessed -dD -E -P $< >$@\n")
    run("make", "-j2", cwd=f"{top}/tree")
    with open(f"{top}/tree/sums") as f:
        out.append(f.read().split()[0])
    out.append("up to date" in run("make", cwd=f"{top}/tree") or "Nothing" in run("make", cwd=f"{top}/tree"))
    if LONG:
        run("make", "-j2", "-C", f"{top}/tree/tools/lib/subcmd")
        out.append(os.path.exists(f"{top}/tree/tools/lib/subcmd/libsubcmd.a"))
    shutil.rmtree(f"{top}/tree")
    return out


@load
def git(top):
    env = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "safe.directory=*", "-c", "gc.auto=0")
    repo = f"{top}/repo"

    def g(*args):
        return run("git", *env, *args, cwd=repo)

    os.mkdir(repo)
    g("init", "-q", "-b", "main")
    for i in range(400 if LONG else 40):
        os.makedirs(f"{repo}/d{i % 7}", exist_ok=True)
        with open(f"{repo}/d{i % 7}/{i}", "w") as f:
            f.write(f"{i}\n" * i)
    g("add", ".")
    g("commit", "-qm", "one")
    out = [g("status", "--porcelain")]
    with open(f"{repo}/d1/1", "a") as f:
        f.write("more\n")
    os.unlink(f"{repo}/d2/2")
    os.rename(f"{repo}/d3", f"{repo}/e3")
    out.append(sum_of(g("status", "--porcelain", "-uall")))
    g("stash", "-qu")
    out.append(g("status", "--porcelain"))
    g("stash", "pop", "-q")
    g("fsck", "--strict")
    out.append(g("rev-parse", "HEAD^{tree}").strip())
    return out


@load
def stress(top):
    """stress-ng's file system stressors one after the other, with their own checks; the status."""
    names = ("access", "chmod", "dentry", "dir", "fallocate", "fcntl", "filename", "flock", "hdd", "iomix",
             "lease", "link", "lockf", "mknod", "open", "rename", "seek", "symlink", "touch", "utime", "xattr")
    out = []
    for name in names if LONG else ("dentry", "rename", "seek"):
        p = subprocess.run(["stress-ng", f"--{name}", "2", f"--{name}-ops", "2000" if LONG else "100",
                            "-t", "20", "--verify", "--temp-path", top], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out.append(f"{name}={p.returncode}")
    return " ".join(out)


@load
def dbench(top):
    p = subprocess.run(["dbench", "-t", "30" if LONG else "2", "-D", top, "2"], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return p.returncode, b"Throughput" in p.stdout


def main():
    global LONG, SOURCE
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("dir")
    ap.add_argument("--long", action="store_true")
    ap.add_argument("--source", help="a kernel's source tree")
    ap.add_argument("loads", nargs="*")
    opts = ap.parse_intermixed_args()
    LONG, SOURCE = opts.long, opts.source
    need = {"stress": "stress-ng", "dbench": "dbench", "git": "git", "archive": "make"}
    for name in opts.loads or LOADS:
        if (name in need and not shutil.which(need[name])) or (name == "archive" and not SOURCE):
            print(f"{name}: not here", flush=True)
            continue
        top = os.path.join(opts.dir, f"load-{name}")
        os.mkdir(top)
        try:
            result = LOADS[name](top)
        except (OSError, RuntimeError, AssertionError) as e:
            result = f"failed: {type(e).__name__}: {e}"
        print(f"{name}: {result}", flush=True)
        shutil.rmtree(top)
    ctypes.CDLL(None).sync()


if __name__ == "__main__":
    sys.exit(main())
