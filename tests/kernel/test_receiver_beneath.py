"""What the compiled receiver decides about all that lies beneath a directory, and what it leaves to the broker."""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import native
from helm_sentry.audit import record
from helm_sentry.audit.line import template_beneath
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode.operations import file_operation
from helm_sentry.native.library import MISSING
from helm_sentry.operation import Kind
from tests.kernel.conftest import SYSTEM_PYTHON, Sandbox
from tests.kernel.test_receiver import LOOK, OPENAT, Agent, place, race, read, seen, swapping

__all__ = ["place"]
pytestmark = pytest.mark.kernel

FILE, DIRECTORY, LINK = 0o100000, 0o040000, 0o120000
ALLOWED = Decision(Verdict.ALLOW, Reason.RULE, "test")
NAMES = {LOOK: "newfstatat", OPENAT: "openat"}


class Taught(Agent):
    """An agent whose receiver knows what lies beneath a directory."""

    def __init__(
        self, directory: Path, body: Callable[[], bytes], beneath: Path, notified: int = OPENAT, device: int = -1
    ) -> None:
        super().__init__(directory, body, notified)
        device = os.stat(beneath).st_dev if device < 0 else device
        name = NAMES[notified]
        kinds = {FILE: Kind.FILE_READ, DIRECTORY: Kind.FILE_LIST}
        for bits in (FILE, DIRECTORY, LINK, MISSING):
            looking = notified == LOOK or bits not in kinds
            kind, action = (Kind.FILE_STAT, "value") if looking else (kinds[bits], "fd")
            missing = ("errno", "ENOENT") if bits == MISSING else (action, "")
            text = template_beneath(name, (kind,), ALLOWED, 0, *missing)
            self.receiver.learn_beneath(name, bits, str(beneath), device, text)


def test_what_was_never_seen_before_is_opened(tmp_path: Path, place: Path) -> None:
    (place / "deep" / "er").mkdir(parents=True)
    (place / "deep" / "er" / "file").write_bytes(b"deep")
    names = ("file", "other", "deep/er/file", "deep", "missing", "deep/er/missing")
    agent = Taught(tmp_path, lambda: b" ".join(read(place / name) for name in names), place)
    assert agent.serve() == (b"good other deep directory ENOENT ENOENT", [])
    assert agent.receiver.counts() == (7, 0, 6, 0)  # with the getppid at the end
    prev = record.FIRST_PREV
    for seq, line in enumerate((tmp_path / "audit.jsonl").read_bytes().splitlines()):
        prev = str(record.read(line, seq, prev)["hash"])  # raises unless canonical, hashed and chained
    kinds = [Kind.FILE_READ] * 3 + [Kind.FILE_LIST] + [Kind.FILE_STAT] * 2
    for name, kind, written in zip(names, kinds, agent.records(tmp_path), strict=True):
        path = str(place / name)
        there = os.path.lexists(path)
        status = os.stat(path if there else place)
        wanted = record.decision(
            agent.pid,
            "openat",
            [file_operation(kind, path)],
            ALLOWED,
            "fd" if there else "errno",
            errno="" if there else "ENOENT",
            object=f"{status.st_dev:x}:{status.st_ino:x}" if there else "",
        )
        assert {k: v for k, v in written.items() if k not in ("seq", "prev", "hash", "time")} == wanted


