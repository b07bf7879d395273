"""Opening files: what a descriptor can do afterwards must be what it can do natively."""

import fcntl
import itertools
import os
import pty
import struct
import termios
from pathlib import Path

import pytest

from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    EVERYTHING,
    STAT,
    Out,
    Script,
    Twins,
    Value,
    named,
    standard,
    text,
)

pytestmark = [pytest.mark.kernel, pytest.mark.every_tier]

ACCESS = {"read": os.O_RDONLY, "write": os.O_WRONLY, "both": os.O_RDWR, "neither": 3}
NOFOLLOW_SHOWN = "O_NOFOLLOW cannot be kept: the pinned object is opened through a link of /proc"
RLIMIT_NOFILE = 7
ACL_OF_OTHERS = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, who)
    for tag, rights, who in (
        (1, 7, 0xFFFFFFFF),
        (2, 6, 12345),
        (4, 5, 0xFFFFFFFF),
        (16, 6, 0xFFFFFFFF),
        (32, 1, 0xFFFFFFFF),
    )
)


@pytest.fixture
def twins(sandbox: Sandbox, victims: Path) -> Twins:
    return Twins(sandbox, victims / "file_calls")


@pytest.mark.parametrize("access", ACCESS.values(), ids=ACCESS)
def test_flags_and_what_they_leave(twins: Twins, access: int) -> None:
    script = Script()
    extras = (
        os.O_APPEND,
        os.O_NONBLOCK,
        os.O_CLOEXEC,
        os.O_SYNC,
        os.O_NOATIME,
        os.O_DIRECTORY,
        os.O_LARGEFILE,
        os.O_NOCTTY,
    )
    for path in ("file", "dir", "link", "read-only", "write-only", "no-access", "fifo", "socket", "/dev/null"):
        for extra in (0, *extras, os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, os.O_DSYNC, os.O_ASYNC, os.O_EXCL):
            blocks = path == "fifo" and access in (os.O_RDONLY, os.O_WRONLY)
            script.opened("open", path, access | extra | (os.O_NONBLOCK if blocks else 0))
    twins.equal(script)


