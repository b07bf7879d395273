"""From a log back to operations."""

import pytest

from helm_sentry.audit import record
from helm_sentry.audit.canonical import escape, unescape
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.errors import VerificationError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.observation import observe, read_log
from tests.unit.policy.runs import VARIABLES, asked, log, on

ALLOWED = Decision(Verdict.ALLOW, Reason.RULE, "r")


@pytest.mark.parametrize(
    ("syscall", "operations"),
    [
        pytest.param("openat", [on("file.read", "/a b%\udcff")], id="a name that is no text"),
        pytest.param("openat", [on("file.create", "/a"), on("file.write", "/a")], id="two on one file"),
        pytest.param(
            "renameat2",
            [on("file.rename", "/a"), Operation(Kind.FILE_CREATE, path="/b", directory=True), on("file.delete", "/b")],
            id="rename",
        ),
        pytest.param(
            "renameat2",
            [
                on("file.rename", "/a"),
                Operation(Kind.FILE_CREATE, path="/b", directory=True),
                on("file.rename", "/b"),
                Operation(Kind.FILE_CREATE, path="/a", directory=True),
            ],
            id="exchange",
        ),
        pytest.param("linkat", [on("file.link", "/a"), on("file.create", "/b")], id="link"),
        pytest.param(
            "execve", [Operation(Kind.EXEC, path="/s", argv=("s", "%")), Operation(Kind.EXEC, path="/sh")], id="script"
        ),
        pytest.param(
            "connect",
            [Operation(Kind.NET_CONNECT, address="::1", port=443, protocol="tcp", hosts=("a.b",), own=True)],
            id="connect",
        ),
        pytest.param("sendto", [Operation(Kind.NET_SEND, address="10.0.0.1", port=53, protocol="udp")], id="send"),
        pytest.param("socket", [Operation(Kind.NET_SOCKET, name="netlink")], id="socket"),
        pytest.param("mount", [Operation(Kind.KERNEL_MOUNT, name="mount")], id="kernel"),
    ],
)
def test_operations_come_back_as_they_were(syscall: str, operations: list[Operation]) -> None:
    (seen,) = read_log(log(asked(syscall, *operations, decision=ALLOWED))).observations
    assert list(seen.operations) == operations
    assert (seen.seq, seen.syscall, seen.decision, seen.refused, seen.done) == (1, syscall, ALLOWED, False, True)


def test_what_a_run_was() -> None:
    run = read_log(log(enforcing=True), number=3)
    assert (run.id, run.command, run.enforcing, run.status) == (
        "20260101-000000-abcdef",
        ("agent", "--flag"),
        True,
        0,
    )
    assert run.variables == VARIABLES


@pytest.mark.parametrize(
    ("operation", "enforcing", "refused"),
    [
        pytest.param(on("file.read", "/a"), True, True, id="enforced"),
        pytest.param(on("file.read", "/a"), False, False, id="dry"),
        pytest.param(Operation(Kind.KERNEL_MOUNT, name="mount"), False, True, id="refused in a dry run too"),
    ],
)
def test_what_was_refused(operation: Operation, enforcing: bool, refused: bool) -> None:
    (seen,) = read_log(log(asked("x", operation), enforcing=enforcing)).observations
    assert seen.refused is refused


def test_what_failed_is_not_done() -> None:
    records = [
        asked("mkdir", on("file.create", "/a")),
        record.outcome(1, "EEXIST"),
        asked("mkdir", on("file.create", "/b")),
    ]
    first, second = read_log(log(*records)).observations
    assert (first.done, second.done) == (False, True)


def test_a_run_without_its_end_has_no_status() -> None:
    assert read_log(log()[:-1]).status is None


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        pytest.param([], "start record", id="empty"),
        pytest.param([b"{}\n"], "record 0", id="no record"),
        pytest.param(log(asked("x", on("file.read", "/a")))[1:], "record 0", id="beginning cut off"),
        pytest.param([line.replace(b"agent", b"tnega") for line in log()], "was changed", id="changed"),
    ],
)
def test_a_log_that_is_none_is_refused(lines: list[bytes], why: str) -> None:
    with pytest.raises(VerificationError, match=why):
        read_log(lines)


def test_a_record_that_is_no_decision_is_refused() -> None:
    with pytest.raises(VerificationError, match="not a decision"):
        observe({"type": "decision", "seq": 4, "verdict": "ALLOW", "reason": "RULE"})


@pytest.mark.parametrize("path", ["/plain", "/100%", "/ü", "/\udcff\n", ""])
def test_unescape_undoes_escape(path: str) -> None:
    assert unescape(escape(path)) == path


@pytest.mark.parametrize("text", ["%", "%4", "%41", "%zz", "%c3%bc"])
def test_what_escape_never_returns_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an escaped path"):
        unescape(text)
