"""What was done to a log, judged by the first line that does not stand where it should. Pure.

A word for the person who reads the report. That the log fails is decided before.
"""

import hashlib
from collections.abc import Iterable
from itertools import islice

from helm_sentry.audit.canonical import Fields, loads
from helm_sentry.decision import Verdict

_LOOK_AHEAD = 4096  # lines
_SECTOR = 512
"""What a disk writes whole; pages, which a file system may lose, are multiples of it."""


def explain(line: bytes, due: int, head: str, following: Iterable[bytes]) -> str:
    """Return what was done, or nothing when no more can be said than that the line is wrong.

    Args:
        line: the line without its newline.
        due: the sequence number that should stand here.
        head: hash of the record before.
        following: the lines after it.
    """
    record = _record(line)
    if not record:
        return "the record was changed: it is not canonical JSON any more"
    if _hash(line, record) != record.get("hash"):
        return _changed(line, record)
    sequence = record.get("seq")
    if not isinstance(sequence, int):
        return ""
    if sequence < due:
        if record.get("hash") == head:
            return f"record {sequence} stands here a second time: it was duplicated"
        return f"record {sequence} stands here, where {due} is due: it was duplicated, or is of another run"
    if sequence > due:
        below = _find(due, head, following)
        if below:
            return f"record {sequence} stands here, and {due} stands {below} below: they were reordered"
        missing = f"record {due} is" if sequence == due + 1 else f"records {due} to {sequence - 1} are"
        return f"record {sequence} stands here: {missing} missing, removed"
    if _find(due, head, following):
        return f"the record was inserted: the true record {due} stands below"
    return "the chain is broken: this record does not follow the one before; one was replaced, or is of another run"


def lost(line: bytes, offset: int) -> bool:
    """Return whether a power failure may have left this line: whole sectors of zeros within or behind it.

    Args:
        line: what was read up to the next newline, or to the end of the file.
        offset: where in the file it begins.
    """
    first = line.find(b"\0")
    if first < 0 or (offset + first) % _SECTOR:
        return False
    end = first + len(line[first:]) - len(line[first:].lstrip(b"\0"))
    return (offset + end) % _SECTOR == 0 or end == len(line)


def _record(line: bytes) -> Fields:
    try:
        fields = loads(line, canonical=True)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _hash(line: bytes, record: Fields) -> str:
    head, _, tail = line.partition(f'"hash":"{record.get("hash")}"'.encode())
    return hashlib.sha256(head + b'"hash":""' + tail).hexdigest()


def _changed(line: bytes, record: Fields) -> str:
    given = str(record.get("verdict"))
    for verdict in Verdict:
        was = line.replace(f'"verdict":"{given}"'.encode(), f'"verdict":"{verdict}"'.encode())
        if was != line and _hash(was, record) == record.get("hash"):
            return f"the record was changed: its verdict was flipped from {verdict} to {given}"
    return ""


def _find(due: int, head: str, following: Iterable[bytes]) -> int:
    """Return how many lines below the record stands that is due, or 0."""
    for below, line in enumerate(islice(following, _LOOK_AHEAD), 1):
        record = _record(line.removesuffix(b"\n"))
        if record.get("seq") == due and record.get("prev") == head and _hash(line[:-1], record) == record.get("hash"):
            return below
    return 0
