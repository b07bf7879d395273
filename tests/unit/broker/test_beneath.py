"""What the receiver is taught of effects, and what it is not."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helm_sentry.audit.line import Template
from helm_sentry.broker import beneath
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode.operations import file_operation, opening, tree_operation
from helm_sentry.native.library import MISSING
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import compile_policy
from helm_sentry.policy.loader import load
from helm_sentry.policy.uniform import Uniform

POLICY = """schema: helm-sentry/policy/v1
name: t
allow:
  - {{id: work, file: {{do: [all], paths: ['{root}/w/**']}}}}
block:
  - {{id: key, file: {{do: [read], paths: ['{root}/w/locked/in/key']}}}}
"""
FILE = 0o100000
W, RW, CREAT, EXCL, TRUNC = os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL, os.O_TRUNC
ALLOWED = Decision(Verdict.ALLOW, Reason.RULE, "work")
CREATE, DELETE, RENAME, STAT = Kind.FILE_CREATE, Kind.FILE_DELETE, Kind.FILE_RENAME, Kind.FILE_STAT


class World:
    """A broker that may teach, as far as teaching needs one; it remembers what was taught."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "w" / "d").mkdir(parents=True)
        (root / "w" / "file").write_text("")
        self.taught: list[tuple[object, ...]] = []
        uniform = Uniform(compile_policy(load(POLICY.format(root=root), packs={})))
        self.receiver: object = self
        self.broker = SimpleNamespace(
            teachable=lambda call: self.receiver,
            resolver=SimpleNamespace(proc_devices=frozenset[int]()),
            rules=SimpleNamespace(uniform=uniform),
            names=SimpleNamespace(replaced=()),
            durable=False,
        )

    def learn_beneath(
        self, syscall: str, kind: int, directory: str, device: int, record: Template, epoch: int, manner: int
    ) -> None:
        assert device == os.stat(self.root).st_dev and epoch == 3
        action = record.before_hash.decode().split('"')[3]
        self.taught.append((syscall, kind, directory.removeprefix(f"{self.root}/"), manner, action))

    def call(self, syscall: str, *operations: Operation) -> Any:
        return SimpleNamespace(
            broker=self.broker, row=SimpleNamespace(name=syscall), operations=operations, decision=ALLOWED, epoch=3
        )

    def entry(self, syscall: str, *operations: Operation) -> list[tuple[object, ...]]:
        beneath.teach_entry(self.call(syscall, *operations))
        return self.taught

    def opened(self, open_flags: int, name: str, there: bool) -> list[tuple[object, ...]]:
        path = str(self.root / name)
        call = self.call("openat", *opening(open_flags, path, there, directory=False))
        beneath.teach_opening(call, open_flags, os.stat(self.root / "w" / "file") if there else None)
        return self.taught


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Path(os.path.realpath(tmp_path)))


@pytest.mark.parametrize("syscall", ["mkdir", "mkdirat"])
def test_making_a_directory(world: World, syscall: str) -> None:
    assert world.entry(syscall, file_operation(CREATE, f"{world.root}/w/d/new")) == [
        (syscall, MISSING, "w", 16, "value")
    ]


@pytest.mark.parametrize("syscall", ["unlink", "unlinkat", "rmdir"])
def test_removing(world: World, syscall: str) -> None:
    """Judged as a tree: on the way to what is blocked not everything may be deleted."""
    path = f"{world.root}/w/d/old"
    assert world.entry(syscall, tree_operation(DELETE, path)) == [(syscall, MISSING, "w/d", 16, "value")]


def moving(root: Path, old: str, new: str) -> tuple[Operation, Operation, Operation]:
    old, new = f"{root}/w/{old}", f"{root}/w/{new}"
    return file_operation(RENAME, old), file_operation(CREATE, new), tree_operation(DELETE, new)


