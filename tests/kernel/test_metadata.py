"""Looking at files and changing what is known about them: by path, by descriptor, and by both."""

import os
import struct
from pathlib import Path

import pytest

from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    EVERYTHING,
    READ_ONLY,
    STAT,
    STATX,
    UNMAPPED,
    Out,
    Ref,
    Script,
    Twins,
    named,
    standard,
    text,
)

pytestmark = pytest.mark.kernel

PATHS: list[str | bytes] = [
    "file", "file/", "dir", "dir/", "link", "link/", "dir-link", "dangling", "loop", "missing", "missing/x", "read-only", "no-access",
    "write-only", "closed-dir", "closed-dir/within", "fixed-dir/within", "search-dir/within", "fifo", "socket", "void", "", ".",
    b"bad-\xff\xfe", "line\nbreak", "n" * 256, "chain-40", "chain-41", "absolute", "dir/out",
]  # fmt: skip
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_EACCESS, AT_NO_AUTOMOUNT = 0x200, 0x800
NOFOLLOW, EMPTY = AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH


@pytest.fixture
def twins(sandbox: Sandbox, victims: Path) -> Twins:
    return Twins(sandbox, victims / "file_calls")


def _descriptors(script: Script) -> list[Ref | int]:
    """Descriptors of every kind: of files and directories, for reading and writing, unnamed, bad."""
    made: list[Ref | int] = [
        script.call("open", "file", os.O_RDONLY),
        script.call("open", "other", os.O_WRONLY),
        script.call("open", "dir", os.O_RDONLY),
        script.call("open", "fifo", os.O_RDWR),
        script.call("open", "dir", os.O_TMPFILE | os.O_RDWR, 0o600),
        script.call("open", "void", os.O_RDWR),
    ]
    script.call("unlink", "void")
    return [*made, 99, -1, AT_FDCWD]


def _path_descriptors(script: Script) -> list[Ref]:
    return [
        script.call("open", "file", os.O_PATH),
        script.call("open", "dir", os.O_PATH),
        script.call("open", "link", os.O_PATH | os.O_NOFOLLOW),
        script.call("open", "no-access", os.O_PATH),
    ]


# Changing


def test_truncate(twins: Twins) -> None:
    script = Script()
    for path in PATHS:
        for length in (3, 0, 100, -1, 1 << 62):
            script.call("truncate", path, length)
            script.call("stat", path, STAT)
    for file in _descriptors(script):
        script.call("ftruncate", file, 2)
    twins.equal(script)


def test_modes(twins: Twins) -> None:
    script = Script()
    for path in PATHS:
        for mode in (0o600, 0o4751, 0o100644, 0xFFFF):
            script.call("chmod", path, mode)
            script.call("fchmodat", AT_FDCWD, path, mode ^ 0o100)
            script.call("fchmodat2", AT_FDCWD, path, mode ^ 0o10, 0)
            script.call("fchmodat2", AT_FDCWD, path, mode ^ 0o10, NOFOLLOW)
            script.call("stat", path, STAT)
        script.call("chmod", path, 0o755)
    for flags in (EMPTY, EMPTY | NOFOLLOW, 1, AT_EACCESS, -1):
        script.call("fchmodat2", AT_FDCWD, "file", 0o640, flags)
        script.call("fchmodat2", AT_FDCWD, "", 0o750, flags)
        script.call("stat", ".", STAT)
    twins.equal(script)


def test_modes_by_descriptor(twins: Twins) -> None:
    script = Script()
    for descriptor in _descriptors(script):
        script.call("fchmod", descriptor, 0o640)
        script.call("fstat", descriptor, STAT)
        script.call("fchmodat2", descriptor, "", 0o600, EMPTY)
        script.call("fstat", descriptor, STAT)
    for descriptor in _path_descriptors(script):
        script.call("fchmodat2", descriptor, "", 0o651, EMPTY)
        script.call("fstat", descriptor, STAT)
    twins.equal(script)


OWNERS: list[tuple[int | str, int | str]] = [
    (-1, -1),
    ("own", -1),
    (-1, "own"),
    ("own", "own"),
    (12345, -1),
    (-1, 12345),
    (12345, 12345),
]


