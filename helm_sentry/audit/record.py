"""Records: the lines of an audit log, how they are built, chained and read back. Pure.

A record is a JSON object. Builders give its own members; the log adds `seq`, `time` (microseconds since the
epoch), `prev` (hash of the record before, 64 zeros for the first) and `hash`: SHA-256, in hex, over the
canonical bytes of the whole record with `"hash":""`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from helm_sentry.audit.canonical import Fields, Json, encode, escape, loads
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation

ActionName: TypeAlias = Literal["fd", "value", "errno", "continue", "kernel", "kill", "none"]
"""How a syscall was answered: a descriptor, a number, an error, let through, carried out by the kernel without the
supervisor, process killed, not at all."""

FIRST_PREV = "0" * 64
TYPES = frozenset(
    {"start", "decision", "outcome", "exec", "traffic", "notice", "process", "witness", "gap"}
    | {"approval", "policy", "end"}
)
MAX_LINE = 1 << 25
"""Bytes in one line at most, so that a reader of a hostile log needs bounded memory."""

# A quotation mark inside a JSON string is always written \", so these bytes can only be a member.
_NO_HASH = b'"hash":""'
# Copying a fresh hash object costs half of looking one up by name.
_SHA256 = hashlib.sha256()
_RUN_ENDED = Decision(Verdict.DENY, Reason.RUN_ENDED, "sentry/run-ended")
_VERDICTS = frozenset(str(verdict) for verdict in Verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a log amounts to so far.

    Attributes:
        records: number of records.
        counts: number of decisions by verdict.
        head: hash of the last record.
        size: length of the log in bytes.
    """

    records: int
    counts: Mapping[str, int]
    head: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A decision as it is read back from a log. Paths and arguments are escaped text.

    Attributes:
        seq: position in the log, from 0.
        time: microseconds since the epoch.
        tid: thread that asked.
        syscall: name of the syscall it made.
        ops: kinds of the operations the syscall came to.
        target: object of the first operation.
        to: object of the second operation, as of a rename.
        action: how the syscall was answered.
        errno: symbolic name of the error it was answered with.
        object: `dev:ino` in hex of the object that was judged.
        argv: argument vector of an exec.
        protocol: transport protocol of a network operation.
        hosts: names whose addresses contain that of the target.
        own: the target is a port of the run itself.
        detail: anything a person should read with it.
        degraded: layers that were missing when it was made.
        epoch: how many policies the run had before the one it was made under.
    """

    seq: int
    time: int
    tid: int
    syscall: str
    ops: tuple[str, ...]
    target: str
    verdict: Verdict
    reason: Reason
    rule: str
    action: str
    to: str = ""
    errno: str = ""
    object: str = ""
    argv: tuple[str, ...] = ()
    protocol: str = ""
    hosts: tuple[str, ...] = ()
    own: bool = False
    detail: str = ""
    degraded: tuple[str, ...] = ()
    epoch: int = 0

    @classmethod
    def parse(cls, fields: Fields) -> "Record":
        """Return the decision in a verified record.

        Raises:
            ValueError: a member is missing or unknown.
        """
        members = {name: value for name, value in fields.items() if name not in ("type", "prev", "hash")}
        members.update({name: tuple(members[name]) for name in ("ops", "argv", "hosts", "degraded") if name in members})  # type: ignore[arg-type, misc]
        verdict, reason = Verdict(str(fields.get("verdict"))), Reason(str(fields.get("reason")))
        try:
            return cls(**(members | {"verdict": verdict, "reason": reason}))  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"not a decision record: {error}") from error


def decision(
    tid: int,
    syscall: str,
    operations: Sequence[Operation],
    decided: Decision,
    action: ActionName,
    *,
    errno: str = "",
    object: str = "",
    detail: str = "",
    epoch: int = 0,
) -> Fields:
    """Return the record of one decision, made for all the operations of one syscall."""
    fields: Fields = {
        "type": "decision",
        "tid": tid,
        "syscall": syscall,
        # str() also turns an enum member into plain text, which is what the encoder takes.
        "ops": [str(operation.kind) for operation in operations],
        "target": escape(operations[0].target) if operations else "",
        "verdict": str(decided.verdict),
        "reason": str(decided.reason),
        "rule": decided.rule,
        "action": action,
    }
    if len(operations) > 1 and (second := operations[1].target) != operations[0].target:
        fields["to"] = escape(second)
    if operations and operations[0].argv:
        fields["argv"] = _texts(operations[0].argv)
    if operations and operations[0].protocol:
        fields |= _endpoint(operations[0])
    if errno:
        fields["errno"] = errno
    if object:
        fields["object"] = object
    if detail:
        fields["detail"] = escape(detail)
    if epoch:
        fields["epoch"] = epoch
    return fields


def _endpoint(operation: Operation) -> Fields:
    # What a network rule looks at besides the target, so that the decision can be made again from the log.
    named: Fields = {"hosts": list(operation.hosts)} if operation.hosts else {}
    return {"protocol": operation.protocol} | named | ({"own": True} if operation.own else {})


def start(
    *,
    run: str,
    version: str,
    argv: Sequence[str],
    user: str,
    host: str,
    features: Sequence[str],
    degraded: Sequence[str],
    digests: Mapping[str, str],
    enforcing: bool = True,
    durable: bool = False,
    variables: Mapping[str, str] | None = None,
    parent: str = "",
) -> Fields:
    """Return the first record of a run.

    Args:
        run: the run's id.
        version: version of Helm Sentry.
        argv: the agent's command line.
        user: name of the user the agent runs as.
        host: name of the machine.
        features: mechanisms of the host that the run uses.
        degraded: layers that are missing and whose absence was accepted.
        digests: what `store.create_run` returned; each becomes a member.
        enforcing: false for a dry run.
        durable: what changed something was carried out when its record was on the disk.
        variables: what the run's variables stood for, such as the workspace.
        parent: id of the run whose agent asked for this one.
    """
    return {
        "type": "start",
        "run": run,
        **({"parent": parent} if parent else {}),
        "version": version,
        "argv": _texts(argv),
        "user": escape(user),
        "host": escape(host),
        "features": _texts(features),
        "degraded": _texts(degraded),
        "enforcing": enforcing,
        **({"durable": True} if durable else {}),
        **({"variables": {name: escape(text) for name, text in variables.items()}} if variables else {}),
        **digests,
    }


def outcome(of: int, errno: str) -> Fields:
    """Return the record of an allowed operation that then failed; `of` is the decision's sequence number."""
    return {"type": "outcome", "of": of, "errno": errno}


