"""What a dry run performs although the policy denies it."""

import pytest

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.dry_run import performed

NO_RULE = Decision(Verdict.DENY, Reason.DEFAULT)
FILE = Operation(Kind.FILE_READ, path="/x")


@pytest.mark.parametrize(
    ("operation", "decision", "expected"),
    [
        pytest.param(FILE, Decision(Verdict.ALLOW, Reason.RULE, "r"), True, id="allowed"),
        pytest.param(FILE, NO_RULE, True, id="no rule"),
        pytest.param(FILE, Decision(Verdict.DENY, Reason.BLOCK, "keys"), True, id="block rule"),
        pytest.param(FILE, Decision(Verdict.DENY, Reason.CONDITION, "c"), True, id="condition"),
        pytest.param(FILE, Decision(Verdict.ESCALATE, Reason.CONDITION, "c"), True, id="escalation"),
        pytest.param(FILE, Decision(Verdict.DENY, Reason.BLOCK, "sentry/state"), False, id="own files"),
        pytest.param(FILE, Decision(Verdict.DENY, Reason.BUILTIN, "sentry/x"), False, id="builtin"),
        pytest.param(FILE, Decision(Verdict.DENY, Reason.UNREADABLE), False, id="unreadable"),
        pytest.param(FILE, Decision(Verdict.DENY, Reason.SUPERVISOR_ERROR), False, id="supervisor error"),
        pytest.param(Operation(Kind.EXEC, path="/x"), NO_RULE, True, id="exec"),
        pytest.param(Operation(Kind.NET_CONNECT, address="::1", port=1, protocol="tcp"), NO_RULE, True, id="connect"),
        pytest.param(Operation(Kind.UNIX_CONNECT, path="/x"), NO_RULE, True, id="unix"),
        pytest.param(Operation(Kind.UNIX_CONNECT, name="@x"), NO_RULE, False, id="abstract"),
        pytest.param(Operation(Kind.NET_SOCKET, name="netlink"), NO_RULE, False, id="socket family"),
        pytest.param(Operation(Kind.FILE_MKNOD, path="/x"), NO_RULE, False, id="device"),
        pytest.param(Operation(Kind.KERNEL_MOUNT, name="mount"), NO_RULE, False, id="kernel"),
        pytest.param(Operation(Kind.PROCESS_SIGNAL, pid=1), NO_RULE, False, id="signal"),
    ],
)
def test_performed(operation: Operation, decision: Decision, expected: bool) -> None:
    assert performed(operation, decision) is expected
