"""Calls that are wrong in more than one way fail with the error the kernel finds first.

Each case was a difference once, found by `test_differential_files.py`.
"""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.kernel.conftest import PYTHON, Sandbox
from tests.kernel.file_twins import (
    AT_FDCWD,
    EVERYTHING,
    UNMAPPED,
    ZEROES,
    Out,
    Raw,
    Script,
    Twins,
    text,
    unterminated,
    words,
)

pytestmark = pytest.mark.kernel

O_TMPFILE = 0o20200000
DISCARD = b"\2\0\0\x09\x7f\0\0\1" + bytes(8)
BENEATH = (os.O_RDONLY).to_bytes(8, "little") + bytes(8) + (8).to_bytes(8, "little")


@pytest.fixture
def twins(sandbox: Sandbox, victims: Path) -> Twins:
    return Twins(sandbox, victims / "file_calls")


def test_arguments_before_paths(twins: Twins) -> None:
    script = Script()
    script.call("readlinkat", 9999, unterminated(b"a"), Out(300, text), -1)
    script.call("readlink", UNMAPPED, Out(300, text), 0)
    script.call("access", UNMAPPED, -1)
    script.call("faccessat", AT_FDCWD, UNMAPPED, 8)
    script.call("mknod", UNMAPPED, 0o170644, 0)
    script.call("mknod", UNMAPPED, stat.S_IFDIR | 0o755, 0)
    script.call("mknod", "missing/x", 0o170644, 0)
    script.call("mknod", "made", 0x80000000 | 0o644, 0)
    script.call("sendto", script.call("socket", 2, 2, 0), "x", 1, 0x80000000, DISCARD, 16)
    script.call("inotify_add_watch", 9999, UNMAPPED, 0)
    script.call("inotify_add_watch", 9999, UNMAPPED, 0x1000)
    script.call("inotify_add_watch", script.call("open", "file", 0), UNMAPPED, 1)
    script.call("memfd_create", UNMAPPED, 0x1000)
    for number in (9999, -1):
        script.call("fsetxattr", number, UNMAPPED, "v", 1, 4)
        script.call("fsetxattr", number, UNMAPPED, "v", 1, 0)
        script.call("fsetxattr", number, "user.a", "v", 1 << 17, 0)
        script.call("fremovexattr", number, UNMAPPED)
    script.call("setxattr", UNMAPPED, "user.a", "v", 1, 4)
    script.call("getxattr", UNMAPPED, "", Out(8), 8)
    script.call("renameat2", 9999, UNMAPPED, 9999, UNMAPPED, 8)
    script.call("renameat2", 9999, UNMAPPED, 9999, UNMAPPED, 3)
    script.call("openat2", -1, "/absolute", BENEATH, len(BENEATH))
    loopback = "\n  - {id: discard, connect: {addresses: [loopback], ports: [any]}}\n"
    twins.equal(script, policy=EVERYTHING.rstrip() + loopback)


def test_the_first_path_before_the_second(twins: Twins) -> None:
    script = Script()
    for second in (UNMAPPED, "./" * 2048, ""):
        script.call("link", "missing", second)
        script.call("rename", "missing/x", second)
        script.call("rename", "file", second)
        script.call("symlink", "", second)
    for directory in (9999, script.call("open", "file", os.O_RDONLY)):
        script.call("linkat", AT_FDCWD, "missing", directory, "x", 0)
        script.call("renameat", AT_FDCWD, "missing/x", directory, "x")
        script.call("renameat", AT_FDCWD, "file", directory, "x")
    twins.equal(script)


def test_flags_the_kernel_does_not_know(twins: Twins) -> None:
    script = Script()
    for access in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | O_TMPFILE, os.O_RDONLY | os.O_PATH):
        for extra in (1 << 31, 1 << 30, 0x80101800):
            for path in ("file", "dir", "missing", "."):
                script.call("close", script.call("open", path, access | extra, 0o644))
    twins.equal(script)


def test_creating_what_cannot_be(twins: Twins) -> None:
    script = Script()
    for path in (
        "missing/.",
        "missing/..",
        "file/.",
        "file/..",
        "file/../",
        "file/x/",
        "file/x/.",
        "fifo/x/.",
        "missing/x/.",
        "closed-dir/within/",
        "list-dir/within/",
        "list-dir/x/",
    ):
        for flags in (os.O_CREAT | os.O_WRONLY, os.O_CREAT | os.O_EXCL | os.O_RDWR):
            script.call("open", path, flags, 0o644)
    for path in ("link", "dangling", "loop", "dir-link"):
        for flags in (O_TMPFILE | os.O_RDWR | os.O_NOFOLLOW, os.O_DIRECTORY | os.O_NOFOLLOW):
            script.call("open", path, flags, 0o644)
    twins.equal(script)


def test_nothing_is_beneath_a_pipe(twins: Twins) -> None:
    script = Script()
    for path in ("/proc/self/fd/0/..", "/proc/self/fd/0/x", "/dev/fd/0/."):
        script.call("stat", path, Out(144))
        script.call("mkdir", path, 0o755)
        script.call("unlink", path)
        script.call("open", path, os.O_RDONLY)
    script.call("chdir", "/proc/self/fd/0")
    twins.equal(script)