@pytest.mark.parametrize(
    ("written", "open_flags", "meant"),
    [
        ("./file", 0, "file"),
        (".//file", 0, "file"),
        ("//./././sub/.///./file", 0, "sub/file"),
        ("sub/", os.O_DIRECTORY, "sub"),
        ("./sub//", os.O_DIRECTORY, "sub"),
        ("missing/./file", 0, "missing"),
        ("missing//file", 0, "missing"),
        (".../file", 0, "..."),
        (".hidden", 0, ".hidden"),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_what_means_nothing_in_a_path_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    place: Path,
    written: str,
    open_flags: int,
    meant: str,
    relative: bool,
) -> None:
    (place / "sub").mkdir()
    (place / "sub" / "file").write_bytes(b"good")
    path = f"{'.' if relative else place}/{written}"
    monkeypatch.chdir(place)
    natively = read(path, open_flags)
    agent = Taught(tmp_path, lambda: read(path, open_flags), place)
    assert agent.serve() == (natively, [])
    assert [r["target"] for r in agent.records(tmp_path)] == [f"{place}/{meant}"]


def test_of_several_names_that_are_missing_the_first_is_told(tmp_path: Path, place: Path) -> None:
    """As the broker does."""
    names = ("missing/file", "missing/more/deep/file", "sub/missing/file", "missing")
    (place / "sub").mkdir()
    agent = Taught(tmp_path, lambda: b" ".join(read(place / name) for name in names), place)
    assert agent.serve() == (b"ENOENT ENOENT ENOENT ENOENT", [])
    told = [(r["target"], r["errno"]) for r in agent.records(tmp_path)]
    assert told == [(f"{place}/{name}", "ENOENT") for name in ("missing", "missing", "sub/missing", "missing")]


def test_what_is_missing_above_is_the_brokers(tmp_path: Path, place: Path) -> None:
    """What was taught is about all beneath a directory, and not about that."""
    (place / "sub").mkdir()
    agent = Taught(tmp_path, lambda: read(place / "sub" / "missing" / "file"), place / "sub")
    (place / "sub").rmdir()
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"EACCES", 1, 0)


def test_what_was_never_seen_before_is_looked_at(tmp_path: Path, place: Path) -> None:
    (place / "link").symlink_to("file")
    asked = [(place / "file", True), (place / "link", False), (place / "missing", True), (place / "missing", False)]
    natively = [seen(path, follow=follow) for path, follow in asked]
    agent = Taught(tmp_path, lambda: b",".join(seen(path, follow=follow) for path, follow in asked), place, LOOK)
    assert agent.serve() == (b",".join(natively), [])
    assert [r["target"] for r in agent.records(tmp_path)] == [str(path) for path, _ in asked]
    assert b"ENOENT" in natively


@pytest.mark.parametrize(
    ("name", "open_flags"),
    [
        pytest.param("file", os.O_WRONLY, id="writing"),
        pytest.param("file", os.O_DIRECTORY, id="a file as a directory"),
        pytest.param("", 0, id="the directory itself"),
        pytest.param("../outside", 0, id="outside"),
        pytest.param("file/.", 0, id="a dot at the end"),
        pytest.param("linked/./file", 0, id="a dot behind a link"),
        pytest.param("file/./missing", 0, id="a dot behind a file"),
        pytest.param("link/", os.O_DIRECTORY, id="a slash behind a link"),
        pytest.param("file/", os.O_DIRECTORY, id="a slash behind a file that is to be a directory"),
        pytest.param("sub/../file", 0, id="two dots"),
        pytest.param("file/", 0, id="a slash at the end"),
        pytest.param("missing/", 0, id="a slash at the end of nothing"),
        pytest.param("missing/.", 0, id="a dot in nothing"),
        pytest.param("missing/../file", 0, id="two dots in nothing"),
        pytest.param("file/missing", 0, id="nothing in a file"),
        pytest.param("link", 0, id="a link"),
        pytest.param("dangling", 0, id="a link to nothing"),
        pytest.param("linked/file", 0, id="through a link"),
        pytest.param("linked/missing", 0, id="nothing through a link"),
        pytest.param("fifo", 0, id="a FIFO"),
        pytest.param("per%cent", 0, id="a percent sign"),
        pytest.param('quo"te', 0, id="a quotation mark"),
        pytest.param("back\\slash", 0, id="a backslash"),
        pytest.param("new\nline", 0, id="a control character"),
        pytest.param("ümlaut", 0, id="not ASCII"),
    ],
)
def test_everything_else_is_the_brokers(tmp_path: Path, place: Path, name: str, open_flags: int) -> None:
    (place / "sub").mkdir()
    for file in ("sub/file", "per%cent", 'quo"te', "back\\slash", "new\nline", "ümlaut", "../outside"):
        (place / file).write_bytes(b"good")
    (place / "link").symlink_to("file")
    (place / "dangling").symlink_to("missing")
    (place / "linked").symlink_to("sub")
    os.mkfifo(place / "fifo")
    agent = Taught(tmp_path, lambda: read(f"{place}/{name}", open_flags), place)
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"EACCES", 1, 0)


def test_another_file_system_is_the_brokers(tmp_path: Path, place: Path) -> None:
    other = os.stat(place).st_dev + 1
    agent = Taught(tmp_path, lambda: read(place / "file") + read(place / "missing"), place, device=other)
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"EACCESEACCES", 2, 0)


