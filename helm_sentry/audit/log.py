"""The audit log of a running run: append-only, chained, one `write(2)` a record.

    openat(dir, "audit.jsonl", O_WRONLY|O_APPEND|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0600); fsync(dir)
    write(log, line)         once per record, before the agent resumes: a killed supervisor loses nothing
    fdatasync(log)           at `sync`, so that a crashed kernel loses nothing before it
    openat(dir, temporary); rename(temporary, "audit.000001.jsonl"); fdatasync(old)     at `rotate`

After a write that failed or fell short nobody can know what the file holds, so the log takes nothing more.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from helm_sentry.audit.canonical import Fields
from helm_sentry.audit.line import Line
from helm_sentry.audit.record import FIRST_PREV, Totals, link
from helm_sentry.audit.segments import LOG_NAME, segment_name
from helm_sentry.decision import Verdict
from helm_sentry.errors import AuditError

SEGMENT_SIZE = 64 << 20
"""Bytes after which a log goes on in another file."""

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LogState(Protocol):
    """What a log amounts to so far. Whoever appends enters it first.

    Attributes:
        file: descriptor of the file, -1 when there is none any more.
        count: number of records written.
        size: bytes written.
        allowed: decisions with the verdict ALLOW that the compiled receiver wrote.
        closed: nothing may be appended any more; the error, where the compiled receiver could not write.
        head: hash of the last record.
    """

    file: int
    count: int
    size: int
    allowed: int
    closed: int
    head: str

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class OwnState:
    """The state of a log that only Python appends to."""

    def __init__(self) -> None:
        self.file, self.count, self.size, self.allowed, self.closed, self.head = -1, 0, 0, 0, 0, FIRST_PREV
        lock = threading.Lock()
        self._acquire, self._release = lock.acquire, lock.release

    def __enter__(self) -> None:
        self._acquire()

    def __exit__(self, *_: object) -> None:
        self._release()


class AuditLog:
    """The log of one run, shared by all threads of the supervisor.

    Args:
        directory: the run directory, as a path or a descriptor that stays the caller's.
        run_id: names the run in errors.
        clock: nanoseconds since the epoch.
        degraded: layers that are missing; every record names them.
        state: where the count and the last hash are kept, if the compiled receiver is to append too.
    """

    def __init__(
        self,
        directory: int | str,
        run_id: str,
        clock: Callable[[], int] = time.time_ns,
        degraded: Sequence[str] = (),
        state: LogState | None = None,
    ) -> None:
        self._run_id, self._clock, self.degraded = run_id, clock, tuple(degraded)
        self._state = OwnState() if state is None else state
        self._upkeep = threading.Lock()
        self._failure = ""
        self._segment, self._segment_start = 0, 0
        self._counts = {str(verdict): 0 for verdict in Verdict}
        try:
            self._directory, self._state.file = _create(directory)
        except OSError as error:
            raise AuditError(f"the audit log of run `{run_id}` cannot be created: {error}") from error

    def append(self, fields: Fields) -> int:
        """Write one record and return its sequence number.

        `fields` is completed in place with `seq`, `time`, `prev` and `hash`.

        Raises:
            AuditError: the record was not written. If it has no canonical form the log can still take others;
                after a failed write it takes none.
        """
        with self._state:
            return self._append(fields)

    def _append(self, fields: Fields) -> int:
        state = self._state
        self._require_open()
        fields["seq"] = sequence = state.count
        fields["time"] = self._clock() // 1000
        fields["prev"] = state.head
        if self.degraded:
            fields["degraded"] = list(self.degraded)
        try:
            line = link(fields)
        except ValueError as error:
            raise AuditError(f"a record of run `{self._run_id}` cannot be written: {error}") from error
        self._write(line)
        state.head = fields["hash"]  # type: ignore[assignment]  # link() put text there
        state.count = sequence + 1
        state.size += len(line)
        if (verdict := fields.get("verdict")) is not None:
            self._counts[verdict] += 1  # type: ignore[index]  # decisions are built from a Verdict
        return sequence

    def end(self, last: Callable[[dict[str, int]], Fields]) -> int:
        """Write the last record, which `last` makes from the final counts; the log takes nothing after it."""
        with self._state:
            sequence = self._append(last(self.counts))
            self._close(f"run `{self._run_id}` has ended")
            return sequence

    def append_decision(self, line: Line, verdict: str) -> int:
        """Write the record of a decision that is in bytes already; otherwise as `append`. Not for a degraded run."""
        state = self._state
        with state:
            self._require_open()
            sequence = state.count
            text, head = line.fill(state.head, sequence, self._clock() // 1000)
            self._write(text)
            state.head, state.count = head, sequence + 1
            state.size += len(text)
            self._counts[verdict] += 1
            return sequence

    def append_decisions(self, lines: Sequence[Line], verdict: str) -> None:
        """Write the records of several decisions with one verdict, in one piece; otherwise as `append_decision`."""
        state = self._state
        with state:
            self._require_open()
            head, count, now, texts = state.head, state.count, self._clock() // 1000, []
            for sequence, line in enumerate(lines, count):
                text, head = line.fill(head, sequence, now)
                texts.append(text)
            self._write(whole := b"".join(texts))
            state.head, state.count = head, count + len(texts)
            state.size += len(whole)
            self._counts[verdict] += len(texts)

    def sync(self) -> None:
        """Return when everything appended is on the disk.

        Raises:
            AuditError: it cannot be known to be there; the log takes nothing more.
        """
        try:
            with self._upkeep:
                os.fdatasync(self._state.file)
        except OSError as error:
            # A second fdatasync may report success for pages the kernel has already dropped.
            raise self._dead(str(error)) from error

    def rotate(self, above: int = SEGMENT_SIZE) -> bool:
        """Go on in a new segment if this one has more than `above` bytes. Not for the agent's path.

        Raises:
            AuditError: there can be no new segment; the log takes nothing more.
        """
        if self._state.size - self._segment_start <= above or self._state.closed:
            return False
        name = segment_name(self._segment + 1)
        try:
            with self._upkeep:
                temporary = f".{name}"
                new = os.open(temporary, _FLAGS, 0o600, dir_fd=self._directory)
                with self._state:
                    # It gets its name when nothing can be written to the old one any more.
                    os.rename(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                    old, self._state.file = self._state.file, new
                    self._segment, self._segment_start = self._segment + 1, self._state.size
                os.fdatasync(old)
                os.close(old)
                os.fsync(self._directory)
        except OSError as error:
            raise self._dead(str(error)) from error
        return True

    def close(self) -> None:
        """Take no more records and give the descriptors back."""
        with self._upkeep, self._state:
            if self._state.file >= 0:
                os.close(self._state.file)
                os.close(self._directory)
            self._state.file = self._directory = -1
            self._close(f"the audit log of run `{self._run_id}` is closed")

    @property
    def count(self) -> int:
        """Number of records written."""
        return self._state.count

    @property
    def head(self) -> str:
        """Hash of the last record."""
        return self._state.head

    @property
    def counts(self) -> dict[str, int]:
        """Number of decisions by verdict."""
        return self._counts | {"ALLOW": self._counts["ALLOW"] + self._state.allowed}

    @property
    def totals(self) -> Totals:
        """All of the above and the size, as they were at one moment."""
        state = self._state
        with state:
            return Totals(records=state.count, counts=self.counts, head=state.head, size=state.size)

    def _require_open(self) -> None:
        if self._state.closed:
            raise AuditError(self._failure or self._unwritable(os.strerror(self._state.closed)))

    def _close(self, why: str) -> None:
        self._failure, self._state.closed = self._failure or why, 1

    def _unwritable(self, why: str) -> str:
        return f"the audit log of run `{self._run_id}` cannot be written: {why}"

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._state.file, line)
        except OSError as error:
            raise self._dead(str(error)) from error
        if written != len(line):
            raise self._dead(f"only {written} of {len(line)} bytes were written; is the disk full?")

    def _dead(self, why: str) -> AuditError:
        self._failure, self._state.closed = self._unwritable(why), 1
        return AuditError(self._failure)


def _create(directory: int | str) -> tuple[int, int]:
    """Return descriptors of the directory, which is not looked up by name again, and of the new log in it."""
    if isinstance(directory, int):
        opened = os.dup(directory)
    else:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        file = os.open(LOG_NAME, _FLAGS, 0o600, dir_fd=opened)
        os.fsync(opened)
    except OSError:
        os.close(opened)
        raise
    return opened, file
