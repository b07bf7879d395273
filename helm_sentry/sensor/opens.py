"""The log of what the kernel lets through by itself: each open it reports becomes a decision's record.

The kernel has judged already. Its verdict is looked up again, by `decide` on the path of the object that was opened;
where the two differ, that is a gap.
"""

import errno
import os
import posixpath
import time
from collections.abc import Callable, Iterable

from helm_sentry.abi.flags import AT_FDCWD
from helm_sentry.audit import record
from helm_sentry.audit.canonical import Fields
from helm_sentry.audit.line import Line, Template, template
from helm_sentry.audit.log import AuditLog
from helm_sentry.broker.path_descriptors import OWN_OBJECT
from helm_sentry.broker.rules import Rules
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.sensor.opened import Opened, opened

UNSURE = "another thread closed descriptors meanwhile, so it may have been another file"

_REFUSED = Decision(Verdict.DENY, Reason.KERNEL)
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_AT_ONCE, _LET_GO = 256, 50e-6  # as receipt/signer.py: the supervisor's other threads must have their turn
_MOST_KNOWN = 8192


class Opens:
    """Writes the records.

    Args:
        log: the run's log.
        syscalls: names by number.
        rules: returns the rules of the moment.
        on_denial: told of each refusal after its record is written, and whether there is such a file.
        on_gap: told a code and a sentence when the kernel allowed what `decide` would not.
    """

    def __init__(
        self,
        log: AuditLog,
        syscalls: dict[int, str],
        rules: Callable[[], Rules],
        on_denial: Callable[[Operation, Decision, bool], None],
        on_gap: Callable[[str, str], None],
    ) -> None:
        self._log, self._syscalls, self._rules = log, syscalls, rules
        self._on_denial, self._on_gap = on_denial, on_gap
        self._known: dict[tuple[int, Kind, str, str, int], Template] = {}  # records of the plain opens so far
        self.count = 0

    def take(self, events: Iterable[bytes]) -> None:
        """Write the records of what the kernel reported, in its order.

        Raises:
            AuditError: a record could not be written.
        """
        lines: list[Line] = []
        for data in events:
            found = opened(data)
            self.count += 1
            if (line := self._line(found)) is not None:
                lines.append(line)
            if line is None or len(lines) >= _AT_ONCE:
                self._write(lines)
                if line is None:
                    self._append(found)
                else:
                    time.sleep(_LET_GO)
        self._write(lines)

    def _write(self, lines: list[Line]) -> None:
        if lines:
            self._log.append_decisions(lines, str(Verdict.ALLOW))
            lines.clear()

    def _line(self, found: Opened) -> Line | None:
        """Return the record of a plain open that is allowed, None for whatever is not that."""
        if found.result < 0 or not (found.known and found.sure) or found.own or found.kind is None:
            return None
        rules = self._rules()
        key = (found.syscall, found.kind, found.path, found.object, rules.epoch)
        if (known := self._known.get(key)) is None:
            operation = Operation(found.kind, path=found.path)
            decided = rules.decide((operation,), found.tid)
            if not decided.allowed:
                return None
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = template(self._syscalls[found.syscall], operation, decided, rules.epoch, "kernel")
            ops = b'","object":"%b"%b' % (found.object.encode(), known.before_prev)
            self._known[key] = known = known._replace(before_prev=ops)
        before_time = b'%b%d,"time":' % (known.before_tid, found.tid)
        return Line(known.before_hash, known.before_prev, known.before_seq, before_time, known.end)

    def _append(self, found: Opened) -> None:
        """Write the record of anything else."""
        if found.repeated:
            return
        if found.result < 0:
            self._failed(found)
        elif not found.known or found.kind is None:
            self._on_gap(
                "unnamed", f"thread {found.tid} opened a file whose path is unknown: {found.path} {found.object}"
            )
        else:
            operation = Operation(found.kind, path=found.path)
            decided = OWN_OBJECT if found.own else self._rules().decide((operation,), found.tid)
            if decided.allowed:
                self._log.append(self._record(found, operation, decided, detail="" if found.sure else UNSURE))
            else:
                self._on_gap(
                    "beyond", f"the kernel let thread {found.tid} open {found.path}, which the policy does not"
                )

    def _failed(self, found: Opened) -> None:
        code = -found.result
        if not found.path:
            self._log.append(
                record.notice("bad-arguments", f"an open by thread {found.tid} failed: {os.strerror(code)}")
            )
            return
        kind = Kind.FILE_STAT if code in _NOT_THERE else Kind.FILE_READ
        operation = Operation(kind, path=_absolute(found, self._syscalls[found.syscall]))
        decided = self._rules().decide((operation,), found.tid)
        if code == errno.EACCES and decided.allowed:
            decided = _REFUSED  # by permissions, or what the name leads to has another path
        name = errno.errorcode.get(code, str(code))
        self._log.append(self._record(found, operation, decided, error=name, detail="the path as it was passed"))
        if not decided.allowed:
            self._on_denial(operation, decided, code not in _NOT_THERE)

    def _record(
        self, found: Opened, operation: Operation, decided: Decision, *, error: str = "", detail: str = ""
    ) -> Fields:
        return record.decision(
            found.tid,
            self._syscalls[found.syscall],
            (operation,),
            decided,
            "errno" if error else "kernel",
            errno=error,
            object=found.object,
            detail=detail,
            epoch=self._rules().epoch,
        )


def _absolute(found: Opened, syscall: str) -> str:
    """Return where a passed path begins from the root; the thread may have moved on or ended since."""
    if found.path.startswith("/"):
        return posixpath.normpath(found.path)
    where = "cwd" if syscall == "open" or found.directory == AT_FDCWD else f"fd/{found.directory}"
    try:
        return posixpath.normpath(posixpath.join(os.readlink(f"/proc/{found.tid}/{where}"), found.path))
    except OSError:
        return found.path