def outlived(pid: int) -> Fields:
    """Return the record of a process that was still there when the main program ended, and was ended with it."""
    operation = Operation(Kind.PROCESS_OUTLIVE, pid=pid, name="process")
    return decision(pid, "exit_group", (operation,), _RUN_ENDED, "kill")


def executed(pid: int, exe: str, object: str, argv: Sequence[str], ancestors: Sequence[int] = ()) -> Fields:
    """Return the record of an exec stop: the file that really runs, by path and by `dev:ino`, and its arguments.

    The arguments of the decision were copied before; these are the kernel's own copy, which nobody can change.
    """
    return {
        "type": "exec",
        "pid": pid,
        "exe": escape(exe),
        "object": object,
        "argv": _texts(argv),
        "ancestors": list(ancestors),
    }


def traffic(of: int, operation: Operation, sent: int, received: int, *, exact: bool, unsent: int = 0) -> Fields:
    """Return the record of what left for one address; `of` is the sequence number of the decision that allowed it.

    Args:
        of: as above; for datagrams, of the first of them.
        operation: what was allowed.
        sent: bytes that left.
        received: bytes that came back over the same connection; 0 for datagrams.
        exact: false when more may have left than was counted.
        unsent: bytes that were still to leave when a connection that outlived the run was counted.
    """
    fields: Fields = {
        "type": "traffic",
        "of": of,
        "target": operation.target,
        "protocol": operation.protocol,
        "sent": sent,
        "received": received,
        "exact": exact,
        "own": operation.own,
    }
    return fields | ({"unsent": unsent} if unsent else {})


def notice(code: str, detail: str) -> Fields:
    """Return the record of what no syscall asked for: a missing layer, a process that outlived the run."""
    return {"type": "notice", "code": code, "detail": escape(detail)}


def clock_set(microseconds: int) -> Fields:
    """Return the record of somebody having set the wall clock, forwards or (a negative number) backwards."""
    way = "forwards" if microseconds > 0 else "backwards"
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    return notice("clock-set", f"the wall clock was set {way} by {seconds}.{rest // 1000:03} s")


def witnessing() -> Fields:
    """Return the record of the moment from which the kernel counts what the agent does."""
    return {"type": "witness", "state": "begins"}


def witnessed(kernel: Mapping[str, int], books: Mapping[str, int], *, final: bool) -> Fields:
    """Return the record that holds the kernel's counts against the supervisor's; `final` when all have ended."""
    return {"type": "witness", "state": "ends" if final else "counts", "kernel": dict(kernel), "log": dict(books)}