def test_a_path_to_a_pipe_that_is_restricted(twins: Twins) -> None:
    script = Script()
    for path in ("/proc/self/fd/0", "/dev/fd/0", "/proc/self/fd/0/a", "/proc/self/fd/99"):
        for resolve in (0, 1, 2, 4, 8, 16):
            how = (os.O_NONBLOCK).to_bytes(8, "little") + bytes(8) + resolve.to_bytes(8, "little")
            script.call("close", script.call("openat2", AT_FDCWD, path, how, len(how)))
    links = '  - {id: own-links, file: {do: [read], paths: ["/proc/self/fd/*"]}}\n'
    twins.equal(script, policy=EVERYTHING + links)


def test_messages_of_which_nothing_can_be_read(twins: Twins) -> None:
    """Who they are for, and whether the socket may send at all, the kernel says first; a port is given all the same."""
    script = Script()
    half = words(b"12345", 5, UNMAPPED, 5)
    for kind in ((2, 1), (2, 2), (1, 1), (1, 2), (1, 5)):
        own = script.call("socket", *kind, 0)
        for name in (b"", DISCARD, b"\x10\0" + bytes(14)):
            header = words(name or 0, len(name), half, 2, 0, 0, 0)
            script.call("sendmsg", own, header, 0)
            script.call("sendto", own, UNMAPPED, 5, 0, name or 0, len(name))
        script.call("getsockname", own, Out(2), (16).to_bytes(4, "little"))
    loopback = "\n  - {id: discard, connect: {addresses: [loopback], ports: [any]}}\n"
    twins.equal(script, policy=EVERYTHING.rstrip() + loopback)


def test_addresses_that_mean_nothing_to_a_socket(twins: Twins) -> None:
    """The kernel says why, after what it looks at before that."""
    script = Script()
    own = [script.call("socket", *kind, 0) for kind in ((2, 1), (10, 1), (2, 2), (10, 2), (1, 1), (1, 2), (1, 5))]
    own.append(script.call("socket", 2, 2, 0))
    script.call("connect", own[-1], DISCARD, len(DISCARD))
    for each in own:
        for family, sizes in ((1, (1, 2, 16, 28, 111)), (2, (2, 15)), (10, (2, 23)), (16, (2, 16, 28)), (99, (16, 28))):
            if each in own[4:7] and family == 1:
                continue  # names that mean something
            for size in sizes:
                name = bytes((family, 0)) + b"x" * 128
                script.call("connect", each, name, size)
                script.call("sendto", each, "x", 1, 0, name, size)
                script.call("bind", each, name, size)
    more = 0x8000  # MSG_MORE: where the whole datagram goes, its first part has said
    rights = words(20, 1 | 1 << 32, 9999)  # of which only Unix sockets take notice
    for each in own:
        script.call("sendmsg", each, words(DISCARD, 16, words("x", 1), 1, rights, 24, 0), 0)
    for size in (16, 1, 2):
        script.call("sendto", own[3], "x", 1, more, DISCARD, 16)
        script.call("sendto", own[2], "x", 1, more, DISCARD, size)
    loopback = "\n  - {id: discard, connect: {addresses: [loopback], ports: [any]}}\n"
    result = twins.equal(script, policy=EVERYTHING.rstrip() + loopback)
    assert not result.denials(), result.denials()


def test_a_name_that_leads_nowhere_is_found_after_what_is_wrong_with_the_message(twins: Twins) -> None:
    script = Script()
    names = [
        b"\1\0" + path for path in (b"missing", b"file/x", b"loop", b"n" * 100, b"closed-dir/x", b"missing/x", b"d\0")
    ]
    payloads = [(b"x", 1), (UNMAPPED, 4), (ZEROES, 32 * 4096), (Raw("w256"), 1 << 20), (0, 0)]
    for how in (None, 0, 1):
        own = script.call("socket", 1, 2, 0)
        if how is not None:
            script.call("shutdown", own, how)
        for name in names:
            for payload in payloads:
                script.call("sendto", own, *payload, 0x40, name, len(name))
                header = words(name, len(name), words(*payload), 1, 0, 0, 0)
                script.call("sendmsg", own, header, 0x4000)
    unix = '\n  - {id: unix, unix: {do: [connect], paths: ["${workspace}/**"]}}\n'
    result = twins.equal(script, policy=EVERYTHING.rstrip() + unix)
    assert not result.denials(), result.denials()


