"""Random sequences around execs: every program starts natively and supervised alike, or fails with the same errno.

SENTRY_DIFFERENTIAL_EXECS says how many operations; 10000 take ten minutes.
"""

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    EVERYTHING,
    UNMAPPED,
    Argument,
    unterminated,
    words,
)
from tests.kernel.live_twins import live_twins
from tests.kernel.random_calls import Descriptor, Sequences, run_sequences

pytestmark = pytest.mark.kernel

OPERATIONS = int(os.environ.get("SENTRY_DIFFERENTIAL_EXECS", "500"))
POLICY = f"""{EVERYTHING.rstrip()}
  - {{id: own-links, file: {{do: [all], paths: ["/proc/self/fd/*"]}}}}
  - {{id: executable, exec: {{paths: ["${{workspace}}/**"]}}}}
"""
MAX_ARG_STRLEN = 131072  # <linux/binfmts.h>
PROT_READ, MAP_PRIVATE, MAP_FIXED_NOREPLACE = 1, 2, 0x100000
LONG, HUGE = 0x2000_0000, 0x3000_0000  # where the two long texts are
SCRIPTS = {
    "s1": b"#!./prog one two \n",
    "s2": b"#!./s1 of s2\n",
    "s3": b"#!s2\n",
    "s4": b"#!./s3\n",
    "s5": b"#!./s4\n",
    "s6": b"#!./s5 six\n",
    "loop": b"#!./loop\n",
    "text": b"no mark\n",
    "empty": b"",
    "cut": b"\177ELF\2\1\1",
    "d/rel": b"#!prog rel\n",
    "d/up": b"#!../prog\n",
    "bad": b"#! \n",
    "locked": b"#!./prog\n",
}
LINKS = {"link": "prog", "slink": "s1", "dangling": "nowhere", "o": "o", "m": "d", "d/p": "../prog"}
# Of every sort, and more of those that run.
NAMES = st.sampled_from(
    [*["prog", "./prog", "s1", "./s1", "d/prog"] * 3, *SCRIPTS, *LINKS, "m/prog", "m/rel", "d", "d/", "prog/", "prog/x", "shut/prog", "fifo",
     "nothing", "nowhere/prog", "", ".", "..", "d/../prog", "n" * 256, "./" * 2047 + "s", "./" * 2048, "new", "copy"]
)  # fmt: skip


def local(name: str) -> Any:
    return lambda agent: f"{agent.tree}/{name}"


paths = st.one_of(
    NAMES, NAMES, NAMES, NAMES, NAMES.map(local), st.sampled_from([UNMAPPED, 0, unterminated(b"prog"), b"\xff\xfe"])
)
strings = st.one_of(
    st.sampled_from(
        ["", "x", "a b", " ", "-c", "#", "\n", "p" * 5000, b"\xff\xfe", "key=value", "no equals", UNMAPPED]
    ),
    st.text("ab c=", max_size=8),
)
vectors = st.one_of(
    st.lists(strings, max_size=4).map(lambda each: words(*each, 0)),
    st.lists(strings.filter(lambda s: s is not UNMAPPED), min_size=1, max_size=4).map(lambda each: words(*each, 0)),
    st.sampled_from([words("prog", 0), words(0), 0, UNMAPPED]),
)
# How often which of the two long texts stands in the vector.
bulks = st.sampled_from(
    [
        *[None] * 12,
        *(words(*[place] * count, 0) for place, count in ((LONG, 1), (LONG, 15), (LONG, 30), (HUGE, 1), (LONG, 400))),
    ]
)
at_flags = st.sampled_from(
    [0, 0, AT_EMPTY_PATH, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, 1, 1 << 31]
)
fds = st.integers(0, 5).map(Descriptor)
directories = st.one_of(fds, fds, fds, st.sampled_from([AT_FDCWD, -1, 9999]))
interpreters = st.sampled_from(
    [
        *["./prog", "prog", "d/prog", "s1", "./s2", "link"] * 2,
        "d",
        "nothing",
        "text",
        "locked",
        "",
        "n" * 300,
        "../tree/prog",
    ]
)
blanks = st.sampled_from(["", "", " ", "\t", "  \t ", " " * 240, " " * 260])
headers = st.tuples(
    st.sampled_from(["#!", "#!", "#!", "#!", "#", "", "# !"]), blanks, interpreters, blanks, st.sampled_from(["", "arg", "two words", "a" * 250]), blanks,
    st.sampled_from(["\n", "\n", "\n", "", "\r\n", "\0\n", "\nmore\n"]),
).map("".join)  # fmt: skip
modes = st.sampled_from([0o755, 0o755, 0o777, 0o644, 0o711, 0o111, 0o4755, 0o6755, 0o100, 0o001, 0])
openings = st.sampled_from(
    [
        os.O_RDONLY,
        os.O_RDONLY,
        os.O_RDONLY | os.O_CLOEXEC,
        os.O_PATH,
        os.O_PATH | os.O_CLOEXEC,
        os.O_PATH | os.O_NOFOLLOW,
        os.O_WRONLY,
        os.O_RDWR,
    ]
)
entries = st.sampled_from(["new", "copy", "s1", "prog", "d/prog", "link", "d"])