def test_owners(twins: Twins) -> None:
    """Without CAP_CHOWN a user can give a file to itself and to its groups, which loses set-id bits."""
    script = Script()
    script.call("chmod", "file", 0o6755)
    own = [tuple(twins.sandbox.uid if one == "own" else int(one) for one in pair) for pair in OWNERS]
    for uid, gid in own:
        for path in PATHS:
            script.call("chown", path, uid, gid)
            script.call("lchown", path, uid, gid)
            script.call("fchownat", AT_FDCWD, path, uid, gid, 0)
            script.call("fchownat", AT_FDCWD, path, uid, gid, NOFOLLOW)
        for flags in (EMPTY, EMPTY | NOFOLLOW, 1, AT_EACCESS):
            script.call("fchownat", AT_FDCWD, "", uid, gid, flags)
    script.call("stat", "file", STAT)
    twins.equal(script)


def test_owners_by_descriptor(twins: Twins) -> None:
    script = Script()
    for uid, gid in ((-1, -1), (twins.sandbox.uid, twins.sandbox.uid), (12345, -1)):
        for descriptor in _descriptors(script):
            script.call("fchown", descriptor, uid, gid)
            script.call("fchownat", descriptor, "", uid, gid, EMPTY)
        for path_descriptor in _path_descriptors(script):
            script.call("fchownat", path_descriptor, "", uid, gid, EMPTY)
    twins.equal(script)


TIMES: list[tuple[int, int, int, int]] = [
    (1_000, 1, 2_000, 2), (1_001, UTIME_OMIT, 2_001, 7), (1_002, 3, 2_002, UTIME_OMIT), (0, UTIME_OMIT, 0, UTIME_OMIT),
    (5, UTIME_NOW, 2_003, 8), (0, UTIME_NOW, 0, UTIME_NOW), (1, 1_000_000_000, 2, 0), (1, 0, 2, -1), (1, 999_999_999, 2, 1_000_000_001),
    (-5, 0, -6, 0), (1 << 40, 0, 1 << 34, 0), (1_003, 4, 2_004, 9),
]  # fmt: skip


def test_times(twins: Twins) -> None:
    script = Script()
    for path in PATHS:
        for times in TIMES:
            for flags in (0, NOFOLLOW):
                script.call("utimensat", AT_FDCWD, path, struct.pack("=4q", *times), flags)
                script.call("lstat", path, STAT)
        script.call("utimensat", AT_FDCWD, path, 0, 0)
        script.call("lstat", path, STAT)
    for flags in (EMPTY, 1, AT_EACCESS, EMPTY | NOFOLLOW):
        script.call("utimensat", AT_FDCWD, "file", struct.pack("=4q", 7, 7, 7, 7), flags)
        script.call("utimensat", AT_FDCWD, "", struct.pack("=4q", 8, 8, 8, 8), flags)
    script.call("stat", ".", STAT)
    twins.equal(script)


def test_times_of_older_calls(twins: Twins) -> None:
    script = Script()
    place = script.call("open", "dir", os.O_RDONLY)
    for path in ("file", "dir/", "link", "dangling", "missing", "fixed-dir/within", "no-access"):
        for pair in ((1, 2, 3, 4), (5, 999_999, 6, 0), (1, 1_000_000, 2, 0), (1, -1, 2, 0), (1, 0, 2, UTIME_NOW)):
            script.call("utimes", path, struct.pack("=4q", *pair))
            script.call("futimesat", place, f"../{path}", struct.pack("=4q", *pair))
            script.call("stat", path, STAT)
        script.call("utime", path, struct.pack("=2q", 11, 12))
        script.call("stat", path, STAT)
        for name in ("utime", "utimes"):
            script.call(name, path, 0)
            script.call(name, path, UNMAPPED)
    script.call("futimesat", place, 0, struct.pack("=4q", 1, 2, 3, 4))
    script.call("fstat", place, STAT)
    twins.equal(script)


