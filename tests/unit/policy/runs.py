"""Logs of runs that never were, for what reads logs."""

from collections.abc import Iterable, Sequence

from helm_sentry.audit import record
from helm_sentry.audit.record import FIRST_PREV
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation

VARIABLES = {
    "workspace": "/wksp",
    "home": "/home/u",
    "tmp": "/tmp/run",
    "user": "u",
    "program": "/usr/bin/agent",
}
NO_RULE = Decision(Verdict.DENY, Reason.DEFAULT)


def on(kind: str, path: str) -> Operation:
    trees = ("file.rename", "file.delete")
    return Operation(Kind(kind), path=path, directory=kind in trees)


def asked(
    syscall: str, *operations: Operation, decision: Decision = NO_RULE, action: str = "value", errno: str = ""
) -> dict[str, object]:
    return record.decision(7, syscall, operations, decision, action, errno=errno)


def log(*records: dict[str, object], enforcing: bool = False, variables: dict[str, str] = VARIABLES) -> list[bytes]:
    """The lines of a log with these records between its start and its end."""
    start = record.start(
        run="20260101-000000-abcdef",
        version="1",
        argv=["agent", "--flag"],
        user="u:u",
        host="h",
        features=[],
        degraded=[],
        digests={},
        enforcing=enforcing,
        variables=variables,
    )
    return list(_chained([start, *records, record.end({"ALLOW": 0}, exit_status=0)]))


def _chained(records: Sequence[dict[str, object]]) -> Iterable[bytes]:
    prev = FIRST_PREV
    for seq, fields in enumerate(records):
        fields |= {"seq": seq, "time": 1_700_000_000_000_000 + seq, "prev": prev}
        yield record.link(fields)
        prev = str(fields["hash"])
