"""Making, removing, renaming and linking names: results and trees are those of a native run."""

import itertools
import os
import stat
from pathlib import Path

import pytest

from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    EVERYTHING,
    STAT,
    Out,
    Script,
    Twins,
    named,
    standard,
    text,
)

pytestmark = pytest.mark.kernel

# Names that an operation on a directory entry may be given, present or not.
NAMES: list[str | bytes] = [
    "file", "file/", "file/.", "file/x", "dir", "dir/", "dir/.", "dir/..", "dir//", "empty-dir", "empty-dir/", "empty-dir/.",
    "empty-dir/..", ".", "./", "", "missing", "missing/", "missing/.", "missing/x", "dir/missing", "dir/sub/..",
    "link", "link/", "dir-link", "dir-link/", "dir-link/.", "dir-link/inner", "dir-link/missing", "dangling", "dangling/",
    "dangling-slash", "loop", "loop/x", "absolute", "self-cwd", "dir/out", "fifo", "socket", "void", "no-access", "read-only",
    "closed-dir", "closed-dir/within", "closed-dir/missing", "fixed-dir/within", "fixed-dir/missing", "search-dir/within",
    "line\nbreak", b"bad-\xff\xfe", "n" * 255, "n" * 256, "a (deleted)", "dot-link", "dot-link/.", "chain-40/", "chain-41/x",
]  # fmt: skip
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


@pytest.fixture
def twins(sandbox: Sandbox, victims: Path) -> Twins:
    return Twins(sandbox, victims / "file_calls")


@pytest.mark.parametrize("name", ["unlink", "rmdir", "mkdir", "mknod", "symlink", "link", "rename-from", "rename-to"])
def test_every_name(twins: Twins, name: str) -> None:
    script = Script()
    for path in NAMES:
        if name in ("unlink", "rmdir"):
            script.call(name, path)
        elif name == "mkdir":
            script.call(name, path, 0o755)
        elif name == "mknod":
            script.call(name, path, stat.S_IFIFO | 0o644, 0)
        elif name in ("symlink", "link"):
            script.call(name, "other", path)
        elif name == "rename-from":
            script.call("rename", path, "moved")
            script.call("rename", "moved", path)
        else:
            script.call("rename", "other", path)
            script.call("rename", path, "other")
    twins.equal(script)


def test_unlinkat(twins: Twins) -> None:
    script = Script()
    place = script.call("open", "dir", os.O_RDONLY)
    for flags in (
        0,
        AT_REMOVEDIR,
        1,
        AT_REMOVEDIR | 1,
        AT_SYMLINK_NOFOLLOW,
        AT_EMPTY_PATH,
        -1,
        AT_REMOVEDIR | (1 << 40),
    ):
        for directory, path in (
            (place, "sub"),
            (place, "../empty-dir"),
            (place, "missing"),
            (place, ""),
            (99, "x"),
            (AT_FDCWD, "link"),
        ):
            script.call("unlinkat", directory, path, flags)
    for path in ("inner", "out", "sub/deep", "sub"):
        script.call("unlinkat", place, path, 0)
        script.call("unlinkat", place, path, AT_REMOVEDIR)
    for name in (b"bad-\xff\xfe", "line\nbreak", "fifo", "socket", "dangling", "loop", "dir-link", "chain-9"):
        script.call("unlinkat", AT_FDCWD, name, 0)
    twins.equal(script)


RENAMED = [
    "file",
    "file/",
    "missing",
    "dir",
    "dir/",
    "dir/sub",
    "dir/sub/x",
    "empty-dir",
    "empty-dir/",
    "link",
    "dir-link",
    "dir-link/",
    ".",
]


