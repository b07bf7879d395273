"""How paths are resolved: the supervisor must find what the kernel finds, or fail as the kernel fails."""

import os
import struct
from pathlib import Path

import pytest

from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    STAT,
    UNMAPPED,
    Out,
    Ref,
    Script,
    Twins,
    named,
    nothing,
    standard,
    text,
    unreadable,
    unterminated,
)

pytestmark = pytest.mark.kernel

# Every shape of path that leads, or does not lead, to something in the standard tree.
SHAPES: list[str | bytes] = [
    "file", "./file", ".//file", "dir/../file", "dir/sub/../../file", "dir/./inner", "dir//inner",
    "file/", "file//", "file/.", "file/..", "file/../file", "file/inner", "file/./x",
    "dir", "dir/", "dir//", "dir/.", "dir/./", "dir/..", "dir/../", "dir/sub/..", ".", "./", "../workspace/file",
    "missing", "missing/", "missing/.", "missing/..", "missing/x", "dir/missing", "dir/missing/", "dir/missing/x",
    "link", "link/", "link/.", "link/x", "dir-link", "dir-link/", "dir-link/.", "dir-link/..", "dir-link/inner", "dir-link/sub/deep",
    "slash-link", "slash-link/", "slash-link/inner", "file-slash-link", "file-slash-link/",
    "dangling", "dangling/", "dangling/x", "dangling-deep", "dangling-slash", "dangling-slash/", "dangling-chain",
    "loop", "loop/", "loop/x", "ping", "ping/x", "absolute", "absolute/", "absolute-dir", "absolute-dir/inner", "up",
    "dot-link", "dot-link/", "dot-link/file", "dot-link/dot-link/dot-link/file", "dir/out", "dir-link/out", "dir/out/",
    "chain-39", "chain-40", "chain-41", "chain-42", "chain-40/", "dot-link/chain-39", "dot-link/chain-40",
    "closed-dir", "closed-dir/", "closed-dir/.", "closed-dir/within", "closed-dir/missing", "closed-dir/..", "closed-dir/../file",
    "search-dir/within", "search-dir/missing", "list-dir/within", "list-dir/.", "list-dir/missing", "no-access", "no-access/x",
    "read-only", "write-only", "fixed-dir/within", "void", "socket", "socket/", "fifo/x",
    "line\nbreak", b"bad-\xff\xfe", b"bad-\xff\xfe/", b"bad-\xff", "a (deleted)", " ", "  ", "...", "n" * 255, "n" * 256, "n" * 255 + "/",
    "missing/" + "n" * 256, "n" * 256 + "/x", "./" * 2045 + "file", "./" * 2046 + "file", "/" * 4096,
    "", "self-cwd",
]  # fmt: skip

OUTSIDE: list[str | bytes] = [
    "..", "../", "/", "//", "/.", "/..", "/../..", "/" * 4095, "//usr///x", "/usr", "/nonexistent", "/nonexistent/x", "/" * 4092 + "usr", "/" * 4093 + "usr", "/etc/passwd/", "/etc/passwd/x",
    "/bin", "/bin/", "/bin/sh", "/lib/../etc/passwd", "outside", "outside/", "outside/missing", "outside/../share",
]  # fmt: skip


@pytest.fixture
def twins(sandbox: Sandbox, victims: Path) -> Twins:
    return Twins(sandbox, victims / "file_calls")


