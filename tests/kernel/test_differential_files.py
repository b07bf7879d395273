"""Random sequences of file operations: every call gives the same natively and supervised, and leaves the same tree.

SENTRY_DIFFERENTIAL_FILES says how many operations; 100000 take ten minutes.
"""

import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    EVERYTHING,
    F_GETFD,
    F_GETFL,
    STAT,
    STATX,
    UNMAPPED,
    Out,
    text,
    unterminated,
)
from tests.kernel.live_twins import STRANGER, live_twins
from tests.kernel.random_calls import Descriptor, Place, Sequences, flat, run_sequences

pytestmark = pytest.mark.kernel

OPERATIONS = int(os.environ.get("SENTRY_DIFFERENTIAL_FILES", "1500"))
POLICY = f"""{EVERYTHING.rstrip()}
  - {{id: own-links, file: {{do: [all], paths: ["/proc/self/fd/*"]}}}}
  - {{id: executable, exec: {{paths: ["${{workspace}}/**"]}}}}
  - {{id: devices, file: {{do: [mknod], paths: ["${{workspace}}/**"]}}}}
"""
O_TMPFILE = 0o20200000
UTIME_NOW, UTIME_OMIT = 0x3FFFFFFF, 0x3FFFFFFE


def seed(root: Path) -> None:
    """A small tree with something of everything, so that random names often meet."""
    for name in ("d/e", "s", "t"):
        (root / name).mkdir(parents=True)
    for name in ("a", "b", "d/a", "d/e/b", "s/a", "s/b", "t/a"):
        (root / name).write_text(name)
    os.link(root / "a", root / "d/b")
    (root / "s").chmod(0o1777)  # sticky: in it everybody may delete only what is his
    (root / "t").chmod(0o1777)
    (root / "x").write_text("#!/bin/true\n")
    (root / "x").chmod(0o4755)
    for name, target in (
        ("l", "a"),
        ("m", "d"),
        ("u", "nowhere"),
        ("d/l", "../a"),
        ("s/l", "../l"),
        ("o", "o"),
        ("t/m", "../d"),
    ):
        (root / name).symlink_to(target)
    (root / "r").symlink_to(f"{root}/d/e")
    os.mkfifo(root / "p")
    if os.getuid() == 0:
        for name in ("s", "s/a", "t/a", "s/l"):
            os.chown(root / name, STRANGER, STRANGER, follow_symlinks=False)


