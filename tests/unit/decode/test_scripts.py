"""The interpreter line of a script, read as the kernel reads it."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helm_sentry.decode.scripts import ScriptError, shebang_of


def _padded(line: bytes) -> bytes:
    """Fill up to exactly the 256 bytes that the kernel looks at."""
    return line.ljust(256, b"x")


@pytest.mark.parametrize(
    ("header", "interpreter"),
    [
        pytest.param(b"", None, id="empty file"),
        pytest.param(b"#", None, id="one character"),
        pytest.param(b"# !/bin/sh\n", None, id="comment"),
        pytest.param(b" #!/bin/sh\n", None, id="blank before the mark"),
        pytest.param(b"\x7fELF", None, id="ELF"),
        pytest.param(b"#!/bin/sh\n", b"/bin/sh", id="plain"),
        pytest.param(b"#!/bin/sh", b"/bin/sh", id="no newline"),
        pytest.param(b"#! \t /bin/sh \t \n", b"/bin/sh", id="blanks around"),
        pytest.param(b"#!/usr/bin/env python3 -I\n", b"/usr/bin/env", id="arguments"),
        pytest.param(b"#!/bin/sh\t-e\n", b"/bin/sh", id="tab before the argument"),
        pytest.param(b"#!/bin/sh\r\n", b"/bin/sh\r", id="carriage return belongs to the name"),
        pytest.param(b"#!bin/sh\n", b"bin/sh", id="relative"),
        pytest.param(b"#!/bin/sh\0junk\n", b"/bin/sh", id="ends at a NUL"),
        pytest.param(b"#!/bin/\xff\xfe\n", b"/bin/\xff\xfe", id="not UTF-8"),
        pytest.param(b"#!/" + b"n" * 252 + b"\n", b"/" + b"n" * 252, id="newline in the last byte"),
        pytest.param(b"#!/" + b"n" * 200 + b" " + b"a" * 52, b"/" + b"n" * 200, id="argument is cut off"),
        pytest.param((b"#!/bin/sh" + b" " * 256)[:256], b"/bin/sh", id="blanks to the end"),
    ],
)
def test_interpreter(header: bytes, interpreter: bytes | None) -> None:
    found = shebang_of(header)
    assert (found and found.interpreter) == interpreter


@pytest.mark.parametrize(
    ("line", "argument"),
    [
        pytest.param(b"#!/bin/sh\n", None, id="none"),
        pytest.param(b"#!/bin/sh  \t\n", None, id="blanks"),
        pytest.param(b"#!/bin/sh -e -x \n", b"-e -x", id="all of it is one"),
        pytest.param(b"#!/bin/sh\t -e", b"-e", id="no newline"),
        pytest.param(b"#!/bin/sh\0-e\n", None, id="a NUL ends the name"),
        pytest.param(b"#!/bin/sh -e\0x\n", b"-e", id="a NUL ends the argument"),
    ],
)
def test_argument(line: bytes, argument: bytes | None) -> None:
    found = shebang_of(line)
    assert found is not None
    assert found.argument == argument
    assert found.before(b"./it") == (b"/bin/sh", *([argument] if argument else []), b"./it")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"#!\n", id="nothing"),
        pytest.param(b"#! \t \n/bin/sh\n", id="blanks"),
        pytest.param(b"#!" + b" " * 254, id="blanks to the end"),
        pytest.param(_padded(b"#!/"), id="name is cut off"),
        pytest.param(_padded(b"#! \t/"), id="name after blanks is cut off"),
    ],
)
def test_no_interpreter(header: bytes) -> None:
    with pytest.raises(ScriptError):
        shebang_of(header)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two interpreters with names so short that they fit anywhere: one succeeds, one fails."""
    directory = tmp_path_factory.mktemp("scripts")
    (directory / "t").symlink_to("/bin/true")
    (directory / "f").symlink_to("/bin/false")
    before = Path.cwd()
    os.chdir(directory)
    yield directory
    os.chdir(before)


_PIECES = (
    b"t",
    b"f",
    b"./t",
    b"./f",
    b" ",
    b"\t",
    b"\0",
    b"\n",
    b"\r",
    b"x",
    b"/",
    b" " * 60,
    b"n" * 80,
    b"./" * 40,
    b"#!",
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(_PIECES), max_size=8).map(b"".join), st.sampled_from([0, 255, 256, 257, 300]))
@example(b"./t", 0)
@example(b"./f" + b" " * 260, 0)
@example(b" " * 252 + b"./t", 0)
@example(b" " * 251 + b"./t", 0)
@example(b" " * 250 + b"./t ", 0)
@example(b"\0./t\n", 0)
def test_the_kernel_reads_it_the_same_way(place: Path, line: bytes, size: int) -> None:
    text = b"#!" + line.ljust(size, b" ")
    assert _as_the_kernel(place, text) == _as_we(text)


def _as_we(text: bytes) -> int:
    """Return what running a script comes to: an interpreter's status, or why there is none."""
    try:
        found = shebang_of(text[:256])
    except ScriptError:
        return -errno.ENOEXEC
    assert found is not None
    name = found.interpreter
    if not name:
        return -errno.EACCES  # the kernel takes it for the working directory
    try:
        os.stat(os.fsdecode(name))
    except OSError as error:
        return -(error.errno or 0)
    return {b"t": 0, b"f": 1}.get(os.path.basename(name), -errno.EACCES)


def _as_the_kernel(place: Path, text: bytes) -> int:
    script = place / "script"
    script.unlink(missing_ok=True)
    script.write_bytes(text)
    script.chmod(0o755)
    try:
        pid = os.posix_spawn("./script", ["./script"], {})
    except OSError as error:
        return -(error.errno or 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