def test_times_by_descriptor(twins: Twins) -> None:
    script = Script()
    for descriptor in _descriptors(script)[:-1]:
        for times in TIMES:
            script.call("utimensat", descriptor, 0, struct.pack("=4q", *times), 0)
            script.call("fstat", descriptor, STAT)
            script.call("utimensat", descriptor, "", struct.pack("=4q", *times), EMPTY)
        script.call("utimensat", descriptor, 0, 0, 0)
        script.call("utimensat", descriptor, 0, 0, NOFOLLOW)
        script.call("fstat", descriptor, STAT)
    for path_descriptor in _path_descriptors(script):
        script.call("utimensat", path_descriptor, "", struct.pack("=4q", *TIMES[0]), EMPTY)
        script.call("fstat", path_descriptor, STAT)
    twins.equal(script)


def test_descriptors_of_paths_change_nothing(twins: Twins) -> None:
    """fchmod and its like want a descriptor that was really opened."""
    script = Script()
    for descriptor in _path_descriptors(script):
        script.call("fchmod", descriptor, 0o600)
        script.call("fchown", descriptor, -1, -1)
        script.call("utimensat", descriptor, 0, struct.pack("=4q", *TIMES[0]), 0)
        script.call("fsetxattr", descriptor, "user.x", "v", 1, 0)
        script.call("fgetxattr", descriptor, "user.x", Out(8), 8)
        script.call("fremovexattr", descriptor, "user.x")
        script.call("ftruncate", descriptor, 0)
        script.call("fstatfs", descriptor, Out(120, _constant_part))
        script.call("fstat", descriptor, STAT)
    twins.equal(script)


def test_no_path_and_no_descriptor(twins: Twins) -> None:
    """AT_FDCWD is a directory to begin at, not a descriptor."""
    script = Script()
    times = struct.pack("=4q", *TIMES[0])
    for flags in (0, NOFOLLOW, EMPTY):
        script.call("utimensat", AT_FDCWD, 0, times, flags)
        script.call("utimensat", AT_FDCWD, 0, 0, flags)
    script.call("futimesat", AT_FDCWD, 0, times)
    for name, rest in (("fchmod", (0o700,)), ("fchown", (-1, -1)), ("fremovexattr", ("user.x",))):
        script.call(name, AT_FDCWD, *rest)
    script.call("stat", ".", STAT)
    twins.equal(script)


# Extended attributes


def test_extended_attributes(twins: Twins) -> None:
    script = Script()
    for path in PATHS:
        script.call("setxattr", path, "user.one", "value", 5, 0)
        script.call("lsetxattr", path, "user.two", "", 0, 0)
        for name in ("getxattr", "lgetxattr"):
            script.call(name, path, "user.one", Out(8), 8)
            script.call(name, path, "user.two", 0, 0)
        script.call("listxattr", path, Out(64, text), 64)
        script.call("llistxattr", path, Out(64, text), 64)
        script.call("removexattr", path, "user.one")
        script.call("lremovexattr", path, "user.two")
        script.call("lremovexattr", path, "user.two")
    twins.equal(script)


def test_sizes_and_flags_of_attributes(twins: Twins) -> None:
    script = Script()
    create, replace = 1, 2
    for flags in (create, create, replace, create | replace, 4, 0):
        script.call("setxattr", "file", "user.a", "12345", 5, flags)
        script.call("setxattr", "file", "user.new", "x", 1, replace)
    for size in (0, 1, 4, 5, 6, 100, 65536, 65537, 1 << 40):
        script.call("getxattr", "file", "user.a", Out(128), size) if size <= 128 else None
        script.call("listxattr", "file", Out(128, text), size) if size <= 128 else None
        script.call("setxattr", "other", "user.big", b"b" * min(size, 70000), size, 0)
    for size in (5, 70000):
        script.call("getxattr", "file", "user.a", 0, size)
        script.call("getxattr", "file", "user.a", READ_ONLY, size)
        script.call("setxattr", "file", "user.b", UNMAPPED, size, 0)
    script.call("setxattr", "file", "user.b", 0, 0, 0)
    script.call("setxattr", "file", "user.c", UNMAPPED, 0, 0)
    for name in (
        "",
        "user.",
        "user",
        "user." + "n" * 250,
        "user." + "n" * 251,
        "unknown.x",
        "trusted.x",
        "security.x",
        "system.x",
        "n" * 300,
    ):
        script.call("setxattr", "file", name, "v", 1, 0)
        script.call("getxattr", "file", name, Out(8), 8)
        script.call("removexattr", "file", name)
    twins.equal(script)


