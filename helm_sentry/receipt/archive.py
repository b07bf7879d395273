"""Compression of the closed segments of a log, behind the run.

Compressed bytes have many spellings, so each file gets a signed statement of its digest:

    write(.NAME.gz); fsync; append statement to receipts/segments.jsonl; fsync; rename(.NAME.gz, NAME.gz); fsync(dir)
    unlink(NAME)

A crash in between leaves the plain segment, which then counts, with or without a copy beside it.
"""

import gzip
import hashlib
import os
import queue
import shutil
import threading

from helm_sentry.audit.canonical import dumps
from helm_sentry.audit.segments import CHUNK, COMPRESSED, segment_name
from helm_sentry.errors import AuditError
from helm_sentry.receipt.envelope import seal
from helm_sentry.receipt.files import sync_directory
from helm_sentry.receipt.keys import SigningKey
from helm_sentry.receipt.receipt import segment_statement
from helm_sentry.receipt.report import SEGMENTS

_LEVEL = 6
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Archive:
    """Compresses segments one after the other, in a thread that starts with the first.

    Args:
        directory: the run directory.
        key: the key that signs.
    """

    def __init__(self, directory: str, key: SigningKey) -> None:
        self._directory, self._key = directory, key
        self._closed: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None

    def add(self, number: int, run: str) -> None:
        """Have a segment compressed that was read to its end. Never waits.

        Raises:
            AuditError: an earlier one could not be.
        """
        self._raise_failure()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="archive", daemon=True)
            self._thread.start()
        self._closed.put((number, run))

    def finish(self) -> None:
        """Return when every segment that was added is compressed.

        Raises:
            AuditError: one could not be.
        """
        if self._thread is not None:
            self._closed.put(None)
            self._thread.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure:
            raise AuditError(f"a closed segment of the log cannot be compressed: {self._failure}") from self._failure

    def _serve(self) -> None:
        try:
            while (segment := self._closed.get()) is not None:
                self._compress(*segment)
        except OSError as error:
            self._failure = error

    def _compress(self, number: int, run: str) -> None:
        plain = os.path.join(self._directory, segment_name(number))
        hidden = os.path.join(self._directory, f".{segment_name(number)}{COMPRESSED}")
        with open(plain, "rb") as source, open(os.open(hidden, _NEW, 0o600), "wb") as target:
            # Neither a name nor a time in the header: the same log gives the same bytes.
            with gzip.GzipFile("", "wb", _LEVEL, target, mtime=0) as packed:
                shutil.copyfileobj(source, packed, CHUNK)
            target.flush()
            os.fsync(target.fileno())
        with open(hidden, "rb") as file:
            stored = hashlib.file_digest(file, "sha256").hexdigest()
        self._state(seal(dumps(segment_statement(run, number, stored)), self._key) + b"\n")
        os.rename(hidden, plain + COMPRESSED)
        sync_directory(self._directory)
        os.unlink(plain)

    def _state(self, line: bytes) -> None:
        with open(os.open(os.path.join(self._directory, SEGMENTS), _APPEND, 0o600), "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
