"""Whatever goes wrong while a syscall is handled ends in a refusal and a record, and leaks no descriptor.

The listener is a stand-in that keeps the answers; the log, the policy engine and the threads are the real ones.
"""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from helm_sentry.abi.arch import X86_64
from helm_sentry.abi.syscalls import Row, Treatment
from helm_sentry.audit.log import AuditLog
from helm_sentry.broker.action import Action, Continue, Inject, Later, Value
from helm_sentry.broker.broker import HANDLERS, Broker
from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Gone, Unreadable
from helm_sentry.broker.names import Names
from helm_sentry.broker.paths import Resolver
from helm_sentry.confine import credentials
from helm_sentry.intercept.notify import Notification
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import compile_policy
from helm_sentry.policy.loader import load

NUMBER = 100_000
POLICY = "schema: helm-sentry/policy/v1\nname: t\nallow:\n  - id: open\n    file: {do: [read], paths: [/open]}\n"
ALLOWED, REFUSED = Operation(Kind.FILE_READ, path="/open"), Operation(Kind.FILE_READ, path="/closed")


class Answers:
    """Keeps what a listener would have sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, ...]] = []
        self.done = threading.Event()
        self.inject_error = 0
        self.living = True

    def alive(self, notification_id: int) -> bool:
        return self.living

    def _send(self, *answer: object) -> None:
        self.sent.append(answer)
        self.done.set()

    def send_value(self, notification_id: int, number: int) -> None:
        self._send("value", number)

    def send_errno(self, notification_id: int, code: int) -> None:
        self._send("errno", errno.errorcode[code])

    def send_continue(self, notification_id: int) -> None:
        self._send("continue")

    def inject(
        self, notification: Notification, descriptor: int, close_on_exec: bool, release: Callable[[], None]
    ) -> None:
        if self.inject_error:
            raise OSError(self.inject_error, "injected")
        status = os.fstat(descriptor)
        release()
        self._send("fd", status.st_ino)


class Stage:
    def __init__(self, directory: Path) -> None:
        self.answers, self.failures, self.denials = Answers(), [], []
        self.log = AuditLog(str(directory), "run")
        self.path = directory / "audit.jsonl"
        self.broker = Broker(
            arch=X86_64,
            policy=compile_policy(load(POLICY)),
            listener=self.answers,
            resolver=Resolver(os.getpid()),
            names=Names(compile_policy(load(POLICY)), print, self.failures.append),
            log=self.log,
            identity=credentials.current(),
            signal_scope=True,
            on_denial=lambda *denial: self.denials.append(denial),
            on_failure=self.failures.append,
        )

    def handle(self, handler: Callable[[Call], Action | Later], reason: str = "") -> None:
        row = Row("made_up", "file", Kind.FILE_READ, (), Treatment.MEDIATE, (), 0, reason, {"x86_64": NUMBER})
        self.broker._rows = {NUMBER: row}
        with mock.patch.dict(HANDLERS, {row.name: handler}):
            self.notify(NUMBER)

    def notify(self, number: int, arch: int = X86_64.audit_arch) -> None:
        self.broker._handle(Notification(1, os.getpid(), number, arch, (0,) * 6))

    @property
    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def raising(error: BaseException) -> Callable[[Call], Action]:
    def handler(call: Call) -> Action:
        call.hold(os.open("/", os.O_PATH))
        raise error

    return handler


def test_an_error_of_ours_is_a_refusal_with_its_text(stage: Stage) -> None:
    stage.handle(raising(ZeroDivisionError("oops")))
    assert stage.answers.sent == [("errno", "EPERM")]
    (record,) = stage.records
    assert (record["verdict"], record["reason"]) == ("DENY", "SUPERVISOR_ERROR")
    assert "oops" in str(record["detail"])
    assert len(stage.denials) == 1


def test_hidden_memory_is_a_refusal(stage: Stage) -> None:
    stage.handle(raising(Unreadable()))
    assert stage.answers.sent == [("errno", "EPERM")]
    assert stage.records[0]["reason"] == "UNREADABLE"


def test_a_caller_that_is_gone_gets_no_answer(stage: Stage) -> None:
    stage.handle(raising(Gone()))
    assert stage.answers.sent == []


def test_bad_arguments_are_the_kernels_error_and_a_notice(stage: Stage) -> None:
    stage.handle(raising(OSError(errno.EFAULT, "bad")))
    assert stage.answers.sent == [("errno", "EFAULT")]
    assert stage.records[0]["code"] == "bad-arguments"


def test_a_refused_operation_is_recorded_before_the_answer(stage: Stage) -> None:
    def handler(call: Call) -> Action:
        call.judge(REFUSED)
        return Value(0)

    stage.handle(handler)
    assert stage.answers.sent == [("errno", "EACCES")]
    assert (stage.records[0]["verdict"], stage.records[0]["errno"]) == ("DENY", "EACCES")


def test_an_effect_is_recorded_before_it_happens_and_its_failure_after(stage: Stage) -> None:
    seen: list[int] = []

    def handler(call: Call) -> Action:
        call.judge(ALLOWED, effect=True)
        seen.append(len(stage.records))
        raise OSError(errno.EEXIST, "there")

    stage.handle(handler)
    assert seen == [1]
    assert [record["type"] for record in stage.records] == ["decision", "outcome"]
    assert stage.records[1]["errno"] == "EEXIST"


def test_no_effect_for_a_caller_that_is_gone(stage: Stage) -> None:
    stage.answers.living = False
    seen: list[str] = []

    def handler(call: Call) -> Action:
        call.judge(ALLOWED, effect=True)
        seen.append("effect")
        return Value(0)

    stage.handle(handler)
    assert seen == []
    assert not [record for record in stage.records if record.get("action") == "value"]


def test_a_dead_log_refuses_and_ends_the_run(stage: Stage) -> None:
    stage.log.close()

    def handler(call: Call) -> Action:
        call.judge(ALLOWED, effect=True)
        return Value(0)

    stage.handle(handler)
    assert stage.answers.sent == [("errno", "EPERM")]
    assert stage.failures


def test_a_dead_log_refuses_what_has_no_effect_too(stage: Stage) -> None:
    stage.log.close()

    def handler(call: Call) -> Action:
        call.judge(ALLOWED)
        return Value(7)

    stage.handle(handler)
    assert stage.answers.sent == [("errno", "EPERM")]
    assert stage.failures


def test_a_full_descriptor_table_is_the_agents_error(stage: Stage) -> None:
    stage.answers.inject_error = errno.EMFILE

    def handler(call: Call) -> Action:
        call.judge(ALLOWED)
        return Inject(call.hold(os.open("/", os.O_RDONLY)), close_on_exec=True)

    stage.handle(handler)
    assert stage.answers.sent == [("errno", "EMFILE")]
    assert stage.records[-1]["errno"] == "EMFILE"


def test_continuing_needs_a_reason(stage: Stage) -> None:
    def handler(call: Call) -> Action:
        call.judge(ALLOWED)
        return Continue()

    stage.handle(handler)
    assert stage.answers.sent == [("errno", "EPERM")]
    stage.handle(handler, reason="its arguments are registers")
    assert stage.answers.sent[1:] == [("continue",)]


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.ENOENT, "x"), Unreadable()])
def test_work_that_fails_later_is_answered_too(stage: Stage, error: Exception) -> None:
    def later() -> Action:
        raise error

    stage.handle(lambda call: Later(later))
    assert stage.answers.done.wait(10)
    assert stage.answers.sent[0][0] == "errno"


@pytest.mark.parametrize(
    ("number", "arch", "code", "reason"),
    [
        pytest.param(1, 0x40000003, "EPERM", "FOREIGN_ABI", id="i386"),
        pytest.param(0x40000000 | 2, X86_64.audit_arch, "EPERM", "FOREIGN_ABI", id="x32"),
        pytest.param(90_000, X86_64.audit_arch, "ENOSYS", "UNKNOWN_SYSCALL", id="newer"),
        pytest.param(-1, X86_64.audit_arch, "ENOSYS", "UNKNOWN_SYSCALL", id="minus one"),
    ],
)
def test_what_is_in_no_table_is_refused(stage: Stage, number: int, arch: int, code: str, reason: str) -> None:
    stage.notify(number, arch)
    assert stage.answers.sent == [("errno", code)]
    assert (stage.records[0]["verdict"], stage.records[0]["reason"]) == ("DENY", reason)


def test_no_descriptor_is_left_open(stage: Stage) -> None:
    stage.handle(raising(ZeroDivisionError()))
    before = len(os.listdir("/proc/self/fd"))
    for error in (ZeroDivisionError(), OSError(errno.EIO, "x"), Unreadable(), Gone()) * 20:
        stage.handle(raising(error))
    assert len(os.listdir("/proc/self/fd")) == before