@pytest.mark.parametrize("syscall", ["rename", "renameat", "renameat2"])
def test_moving_within_a_directory(world: World, syscall: str) -> None:
    moved = moving(world.root, "d/old", "d/new")
    assert world.entry(syscall, *moved) == [(syscall, MISSING, "w/d", 16, "value")]


def test_moving_between_directories_that_are_not_decided_alike(world: World) -> None:
    assert world.entry("rename", *moving(world.root, "d/old", "e/new")) == []


def test_what_a_call_does_not_mean_by_itself(world: World) -> None:
    """A look, where to make something was denied and it is there; a directory that is moved; other sorts of moving."""
    file = f"{world.root}/w/d/file"
    old, create, delete = moving(world.root, "d/old", "d/new")
    assert world.entry("mkdir", file_operation(STAT, file)) == []
    assert world.entry("unlink", file_operation(DELETE, file)) == []
    assert world.entry("rename", file_operation(STAT, file)) == []
    assert world.entry("rename", tree_operation(RENAME, old.path), tree_operation(CREATE, create.path), delete) == []
    assert world.entry("renameat2", old, create) == []
    assert world.entry("renameat2", old, create, file_operation(RENAME, create.path), create) == []
    assert world.entry("symlink", file_operation(CREATE, file)) == []
    assert world.entry("link", file_operation(Kind.FILE_LINK, file), create) == []
    assert world.entry("mkdir") == []


@pytest.mark.parametrize(
    ("open_flags", "there", "kind", "manner", "action"),
    [
        (W | CREAT, False, MISSING, 9, "value"),
        (W | CREAT | EXCL | TRUNC, False, MISSING, 9, "value"),
        (RW | CREAT, False, MISSING, 10, "value"),
        (CREAT, False, MISSING, 8, "value"),
        (W, True, FILE, 1, "fd"),
        (RW | os.O_APPEND, True, FILE, 2, "fd"),
        (W | TRUNC, True, FILE, 5, "value"),
        (RW | TRUNC, True, FILE, 6, "value"),
    ],
)
def test_opening(world: World, open_flags: int, there: bool, kind: int, manner: int, action: str) -> None:
    directory = "w" if open_flags & os.O_ACCMODE == W else "w/d"  # what may be read is not the same in all of `w`
    assert world.opened(open_flags, "w/d/name", there) == [("openat", kind, directory, manner, action)]


@pytest.mark.parametrize("open_flags", [os.O_RDONLY, TRUNC, 3])
def test_opening_a_file_otherwise(world: World, open_flags: int) -> None:
    assert world.opened(open_flags, "w/d/name", there=True) == []


def test_what_was_judged_as_something_else(world: World) -> None:
    call = world.call("openat", file_operation(STAT, f"{world.root}/w/d/name"))
    beneath.teach_opening(call, W | CREAT, None)
    beneath.teach_opening(call, W, os.stat(world.root / "w" / "file"))
    assert world.taught == []


def test_what_is_no_file(world: World) -> None:
    call = world.call("openat", *opening(W, f"{world.root}/w/d/name", True, directory=False))
    beneath.teach_opening(call, W, os.stat("/dev/null"))
    assert world.taught == []


def test_nothing_that_may_not_be_repeated(world: World) -> None:
    world.receiver = None
    assert world.opened(W, "w/d/name", there=True) == []


def test_nothing_where_the_disk_is_waited_for(world: World) -> None:
    world.broker.durable = True
    assert world.opened(W | CREAT, "w/d/name", there=False) == []


def test_nothing_in_a_directory_that_is_gone(world: World) -> None:
    assert world.opened(W | CREAT, "w/gone/name", there=False) == []


def test_nothing_of_proc(world: World) -> None:
    world.broker.resolver.proc_devices = frozenset({os.stat(world.root).st_dev})
    assert world.opened(W | CREAT, "w/d/name", there=False) == []


def test_nothing_around_a_file_in_whose_place_another_is_read(world: World) -> None:
    world.broker.names.replaced = (f"{world.root}/w/resolv.conf",)
    assert world.opened(W | CREAT, "w/d/name", there=False) == []