class Execs(Sequences):
    """One example: both sides from a fresh tree of programs and scripts."""

    openers = frozenset({"open"})
    program: ClassVar[Path]

    def plant(self, root: Path) -> None:
        for name in ("d", "shut"):
            (root / name).mkdir()
        for name in ("prog", "d/prog", "shut/prog", "copy"):
            shutil.copy(self.program, root / name)
            (root / name).chmod(0o755)
        for name, content in SCRIPTS.items():
            (root / name).write_bytes(content)
            (root / name).chmod(0o755)
        for name, target in LINKS.items():
            (root / name).symlink_to(target)
        (root / "locked").chmod(0o644)
        (root / "shut").chmod(0o600)
        os.mkfifo(root / "fifo", 0o755)
        for name, size in (("long", MAX_ARG_STRLEN - 100), ("huge", MAX_ARG_STRLEN)):
            (root / name).write_bytes(b"L" * size)

    @initialize()
    def mapped(self) -> None:
        """Two long texts in memory: as long as the kernel takes, and longer."""
        for name, place, size in (("long", LONG, MAX_ARG_STRLEN), ("huge", HUGE, MAX_ARG_STRLEN + 4096)):
            opened, _ = self.twins.call("open", name, os.O_RDONLY)
            self.make("mmap", place, size, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, opened, 0)
            self.make("close", opened)

    @rule(path=paths, argv=vectors, environment=vectors, bulk=bulks, which=st.booleans())
    def executed(self, path: Argument, argv: Argument, environment: Argument, bulk: Any, which: bool) -> None:
        self.make(
            "execve", path, bulk if bulk and which else argv, bulk if bulk and not which else environment, verb="spawn"
        )

    @rule(path=NAMES, argv=vectors)
    def executed_plainly(self, path: str, argv: Argument) -> None:
        self.make("execve", path, argv, words(0), verb="spawn")

    @rule(directory=directories, path=st.one_of(st.just(""), paths), argv=vectors, flags=at_flags)
    def executed_at(self, directory: Any, path: Argument, argv: Argument, flags: int) -> None:
        self.make("execveat", directory, path, argv, words("K=V", 0), flags, verb="spawn")

    @rule(path=NAMES, flags=openings, at=at_flags)
    def executed_by_descriptor(self, path: str, flags: int, at: int) -> None:
        if isinstance(self.make("open", path, flags | os.O_NONBLOCK)[0], int):
            self.make(
                "execveat", Descriptor(0), "", words("by descriptor", 0), words(0), at | AT_EMPTY_PATH, verb="spawn"
            )

    @rule(name=entries, header=headers, mode=modes, leave_open=st.booleans())
    def written(self, name: str, header: str, mode: int, leave_open: bool) -> None:
        """A script, run at once; while it is open for writing it is busy."""
        ref, value = self.twins.call(
            "open", name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK, 0o600
        )
        if isinstance(value[0], int):
            self.twins.call("write", ref, header.encode(), len(header))
            self.twins.call("fchmod", ref, mode)
            if not leave_open:
                self.twins.call("close", ref)
        self.make("execve", name, words("name", "a b", 0), words(0), verb="spawn")

    @rule(path=NAMES, flags=openings)
    def opened(self, path: str, flags: int) -> None:
        self.make("open", path, flags | os.O_NONBLOCK)

    @rule(fd=fds)
    def closed(self, fd: Descriptor) -> None:
        self.make("close", fd)

    @rule(name=entries, mode=modes, to=entries, how=st.sampled_from(["chmod", "rename", "link", "symlink", "unlink"]))
    def changed(self, name: str, mode: int, to: str, how: str) -> None:
        # A program that cannot be read is killed (docs/limitations.md), a script is not: `written` makes such ones.
        self.make(how, name, {"chmod": mode | 0o400, "unlink": 0}.get(how, to))

    @rule(where=st.sampled_from(["d", "..", "m", "."]))
    def moved(self, where: str) -> None:
        self.make("chdir", where)

    @rule(mask=st.sampled_from([0, 0o22, 0o77]))
    def masked(self, mask: int) -> None:
        self.make("umask", mask)


def test_random_sequences(sandbox: Sandbox, victims: Path) -> None:
    Execs.program = victims / "exec_report"
    with live_twins(sandbox, victims / "file_calls", POLICY) as twins:
        print(f"{run_sequences(Execs, twins, OPERATIONS, steps=25)} operations")