PARTS = [
    "a",
    "b",
    "d",
    "e",
    "l",
    "m",
    "s",
    "t",
    "u",
    "x",
    "o",
    "r",
    "p",
    "n",
    ".",
    "..",
    "",
    "d/e",
    "n" * 255,
    "n" * 256,
]
relative = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("/".join).map(lambda p: p.lstrip("/") or "a")
slashed = st.tuples(relative, st.sampled_from(["", "", "", "/", "/.", "//"])).map("".join)
absolute = slashed.map(lambda path: lambda agent: f"{agent.tree}/{path}")
special = st.sampled_from(
    ["", "/proc/self/cwd/a", "/proc/self/cwd/d/a", "/proc/thread-self/cwd/l", "../../a", b"\xff\xfe", "a" * 4095,
     "./" * 2047 + "a", "./" * 2048, "d/../" * 100 + "a"]
)  # fmt: skip
bad_memory = st.sampled_from([UNMAPPED, 0, unterminated(b"a"), unterminated(b"d/" * 40)])
fds = st.integers(0, 9).map(Descriptor)
wrong_fds = st.sampled_from([-1, 9999, AT_FDCWD, 1 << 32 | 9999])  # never 0 to 2: those are the test's
through = st.tuples(
    st.sampled_from(["/proc/self/fd/%d", "/dev/fd/%d", "/proc/self/fd/%d/a", "/proc/self/fd/%d/.."]), fds
).map(Place)
# Names to make or remove: not the links of /proc themselves, which the policy keeps.
entries = st.one_of(slashed, slashed, slashed, slashed, absolute, special, bad_memory)
# A loop through /proc would be judged at its place in /proc, which the policy keeps.
targets = st.one_of(slashed, slashed, absolute, st.just(""), bad_memory)
paths = st.one_of(slashed, slashed, slashed, slashed, absolute, special, through, bad_memory)
directories = st.one_of(st.just(AT_FDCWD), st.just(AT_FDCWD), fds, fds, wrong_fds)
descriptors = st.one_of(fds, fds, fds, wrong_fds)
# Newer kernels take AT_FDCWD here for the working directory, by accident: docs/limitations.md.
taken = descriptors.filter(lambda number: number != AT_FDCWD)
modes = st.sampled_from(
    [0, 0o644, 0o755, 0o777, 0o600, 0o400, 0o200, 0o100, 0o4755, 0o2755, 0o1777, 0o7777, 0o17777, 0xFFFFFFFF]
)
owners = st.sampled_from([0, 65534, STRANGER, 0xFFFFFFFF])
lengths = st.sampled_from([0, 1, 5, 4096, -1, 1 << 20, 1 << 62])
at_flags = st.sampled_from(
    [
        0,
        0,
        0,
        AT_SYMLINK_NOFOLLOW,
        AT_EMPTY_PATH,
        AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH,
        AT_REMOVEDIR,
        AT_SYMLINK_FOLLOW,
        1,
        0x80000000,
    ]
)
link_flags = at_flags.filter(lambda flags: not flags & AT_EMPTY_PATH)  # docs/limitations.md
open_flags = st.tuples(
    # Write-only and read-only opens of a FIFO wait for the other side: here they never do.
    st.sampled_from([os.O_RDONLY | os.O_NONBLOCK, os.O_WRONLY | os.O_NONBLOCK, os.O_RDWR, os.O_RDWR | os.O_NONBLOCK, 3 | os.O_NONBLOCK]),
    st.lists(
        st.sampled_from(
            [0, 0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_CLOEXEC, os.O_PATH,
             O_TMPFILE, O_TMPFILE, os.O_NOATIME, os.O_SYNC, os.O_DIRECT, os.O_NOFOLLOW, 0x40000000, 1 << 31]
        ), max_size=3,
    ),
).map(lambda parts: parts[0] | (sum({bit: bit for bit in parts[1]}.values()) if len(set(parts[1])) == len(parts[1]) else parts[1][0]))  # fmt: skip
times = st.one_of(
    st.just(0),
    st.just(UNMAPPED),
    st.tuples(
        *[st.sampled_from([0, 1, 5, 77_000_000, -1])] * 2,
        *[st.sampled_from([0, 5, 999_999, 999_999_999, 1_000_000_000, -1, UTIME_NOW, UTIME_OMIT])] * 2,
    ).map(lambda t: struct.pack("=qqqq", t[0], t[2], t[1], t[3])),
)
attributes = st.sampled_from(
    [
        "user.a",
        "user.b",
        "",
        "user",
        "user.",
        "trusted.x",
        "security.y",
        "strange.z",
        "user." + "n" * 250,
        "user." + "n" * 251,
        UNMAPPED,
    ]
)
values = st.sampled_from(
    [(b"", 0), (b"v", 1), (b"value", 5), (b"v" * 4000, 4000), (UNMAPPED, 3), (b"x", 1 << 17), (0, 0)]
)
xattr_flags = st.sampled_from([0, 0, 1, 2, 3, 4])
rename_flags = st.sampled_from([0, 0, 1, 2, 3, 4, 5, 8])
accesses = st.sampled_from([0, 1, 2, 4, 5, 6, 7, 8, -1])
resolves = st.sampled_from([0, 0, 1, 2, 4, 8, 16, 24, 32, 64])
stats, statxes, links, lists = (
    st.just(o) for o in (STAT, STATX, Out(300, text), Out(600, lambda data: sorted(data.split(b"\0"))))
)
kinds = st.sampled_from(
    [stat.S_IFREG, 0, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFBLK, 0o170000]
)
mask = st.sampled_from([0x7FF, 0xFFF, 0, 0x80000000, 1])


def how(flags: int, mode: int, resolve: int, extra: int) -> bytes:
    return struct.pack("=QQQ", flags & ~os.O_PATH, mode, resolve) + bytes(extra)