def test_attributes_by_descriptor(twins: Twins) -> None:
    script = Script()
    for descriptor in _descriptors(script)[:-1]:  # kernels differ in what fsetxattr(AT_FDCWD) is
        script.call("fsetxattr", descriptor, "user.x", "value", 5, 0)
        script.call("fgetxattr", descriptor, "user.x", Out(8), 8)
        script.call("flistxattr", descriptor, Out(64, text), 64)
        script.call("fremovexattr", descriptor, "user.x")
        script.call("fremovexattr", descriptor, "user.x")
    twins.equal(script)


def test_attributes_at_a_descriptor_are_not_offered(twins: Twins) -> None:
    """setxattrat and its like came with Linux 6.13: callers know ENOSYS."""
    script = Script()
    for name in ("setxattrat", "getxattrat", "listxattrat", "removexattrat"):
        script.call(name, AT_FDCWD, "file", 0, "user.x", struct.pack("=QII", 0, 0, 0), 16)
    twins.fresh(standard)
    assert twins.supervised(script)[0] == [("ENOSYS",)] * 4


# Looking


def test_status_in_all_its_forms(twins: Twins) -> None:
    script = Script()
    for flags in (
        0,
        NOFOLLOW,
        EMPTY,
        EMPTY | NOFOLLOW,
        AT_NO_AUTOMOUNT,
        1,
        AT_EACCESS,
        0x2000,
        0x4000,
        0x6000,
        0x8000,
        -1,
    ):
        for path in ("file", "link", "dangling", "", "dir/"):
            script.call("newfstatat", AT_FDCWD, path, STAT, flags)
            script.call("statx", AT_FDCWD, path, flags, 0xFFF, STATX)
    for descriptor in [*_descriptors(script), *_path_descriptors(script)]:
        for flags in (0, EMPTY):
            script.call("newfstatat", descriptor, "", STAT, flags)
            script.call("newfstatat", descriptor, 0, STAT, flags)
            script.call("statx", descriptor, "", flags, 0xFFF, STATX)
            script.call("statx", descriptor, 0, flags, 0xFFF, STATX)
    twins.equal(script)


def test_masks_of_statx(twins: Twins) -> None:
    script = Script()
    for mask in (0, 1, 0x7FF, 0x800, 0xFFF, 0x1000, 0x2000, 0x4000, 0x1FFFF, 0x7FFFFFFF, 0x80000000, -1):
        for path in ("file", "dir", "link", "/dev/null", "/proc/self/status"):
            script.call("statx", AT_FDCWD, path, NOFOLLOW, mask, STATX)
    twins.equal(script)


def test_access(twins: Twins) -> None:
    script = Script()
    for path in (*PATHS, "program"):
        for mode in (*range(8), 8, -1):
            script.call("access", path, mode)
            script.call("faccessat", AT_FDCWD, path, mode)
            for flags in (0, AT_EACCESS, NOFOLLOW, AT_EACCESS | NOFOLLOW):
                script.call("faccessat2", AT_FDCWD, path, mode, flags)
    for flags in (EMPTY, EMPTY | AT_EACCESS, 1, 0x800):
        script.call("faccessat2", AT_FDCWD, "file", os.R_OK, flags)
    for descriptor in [*_descriptors(script), *_path_descriptors(script)]:
        script.call("faccessat2", descriptor, "", os.R_OK, EMPTY)
        script.call("faccessat2", descriptor, "", os.W_OK, EMPTY)
        script.call("faccessat2", descriptor, "", os.F_OK, 0)
    rule = '  - {id: programs, exec: {paths: ["${workspace}/**"]}}\n'
    twins.equal(script, policy=f"{EVERYTHING}{rule}")