def test_nothing_is_taught_about_the_root(tmp_path: Path, place: Path) -> None:
    agent = Taught(tmp_path, lambda: read(place / "file"), Path("/"))
    assert len(agent.serve()[1]) == 1


def test_the_other_side_of_a_fifo_is_told_nothing(tmp_path: Path, place: Path) -> None:
    """A writer that waits for a reader goes on waiting: the receiver has not opened it."""
    os.mkfifo(place / "fifo")
    opened = threading.Event()

    def write() -> None:
        os.close(os.open(place / "fifo", os.O_WRONLY))
        opened.set()

    writer = threading.Thread(target=write)
    agent = Taught(tmp_path, lambda: read(place / "fifo"), place)
    writer.start()
    assert agent.serve()[0] == b"EACCES"
    assert not opened.is_set()
    os.close(os.open(place / "fifo", os.O_RDONLY | os.O_NONBLOCK))  # the control: this it is told
    writer.join(30)
    assert opened.is_set()


def test_what_is_forgotten_is_the_brokers(tmp_path: Path, place: Path) -> None:
    agent = Taught(tmp_path, lambda: read(place / "file") + read(place / "missing"), place)
    agent.receiver.forget(1)
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"EACCESEACCES", 2, 0)


def test_a_race_for_the_object_is_lost(tmp_path: Path, place: Path) -> None:
    """The positive control is `test_receiver.test_the_same_race_is_won_without_it`."""
    secret = tmp_path / "secrets" / "file"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    agent = Taught(tmp_path, lambda: race(place / "file"), place)
    with swapping(place / "file", secret) as turns:
        answer, left = agent.serve()
    found = json.loads(answer)
    assert "secret" not in found
    assert found["good"] > 10 and turns[0] > 10
    assert found["EACCES"] == len(left) > 10


BLOCKS = """extends: [default]
block:
  - {id: keys, file: {do: [read, list], paths: ['${workspace}/data/*/key', '${workspace}/data/locked/**']}}
"""
LOOKS = """
import os, sys
def tried(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        return error.errno
for _ in range(3):
    for directory in ("data/a", "data/b", "data/locked"):
        for name in ("one", "two", "key", "missing"):
            path = f"{directory}/{name}"
            print(path, tried(os.path.abspath(path)), os.path.exists(path), os.access(path, os.R_OK))
            print(os.path.islink(path), os.path.lexists(os.path.abspath(path)))
"""


@pytest.mark.every_tier
def test_a_blocked_name_among_many_is_blocked(sandbox: Sandbox) -> None:
    """And what is seen is what is seen without the receiver; natively the blocked files are read."""
    for directory in ("a", "b", "locked"):
        (sandbox.workspace / "data" / directory).mkdir(parents=True)
        for name in ("one", "two", "key"):
            (sandbox.workspace / "data" / directory / name).write_text(f"{name}-text")
    (sandbox.workspace / "looks.py").write_text(LOOKS)
    if sandbox.uid:
        for path in (sandbox.workspace / "data").rglob("*"):
            os.chown(path, sandbox.uid, sandbox.uid)
    policy = sandbox.policy(BLOCKS)
    command = [SYSTEM_PYTHON, "looks.py"]
    with_it = sandbox.run(command, policy=policy)
    without = sandbox.run(command, policy=policy, environment={"HELM_SENTRY_NATIVE": "off"})
    assert with_it.stdout == without.stdout
    assert "data/a/one one-text True True" in with_it.stdout
    for blocked in ("data/a/key", "data/locked/one"):
        assert f"{blocked} {errno.EACCES} True False" in with_it.stdout
    assert "key-text" not in with_it.stdout
    assert "key key-text True" in sandbox.native(command).stdout

    def judged(result: object) -> list[tuple[object, ...]]:
        members = ("syscall", "ops", "target", "verdict", "rule", "reason", "action", "object", "errno")
        records = [r for r in result.records if r["type"] == "decision"]  # type: ignore[attr-defined]
        return [tuple(map(str, map(r.get, members))) for r in records if "data" in str(r.get("target"))]

    assert judged(with_it) == judged(without)


def test_the_bits_of_a_file_type_are_free_in_every_number() -> None:
    """`key_beneath` puts both into one word."""
    assert max(syscalls.table(native())) < 0o010000