def test_the_unspecified_address_to_a_socket_that_is_bound_to_ipv4(twins: Twins) -> None:
    """It then means IPv4's loopback address."""
    mapped = b"\x0a\0" + bytes(2) + bytes(4) + bytes(10) + b"\xff\xff"
    nowhere = b"\x0a\0\0\x09" + bytes(24)
    script = Script()
    for host in (b"\x7f\0\0\1", bytes(4)):
        for kind in (1, 2):
            own = script.call("socket", 10, kind, 0)
            script.call("bind", own, mapped + host + bytes(4), 28)
            script.call("sendto", own, "x", 1, 0, nowhere, 28)
            script.call("sendto", own, "x", 1, 0, nowhere, 23)
            script.call("connect", own, nowhere, 28)
            script.call("getpeername", own, Out(28), (28).to_bytes(4, "little"))
    both = "\n  - {id: discard, connect: {addresses: [loopback], ports: [any]}}"
    both += "\n  - {id: bind, bind: {addresses: [any], ports: [any]}}\n"
    result = twins.equal(script, policy=EVERYTHING.rstrip() + both)
    assert not result.denials(), result.denials()
    sent = [record for record in result.records if {"net.connect", "net.send"} & set(record.get("ops", ()))]
    assert {record["target"] for record in sent} == {"127.0.0.1:9"}


def test_a_taken_name_outside_the_policy_is_eexist(twins: Twins) -> None:
    script = Script()
    for path in ("/", "/usr", "/etc/passwd", "/usr/lib/."):
        script.call("mkdir", path, 0o755)
        script.call("mknod", path, stat.S_IFIFO | 0o644, 0)
        script.call("symlink", "target", path)
        script.call("link", "file", path)
        script.call("open", path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    result = twins.equal(script)
    assert not result.denials(), result.denials()


def test_a_taken_name_that_may_not_be_seen_stays_hidden(sandbox: Sandbox) -> None:
    hidden = sandbox.root / "hidden"
    hidden.mkdir()
    command = [PYTHON, "-c", f"import os; os.mkdir({str(hidden)!r})"]
    assert "FileExistsError" in sandbox.native(command).stderr
    result = sandbox.run(command)
    assert "PermissionError" in result.stderr
    assert result.denials("file.create")


def test_a_directory_of_proc_names_a_process(sandbox: Sandbox) -> None:
    program = """
import os, signal
signal.signal(signal.SIGUSR1, lambda *a: print("heard", flush=True))
own = os.open(f"/proc/{os.getpid()}", os.O_DIRECTORY)
signal.pidfd_send_signal(own, signal.SIGUSR1)
for path in ("/proc/self/fd", "/", "/usr"):
    try:
        signal.pidfd_send_signal(os.open(path, os.O_DIRECTORY), signal.SIGUSR1)
    except OSError as error:
        print(error.errno)
"""
    native = sandbox.native([PYTHON, "-c", program])
    assert native.stdout.split() == ["heard"] + [str(errno.EBADF)] * 3
    result = sandbox.run([PYTHON, "-c", program])
    assert result.stdout == native.stdout, result.stderr


def test_an_exec_that_is_wrong_in_two_ways(twins: Twins) -> None:
    """The program first, then what it is given, its environment before its arguments, then its interpreter."""
    script = Script()
    written = script.call("open", "script", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o755)
    script.call("write", written, "#!/usr/missing/interpreter\n", 27)
    given = [
        (arguments, environment)
        for arguments in (words("x", 0), words("x", UNMAPPED, 0), UNMAPPED)
        for environment in (words(0), words("x" * 131072, 0), UNMAPPED)
    ]
    for name in ("missing", "file", "dir", "program", "script"):
        for each in given:
            script.spawn("execve", name, *each)
    script.call("close", written)
    for each in given:
        script.spawn("execve", "script", *each)
    anything = '\n  - {id: executable, exec: {paths: ["${workspace}/**"]}}\n'
    result = twins.equal(script, policy=EVERYTHING.rstrip() + anything)
    assert not result.denials(), result.denials()
    assert [record["exe"] for record in result.records if record["type"] == "exec"] == [str(twins.program)]


def test_a_directory_that_may_not_be_searched_before_the_other_name(twins: Twins) -> None:
    script = Script()
    script.call("mkdir", "closed", 0)
    for name in ("", UNMAPPED, "missing/x"):
        script.call("renameat", AT_FDCWD, "closed/a", AT_FDCWD, name)
        script.call("renameat", AT_FDCWD, "file", AT_FDCWD, name)
    script.call("chmod", "closed", 0o700)
    twins.equal(script)


def test_arguments_before_what_is_known_to_be_missing(twins: Twins) -> None:
    script = Script()
    for name in ("missing", "others"):
        script.call("statx", AT_FDCWD, name, 0, 0x7FF, Out(256))
        script.call("newfstatat", AT_FDCWD, name, Out(144), 0)
        script.call("statx", AT_FDCWD, name, 0, 0x80000000, Out(256))
        script.call("statx", AT_FDCWD, name, 0x6000, 0x7FF, Out(256))
        script.call("statx", AT_FDCWD, name, 0x10000, 0x7FF, Out(256))
        script.call("newfstatat", AT_FDCWD, name, Out(144), 0x10000)
        script.call("access", name, 8)
        script.call("faccessat2", AT_FDCWD, name, 0, 0x10000)
        script.call("readlink", name, Out(9), 0)
    twins.equal(script, policy=EVERYTHING)
