"""A decision's record as bytes: what `record.decision` and `record.link` would give, several times faster."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from helm_sentry.audit.canonical import encode, escape
from helm_sentry.audit.record import ActionName
from helm_sentry.decision import Decision
from helm_sentry.operation import Kind, Operation

_SHA256 = hashlib.sha256()


class Line(NamedTuple):
    """A decision's record in canonical bytes, cut where the log fills something in.

    The members of a record stand in order of their names, so what the log knows (`hash`, `prev`, `seq`, `time`)
    falls between what the decision knows.
    """

    before_hash: bytes
    before_prev: bytes
    before_seq: bytes
    before_time: bytes
    end: bytes

    def fill(self, prev: str, seq: int, time: int) -> tuple[bytes, str]:
        """Return the line, newline included, and its hash."""
        rest = b"%b%b%b%d%b%d%b" % (
            self.before_prev,
            prev.encode(),
            self.before_seq,
            seq,
            self.before_time,
            time,
            self.end,
        )
        state = _SHA256.copy()
        state.update(self.before_hash)
        state.update(rest)
        digest = state.hexdigest()
        return b"%b%b%b\n" % (self.before_hash, digest.encode(), rest), digest


def decision_line(
    tid: int,
    syscall: str,
    operations: Sequence[Operation],
    decided: Decision,
    action: ActionName,
    errno: str = "",
    object: str = "",
    epoch: int = 0,
) -> Line:
    """Return the record that `decision` and `link` would give, several times faster.

    Without what few records have: argv, detail, names of the destination, a destination of the run itself.
    """
    first = operations[0]
    target = first.target
    to = operations[1].target if len(operations) > 1 else target
    kinds = tuple([operation.kind for operation in operations])
    before_hash, ops, before_seq, before_target, end = _frame(
        syscall, kinds, decided.verdict, decided.reason, decided.rule, action, errno, epoch, first.protocol
    )
    return Line(
        before_hash,
        b'","object":"%b"%b' % (object.encode(), ops) if object else b'"' + ops,
        before_seq,
        b'%b%b,"tid":%d,"time":' % (before_target, _text(target), tid),
        b',"to":%b%b' % (_text(to), end) if to != target else end,
    )


class Template(NamedTuple):
    """The record of a decision that may be made again: all but `hash`, `object`, `prev`, `seq`, `tid` and `time`."""

    before_hash: bytes
    before_prev: bytes
    before_seq: bytes
    before_tid: bytes
    end: bytes


def template(
    syscall: str, operation: Operation, decided: Decision, epoch: int = 0, action: ActionName = "fd"
) -> Template:
    """Return what the records of one decision about one operation have in common."""
    kinds, protocol = (operation.kind,), operation.protocol
    before_hash, ops, before_seq, before_target, end = _frame(
        syscall, kinds, decided.verdict, decided.reason, decided.rule, action, "", epoch, protocol
    )
    return Template(before_hash, ops, before_seq, b'%b%b,"tid":' % (before_target, _text(operation.target)), end)


def template_beneath(
    syscall: str, kinds: tuple[Kind, ...], decided: Decision, epoch: int, action: ActionName, errno: str = ""
) -> Template:
    """Return the same for one decision about many paths; `before_tid` ends in the quotation mark before the path.

    Where a call has a second path, `end` begins after it.
    """
    before_hash, ops, before_seq, before_target, end = _frame(
        syscall, kinds, decided.verdict, decided.reason, decided.rule, action, errno, epoch, ""
    )
    return Template(before_hash, ops, before_seq, before_target + b'"', end)


@lru_cache(maxsize=4096)
def _frame(
    syscall: str,
    kinds: tuple[str, ...],
    verdict: str,
    reason: str,
    rule: str,
    action: str,
    errno: str,
    epoch: int,
    protocol: str,
) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Return the parts of a record that many decisions share."""
    failed = b',"epoch":%d' % epoch if epoch else b""
    failed += b',"errno":%b' % encode(errno) if errno else b""
    protocol_member = b'"protocol":%b,' % encode(protocol) if protocol else b""
    return (
        b'{"action":%b%b,"hash":"' % (encode(str(action)), failed),
        b',"ops":%b,"prev":"' % encode([str(kind) for kind in kinds]),
        b'",%b"reason":%b,"rule":%b,"seq":' % (protocol_member, encode(str(reason)), encode(rule)),
        b',"syscall":%b,"target":' % encode(syscall),
        b',"type":"decision","verdict":%b}' % encode(str(verdict)),
    )


@lru_cache(maxsize=8192)
def _text(value: str) -> bytes:
    return encode(escape(value))