@pytest.mark.parametrize("flags", [0, NOREPLACE, EXCHANGE], ids=["", "noreplace", "exchange"])
def test_renaming_everything_to_everything(twins: Twins, flags: int) -> None:
    """What is moved is moved back, so that each pair meets the tree it began with, or nearly."""
    script = Script()
    for old, new in itertools.product(RENAMED, RENAMED):
        script.call("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)
        script.call("renameat2", AT_FDCWD, new, AT_FDCWD, old, flags)
        script.call("close", script.call("creat", "file", 0o644))
        for place in ("dir", "dir/sub", "empty-dir"):
            script.call("mkdir", place, 0o755)
    twins.equal(script)


def test_flags_of_rename(twins: Twins) -> None:
    script = Script()
    place = script.call("open", "dir", os.O_PATH)
    for flags in (NOREPLACE | EXCHANGE, WHITEOUT | EXCHANGE, WHITEOUT, 8, 1 << 31, -1, 1 << 40):
        script.call("renameat2", AT_FDCWD, "file", AT_FDCWD, "moved", flags)
        script.call("renameat2", AT_FDCWD, "missing", AT_FDCWD, "moved", flags)
    script.call("renameat", place, "inner", AT_FDCWD, "inner")
    script.call("renameat", AT_FDCWD, "inner", place, "sub/inner")
    script.call("renameat2", place, "sub", place, "above", NOREPLACE)
    script.call("renameat2", 99, "sub", place, "above", 0)
    script.call("renameat2", place, "above", 99, "x", 0)
    script.call("rename", "file", "other")
    script.call("link", "other", "twin")
    script.call("rename", "other", "twin")  # two names of one file: nothing happens
    script.call("rename", "dir", "dir/above/within")
    script.call("rename", "dir/above", "dir")
    script.call("rename", "dir", "empty-dir")
    script.call("rename", "empty-dir", "search-dir")
    script.call("rename", "empty-dir", "file")
    script.call("rename", "fifo", "socket")
    script.call("rename", "fixed-dir/within", "within")
    script.call("rename", "twin", "fixed-dir/twin")
    twins.equal(script)


def test_hard_links(twins: Twins) -> None:
    script = Script()
    place = script.call("open", "dir", os.O_RDONLY)
    file = script.call("open", "file", os.O_RDONLY)
    for flags in (0, AT_SYMLINK_FOLLOW, 1, AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR):
        for old in (
            "file",
            "file/",
            "link",
            "link/",
            "dir",
            "dangling",
            "loop",
            "fifo",
            "socket",
            "missing",
            "no-access",
            "absolute",
            ".",
        ):
            script.call("linkat", AT_FDCWD, old, place, "made", flags)
            script.call("newfstatat", place, "made", STAT, AT_SYMLINK_NOFOLLOW)
            script.call("unlinkat", place, "made", 0)
    script.call("link", "link", "link-of-link")
    script.call("lstat", "link-of-link", STAT)
    script.call("linkat", AT_FDCWD, named("/proc/self/fd/%d", file), place, "by-descriptor", AT_SYMLINK_FOLLOW)
    script.call("unlink", "file")
    script.call("linkat", AT_FDCWD, named("/proc/self/fd/%d", file), place, "back-to-life", AT_SYMLINK_FOLLOW)
    script.call("linkat", place, "inner", place, "inner", 0)
    script.call("linkat", place, "inner", 99, "x", 0)
    script.call("linkat", 99, "inner", place, "x", 0)
    script.call("linkat", place, "", place, "x", 0)
    script.call("link", "other", "fixed-dir/x")
    script.call("link", "other", "closed-dir/x")
    twins.equal(script)


def test_symbolic_links(twins: Twins) -> None:
    script = Script()
    place = script.call("open", "dir", os.O_PATH)
    targets: list[str | bytes] = [
        "file",
        "",
        "/",
        "../file",
        "no/where",
        "t" * 4095,
        "t" * 4096,
        b"\xff\xfe",
        "a\nb",
        ".",
        "/proc/self/fd/0",
    ]
    for at, target in enumerate(targets):
        script.call("symlinkat", target, place, f"made-{at}")
        script.call("readlinkat", place, f"made-{at}", Out(4200, text), 4200)
        script.call("readlinkat", place, f"made-{at}", Out(8, text), 3)
        script.call("newfstatat", place, f"made-{at}", STAT, AT_SYMLINK_NOFOLLOW)
    script.call("symlink", "x", "file")
    script.call("symlink", "x", "dangling")
    script.call("symlinkat", "x", 99, "y")
    twins.equal(script)


def test_nodes(twins: Twins) -> None:
    script = Script()
    script.call("umask", 0o027)
    for at, kind in enumerate(
        (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR, stat.S_IFLNK, 0o110000, 0o170000)
    ):
        script.call("mknod", f"made-{at}", kind | 0o666, 0)
        script.call("mknodat", AT_FDCWD, f"dir/made-{at}", kind | 0o4777, 0x103)
        script.call("lstat", f"dir/made-{at}", STAT)
    script.call("mknod", "file", stat.S_IFIFO | 0o600, 0)
    script.call("mknod", "missing/x", stat.S_IFIFO | 0o600, 0)
    script.call("mknod", "fixed-dir/x", stat.S_IFIFO | 0o600, 0)
    script.call("mknodat", 99, "x", stat.S_IFIFO | 0o600, 0)
    twins.equal(script)


def test_a_device_takes_a_rule_that_names_it(twins: Twins) -> None:
    """`all` does not make devices; a rule that does leaves the rest to the kernel, which refuses without CAP_MKNOD."""
    script = Script()
    made = [script.call("mknod", "zero", kind | 0o666, os.makedev(1, 5)) for kind in (stat.S_IFCHR, stat.S_IFBLK)]
    twins.fresh(standard)
    results, result = twins.supervised(script)
    assert [results[ref.line] for ref in made] == [("EACCES",), ("EACCES",)]
    denied = result.denials("file.mknod")
    assert [(record["rule"], record["target"]) for record in denied] == [("default", f"{twins.workspace}/zero")] * 2
    named_rule = '  - {id: devices, file: {do: [mknod], paths: ["${workspace}/zero"]}}\n'
    twins.equal(script, policy=EVERYTHING + named_rule)
    if os.getuid() == 0 and twins.sandbox.uid == 0:
        assert twins.native(script, powerless=False)[made[0].line] == (0,), "with its capabilities root can"


def test_directories_made_and_removed(twins: Twins) -> None:
    script = Script()
    place = script.call("open", "dir", os.O_PATH)
    for at, mode in enumerate((0, 0o755, 0o777, 0o1777, 0o2755, 0o7777, 0o17777, -1)):
        script.call("mkdirat", place, f"made-{at}", mode)
        script.call("newfstatat", place, f"made-{at}", STAT, 0)
        script.call("mkdirat", place, f"made-{at}/within/", 0o755)
        script.call("unlinkat", place, f"made-{at}", AT_REMOVEDIR)
        script.call("unlinkat", place, f"made-{at}/within", AT_REMOVEDIR)
        script.call("unlinkat", place, f"made-{at}/", AT_REMOVEDIR)
    for path in ("dir", "empty-dir/", "link", "dir-link", "file", "closed-dir", "fixed-dir/within", ".", "missing"):
        script.call("rmdir", path)
    twins.equal(script)


def test_removing_what_is_open(twins: Twins) -> None:
    script = Script()
    file = script.call("open", "file", os.O_RDWR)
    place = script.call("open", "empty-dir", os.O_RDONLY)
    script.call("unlink", "file")
    script.call("rmdir", "empty-dir")
    script.call("write", file, "still", 5)
    script.call("pread64", file, Out(16, text), 16, 0)
    script.call("fstat", file, STAT)
    script.call("getdents64", place, Out(64), 64)
    script.call("openat", place, "x", os.O_CREAT | os.O_RDWR, 0o600)
    script.call("mkdirat", place, "x", 0o700)
    script.call("newfstatat", place, "", STAT, AT_EMPTY_PATH)
    twins.equal(script)
