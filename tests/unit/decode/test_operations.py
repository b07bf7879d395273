"""What an open or a question about access comes to, in the words of a policy author."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.abi.flags import O_PATH, O_TMPFILE_BIT
from helm_sentry.decode.operations import access_kinds, file_operation, opening, opening_kinds, tree_operation
from helm_sentry.operation import Kind, Operation

READ, LIST, WRITE, CREATE, TRUNCATE, STAT = (
    Kind.FILE_READ,
    Kind.FILE_LIST,
    Kind.FILE_WRITE,
    Kind.FILE_CREATE,
    Kind.FILE_TRUNCATE,
    Kind.FILE_STAT,
)
RD, WR, RW, NEITHER = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3
FILE, DIRECTORY, MISSING = (True, False), (True, True), (False, False)

FLAGS = st.integers(0, (1 << 24) - 1)
OBJECTS = st.sampled_from([FILE, DIRECTORY, MISSING])


@pytest.mark.parametrize(
    ("flags", "there", "kinds"),
    [
        pytest.param(RD, FILE, {READ}, id="read"),
        pytest.param(WR, FILE, {WRITE}, id="write"),
        pytest.param(RW, FILE, {READ, WRITE}, id="both"),
        pytest.param(NEITHER, FILE, {READ, WRITE}, id="access mode three, which asks for both"),
        pytest.param(WR | os.O_APPEND, FILE, {WRITE}, id="append"),
        pytest.param(RD | os.O_TRUNC, FILE, {READ, TRUNCATE}, id="reading empties as well"),
        pytest.param(WR | os.O_TRUNC, FILE, {WRITE, TRUNCATE}, id="write and empty"),
        pytest.param(RD | os.O_CREAT, FILE, {READ}, id="create what is there"),
        pytest.param(RD | os.O_CREAT, MISSING, {CREATE, READ}, id="create to read"),
        pytest.param(WR | os.O_CREAT | os.O_TRUNC, MISSING, {CREATE, WRITE}, id="creat of a new file"),
        pytest.param(WR | os.O_CREAT | os.O_TRUNC, FILE, {WRITE, TRUNCATE}, id="creat of an old file"),
        pytest.param(RD, DIRECTORY, {LIST}, id="list"),
        pytest.param(RD | os.O_DIRECTORY, DIRECTORY, {LIST}, id="list and say so"),
        pytest.param(RW, DIRECTORY, {LIST, WRITE}, id="directory to write"),
        pytest.param(RW | os.O_TMPFILE, DIRECTORY, {CREATE, READ, WRITE}, id="unnamed file"),
        pytest.param(WR | os.O_TMPFILE, DIRECTORY, {CREATE, WRITE}, id="unnamed file to write"),
        pytest.param(O_PATH, FILE, {STAT}, id="path"),
        pytest.param(O_PATH | RW | os.O_TRUNC | os.O_CREAT, DIRECTORY, {STAT}, id="path, whatever else"),
    ],
)
def test_opening(flags: int, there: tuple[bool, bool], kinds: set[Kind]) -> None:
    assert set(opening_kinds(flags, *there)) == kinds


@given(FLAGS, OBJECTS)
def test_an_open_always_asks_for_something(flags: int, there: tuple[bool, bool]) -> None:
    assert opening_kinds(flags, *there)


@given(FLAGS, OBJECTS)
def test_what_can_write_is_asked_for(flags: int, there: tuple[bool, bool]) -> None:
    kinds = opening_kinds(flags, *there)
    if not flags & O_PATH:
        assert (WRITE in kinds) == (flags & os.O_ACCMODE != RD)
        assert (TRUNCATE in kinds) == bool(flags & os.O_TRUNC and there[0])
        assert (CREATE in kinds) == bool(flags & O_TMPFILE_BIT or (flags & os.O_CREAT and not there[0]))


@given(FLAGS, st.integers(0, 23), OBJECTS)
def test_more_flags_never_ask_for_less(flags: int, bit: int, there: tuple[bool, bool]) -> None:
    """But O_PATH, which makes another call of it, and access modes, which are a number and not bits."""
    added = 1 << bit
    if added & (os.O_ACCMODE | O_PATH | O_TMPFILE_BIT) or flags & O_PATH:
        return
    assert set(opening_kinds(flags, *there)) <= set(opening_kinds(flags | added, *there))


def test_operations_name_the_object() -> None:
    assert opening(RW, "/a/b", True, False) == (Operation(READ, path="/a/b"), Operation(WRITE, path="/a/b"))
    assert file_operation(STAT, "/x") == Operation(STAT, path="/x")
    assert tree_operation(Kind.FILE_DELETE, "/x") == Operation(Kind.FILE_DELETE, path="/x", directory=True)


@pytest.mark.parametrize(
    ("mode", "directory", "executable", "kinds"),
    [
        pytest.param(os.F_OK, False, True, set(), id="is it there"),
        pytest.param(os.R_OK, False, True, {READ}, id="read"),
        pytest.param(os.W_OK, False, True, {WRITE}, id="write"),
        pytest.param(os.X_OK, False, True, {Kind.EXEC}, id="run"),
        pytest.param(os.R_OK | os.W_OK | os.X_OK, False, True, {READ, WRITE, Kind.EXEC}, id="all of a file"),
        pytest.param(os.R_OK, True, False, {LIST}, id="list"),
        pytest.param(os.W_OK, True, False, {CREATE}, id="create within"),
        pytest.param(os.X_OK, True, False, set(), id="search"),
        pytest.param(os.X_OK, False, False, set(), id="run a socket"),
    ],
)
def test_access(mode: int, directory: bool, executable: bool, kinds: set[Kind]) -> None:
    assert set(access_kinds(mode, directory, executable)) == kinds
