"""The thread that signs: checkpoints, receipts of denials, and at the end the run.

It follows the log as it is written, which is its queue: a burst of denials costs the agent's path nothing and the
supervisor no memory. In this order, so that after a power failure a signature never speaks for records that are lost:

    read(log)                     what was written meanwhile; leaf by leaf into the tree
    fdatasync(log)
    write(receipts, tree, checkpoints)
"""

import os
import threading
import time
from collections.abc import Callable

from helm_sentry.audit.canonical import Fields, dumps, loads
from helm_sentry.audit.checkpoint import MOST_RECORDS, Checkpoint
from helm_sentry.audit.merkle import BLOCK, BlockTree, leaf_hash
from helm_sentry.audit.record import Totals, mediated
from helm_sentry.audit.segments import Follower
from helm_sentry.errors import AuditError, SentryError
from helm_sentry.receipt.archive import Archive
from helm_sentry.receipt.envelope import seal
from helm_sentry.receipt.files import replace
from helm_sentry.receipt.keys import SigningKey
from helm_sentry.receipt.receipt import block_line, decision_statement, needs_receipt, run_statement
from helm_sentry.receipt.report import CHECKPOINTS, DENIALS, SEAL, TREE
from helm_sentry.receipt.store import sync_run

_CHECKPOINT_EVERY = 1.0  # seconds
_LOOK_EVERY = 0.25  # seconds; a log that grows faster has checkpoints by number of records
_GATHER = 0.02  # seconds between two flushes, so that a flood of denials is not a flood of fdatasync
_FLUSH_ABOVE = 1 << 20  # bytes of signatures to hold back at most
_WITNESS = b'"type":"witness"'
_PLAIN = b'"type":"decision","verdict":"ALLOW"}\n'  # ends a line; in a string its quotation marks would be escaped
_MARKS = (b'"verdict":"DENY"', b'"verdict":"ESCALATE"', b'"type":"gap"', b'"type":"approval"')
# The interpreter runs one thread at a time and would let the supervisor wait for milliseconds. After so many seconds of
# work, which is one receipt or some fifty other lines, this thread lets go, long enough for another to get its turn.
_AT_ONCE, _LET_GO = 100e-6, 50e-6
_TOGETHER = 32  # lines between two looks at the clock
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Signer:
    """Signs while a run goes on, in a thread of its own.

    Call `notify` after a record that needs a receipt; what was not signed by the end of the run, `seal` signs.

    Args:
        directory: the run directory, in which the log has been created.
        key: the key that signs.
        on_failure: called on the signer's thread when it can sign no more; the run must end.
        require_key: raises SentryError when the key may be used no more; asked before each round of signatures.
    """

    def __init__(
        self,
        directory: str,
        key: SigningKey,
        on_failure: Callable[[Exception], None] = lambda error: None,
        require_key: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory, self._key, self._on_failure, self._require_key = directory, key, on_failure, require_key
        self._failure: Exception | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        self._log = Follower(directory)
        self._archive = Archive(directory, key)
        self._outputs = {name: _Output(directory, name) for name in (DENIALS, TREE, CHECKPOINTS)}
        self._start: Fields = {}
        self._last = self._rest = b""
        self._tree, self._block_offset = BlockTree(), 0
        self._read = self._taken = self._signed = 0
        self._described = False
        self._witness: tuple[int, int] | None = None
        self._signed_at = time.monotonic()
        # A daemon, so that a supervisor that fails without calling close() still ends.
        self._thread = threading.Thread(target=self._serve, name="receipt signer", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Say that the log has a record that needs a receipt. Never waits.

        Raises:
            AuditError: something could not be signed or written; the run must end.
        """
        if self._failure:
            raise AuditError(f"receipts cannot be written: {self._failure}") from self._failure
        self._wake.set()

    def seal(self, totals: Totals) -> bytes:
        """Sign what is left, then the whole run, durably, and close. Returns the run receipt.

        Args:
            totals: the log's own account of itself, after its end record.

        Raises:
            AuditError: something could not be written, or the log on the disk is not as it was written.
        """
        try:
            self._finish()
            if self._taken != totals.size or self._rest:
                raise AuditError(f"the log on the disk has {self._read} bytes, {totals.size} were written")
            if (end := _fields(self._last)).get("type") != "end":
                raise AuditError("the log has no end record, so the run cannot be sealed")
            for output in self._outputs.values():
                output.sync()
            receipt = seal(dumps(run_statement(self._start, end, totals, self._tree.root())), self._key)
            replace(os.path.join(self._directory, SEAL), receipt + b"\n")
            return receipt
        except (OSError, ValueError) as error:
            raise AuditError(f"the run receipt cannot be written: {error}") from error
        finally:
            self._close()

    def close(self) -> None:
        """Sign what is left and stop, leaving the run without a seal."""
        try:
            self._finish()
        finally:
            self._close()

    def _finish(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join()
        self._archive.finish()
        self.notify()

    def _close(self) -> None:
        self._log.close()
        for output in self._outputs.values():
            output.close()

    def _serve(self) -> None:
        try:
            # `_stop` is read before the log, so what was logged before it was set is certain to be seen.
            stopping = False
            while not stopping:
                self._wake.wait(_LOOK_EVERY)
                self._wake.clear()
                stopping = self._stop.is_set()
                self._require_key()
                self._follow()
                if stopping or time.monotonic() - self._signed_at >= _CHECKPOINT_EVERY:
                    self._checkpoint()
                self._flush()
                self._stop.wait(_GATHER)
        except (OSError, ValueError, SentryError) as error:
            self._fail(error)
        except Exception as error:  # a mistake of ours: without this thread nothing is signed any more
            self._fail(error)
            raise

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._on_failure(AuditError(f"receipts cannot be written: {error}"))

    def _follow(self) -> None:
        segment = self._log.number
        while chunk := self._log.read():
            if self._log.number != segment:
                self._archive.add(segment, str(self._start.get("run")))
                segment = self._log.number
            self._read += len(chunk)
            text = self._rest + chunk
            *lines, self._rest = text.split(b"\n")
            self._take_all(lines, special=text.count(_PLAIN) != len(lines))
            if sum(output.size for output in self._outputs.values()) > _FLUSH_ABOVE:
                self._flush()

    def _take_all(self, lines: list[bytes], *, special: bool) -> None:
        began, at, together = time.perf_counter(), 0, 1 if special else _TOGETHER
        while at < len(lines):
            size = self._tree.size  # neither a block nor the records of a checkpoint end between those taken together
            room = min(together, BLOCK - size % BLOCK, self._signed + MOST_RECORDS - size)
            self._take(lines[at : at + room], special=special)
            at += room
            if time.perf_counter() - began > _AT_ONCE and not self._stop.is_set():
                time.sleep(_LET_GO)
                began = time.perf_counter()

    def _take(self, lines: list[bytes], *, special: bool) -> None:
        if not self._start:
            self._start = _fields(lines[0])
        block = self._tree.extend([leaf_hash(line) for line in lines])
        self._last, self._taken = lines[-1], self._taken + sum(map(len, lines)) + len(lines)
        if block is not None:
            self._outputs[TREE].add(block_line(self._block_offset, block))
            self._block_offset = self._taken
        if special:
            for line in lines:
                self._look_at(line)
        if self._tree.size - self._signed >= MOST_RECORDS:
            self._checkpoint()

    def _look_at(self, line: bytes) -> None:
        if _WITNESS in line:
            self._witness = mediated(_fields(line)) or self._witness
        # A quotation mark in a string would be escaped, so most lines need not be parsed.
        if any(mark in line for mark in _MARKS) and needs_receipt(record := _fields(line)):
            statement = decision_statement(self._start, record)
            self._outputs[DENIALS].add(seal(dumps(statement), self._key) + b"\n")

    def _checkpoint(self) -> None:
        """Sign the tree as it is, unless it was signed at this size."""
        if self._tree.size > self._signed:
            found = Checkpoint(str(self._start.get("run")), self._tree.size, self._tree.root(), self._witness)
            self._outputs[CHECKPOINTS].add(found.sign(self._key.public.data, self._key.sign))
            self._signed = self._tree.size
        self._signed_at = time.monotonic()

    def _flush(self) -> None:
        """Write what was signed, after what it speaks for is on the disk."""
        if any(output.size for output in self._outputs.values()):
            if not self._described:  # once: what the start record speaks for
                sync_run(self._directory)
                self._described = True
            self._log.sync()
            for output in self._outputs.values():
                output.flush()


class _Output:
    """A file that grows by what was gathered for it, a whole piece at a time."""

    def __init__(self, directory: str, name: str) -> None:
        self._name, self._gathered, self.size = name, [b""], 0
        self._file = os.open(os.path.join(directory, name), _APPEND)

    def add(self, data: bytes) -> None:
        self._gathered.append(data)
        self.size += len(data)

    def flush(self) -> None:
        """Write what was gathered.

        Raises:
            AuditError: not all of it could be written.
        """
        if self.size and os.write(self._file, b"".join(self._gathered)) != self.size:
            raise AuditError(f"`{self._name}` was cut short; is the disk full?")
        self._gathered, self.size = [], 0

    def sync(self) -> None:
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def _fields(line: bytes) -> Fields:
    fields = loads(line, canonical=True)
    if not isinstance(fields, dict):
        raise ValueError("the log holds something that is not a record")
    return fields
