"""The files of a log: the segment that is written, and the closed ones before it, compressed or not.

    audit.jsonl  audit.000001.jsonl  audit.000002.jsonl …     in order; a closed one may be NAME.gz instead

A segment is created after the last line of the one before was written, so whoever finds it and has read the one
before to its end, has all of it.
"""

import gzip
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, cast

from helm_sentry.errors import VerificationError

LOG_NAME = "audit.jsonl"
COMPRESSED = ".gz"
CHUNK = 1 << 18


def segment_name(number: int) -> str:
    """Return the file name of a segment, the first being 0."""
    return LOG_NAME if number == 0 else f"audit.{number:06d}.jsonl"


def stored_name(directory: str, number: int) -> str | None:
    """Return the name under which a segment is there, or None. While it is being compressed the plain file counts."""
    name = segment_name(number)
    for candidate in (name, name + COMPRESSED):
        if os.path.lexists(os.path.join(directory, candidate)):
            return candidate
    return None


def stored_names(directory: str) -> Iterator[str]:
    """Return the names of all segments that are there, in order."""
    number = 0
    while (name := stored_name(directory, number)) is not None:
        yield name
        number += 1


def open_file(directory: str, name: str, *, buffering: int = -1, plain: bool = False) -> BinaryIO:
    """Open a regular file of a run directory for reading; unless `plain`, a compressed one as what it holds.

    Raises:
        VerificationError: there is none, or it cannot be opened.
    """
    path = os.path.join(directory, name)
    try:
        # Opening a FIFO that somebody put there would wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise VerificationError(f"{name}: not a regular file")
        if name.endswith(COMPRESSED) and not plain:
            return cast(BinaryIO, gzip.open(path, "rb"))
        return open(path, "rb", buffering=buffering)
    except OSError as error:
        raise VerificationError(f"{name}: {error.strerror}") from error


class Follower:
    """Reads a log from its start, also while it is written; knows which segments it is done with.

    Args:
        directory: the run directory, in which the log has been created.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.number = 0
        self._file = self._open(0)

    def read(self) -> bytes:
        """Return what comes next, or nothing when no more is written yet."""
        if chunk := self._read():
            return chunk
        if stored_name(self._directory, self.number + 1) is None:
            return b""
        if chunk := self._read():  # written between the look at this segment and the look for the next
            return chunk
        self._file.close()
        self.number += 1
        self._file = self._open(self.number)
        return self._read()

    def sync(self) -> None:
        """Return when everything that was read is on the disk."""
        if not isinstance(self._file, gzip.GzipFile):  # a compressed one was synced before it got its name
            os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Give the descriptor back."""
        self._file.close()

    def _read(self) -> bytes:
        return self._file.read(CHUNK)

    def _open(self, number: int) -> BinaryIO:
        name = stored_name(self._directory, number) or segment_name(number)
        try:
            return open_file(self._directory, name, buffering=0)
        except VerificationError:
            # Found plain, and compressed before it was opened.
            return open_file(self._directory, segment_name(number) + COMPRESSED)
