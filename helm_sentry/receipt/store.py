"""The files of a run directory: created before the run, signed during it, sealed after it, and read back."""

import os
import secrets
import stat
import threading
from collections.abc import Iterator
from typing import BinaryIO

from helm_sentry.audit.canonical import Fields, dumps, escape, loads
from helm_sentry.audit.record import MAX_LINE, Totals
from helm_sentry.errors import AuditError, VerificationError
from helm_sentry.receipt.envelope import seal
from helm_sentry.receipt.keys import PublicKey, SigningKey
from helm_sentry.receipt.receipt import decision_statement, digest, needs_receipt, run_statement
from helm_sentry.receipt.report import DENIALS, DIGESTED, LOG, PUBLIC, SEAL, RunFiles

_CHUNK = 1 << 20
_MAX_DOCUMENT = 1 << 26
_MARKS = (b'"verdict":"DENY"', b'"verdict":"ESCALATE"')


def create_run(directory: str, facts: Fields, policy: Fields, plan: Fields, key: PublicKey) -> dict[str, str]:
    """Write what is known of a run before it starts, durably.

    Args:
        directory: the run directory, new and empty.
        facts: what goes into run.json.
        policy: what goes into policy.json.
        plan: what goes into plan.json.
        key: the key that will sign.

    Returns:
        Members for the start record, which makes the log vouch for these files.
    """
    digests = {"key": key.id}
    for (member, name), value in zip(DIGESTED.items(), (facts, policy, plan), strict=True):
        text = dumps(value)
        digests[member] = digest(text)
        _write_new(os.path.join(directory, name), text + b"\n")
    _write_new(os.path.join(directory, PUBLIC), key.export())
    os.mkdir(os.path.join(directory, os.path.dirname(DENIALS)), 0o700)
    _write_new(os.path.join(directory, DENIALS), b"")
    _sync_directory(os.path.join(directory, os.path.dirname(DENIALS)))
    _sync_directory(directory)
    return digests


def read_run(directory: str) -> RunFiles:
    """Return the files of a run directory; the two logs are read as they are iterated.

    Raises:
        VerificationError: a file is missing or cannot be read.
    """
    return RunFiles(
        documents={name: _read(directory, name) for name in DIGESTED.values()},
        public_key=_read(directory, PUBLIC),
        log=_lines(directory, LOG),
        denials=_lines(directory, DENIALS),
        seal=_read(directory, SEAL) if os.path.lexists(os.path.join(directory, SEAL)) else None,
        others=tuple(sorted(_others(directory))),
    )


class Signer:
    """Signs receipts for denials in a thread of its own.

    The log is its queue: it reads the log behind the supervisor, so a burst of denials costs the agent's
    path nothing and the supervisor no memory. Call `notify` after a record that needs a receipt; what was
    not signed by the end of the run, `seal` signs.

    Args:
        directory: the run directory, in which the log has been created.
        key: the key that signs.
    """

    def __init__(self, directory: str, key: SigningKey) -> None:
        self._directory, self._key = directory, key
        self._start: Fields = {}
        self._last = self._rest = b""
        self._read, self._count = 0, 0
        self._failure: Exception | None = None
        self._wake, self._stop = threading.Event(), False
        self._log = os.open(os.path.join(directory, LOG), os.O_RDONLY | os.O_CLOEXEC)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._denials = os.open(os.path.join(directory, DENIALS), flags)
        # A daemon, so that a supervisor that fails without calling close() still ends.
        self._thread = threading.Thread(target=self._serve, name="receipt signer", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Say that the log has a record that needs a receipt. Never waits.

        Raises:
            AuditError: an earlier receipt could not be written; the run must end.
        """
        if self._failure:
            raise AuditError(f"receipts cannot be written: {self._failure}") from self._failure
        self._wake.set()

    def seal(self, totals: Totals) -> bytes:
        """Sign what is left, then the whole run, durably, and close. Returns the run receipt.

        Args:
            totals: the log's own account of itself, after its end record.

        Raises:
            AuditError: a receipt could not be written, or the log on the disk is not as it was written.
        """
        try:
            self._finish()
            if self._read != totals.size or self._rest:
                raise AuditError(f"the log on the disk has {self._read} bytes, {totals.size} were written")
            if (end := _fields(self._last)).get("type") != "end":
                raise AuditError("the log has no end record, so the run cannot be sealed")
            os.fsync(self._log)
            os.fsync(self._denials)
            receipt = seal(dumps(run_statement(self._start, end, totals)), self._key)
            _replace(os.path.join(self._directory, SEAL), receipt + b"\n")
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
        self._stop = True
        self._wake.set()
        self._thread.join()
        self.notify()

    def _close(self) -> None:
        os.close(self._log)
        os.close(self._denials)

    def _serve(self) -> None:
        try:
            # `_stop` is read before draining, so what was logged before it was set is certain to be seen.
            stopping = False
            while not stopping:
                self._wake.wait()
                self._wake.clear()
                stopping = self._stop
                self._drain()
        except (OSError, ValueError, AuditError) as error:
            self._failure = error

    def _drain(self) -> None:
        while chunk := os.read(self._log, _CHUNK):
            self._read += len(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            if lines and not self._start:
                self._start = _fields(lines[0])
            for line in lines:
                # A quotation mark in a string would be escaped, so most lines need not be parsed.
                if any(mark in line for mark in _MARKS):
                    self._sign(_fields(line))
            self._last = lines[-1] if lines else self._last

    def _sign(self, record: Fields) -> None:
        if not needs_receipt(record):
            return
        line = seal(dumps(decision_statement(self._start, record)), self._key) + b"\n"
        if os.write(self._denials, line) != len(line):
            raise AuditError(f"`{DENIALS}` was cut short; is the disk full?")


def _fields(line: bytes) -> Fields:
    fields = loads(line, canonical=True)
    if not isinstance(fields, dict):
        raise ValueError("the log holds something that is not a record")
    return fields


def _write_new(path: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: str, data: bytes) -> None:
    # write(tmp); fsync(tmp); rename(tmp, path); fsync(dir): the seal is there whole, or not at all.
    temporary = f"{path}.{secrets.token_hex(8)}"
    try:
        _write_new(temporary, data)
        os.replace(temporary, path)
    except OSError:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    _sync_directory(os.path.dirname(path))


def _sync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open(directory: str, name: str) -> BinaryIO:
    path = os.path.join(directory, name)
    try:
        # Opening a FIFO that somebody put there would wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise VerificationError(f"{name}: not a regular file")
        return open(path, "rb")
    except OSError as error:
        raise VerificationError(f"{name}: {error.strerror}") from error


def _read(directory: str, name: str) -> bytes:
    with _open(directory, name) as file:
        return file.read(_MAX_DOCUMENT)


def _lines(directory: str, name: str) -> Iterator[bytes]:
    with _open(directory, name) as file:
        while line := file.readline(MAX_LINE):
            yield line


def _others(directory: str) -> Iterator[str]:
    known = {LOG, DENIALS, SEAL, PUBLIC, *DIGESTED.values()}
    for parent, _, names in os.walk(directory):
        paths = (os.path.relpath(os.path.join(parent, name), directory) for name in names)
        yield from (escape(path) for path in paths if path not in known)
