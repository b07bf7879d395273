"""Marks of descent, on real processes: handed down by fork, kept by exec, never raised."""

import os
import resource
from collections.abc import Callable, Iterator

import pytest

from helm_sentry.broker import lineage
from helm_sentry.broker.lineage import RLIMIT_LOCKS, Lineage
from helm_sentry.broker.memory import Gone
from helm_sentry.errors import FeatureError


@pytest.fixture
def process() -> Iterator[Callable[[], int]]:
    """Start processes that wait until the end of the test."""
    started: list[tuple[int, int]] = []

    def start() -> int:
        wait, go = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(go)
            os.read(wait, 1)
            os._exit(0)
        os.close(wait)
        started.append((pid, go))
        return pid

    yield start
    for _, go in started:
        os.close(go)
    for pid, _ in started:
        os.waitpid(pid, 0)


def test_programs_in_the_order_they_were_entered(process):
    marks, pid = Lineage(), process()
    assert marks.of(pid) == ("", ())
    for program in ("/bin/sh", "/usr/bin/git", "/bin/sh", "/bin/cat"):
        marks.entered(pid, program)
    assert marks.of(pid) == ("/bin/cat", ("/bin/sh", "/usr/bin/git", "/bin/cat"))


def test_marks_only_fall(process):
    marks, pid, seen = Lineage(), process(), []
    for program in ("/a", "/b", "/a", "/b", "/a"):
        marks.entered(pid, program)
        seen.append(resource.prlimit(pid, RLIMIT_LOCKS)[1])
        assert marks.of(pid)[0] == program
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen)


def test_the_same_descent_has_the_same_mark(process):
    marks, one, other = Lineage(), process(), process()
    for pid in (one, other, one):
        marks.entered(pid, "/bin/sh")
    assert resource.prlimit(one, RLIMIT_LOCKS) == resource.prlimit(other, RLIMIT_LOCKS)


def test_a_child_has_what_its_parent_had_when_it_was_made():
    """The parent becomes another program after the fork; the child does not."""
    marks = Lineage()
    said, say = os.pipe()
    wait, go = os.pipe()
    step, on = os.pipe()
    parent = os.fork()
    if not parent:
        os.close(go)
        os.read(step, 1)
        child = os.fork()
        if not child:
            os.read(wait, 1)
            os._exit(0)
        os.write(say, child.to_bytes(4, "little"))
        os.read(wait, 1)
        os._exit(0)
    try:
        marks.entered(parent, "/bin/sh")
        os.write(on, b"!")
        child = int.from_bytes(os.read(said, 4), "little")
        marks.entered(parent, "/usr/bin/git")
        assert marks.of(child) == ("/bin/sh", ("/bin/sh",))
        assert marks.of(parent) == ("/usr/bin/git", ("/bin/sh", "/usr/bin/git"))
    finally:
        os.close(go)
        os.waitpid(parent, 0)
        for descriptor in (said, say, wait, step, on):
            os.close(descriptor)


def test_a_process_that_is_gone():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(Gone):
        Lineage().of(pid)


def test_a_mark_that_was_never_made_is_an_error(process):
    marks, pid = Lineage(), process()
    resource.prlimit(pid, RLIMIT_LOCKS, (5, 5))
    with pytest.raises(KeyError):
        marks.of(pid)
    with pytest.raises(OSError, match="never made"):
        marks.entered(pid, "/a")


def test_descent_is_bounded(process, monkeypatch):
    monkeypatch.setattr(lineage, "_MOST_PROGRAMS", 3)
    marks, pid = Lineage(), process()
    for program in ("/a", "/b", "/c", "/a"):
        marks.entered(pid, program)
    with pytest.raises(OSError, match="more than 3 programs"):
        marks.entered(pid, "/d")


def test_a_caller_without_room_is_told_so():
    pid = os.fork()
    if not pid:
        resource.setrlimit(RLIMIT_LOCKS, (100, 100))
        try:
            Lineage()
        except FeatureError as error:
            os._exit(0 if "ulimit -x unlimited" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_caller_with_a_limit_of_its_own(process):
    pid = os.fork()
    if not pid:
        resource.setrlimit(RLIMIT_LOCKS, (1 << 40, 1 << 40))
        marks = Lineage()
        marks.entered(os.getpid(), "/a")
        os._exit(0 if marks.of(os.getpid()) == ("/a", ("/a",)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
