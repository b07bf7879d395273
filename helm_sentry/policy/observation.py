"""Runs as policies see them: the operations of a log, put together again from its records. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from helm_sentry.audit.canonical import Fields, unescape
from helm_sentry.audit.record import FIRST_PREV, Record, read
from helm_sentry.decision import Decision
from helm_sentry.errors import VerificationError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.dry_run import performed

# What these calls ask for reaches everything beneath the name they are given, see `tree_operation`.
_TREE_CALLS = ("rename", "unlink", "rmdir")


@dataclass(frozen=True, slots=True)
class Observation:
    """One decision of a run.

    Attributes:
        run: which of several runs it was, from 1.
        seq: number of its record.
        syscall: the call that was made.
        operations: what the call came to.
        decision: what was decided in the run.
        refused: the call was refused: it was denied, and this was no dry run or one that refuses such calls.
        done: it was carried out and did not fail.
    """

    run: int
    seq: int
    syscall: str
    operations: tuple[Operation, ...]
    decision: Decision
    refused: bool
    done: bool


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """What a log tells about a run.

    Attributes:
        id: the run's id.
        command: the agent's command line.
        variables: what the run's variables stood for.
        enforcing: false for a dry run.
        observations: its decisions, in order.
        status: exit status of the main program, None when it died of a signal or the log has no end.
    """

    id: str
    command: tuple[str, ...]
    variables: Mapping[str, str]
    enforcing: bool
    observations: tuple[Observation, ...]
    status: int | None


def read_log(lines: Iterable[bytes], number: int = 1) -> ObservedRun:
    """Return what a log tells. Its chain is checked, its signatures are not.

    Raises:
        VerificationError: it is not an intact log.
    """
    records = list(_records(lines))
    if not records or records[0]["type"] != "start":
        raise VerificationError("the log does not begin with a start record", 0)
    start, end = records[0], records[-1]
    enforcing = start.get("enforcing") is not False
    failed = {record["of"] for record in records if record["type"] == "outcome"}
    status = end.get("exit") if end["type"] == "end" else None
    return ObservedRun(
        id=str(start.get("run")),
        command=tuple(map(unescape, _texts(start.get("argv")))),
        variables={name: unescape(str(text)) for name, text in _table(start.get("variables")).items()},
        enforcing=enforcing,
        observations=tuple(
            observe(record, number, enforcing=enforcing, failed=record["seq"] in failed)
            for record in records
            if record["type"] == "decision"
        ),
        status=status if isinstance(status, int) else None,
    )


def observe(fields: Fields, run: int = 1, *, enforcing: bool = True, failed: bool = False) -> Observation:
    """Return what an intact decision record says.

    Args:
        fields: the record.
        run: which of several runs it was.
        enforcing: false if it was a dry run.
        failed: another record says that the call failed.

    Raises:
        VerificationError: it is not a decision.
    """
    try:
        record = Record.parse(fields)
        operations = tuple(_operations(record))
    except ValueError as error:
        raise VerificationError(
            f"not a decision: {error}", fields["seq"] if isinstance(fields["seq"], int) else None
        ) from None
    decision = Decision(record.verdict, record.reason, record.rule)
    carried_out = not enforcing and all(performed(operation, decision) for operation in operations)
    refused = not (decision.allowed or carried_out)
    done = not failed and record.action in ("fd", "value", "continue", "kernel")
    return Observation(run, record.seq, record.syscall, operations, decision, refused, done)


def _records(lines: Iterable[bytes]) -> Iterator[Fields]:
    prev = FIRST_PREV
    for seq, line in enumerate(lines):
        try:
            fields = read(line.removesuffix(b"\n"), seq, prev)
        except ValueError as error:
            raise VerificationError(f"record {seq}: {error}", seq) from None
        prev = str(fields["hash"])
        yield fields


def _operations(record: Record) -> Iterator[Operation]:
    target, to = unescape(record.target), unescape(record.to or record.target)
    tree = record.syscall.startswith(_TREE_CALLS)
    # An exchange renames both names, each to the other.
    places = (target, to, to, target) if len(record.ops) == 4 and tree else (target, *(to for _ in record.ops[1:]))
    for index, (name, place) in enumerate(zip(record.ops, places, strict=True)):
        kind = Kind(name)
        if kind.startswith("net.") and kind is not Kind.NET_SOCKET:
            address, _, port = place.rpartition(":")
            yield Operation(
                kind,
                address=address.strip("[]"),
                port=int(port),
                protocol=record.protocol,
                hosts=record.hosts,
                own=record.own,
            )
        elif place.startswith("/"):
            argv = tuple(map(unescape, record.argv)) if not index else ()
            yield Operation(kind, path=place, directory=tree, argv=argv)
        else:
            yield Operation(kind, name=place)


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []


def _table(value: object) -> Fields:
    return value if isinstance(value, dict) else {}