def test_opening_every_shape_for_reading(twins: Twins) -> None:
    script = Script()
    for shape in SHAPES + OUTSIDE:
        script.reads("openat", AT_FDCWD, shape, os.O_RDONLY | os.O_NONBLOCK)
        script.reads("openat", AT_FDCWD, shape, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        script.reads("open", shape, os.O_RDONLY | os.O_DIRECTORY)
    twins.equal(script)


def test_opening_every_shape_for_writing(twins: Twins) -> None:
    script = Script()
    for shape in SHAPES:
        script.call("close", script.call("open", shape, os.O_WRONLY | os.O_NONBLOCK))
        script.call("close", script.call("open", shape, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW))
    twins.equal(script)


@pytest.mark.parametrize(
    "extra", [0, os.O_EXCL, os.O_NOFOLLOW, os.O_DIRECTORY], ids=["", "excl", "nofollow", "directory"]
)
def test_creating_at_every_shape(twins: Twins, extra: int) -> None:
    script = Script()
    for shape in SHAPES:
        ref = script.call("openat", AT_FDCWD, shape, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK | extra, 0o644)
        script.call("write", ref, "new", 3)
        script.call("close", ref)
    twins.equal(script)


def test_pinning_every_shape(twins: Twins) -> None:
    script = Script()
    for shape in SHAPES:
        for extra in (0, os.O_NOFOLLOW, os.O_DIRECTORY, os.O_DIRECTORY | os.O_NOFOLLOW):
            ref = script.call("openat", AT_FDCWD, shape, os.O_PATH | extra)
            script.call("fstat", ref, STAT)
            script.call("close", ref)
    twins.equal(script)


@pytest.mark.parametrize("name", ["stat", "lstat"])
def test_looking_at_every_shape(twins: Twins, name: str) -> None:
    script = Script()
    for shape in SHAPES + OUTSIDE:
        script.call(name, shape, STAT)
        script.call("newfstatat", AT_FDCWD, shape, STAT, 0 if name == "stat" else AT_SYMLINK_NOFOLLOW)
        script.call("access", shape, os.R_OK)
        script.call("readlink", shape, Out(300, text), 300)
    twins.equal(script)


def test_dirfds(twins: Twins) -> None:
    script = Script()
    place = script.call("open", "dir", os.O_RDONLY | os.O_DIRECTORY)
    path_place = script.call("open", "dir", os.O_PATH)
    file = script.call("open", "file", os.O_RDONLY)
    path_file = script.call("open", "file", os.O_PATH)
    gone = script.call("open", "empty-dir", os.O_RDONLY)
    script.call("rmdir", "empty-dir")
    pipe = script.call("open", "fifo", os.O_RDWR)
    for directory in (place, path_place, file, path_file, gone, pipe, 0, 99, -1, -99, -101, 1 << 32, (1 << 32) - 100):
        for path in ("inner", "sub/deep", "../file", ".", "..", "", "missing", f"{twins.workspace}/file", "sub/", "./"):
            script.reads("openat", directory, path, os.O_RDONLY)
            script.call("newfstatat", directory, path, STAT, 0)
            script.call("newfstatat", directory, path, STAT, AT_EMPTY_PATH)
            script.call("close", script.call("openat", directory, path, os.O_PATH))
        script.call("openat", directory, "made", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        script.call("mkdirat", directory, "made-dir", 0o700)
        script.call("unlinkat", directory, "made", 0)
        script.call("unlinkat", directory, "made-dir", 0x200)
    twins.equal(script)


def test_pointers_that_lead_nowhere(twins: Twins) -> None:
    script = Script()
    for bad in (UNMAPPED, 0, -1, 1 << 60, unterminated(b"file"), unterminated(b"x" * 4000), unterminated(b"")):
        script.call("open", bad, os.O_RDONLY)
        script.call("open", bad, os.O_RDONLY | os.O_CREAT, 0o600)
        script.call("open", bad, os.O_PATH)
        script.call("openat", AT_FDCWD, bad, os.O_RDONLY)
        script.call("openat", 99, bad, os.O_RDONLY)
        script.call("creat", bad, 0o600)
        script.call("stat", bad, STAT)
        script.call("newfstatat", AT_FDCWD, bad, STAT, 0)
        script.call("access", bad, 0)
        script.call("readlink", bad, Out(16), 16)
        script.call("mkdir", bad, 0o700)
        script.call("mknod", bad, 0o10600, 0)
        script.call("unlink", bad)
        script.call("rmdir", bad)
        script.call("rename", bad, "x")
        script.call("rename", "file", bad)
        script.call("link", bad, "x")
        script.call("link", "file", bad)
        script.call("symlink", bad, "x")
        script.call("symlink", "file", bad)
        script.call("chdir", bad)
        script.call("truncate", bad, 0)
        script.call("chmod", bad, 0o600)
        script.call("chown", bad, -1, -1)
        script.call("utimensat", AT_FDCWD, bad, 0, AT_SYMLINK_NOFOLLOW)
        script.call("setxattr", bad, "user.x", "v", 1, 0)
        script.call("setxattr", "file", bad, "v", 1, 0)
        script.call("getxattr", bad, "user.x", Out(8), 8)
        script.call("getxattr", "file", bad, Out(8), 8)
        script.call("statfs", bad, Out(120))
    for bad in (UNMAPPED, 0, -1):
        script.call("stat", "file", bad)
        script.call("newfstatat", AT_FDCWD, "file", bad, 0)
        script.call("statx", AT_FDCWD, "file", 0, 0x7FF, bad)
        script.call("readlink", "link", bad, 16)
        script.call("statfs", "file", bad)
        script.call("utimensat", AT_FDCWD, "file", bad, 0)
        script.call("setxattr", "file", "user.x", bad, 1, 0)
        script.call("listxattr", "file", bad, 16)
        script.call("getxattr", "file", "user.x", bad, 16)
        script.call("openat2", AT_FDCWD, "file", bad, 24)
    twins.equal(script)


def test_a_path_on_a_page_that_may_not_be_read(twins: Twins) -> None:
    """Paths are read through /proc/PID/mem, which is quick and disregards page protections: the call succeeds."""
    script = Script()
    opened = script.call("open", unreadable(b"file"), os.O_RDONLY)
    script.call("open", unreadable(b"./" * 200 + b"file"), os.O_RDONLY)
    script.call("stat", "file", unreadable(b""))
    twins.equal(script, differ={opened: (("EFAULT",), (3,))})


def test_what_a_string_may_end_at(twins: Twins) -> None:
    """A NUL on the last byte before an unreadable page ends a path; what lies beyond is not looked at."""
    script = Script()
    for end in (b"file\0", b"./" * 200 + b"file\0", b"./" * 2045 + b"file\0"):
        script.reads("open", unterminated(end), os.O_RDONLY)
    twins.equal(script)


def test_the_processes_own_entries(twins: Twins) -> None:
    script = Script()
    me, child = script.pid(), script.fork()
    file = script.call("open", "file", os.O_RDONLY)
    place = script.call("open", "dir", os.O_PATH)
    for link in ("/proc/self", "/proc/thread-self"):
        script.call("readlink", link, Out(64, text), 64)
    for process in ("/proc/self", "/proc/thread-self"):
        for entry in ("cwd", "root", "exe", "fd/0", "fd/3", "fd/4", "fd/99", "ns/mnt", "cwd/dir/.", "status", "fd", ""):
            script.call("readlink", f"{process}/{entry}", Out(300, text), 300)
        for entry in (
            "cwd/file",
            "cwd/dir/../file",
            "root/etc/passwd",
            "cwd/link",
            "fd/4/inner",
            "fd/4/../file",
            "fd/3/x",
            "comm",
        ):
            script.reads("open", f"{process}/{entry}", os.O_RDONLY)
            script.call("access", f"{process}/{entry}", os.R_OK)
        for entry in ("fd/3", "fd/4", "cwd", "root", "exe", "fd", "task", "missing", "fd/99", "fd/3/", "fd/4/"):
            script.call("close", script.call("open", f"{process}/{entry}", os.O_RDONLY))
            script.call("close", script.call("open", f"{process}/{entry}", os.O_RDONLY | os.O_NOFOLLOW))
            script.call("close", script.call("open", f"{process}/{entry}", os.O_PATH | os.O_NOFOLLOW))
            script.call("newfstatat", AT_FDCWD, f"{process}/{entry}", Out(144, _mode), 0)
            script.call("newfstatat", AT_FDCWD, f"{process}/{entry}", Out(144, _mode), AT_SYMLINK_NOFOLLOW)
    for number in (me, child):
        for entry in ("", "/", "/cwd", "/exe", "/fd/0", "/fd/3", "/task", "/task/missing"):
            script.call("readlink", named(f"/proc/%d{entry}", number), Out(300, text), 300)
            script.call("newfstatat", AT_FDCWD, named(f"/proc/%d{entry}", number), Out(144, _mode), 0)
        for entry in ("comm", "cwd/file", "fd/3", "root/etc/passwd"):
            script.reads("open", named(f"/proc/%d/{entry}", number), os.O_RDONLY)
    script.reads("open", named("/proc/%d/task", file), os.O_RDONLY)
    script.call("close", place)
    twins.equal(script)


def _mode(data: bytes) -> str:
    """Show the mode alone: sizes and links of what is in /proc differ from run to run."""
    return oct(int.from_bytes(data[24:28] if os.uname().machine == "x86_64" else data[16:20], "little"))


def test_descriptors_by_name(twins: Twins) -> None:
    script = Script()
    file = script.call("open", "file", os.O_RDWR)
    script.call("lseek", file, 3, 0)
    script.reads("open", named("/dev/fd/%d", file), os.O_RDONLY)
    script.reads("open", named("/proc/self/fd/%d", file), os.O_RDONLY)
    script.opened("open", named("/dev/fd/%d", file), os.O_RDWR | os.O_APPEND)
    script.call("unlink", "file")
    script.reads("open", "file", os.O_RDONLY)
    script.reads("open", named("/proc/self/fd/%d", file), os.O_RDONLY)
    script.reads("open", named("/proc/self/fd/%d/", file), os.O_RDONLY)
    script.call("close", script.call("open", named("/proc/self/fd/%d", file), os.O_WRONLY | os.O_TRUNC))
    script.call("fstat", file, STAT)
    script.call("readlink", named("/proc/self/fd/%d", file), Out(300, text), 300)
    script.call("stat", named("/proc/self/fd/%d", file), STAT)
    script.call("truncate", named("/proc/self/fd/%d", file), 5)
    script.call("chmod", named("/proc/self/fd/%d", file), 0o640)
    script.call("fstat", file, STAT)
    script.call("creat", "file", 0o600)
    script.reads("open", named("/proc/self/fd/%d", file), os.O_RDONLY)
    for name in ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", "/dev/stdout", "/dev/fd/1"):
        for access in (
            os.O_RDONLY | os.O_NONBLOCK,
            os.O_WRONLY | os.O_NONBLOCK,
            os.O_RDONLY | os.O_DIRECTORY,
            os.O_PATH,
        ):
            script.call("close", script.call("open", name, access))
        script.call("stat", name, Out(144, _mode))
        script.call("access", name, os.R_OK)
    twins.equal(script)


def test_a_deleted_working_directory(twins: Twins) -> None:
    script = Script()
    script.call("mkdir", "gone", 0o755)
    script.call("chdir", "gone")
    script.call("getcwd", Out(300, text), 300)
    script.call("rmdir", "../gone")
    script.call("getcwd", Out(300, text), 300)
    for path in (
        "x",
        ".",
        "./x",
        "..",
        "../file",
        "../gone",
        f"{twins.workspace}/file",
        "/proc/self/cwd",
        "/proc/self/cwd/x",
    ):
        script.reads("open", path, os.O_RDONLY)
        script.call("close", script.call("open", path, os.O_CREAT | os.O_WRONLY, 0o600))
        script.call("stat", path, STAT)
        script.call("close", script.call("open", path, os.O_PATH))
        script.call("access", path, 0)
        script.call("readlink", path, Out(300, text), 300)
    script.call("mkdir", "x", 0o700)
    script.call("symlink", "a", "x")
    script.call("rename", "../file", "x")
    script.call("chdir", ".")
    script.call("chdir", "..")
    script.call("getcwd", Out(300, text), 300)
    twins.equal(script)


def test_changing_directory(twins: Twins) -> None:
    script = Script()
    place = script.call("open", ".", os.O_RDONLY)
    for shape in SHAPES:
        script.call("chdir", shape)
        script.call("getcwd", Out(300, text), 300)
        script.call("fchdir", place)
    inner, file, path_place = (
        script.call("open", "dir", os.O_RDONLY),
        script.call("open", "file", os.O_RDONLY),
        script.call("open", "dir/sub", os.O_PATH),
    )
    for descriptor in (inner, file, path_place, 99, -1):
        script.call("fchdir", descriptor)
        script.call("getcwd", Out(300, text), 300)
        script.reads("open", "deep", os.O_RDONLY)
    for path in ("/", "/usr", "/usr/bin", twins.workspace.as_posix(), "dir", "sub", "../.."):
        script.call("chdir", path)
        script.call("getcwd", Out(300, text), 300)
        script.reads("open", "file", os.O_RDONLY)
    twins.equal(script)


def _deep(levels: int) -> tuple[Script, Ref]:
    script = Script()
    name = "d" * 250
    last = Ref(0)
    for depth in range(levels):
        script.call("mkdir", name, 0o755)
        last = script.call("creat", f"{name}/file", 0o644)
        script.call("close", last)
        script.call("chdir", name)
        script.reads("open", "file", os.O_RDONLY)
        script.reads("open", f"{'../' * depth}../dir", os.O_RDONLY)
        script.call("stat", ".", Out(144, _mode))
        script.call("getcwd", Out(8192, lambda data: len(data.rstrip(b"\0"))), 8192)
    return script, last


def test_working_in_proc(twins: Twins) -> None:
    script = Script()
    script.pid()
    for path in (
        "/proc",
        "self",
        "fd",
        "..",
        "/proc/thread-self",
        "/proc/self/task",
        "/proc/self/cwd",
        "/proc/self/fd",
    ):
        script.call("chdir", path)
        script.call("getcwd", Out(300, text), 300)
        for name in ("2", "comm", "self/comm", "../comm", "../../self/comm", "missing"):
            script.call("access", name, os.R_OK)
            script.reads("open", f"./{name}", os.O_RDONLY | os.O_NONBLOCK)
    twins.equal(script)


def test_limits_of_paths(twins: Twins) -> None:
    script, _ = _deep(15)
    for size in (254, 255, 256, 300):
        script.call("close", script.call("open", "x" * size, os.O_CREAT | os.O_WRONLY, 0o600))
        script.call("mkdir", "y" * size, 0o700)
        script.call("symlink", "z", "z" * size)
    script.call("chdir", f"{twins.workspace}")
    for size in (4094, 4095, 4096, 5000):
        script.call("symlink", "t" * size, f"s{size}")
        script.call("readlink", f"s{size}", Out(5100, text), 5100)
        script.reads("open", f"s{size}", os.O_RDONLY)
    twins.equal(script, seed=nothing)


def test_what_the_kernel_cannot_name_is_refused(twins: Twins) -> None:
    """A path beyond PATH_MAX, which relative paths can reach, cannot be read back, so it cannot be judged."""
    script, last = _deep(17)
    twins.fresh(nothing)
    natively = twins.native(script)
    twins.fresh(nothing)
    supervised, _ = twins.supervised(script)
    assert natively[last.line] == (3,), "natively there is no such limit"
    assert supervised[last.line] == ("ENAMETOOLONG",)


BENEATH, IN_ROOT, CACHED = 8, 16, 32  # RESOLVE_*
RESTRICTED = [
    "inner", "sub/deep", "sub/../inner", "../file", "..", ".", "./inner", "sub/../../file", "/inner", "/sub/deep", "/", "//",
    "/..", "/../inner", "/proc/self/status", "out", "sub/..", "missing", "missing/x", "inner/", "inner/x", "", "sub/",
    "in-link", "abs-link", "proc-link", "sub-link/deep", "sub-link/../inner", "up-link/file", "dangling", "abs-dangling", "new/",
    "dangling-out", "loop", "cwd/inner",
]  # fmt: skip


def _restricted(root: Path) -> None:
    standard(root)
    for name, target in {
        "in-link": "inner", "abs-link": "/inner", "proc-link": "/proc/self/cwd", "sub-link": "sub", "up-link": "..",
        "dangling": "fresh", "abs-dangling": "/fresh", "dangling-out": "../fresh", "loop": "loop", "cwd": "/proc/self/cwd",
    }.items():  # fmt: skip
        (root / "dir" / name).symlink_to(target)


def _openat2(script: Script, directory: int | Ref, path: str, *how: int) -> Ref:
    ref = script.call("openat2", directory, path, struct.pack("=QQQ", *how), 24)
    script.call("fcntl", ref, 3)
    script.call("fstat", ref, Out(144, _mode))
    script.call("read", ref, Out(8), 8)
    script.call("close", ref)
    return ref


@pytest.mark.parametrize("resolve", [0, 1, 2, 4, 8, 16, 5, 12, 20, 17, 24, 64, 1 << 40, 0x3F])
def test_restricted_resolution(twins: Twins, resolve: int) -> None:
    script = Script()
    place = script.call("open", "dir", os.O_RDONLY | os.O_DIRECTORY)
    confined = resolve & (BENEATH | IN_ROOT)
    for path in RESTRICTED:
        _openat2(script, place, path, os.O_RDONLY, 0, resolve)
        if not confined and (path.startswith(("/", "abs-"))):
            continue  # would make files in the real root
        _openat2(script, place, path, os.O_RDWR | os.O_CREAT, 0o640, resolve)
        _openat2(script, place, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, resolve)
        script.call("unlink", "dir/fresh")
    twins.equal(script, seed=_restricted)


def test_cached_resolution_may_always_ask_to_try_again(twins: Twins) -> None:
    """What the kernel has in its cache is its own affair: the answer is the usual one, or EAGAIN."""
    script = Script()
    place = script.call("open", "dir", os.O_RDONLY | os.O_DIRECTORY)
    plain = [_openat2(script, place, path, os.O_RDONLY, 0, 0) for path in RESTRICTED]
    cached = [_openat2(script, place, path, os.O_RDONLY, 0, CACHED) for path in RESTRICTED]
    twins.fresh(_restricted)
    for results in (twins.native(script), twins.supervised(script)[0]):
        again = [results[ref.line] == ("EAGAIN",) for ref in cached]
        assert not all(again)
        assert all(
            lot or results[one.line] == results[two.line] for lot, one, two in zip(again, plain, cached, strict=True)
        )


def test_malformed_open_how(twins: Twins) -> None:
    script = Script()
    valid = struct.pack("=QQQ", os.O_RDONLY, 0, 0)
    for size in (0, 1, 8, 16, 23, 24, 25, 32, 4095, 4096, 4097, 1 << 32, (1 << 32) + 24, -1):
        script.call("close", script.call("openat2", AT_FDCWD, "file", valid + bytes(5000), size))
        script.call("close", script.call("openat2", AT_FDCWD, "file", valid + b"\0" * 7 + b"\1" + bytes(5000), size))
        script.call("openat2", AT_FDCWD, "file", unterminated(valid), size)
    wrong = [
        (1 << 32, 0, 0), (1 << 63, 0, 0), (os.O_RDONLY, 0o644, 0), (os.O_CREAT, 0o10000, 0), (os.O_CREAT, 0o7777, 0),
        (os.O_CREAT, 1 << 40, 0), (os.O_RDONLY | 4, 0, 0), (os.O_CREAT | os.O_DIRECTORY, 0o600, 0), (3, 0, 0),
        (os.O_TMPFILE | os.O_RDONLY, 0o600, 0), (os.O_TMPFILE & ~os.O_DIRECTORY | os.O_RDWR, 0o600, 0),
        (os.O_RDONLY | os.O_DIRECTORY, 0, 32), (os.O_TRUNC | os.O_WRONLY, 0, 32), (os.O_RDONLY, 0, 1 << 63),
    ]  # fmt: skip
    for how in wrong:
        for path in ("file", "dir", "missing"):
            _openat2(script, AT_FDCWD, path, *how)
    twins.equal(script)


def test_openat2_is_not_offered_for_path_descriptors(twins: Twins) -> None:
    """The kernel takes no path descriptor from a supervisor, and a continued openat2 would read its struct again.

    Every caller knows ENOSYS: the call is younger than openat. A bad struct is refused as natively.
    """
    script = Script()
    good = [_openat2(script, AT_FDCWD, path, os.O_PATH, 0, 0) for path in ("file", "dir")]
    _openat2(script, AT_FDCWD, "file", os.O_PATH | os.O_RDWR, 0, 0)
    _openat2(script, AT_FDCWD, "file", os.O_PATH, 0o600, 0)
    twins.fresh(standard)
    natively, (supervised, _) = twins.native(script), twins.supervised(script)
    assert [natively[ref.line] for ref in good] == [(3,), (3,)]
    assert [supervised[ref.line] for ref in good] == [("ENOSYS",), ("ENOSYS",)]
    assert supervised[10:] == natively[10:]