hows = st.builds(how, open_flags, modes, resolves, st.just(0)).map(lambda data: (data, 24))
at, spot = (directories, paths), (directories, entries)
OPERATION_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "open": (paths, open_flags, modes),
    "openat": (*at, open_flags, modes),
    "openat2": (*at, hows),
    "dup": (descriptors,), "close": (descriptors,), "fstat": (descriptors, stats),
    "mkdir": (entries, modes), "mkdirat": (*spot, modes),
    "mknod": (entries, st.builds(lambda k, m: k | (m & 0o7777), kinds, modes), st.just(0)),
    "mknodat": (*spot, st.builds(lambda k, m: k | (m & 0o7777), kinds, modes), st.just(0x103)),
    "unlink": (entries,), "rmdir": (entries,), "unlinkat": (*spot, at_flags),
    "rename": (entries, entries), "renameat": (*spot, *spot), "renameat2": (*spot, *spot, rename_flags),
    "link": (entries, entries), "linkat": (*spot, *spot, link_flags),
    "symlink": (targets, entries), "symlinkat": (targets, *spot),
    "readlink": (paths, links, st.just(300)), "readlinkat": (*at, links, st.sampled_from([300, 1, 0, -1])),
    "stat": (paths, stats), "lstat": (paths, stats), "newfstatat": (*at, stats, at_flags),
    "statx": (*at, at_flags, mask, statxes),
    "access": (paths, accesses), "faccessat": (*at, accesses), "faccessat2": (*at, accesses, at_flags),
    "chmod": (paths, modes), "fchmod": (descriptors, modes), "fchmodat": (*at, modes), "fchmodat2": (*at, modes, at_flags),
    "chown": (paths, owners, owners), "lchown": (paths, owners, owners), "fchown": (descriptors, owners, owners),
    "fchownat": (*at, owners, owners, at_flags),
    "truncate": (paths, lengths), "ftruncate": (descriptors, lengths),
    "utime": (paths, times), "utimes": (paths, times), "futimesat": (*at, times), "utimensat": (*at, times, at_flags),
    "setxattr": (paths, attributes, values, xattr_flags), "lsetxattr": (paths, attributes, values, xattr_flags),
    "fsetxattr": (taken, attributes, values, xattr_flags),
    "getxattr": (paths, attributes, st.just(Out(64)), st.sampled_from([64, 0, 1])),
    "lgetxattr": (paths, attributes, st.just(Out(64)), st.just(64)),
    "listxattr": (paths, lists, st.sampled_from([600, 0, 1])), "llistxattr": (paths, lists, st.just(600)),
    "removexattr": (paths, attributes), "lremovexattr": (paths, attributes), "fremovexattr": (taken, attributes),
    "chdir": (paths,), "fchdir": (descriptors,), "getcwd": (st.just(Out(4096, text)), st.sampled_from([4096, 1])),
    "umask": (st.sampled_from([0, 0o22, 0o77, 0o777, 0o7777]),),
    "pread64": (descriptors, st.just(Out(16)), st.just(16), st.just(0)), "pwrite64": (descriptors, st.just(b"written"), st.just(7), st.just(3)),
    "getdents64": (descriptors, st.just(Out(2048, lambda data: sorted(names(data)))), st.just(2048)),
    "lseek": (descriptors, st.just(0), st.just(0)),
    "fcntl": (descriptors, st.sampled_from([F_GETFL, F_GETFD]), st.just(0)), "flock": (descriptors, st.sampled_from([6, 5, 8, 9])),
    "statfs": (paths, st.just(Out(120, lambda data: data[:8].hex()))),
}  # fmt: skip


def names(data: bytes) -> list[bytes]:
    """Return the names in a buffer of getdents64(2)."""
    found, at = [], 0
    while at + 19 <= len(data) and (size := int.from_bytes(data[at + 16 : at + 18], "little")):
        found.append(data[at + 19 : at + size].partition(b"\0")[0])
        at += size
    return found


operations = st.sampled_from(sorted(OPERATION_ARGUMENTS)).flatmap(
    lambda name: st.tuples(st.just(name), *OPERATION_ARGUMENTS[name])
)


class Files(Sequences):
    """One example: both sides from a fresh tree, call by call."""

    openers = frozenset({"open", "openat", "openat2", "dup"})

    def plant(self, root: Path) -> None:
        seed(root)

    @rule(path=slashed, flags=open_flags)
    def opened(self, path: str, flags: int) -> None:
        self.make("open", path, flags, 0o644)

    @rule(operation=operations)
    def called(self, operation: tuple[Any, ...]) -> None:
        self.make(operation[0], *flat(operation[1:]))


def test_random_sequences(sandbox: Sandbox, victims: Path) -> None:
    with live_twins(sandbox, victims / "file_calls", POLICY) as twins:
        twins.hidden = {"fcntl": os.O_NOFOLLOW}  # docs/limitations.md
        print(f"{run_sequences(Files, twins, OPERATIONS)} operations")
