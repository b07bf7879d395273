"""Only the caller of a call that may be continued is seized, and whoever else was hit is let go unharmed."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import native
from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Gone
from helm_sentry.broker.seizure import continue_watched
from helm_sentry.intercept.interceptor import Notification
from helm_sentry.intercept.process_tree import status_field
from helm_sentry.intercept.seizure import Seizure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="traces real processes")


class Listener:
    """Says whether the caller still waits, and keeps the answers."""

    def __init__(self, living: bool) -> None:
        self.living, self.sent = living, []

    def alive(self, notification_id: int) -> bool:
        return self.living

    def watch(self, notification: Notification) -> Seizure:
        return Seizure(self, notification)

    def send_errno(self, notification_id: int, code: int) -> None:
        self.sent.append(("errno", code))

    def send_continue(self, notification_id: int) -> None:
        self.sent.append(("continue",))


class Stage:
    """What a call needs of its broker here."""

    def __init__(self, living: bool) -> None:
        self.listener, self.records = Listener(living), []

    def record(self, call: Call, action: str) -> None:
        self.records.append(action)


def call_of(stage: Stage, name: str, tid: int) -> Call:
    number = syscalls.number(name, native())
    return Call(stage, Notification(1, tid, number, 0, (0,) * 6), syscalls.table(native())[number])


@pytest.fixture
def bystander() -> Iterator[tuple[int, int, int]]:
    """A process that waits at a pipe, and answers a byte with a byte."""
    ours, theirs = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours[1])
        while os.read(ours[0], 1):
            os.write(theirs[1], b"!")
        os._exit(0)
    yield pid, ours[1], theirs[0]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for descriptor in (*ours, *theirs):
        os.close(descriptor)


def goes_on(bystander: tuple[int, int, int]) -> bool:
    pid, say, hear = bystander
    os.write(say, b"?")
    return os.read(hear, 1) == b"!" and status_field(pid, "TracerPid") == "0"


def test_an_id_that_is_somebody_elses_by_now(bystander: tuple[int, int, int]) -> None:
    stage = Stage(living=False)
    with pytest.raises(Gone):
        continue_watched(call_of(stage, "chdir", bystander[0]))
    assert stage.records == []
    assert ("continue",) not in stage.listener.sent
    assert goes_on(bystander)


@pytest.mark.parametrize("living", [True, False])
def test_a_row_without_a_reason_is_not_even_seized(bystander: tuple[int, int, int], living: bool) -> None:
    stage = Stage(living)
    with pytest.raises(LookupError, match="gives no reason"):
        continue_watched(call_of(stage, "connect", bystander[0]))
    assert (stage.records, stage.listener.sent) == ([], [])
    assert goes_on(bystander)


def test_a_caller_that_still_waits_is_recorded_and_continued(bystander: tuple[int, int, int]) -> None:
    """The control."""
    stage = Stage(living=True)
    continue_watched(call_of(stage, "chdir", bystander[0]))
    assert stage.records == ["continue"]
    assert stage.listener.sent == [("continue",)]
    assert status_field(bystander[0], "TracerPid") == str(os.getpid())


def test_a_log_that_cannot_be_written_lets_go(bystander: tuple[int, int, int]) -> None:
    class Full(Stage):
        def record(self, call: Call, action: str) -> None:
            raise OSError(28, "no space")

    stage = Full(living=True)
    with pytest.raises(OSError, match="no space"):
        continue_watched(call_of(stage, "chdir", bystander[0]))
    assert ("continue",) not in stage.listener.sent
    assert goes_on(bystander)


def test_a_caller_that_is_gone() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(Gone):
        continue_watched(call_of(Stage(living=True), "chdir", pid))
