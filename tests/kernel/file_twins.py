"""The same system calls, made natively and under the supervisor on identical trees: the results must be equal.

A `Script` is a list of raw system calls for the agent `victims/file_calls.c`. `Twins` runs it twice in the same
place, each time on a fresh tree, and compares what every call gave and what the tree became.
"""

import errno
import json
import os
import re
import shutil
import socket
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import native
from tests.kernel.conftest import Result, Sandbox

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x100, 0x200, 0x400, 0x1000
F_GETFD, F_GETFL = 1, 3
LONG_AGO = 1_000_000_000  # times before this were set on purpose
EVERYTHING = """
extends: [base]
allow:
  - {id: around, file: {do: [read, list], paths: ["/**"]}}
  - {id: workspace, file: {do: [all], paths: ["${workspace}/**"]}}
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: program-file, file: {do: [read], paths: ["${program}"]}}
"""
# What an agent that runs as root has left of root's power: the control must have no more.
POWERLESS = ("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
Seed = Callable[[Path], None]
Value = tuple[Any, ...]


@dataclass(frozen=True)
class Ref:
    """The return value of an earlier line."""

    line: int


@dataclass(frozen=True)
class Out:
    """A buffer for the kernel to fill, and what to make of its bytes; what it begins with, zeroes after that."""

    size: int
    show: Callable[[bytes], object] = bytes.hex
    initial: bytes = b""


@dataclass(frozen=True)
class Raw:
    """An argument in the words of `file_calls.c`."""

    word: str


UNMAPPED, READ_ONLY, ZEROES = Raw("u"), Raw("m"), Raw("w32")


def unterminated(text: bytes) -> Raw:
    """A string without an end, right before a page that cannot be read."""
    return Raw(f"e{text.hex()}")


def unreadable(text: bytes) -> Raw:
    """A string on a page that may not be read."""
    return Raw(f"p{text.hex()}")


def named(text: str, ref: Ref) -> Raw:
    """A path in which %d is the return value of an earlier line."""
    return Raw(f"f{ref.line}:{text.encode().hex()}")


Argument = int | str | bytes | Ref | Out | Raw


def plus(ref: Ref, number: int) -> Raw:
    """The return value of an earlier line, and a number added to it."""
    return Raw(f"r{ref.line}+{number}")


def words(*parts: Argument) -> Raw:
    """An array of eight-byte words: integers and addresses."""
    return Raw(f"[{','.join(_word(part) for part in parts)}]")


@dataclass
class Script:
    """System calls in order; every method returns a reference to what its line gives."""

    lines: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    outs: list[list[Out]] = field(default_factory=list)

    def call(self, name: str, *arguments: Argument) -> Ref:
        return self._add("call", name, arguments)

    def start(self, name: str, *arguments: Argument) -> Ref:
        return self._add("start", name, arguments)

    def spawn(self, name: str, *arguments: Argument) -> Ref:
        """Make an exec in a child; its exit status, and what it prints."""
        ref = self._add("spawn", name, arguments)
        self.outs[-1] = [Out(0, text)]
        return ref

    def running(self, ref: Ref) -> Ref:
        return self._line(f"running {ref.line}", f"running {self.words[ref.line]}", [])

    def join(self, ref: Ref) -> Ref:
        return self._line(f"join {ref.line}", f"join {self.words[ref.line]}", self.outs[ref.line])

    def interrupt(self, ref: Ref) -> Ref:
        return self._line(f"interrupt {ref.line}", f"interrupt {self.words[ref.line]}", self.outs[ref.line])

    def fork(self) -> Ref:
        return self._line("fork", "fork", [])

    def pid(self) -> Ref:
        return self._line("self", "self", [])

    def opened(self, name: str, *arguments: Argument) -> Ref:
        """Make a call that gives a descriptor, look at everything the descriptor shows, and close it."""
        ref = self.call(name, *arguments)
        self.shown(ref)
        self.call("close", ref)
        return ref

    def shown(self, ref: Ref) -> None:
        """Look at everything a descriptor shows."""
        self.call("fcntl", ref, F_GETFL)
        self.call("fcntl", ref, F_GETFD)
        self.call("fstat", ref, STAT)
        self.call("pread64", ref, Out(16), 16, 0)

    def reads(self, name: str, *arguments: Argument) -> Ref:
        """Open something, read a little of it, and close it."""
        ref = self.call(name, *arguments)
        self.call("read", ref, Out(16), 16)
        self.call("close", ref)
        return ref

    def _add(self, verb: str, name: str, arguments: Sequence[Argument]) -> Ref:
        try:
            number = syscalls.number(name, native())
        except LookupError:
            number = -1  # not on this architecture: natively and supervised, ENOSYS
        words = " ".join(_word(argument) for argument in arguments)
        shown = ", ".join(_shown(argument) for argument in arguments)
        outs = [argument for argument in arguments if isinstance(argument, Out)]
        return self._line(f"{verb} {number} {words}", f"{name}({shown})", outs)

    def _line(self, line: str, word: str, outs: list[Out]) -> Ref:
        self.lines.append(line)
        self.words.append(word)
        self.outs.append(outs)
        return Ref(len(self.lines) - 1)

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def results(self, output: str) -> list[Value]:
        """Return what each line gave: a value or the name of an errno, and the decoded buffers."""
        raw = [_parse(line) for line in output.splitlines()]
        assert len(raw) == len(self.lines), output[-500:]
        pids = {value for line, (value, _, _) in zip(self.lines, raw, strict=True) if line in ("self", "fork")}
        return [
            _result(pids, code, value, [out.show(data) for out, data in zip(outs, buffers, strict=True)])
            for (value, code, buffers), outs in zip(raw, self.outs, strict=True)
        ]


def value_of(answer: tuple[int, int, list[bytes]], outs: Sequence[Out], room: str) -> Value:
    """Return what one call gave: a value or the name of an errno, and the decoded buffers, without the agent's place."""
    value, code, buffers = answer
    shown = [out.show(data) for out, data in zip(outs, buffers, strict=True)]
    return (
        errno.errorcode.get(code, code) if code else value,
        *(each.replace(room, "ROOM") if isinstance(each, str) else each for each in shown),
    )


def _parse(line: str) -> tuple[int, int, list[bytes]]:
    value, code, buffers = json.loads(line)
    return value, code, [bytes.fromhex(buffer) for buffer in buffers]


def _result(pids: set[int], code: int, value: int, buffers: list[object]) -> Value:
    # Process ids differ from run to run and mean the same.
    known = {pid: f"<pid {at}>" for at, pid in enumerate(sorted(pids))}
    texts = [_without(known, buffer) if isinstance(buffer, str) else buffer for buffer in buffers]
    return (errno.errorcode.get(code, code) if code else known.get(value, value), *texts)


def _without(known: Mapping[int, str], text: str) -> str:
    return re.sub(r"\d+", lambda found: known.get(int(found[0]), found[0]), text)


def _word(argument: Argument) -> str:
    match argument:
        case int():
            return f"i{int(argument)}"
        case str():
            return f"x{os.fsencode(argument).hex()}"
        case bytes():
            return f"x{argument.hex()}"
        case Ref(line):
            return f"r{line}"
        case Out(size, _, initial):
            return f"o{size}:{initial.hex()}" if initial else f"o{size}"
        case Raw(word):
            return word


def _shown(argument: Argument) -> str:
    match argument:
        case int():
            return hex(argument) if argument > 9 else str(argument)
        case Ref(line):
            return f"<{line}>"
        case Out(size):
            return f"[{size}]"
        case Raw(word) if ":" in word:
            return f"<{word.partition(':')[0][1:]}> in {os.fsdecode(bytes.fromhex(word.partition(':')[2]))!r}"
        case Raw(word):
            return word[:60]
        case _:
            text = repr(argument)
            return text if len(text) < 80 else f"{text[:60]}…[{len(argument)}]"


def text(data: bytes) -> str:
    """Show a buffer of text up to its NULs; pipes and files without a name are numbered anew in every run."""
    return re.sub(r"(pipe:\[|/#)\d+", r"\1", os.fsdecode(data.rstrip(b"\0")))


def when(seconds: int, nanoseconds: int) -> tuple[int, int] | str:
    return (seconds, nanoseconds) if seconds < LONG_AGO else "lately"


_STAT = {"x86_64": "=QQQIIIxxxxQqqq6q", "aarch64": "=QQIIIIQxxxxxxxxqixxxxq6q"}
_STAT_ORDER = {"x86_64": (0, 2, 3, 4, 5), "aarch64": (0, 3, 2, 4, 5)}


def show_stat(data: bytes) -> object:
    """Show a `struct stat` but for the inode number, and times only when they were set on purpose."""
    if not any(data):
        return "untouched"
    fields = struct.unpack_from(_STAT[native().name], data)
    first = [fields[at] for at in _STAT_ORDER[native().name]]
    return first[0], first[1], oct(first[2]), *first[3:], *fields[6:10], when(*fields[10:12]), when(*fields[12:14])


def show_statx(data: bytes) -> object:
    """Show a `struct statx` but for the inode number, and times only when they were set on purpose."""
    if not any(data):
        return "untouched"
    times = [when(*struct.unpack_from("=qI", data, at)) for at in (0x40, 0x50, 0x60, 0x70)]
    return data[:0x20].hex(), data[0x28:0x40].hex(), times[0], times[3], data[0x80:].hex()


STAT, STATX = Out(144, show_stat), Out(256, show_statx)


def snapshot(root: Path) -> dict[str, object]:
    """Return everything there is to know about a tree but inode numbers and recent times."""
    found: dict[str, object] = {}
    for directory, names, files, descriptor in os.fwalk(os.fsencode(root)):
        where = os.fsdecode(os.path.relpath(directory, os.fsencode(root)))
        found[where] = _entry(descriptor, b".")
        for name in names + files:
            found[os.path.join(where, os.fsdecode(name))] = _entry(descriptor, name)
    return found


def _entry(directory: int, name: bytes) -> object:
    status = os.lstat(name, dir_fd=directory)
    place = b"/proc/self/fd/%d/%b" % (directory, name)
    content: object = None
    if stat.S_ISREG(status.st_mode):
        content = Path(os.fsdecode(place)).read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(place)
    return (
        oct(status.st_mode), status.st_nlink, status.st_uid, status.st_gid, status.st_rdev, content,
        when(int(status.st_atime), status.st_atime_ns % 10**9), when(int(status.st_mtime), status.st_mtime_ns % 10**9),
        {key: os.getxattr(place, key, follow_symlinks=False) for key in os.listxattr(place, follow_symlinks=False)},
    )  # fmt: skip


def standard(root: Path) -> None:
    """Something of everything."""
    (root / "dir/sub").mkdir(parents=True)
    (root / "empty-dir").mkdir()
    for name, content in (("file", "content"), ("other", "other"), ("dir/inner", "inner"), ("dir/sub/deep", "deep")):
        (root / name).write_text(content)
    (root / "void").touch()
    for name, mode in (("read-only", 0o444), ("no-access", 0o000), ("write-only", 0o222), ("program", 0o755)):
        (root / name).write_text(name)
        (root / name).chmod(mode)
    for name, mode in (("closed-dir", 0o000), ("search-dir", 0o111), ("list-dir", 0o444), ("fixed-dir", 0o555)):
        (root / name).mkdir()
        (root / name / "within").write_text("within")
        (root / name).chmod(mode)
    links = {
        "link": "file", "dir-link": "dir", "slash-link": "dir/", "file-slash-link": "file/", "dangling": "missing",
        "dangling-deep": "nowhere/missing", "dangling-slash": "missing-dir/", "loop": "loop", "ping": "pong",
        "pong": "ping", "absolute": f"{root}/file", "absolute-dir": f"{root}/dir", "up": f"../{root.name}/file",
        "dot-link": ".", "dangling-chain": "dangling", "dangling-absolute": f"{root}/missing-absolute",
        "dir/out": "../file", "self-cwd": "/proc/self/cwd/file", "outside": "/usr/share",
    }  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    for at in range(1, 43):  # chain-N takes N links to reach the file
        (root / f"chain-{at}").symlink_to(f"chain-{at - 1}" if at > 1 else "file")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        place = os.open(root, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{place}/socket")
        os.close(place)
    for odd in (b"line\nbreak", b"bad-\xff\xfe", b"n" * 255, b" ", b"...", b"a (deleted)"):
        (root / os.fsdecode(odd)).write_bytes(odd)


def nothing(root: Path) -> None:
    """An empty workspace."""


@dataclass(frozen=True)
class Twins:
    """Runs scripts natively and supervised."""

    sandbox: Sandbox
    program: Path

    @property
    def workspace(self) -> Path:
        return self.sandbox.workspace

    def fresh(self, seed: Seed) -> None:
        """Empty the workspace and fill it anew, everything the agent's own."""
        for place in self.workspace.iterdir():
            shutil.rmtree(place) if not place.is_symlink() and place.is_dir() else place.unlink()
        self.workspace.chmod(0o755)
        for name in os.listxattr(self.workspace):
            os.removexattr(self.workspace, name)
        os.utime(self.workspace)
        umask = os.umask(0o022)
        seed(self.workspace)
        os.umask(umask)
        for directory, names, files in os.walk(self.workspace):
            for name in names + files:
                os.chown(Path(directory, name), self.sandbox.uid, self.sandbox.uid, follow_symlinks=False)

    def native(self, script: Script, *, powerless: bool = True) -> list[Value]:
        """Run a script without the supervisor; root is without its capabilities then."""
        prefix = POWERLESS if powerless and self.sandbox.uid == 0 and os.getuid() == 0 else ()
        result = self.sandbox.native([*prefix, str(self.program)], stdin=script.text())
        assert result.status == 0, result.stdout
        return script.results(result.stdout)

    def supervised(self, script: Script, policy: str = EVERYTHING) -> tuple[list[Value], Result]:
        result = self.sandbox.run([str(self.program)], self.sandbox.policy(policy), stdin=script.text())
        assert result.status == 0, result.stderr
        return script.results(result.stdout), result

    def equal(
        self,
        script: Script,
        *,
        seed: Seed = standard,
        policy: str = EVERYTHING,
        differ: Mapping[Ref, tuple[Value, Value]] | None = None,
    ) -> Result:
        """Assert that every call gives the same natively and supervised, and leaves the same tree.

        Args:
            script: what to do.
            seed: makes the tree.
            policy: what the supervisor goes by.
            differ: for each line where a difference is known and right, what it gives natively and supervised.
        """
        self.fresh(seed)
        natively = self.native(script)
        tree = snapshot(self.workspace)
        self.fresh(seed)
        supervised, result = self.supervised(script, policy)
        wanted = list(natively)
        for ref, (as_native, as_supervised) in (differ or {}).items():
            assert natively[ref.line] == as_native, f"{script.words[ref.line]} = {natively[ref.line]}"
            wanted[ref.line] = as_supervised
        assert not (wrong := _differences(script.words, wanted, supervised)), "\n".join(wrong)
        after = snapshot(self.workspace)
        assert not (
            wrong := _differences(sorted(tree), [tree[n] for n in sorted(tree)], [after.get(n) for n in sorted(tree)])
        ), "\n".join(wrong)
        assert sorted(after) == sorted(tree)
        failures = [record for record in result.records if record.get("reason") == "SUPERVISOR_ERROR"]
        assert not failures, failures[0]
        return result


def _differences(names: Sequence[str], wanted: Sequence[object], found: Sequence[object]) -> list[str]:
    rows = enumerate(zip(names, wanted, found, strict=True))
    return [f"{at} {name}\n    wanted {one}\n    found  {other}" for at, (name, one, other) in rows if one != other]