def mediated(witnessed: Fields) -> tuple[int, int] | None:
    """Return how many mediated calls a witness record says that kernel and supervisor counted; None for its first.

    Raises:
        ValueError: it holds counts, but not these.
    """
    if "kernel" not in witnessed:
        return None
    kernel, log = witnessed["kernel"], witnessed.get("log")
    if not isinstance(kernel, dict) or not isinstance(log, dict):
        raise ValueError("a witness record without its counts")
    finished, carried, received = kernel.get("finished"), kernel.get("carried"), log.get("received")
    if type(finished) is not int or type(carried) is not int or type(received) is not int:
        raise ValueError("a witness record without its counts")
    return finished + carried, received


def gap(code: str, detail: str) -> Fields:
    """Return the record of a difference between the kernel's account and the supervisor's; it gets a receipt."""
    return {"type": "gap", "code": code, "detail": escape(detail)}


def approval(of: int, question: int, answer: str, by: str, digest: str) -> Fields:
    """Return the record of a person's answer; it gets a receipt.

    Args:
        of: sequence number of the decision that asked.
        question: the question's number in the run.
        answer: a `Choice`.
        by: who answered, and how.
        digest: hash of the arguments that were copied, in hex.
    """
    return {
        "type": "approval",
        "of": of,
        "question": question,
        "answer": str(answer),
        "by": escape(by),
        "digest": digest,
    }


def policy_change(state: str, epoch: int, detail: str, by: str, document: Fields | None = None) -> Fields:
    """Return the record of a live policy that was applied, or was not.

    Args:
        state: `applied` or `refused`.
        epoch: of the rules that hold from here on.
        detail: what was done, or why it was not.
        by: who asked.
        document: the effective policy that holds from here on.
    """
    fields: Fields = {"type": "policy", "state": state, "epoch": epoch, "detail": escape(detail), "by": escape(by)}
    return fields | ({"policy": document} if document is not None else {})


def forked(pid: int, parent: int) -> Fields:
    """Return the record of a process that the kernel saw begin."""
    return {"type": "process", "event": "fork", "pid": pid, "parent": parent}


def exited(pid: int, status: int) -> Fields:
    """Return the record of a process that the kernel saw end, with its wait status."""
    return {"type": "process", "event": "exit", "pid": pid, "status": status}


def end(counts: Mapping[str, int], *, exit_status: int | None = None, signal: str = "") -> Fields:
    """Return the last record of a run: how the agent ended, by status or by signal, and the log's counts."""
    ended: Fields = {"signal": signal} if signal else {"exit": exit_status}
    return {"type": "end", "counts": dict(counts), **ended}


def link(fields: Fields) -> bytes:
    """Fill in `hash` and return the record's line, newline included.

    Raises:
        ValueError: the record has no canonical form, is too long, or has a second member named `hash` inside,
            which would be mistaken for its own.
    """
    fields["hash"] = ""
    unhashed = encode(fields)
    head, _, tail = unhashed.partition(_NO_HASH)
    if _NO_HASH in tail:
        raise ValueError("it has a nested member named `hash`")
    if len(unhashed) > MAX_LINE - 128:  # room for the hash and the newline
        raise ValueError(f"it is longer than {MAX_LINE} bytes")
    state = _SHA256.copy()
    state.update(unhashed)
    fields["hash"] = digest = state.hexdigest()
    return b'%b"hash":"%b"%b\n' % (head, digest.encode(), tail)


def read(line: bytes, seq: int, prev: str) -> Fields:
    """Return the members of a record, which must stand at this place in the chain.

    Args:
        line: the record's line without its newline.
        seq: the sequence number that is due.
        prev: hash of the record before.

    Raises:
        ValueError: the line is not a canonical record, its hash is wrong, or it belongs elsewhere.
    """
    fields = loads(line, canonical=True)
    if not isinstance(fields, dict) or str(fields.get("type")) not in TYPES:
        raise ValueError("not a record")
    head, found, tail = line.partition(f'"hash":"{fields.get("hash")}"'.encode())
    if not found or hashlib.sha256(head + _NO_HASH + tail).hexdigest() != fields["hash"]:
        raise ValueError("the record was changed: its hash is not that of its contents")
    if type(fields.get("seq")) is not int or fields["seq"] != seq:
        raise ValueError(f"sequence number `{fields.get('seq')}` where {seq} is due")
    if fields.get("prev") != prev:
        raise ValueError("the chain is broken: `prev` is not the hash of the record before")
    if (fields["type"] == "decision") != (str(fields.get("verdict")) in _VERDICTS):
        raise ValueError(f"verdict `{fields.get('verdict')}` in a record of type `{fields['type']}`")
    return fields


def _texts(values: Sequence[str]) -> list[Json]:
    return [escape(value) for value in values]