def test_reading_links(twins: Twins) -> None:
    script = Script()
    for path in PATHS:
        for size in (300, 3, 0, -1):
            script.call("readlink", path, Out(300, text), size)
            script.call("readlinkat", AT_FDCWD, path, Out(300, text), size)
    for descriptor in [*_descriptors(script), *_path_descriptors(script)]:
        script.call("readlinkat", descriptor, "", Out(300, text), 300)
    script.call("readlink", "link", READ_ONLY, 300)
    twins.equal(script)


def test_file_systems(twins: Twins) -> None:
    script = Script()
    for path in (*PATHS, "/proc", "/dev/null", "/", "/sys"):
        script.call("statfs", path, Out(120, _constant_part))
    for descriptor in _descriptors(script):
        script.call("fstatfs", descriptor, Out(120, _constant_part))
    twins.equal(script)


def _constant_part(data: bytes) -> object:
    """Show type, block sizes, limits and flags of a `struct statfs`; what is free changes all the time."""
    fields = struct.unpack_from("=7q8s3q", data)
    return fields[0], fields[1], fields[8], fields[9], fields[10]


# Watching


IN_ATTRIB, IN_CREATE, IN_DELETE, IN_MODIFY, IN_MOVE = 0x4, 0x100, 0x200, 0x2, 0xC0
IN_DONT_FOLLOW, IN_ONLYDIR, IN_MASK_ADD, IN_MASK_CREATE, IN_NONBLOCK = (
    0x02000000,
    0x01000000,
    0x20000000,
    0x10000000,
    0o4000,
)


def _events(data: bytes) -> list[tuple[int, int, bool, str]]:
    found, at = [], 0
    while at + 16 <= len(data):
        watch, mask, cookie, size = struct.unpack_from("=iIII", data, at)
        if mask:
            found.append((watch, mask, bool(cookie), text(data[at + 16 : at + 16 + size])))
        at += 16 + size
    return found


def test_watches_see_what_happens(twins: Twins) -> None:
    script = Script()
    watcher = script.call("inotify_init1", IN_NONBLOCK)
    every = IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MODIFY | IN_MOVE
    on_dir = script.call("inotify_add_watch", watcher, "dir", every)
    script.call("inotify_add_watch", watcher, "link", every)
    script.call("inotify_add_watch", watcher, "link", IN_DONT_FOLLOW | IN_ATTRIB)
    script.call("close", script.call("open", "dir/made", os.O_CREAT | os.O_WRONLY, 0o600))
    script.call("truncate", "file", 1)
    script.call("rename", "dir/made", "dir/moved")
    script.call("chmod", "dir/moved", 0o640)
    script.call("unlink", "dir/moved")
    script.call("mkdir", "dir/new", 0o700)
    script.call("read", watcher, Out(2048, _events), 2048)
    script.call("inotify_rm_watch", watcher, on_dir)
    script.call("rmdir", "dir/new")
    script.call("read", watcher, Out(2048, _events), 2048)
    twins.equal(script)


def test_watches_that_cannot_be(twins: Twins) -> None:
    script = Script()
    watcher = script.call("inotify_init1", 0)
    file = script.call("open", "file", os.O_RDONLY)
    bad_masks = (0, IN_MASK_ADD | IN_MASK_CREATE, -1)
    masks = (IN_MODIFY | IN_ONLYDIR, IN_MODIFY, IN_MODIFY | IN_MASK_CREATE, IN_ATTRIB | IN_MASK_ADD)
    there = ("file", "dir", "link", "no-access", ".")
    for mask in (*masks, *bad_masks):
        for path in there if mask in bad_masks else (*there, "dangling", "missing", "closed-dir/within", "", "file/"):
            script.call("inotify_add_watch", watcher, path, mask)
    for descriptor in (file, 99, -1):
        script.call("inotify_add_watch", descriptor, "file", IN_MODIFY)
    script.call("inotify_add_watch", watcher, named("/proc/self/fd/%d", file), IN_MODIFY)
    twins.equal(script)