def test_nofollow_is_obeyed_though_it_is_not_shown(twins: Twins) -> None:
    script = Script()
    shown = []
    for path in ("file", "dir", "link", "dir-link", "dangling", "fifo", "missing"):
        ref = script.call("open", path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        shown.append(script.call("fcntl", ref, 3))
        script.call("close", ref)
    twins.fresh(standard)
    natively, (supervised, _) = twins.native(script), twins.supervised(script)
    for ref in shown:
        if natively[ref.line][0] != "EBADF":
            assert natively[ref.line][0] & os.O_NOFOLLOW, "natively it is shown"
            assert supervised[ref.line] == (natively[ref.line][0] & ~os.O_NOFOLLOW,), NOFOLLOW_SHOWN
            natively[ref.line] = supervised[ref.line]
    assert supervised == natively


def test_path_descriptors(twins: Twins) -> None:
    script = Script()
    for path in (
        "file",
        "dir",
        "link",
        "dir-link",
        "no-access",
        "closed-dir",
        "fifo",
        "socket",
        "/dev/null",
        "missing",
        "dangling",
    ):
        for extra in (
            0,
            os.O_NOFOLLOW,
            os.O_DIRECTORY,
            os.O_CLOEXEC,
            os.O_RDWR | os.O_TRUNC | os.O_CREAT | os.O_APPEND,
        ):
            ref = script.call("open", path, os.O_PATH | extra)
            script.shown(ref)
            script.call("write", ref, "x", 1)
            script.call("fchdir", ref)
            script.call("chdir", str(twins.workspace))
            script.call("readlinkat", ref, "", Out(300, text), 300)
            script.reads("open", named("/proc/self/fd/%d", ref), os.O_RDONLY | os.O_NONBLOCK)
            script.call("close", script.call("open", named("/proc/self/fd/%d", ref), os.O_RDWR | os.O_NONBLOCK))
            script.call("faccessat2", ref, "", os.R_OK, AT_EMPTY_PATH)
            script.call("close", script.call("dup", ref))
            script.call("close", ref)
    twins.equal(script)


@pytest.mark.parametrize("access", ACCESS.values(), ids=ACCESS)
def test_truncating_opens(twins: Twins, access: int) -> None:
    script = Script()
    for path in (
        "file",
        "other",
        "link",
        "dir",
        "read-only",
        "write-only",
        "no-access",
        "missing",
        "fifo",
        "/dev/null",
    ):
        for extra in (0, os.O_APPEND, os.O_CREAT, os.O_CREAT | os.O_EXCL):
            script.opened("open", path, access | os.O_TRUNC | os.O_NONBLOCK | extra, 0o640)
    twins.equal(script)


def test_appending_and_positions(twins: Twins) -> None:
    script = Script()
    end = script.call("open", "file", os.O_WRONLY | os.O_APPEND)
    front = script.call("open", "file", os.O_RDWR)
    script.call("write", front, "XY", 2)
    script.call("write", end, "end", 3)
    script.call("pread64", front, Out(16, text), 16, 0)
    script.call("lseek", front, 0, 1)
    script.call("lseek", end, 0, 1)
    script.call("ftruncate", front, 4)
    script.call("fcntl", end, 4, os.O_NONBLOCK)
    script.call("fcntl", end, 3)
    twins.equal(script)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_agents_umask_counts(twins: Twins, umask: int) -> None:
    script = Script()
    script.call("umask", umask)
    for at, mode in enumerate((0o000, 0o644, 0o666, 0o777, 0o4755, 0o2755, 0o1777, 0o7777, 0o10644, 0xFFFF_FFFF)):
        script.opened("open", f"open-{at}", os.O_CREAT | os.O_RDWR, mode)
        script.opened("openat", AT_FDCWD, f"openat-{at}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, mode)
        script.opened("creat", f"creat-{at}", mode)
        script.call("mkdir", f"mkdir-{at}", mode)
        script.call("mkdirat", AT_FDCWD, f"mkdirat-{at}", mode)
        script.call("mknod", f"mknod-{at}", (mode & 0o7777) | 0o10000, 0)
        script.opened("open", "dir", os.O_TMPFILE | os.O_RDWR, mode)
    script.call("umask", 0)
    twins.equal(script)


def test_default_access_lists_replace_the_umask(twins: Twins) -> None:
    script = Script()
    script.call("umask", 0o077)
    script.call("setxattr", "dir", "system.posix_acl_default", ACL_OF_OTHERS, len(ACL_OF_OTHERS), 0)
    script.opened("open", "dir/made", os.O_CREAT | os.O_RDWR, 0o666)
    script.opened("open", "dir", os.O_TMPFILE | os.O_RDWR, 0o666)
    script.call("mkdir", "dir/made-dir", 0o777)
    script.call("mknod", "dir/made-fifo", 0o10666, 0)
    for path in ("dir/made", "dir/made-dir", "dir/made-fifo"):
        script.call("stat", path, STAT)
        script.call("getxattr", path, "system.posix_acl_access", Out(64), 64)
    twins.equal(script)


def test_set_group_id_directories_pass_their_group_on(twins: Twins) -> None:
    script = Script()
    script.call("chmod", "dir", 0o2775)
    script.opened("open", "dir/made", os.O_CREAT | os.O_RDWR, 0o2775)
    script.call("mkdir", "dir/made-dir", 0o775)
    script.call("stat", "dir/made-dir", STAT)
    twins.equal(script)


def test_creation_through_links(twins: Twins) -> None:
    script = Script()
    for path in (
        "dangling",
        "dangling-chain",
        "dangling-absolute",
        "dangling-deep",
        "dangling-slash",
        "loop",
        "link",
        "dir-link/new",
    ):
        for extra in (os.O_EXCL, os.O_NOFOLLOW, 0, 0, os.O_TRUNC):
            ref = script.call("open", path, os.O_CREAT | os.O_RDWR | extra, 0o644)
            script.call("fstat", ref, STAT)
            script.call("close", ref)
            script.call("lstat", path, STAT)
    twins.equal(script)


def test_unnamed_files(twins: Twins) -> None:
    script = Script()
    for place, extra in itertools.product(
        ("dir", "dir/", ".", "dir-link", "file", "missing", "fixed-dir", "no-access", ""), (0, os.O_EXCL)
    ):
        script.opened("open", place, os.O_TMPFILE | os.O_RDWR | extra, 0o640)
        script.opened("open", place, os.O_TMPFILE | os.O_RDONLY | extra, 0o640)
    made = script.call("open", "dir", os.O_TMPFILE | os.O_RDWR, 0o640)
    script.call("write", made, "made", 4)
    script.call("readlink", named("/proc/self/fd/%d", made), Out(300, _before_number), 300)
    script.call("linkat", AT_FDCWD, named("/proc/self/fd/%d", made), AT_FDCWD, "dir/named", AT_SYMLINK_FOLLOW)
    script.call("linkat", AT_FDCWD, named("/proc/self/fd/%d", made), AT_FDCWD, "dir/named", AT_SYMLINK_FOLLOW)
    script.call("fstat", made, STAT)
    sealed = script.call("open", "dir", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o640)
    script.call("linkat", AT_FDCWD, named("/proc/self/fd/%d", sealed), AT_FDCWD, "sealed", AT_SYMLINK_FOLLOW)
    twins.equal(script)


def test_linking_a_bare_descriptor_takes_the_way_through_proc(twins: Twins) -> None:
    """Before Linux 6.10 AT_EMPTY_PATH takes a capability: callers know ENOENT and link /proc/self/fd/N instead."""
    script = Script()
    made = script.call("open", "dir", os.O_TMPFILE | os.O_RDWR, 0o640)
    bare = script.call("linkat", made, "", AT_FDCWD, "by-descriptor", AT_EMPTY_PATH)
    named_one = script.call("linkat", AT_FDCWD, named("/proc/self/fd/%d", made), AT_FDCWD, "by-name", AT_SYMLINK_FOLLOW)
    twins.fresh(standard)
    results, _ = twins.supervised(script)
    assert (results[bare.line], results[named_one.line]) == (("ENOENT",), (0,))
    assert (twins.workspace / "by-name").exists()
    assert not (twins.workspace / "by-descriptor").exists()


def _before_number(data: bytes) -> str:
    """Show the name of an unnamed file up to the inode number in it."""
    return text(data).partition("#")[0]


def test_a_fifo_waits_for_its_other_side(twins: Twins) -> None:
    """A thread that waits natively holds a number already, so which numbers are given out can differ."""
    script = Script()
    for first, second in ((os.O_RDONLY, os.O_WRONLY), (os.O_WRONLY, os.O_RDONLY)):
        waiting = script.start("open", "fifo", first)
        script.reads("open", "file", os.O_RDONLY)  # served while the other waits
        script.running(waiting)
        other = script.call("open", "fifo", second)
        ref = script.join(waiting)
        script.call("fcntl", other, 3)
        script.call("fcntl", ref, 3)
        script.call("close", ref)
        script.call("close", other)
    for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        script.call("close", script.call("open", "fifo", access | os.O_NONBLOCK))
        script.call("close", script.call("open", "fifo", access | os.O_NONBLOCK | os.O_CREAT, 0o600))
    twins.fresh(standard)
    natively, (supervised, _) = twins.native(script), twins.supervised(script)
    assert _without_numbers(script, supervised) == _without_numbers(script, natively)


def test_what_is_closed_is_closed(twins: Twins) -> None:
    """The supervisor keeps no copy of what it handed over: a reader that has closed a FIFO was its last."""
    script = Script()
    for turn in range(600):
        how = (os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDONLY | os.O_NONBLOCK)[turn % 3]
        script.call("close", script.call("open", "fifo", how, 0o600))
        script.call("open", "fifo", os.O_WRONLY | os.O_NONBLOCK)
    twins.equal(script)


def _without_numbers(script: Script, results: list[Value]) -> list[tuple[str, Value | str]]:
    opens = [word.startswith(("open", "join")) for word in script.words]
    shown = [
        "opened" if opening and isinstance(value[0], int) else value
        for opening, value in zip(opens, results, strict=True)
    ]
    return list(zip(script.words, shown, strict=True))


def test_a_signal_ends_the_wait_at_a_fifo(twins: Twins) -> None:
    script = Script()
    for access in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_CREAT):
        script.interrupt(script.start("open", "fifo", access))
    twins.equal(script)


def test_many_readers_of_one_fifo(twins: Twins) -> None:
    script = Script()
    waiting = [script.start("open", "fifo", os.O_RDONLY) for _ in range(20)]
    writer = script.call("open", "fifo", os.O_WRONLY)
    joined = [script.join(ref) for ref in waiting]
    script.call("close", writer)
    twins.fresh(standard)
    natively, (supervised, _) = twins.native(script), twins.supervised(script)
    for results in (natively, supervised):  # threads get their numbers in any order, and each gets one
        assert sorted(results[ref.line][0] for ref in [*joined, writer]) == list(range(3, 24))


def test_a_full_descriptor_table(twins: Twins) -> None:
    script = Script()
    script.call("prlimit64", 0, RLIMIT_NOFILE, struct.pack("=QQ", 5, 5), 0)
    script.call("open", "file", os.O_RDONLY)
    last = script.call("open", "dir", os.O_PATH)
    for access in (os.O_RDONLY, os.O_RDWR, os.O_PATH):
        script.call("open", "file", access)
    # Natively a number is taken before the path is looked at; the supervisor looks first.
    absent = script.call("open", "missing", os.O_RDONLY)
    not_one = script.call("open", "file", os.O_RDONLY | os.O_DIRECTORY)
    script.call("close", last)
    script.call("open", "file", os.O_RDONLY)
    looked = {absent: (("EMFILE",), ("ENOENT",)), not_one: (("EMFILE",), ("ENOTDIR",))}
    twins.equal(script, differ=looked)


def test_a_full_descriptor_table_does_not_undo_a_creation(twins: Twins) -> None:
    """Natively the number is taken first; the supervisor learns that there is none when it hands the file over."""
    script = Script()
    script.call("prlimit64", 0, RLIMIT_NOFILE, struct.pack("=QQ", 3, 3), 0)
    made = script.call("open", "made", os.O_CREAT | os.O_RDWR, 0o600)
    twins.fresh(standard)
    assert twins.native(script)[made.line] == ("EMFILE",)
    assert not (twins.workspace / "made").exists()
    results, result = twins.supervised(script)
    assert results[made.line] == ("EMFILE",)
    assert (twins.workspace / "made").exists()
    assert [record["errno"] for record in result.records if record["type"] == "outcome"][-1:] == ["EMFILE"]


def test_devices(twins: Twins) -> None:
    script = Script()
    for path in ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"):
        for access in (
            os.O_RDONLY,
            os.O_WRONLY,
            os.O_RDWR,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
            os.O_RDONLY | os.O_DIRECTORY,
        ):
            ref = script.call("open", path, access, 0o600)
            script.call("fcntl", ref, 3)
            script.call("write", ref, "x", 1)
            script.call("close", ref)
    twins.equal(script)


@pytest.mark.parametrize("controlled", [True, False], ids=["with terminal", "without terminal"])
def test_the_controlling_terminal(twins: Twins, controlled: bool) -> None:
    """/dev/tty is the agent's terminal, which is not the one the tests may have."""
    script = Script()
    for access in (
        os.O_RDWR,
        os.O_RDONLY,
        os.O_WRONLY | os.O_NOCTTY,
        os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC,
        os.O_RDONLY | os.O_CREAT,
    ):
        ref = script.call("open", "/dev/tty", access, 0o600)
        script.call("fcntl", ref, 3)
        script.call("fcntl", ref, 1)
        script.call("ioctl", ref, termios.TIOCGPGRP, Out(4, bool))
        script.call("ioctl", ref, termios.TIOCGWINSZ, Out(8))
        script.call("close", ref)
    script.call("stat", "/dev/tty", STAT)
    place = twins.sandbox.root / "script"
    place.write_text(script.text())
    policy = twins.sandbox.policy(EVERYTHING)
    command = [str(twins.program), str(place)]
    outputs = [_in_session(twins, argv, controlled) for argv in (command, twins.sandbox.argv(command, policy))]
    natively, supervised = (script.results(output) for output in outputs)
    assert supervised == natively
    assert (natively[0] == ("ENXIO",)) is not controlled


def _in_session(twins: Twins, argv: list[str], controlled: bool) -> str:
    """Run a command as the leader of a session of its own, with a terminal that the test holds the other side of."""
    ours, theirs = pty.openpty()
    os.fchown(theirs, twins.sandbox.uid, -1) if os.getuid() == 0 else None
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 33, 99, 0, 0))
    prepare = (lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)) if controlled else None
    process = twins.sandbox.popen(
        argv, stdin=-3, stdout=-1, stderr=-1, start_new_session=True, preexec_fn=prepare, pass_fds=(theirs,)
    )
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0, err
    return str(out)
