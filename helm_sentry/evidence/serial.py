"""The bytes that HELM AI Kernel hashes. Pure.

It does not hash the JSON it reads: it reads it into structures and hashes what those print. So an optional member that
is empty is not there, a time always is, in one spelling, and a member the structure does not know is not there either.
"""

import hashlib
import re
from collections.abc import Collection
from datetime import UTC, datetime

from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.evidence.jcs import dumps

ZERO_TIME = "0001-01-01T00:00:00Z"
"""How a time that was never set is printed; it is never left out."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")


def digest(value: Json) -> str:
    """Return `sha256:` and the hex SHA-256 of a value's canonical bytes."""
    return "sha256:" + bare_digest(value)


def bare_digest(value: Json) -> str:
    """Return the hex SHA-256 of a value's canonical bytes, as receipt chains and graph nodes have it."""
    return hashlib.sha256(dumps(value)).hexdigest()


def data_digest(data: bytes) -> str:
    """Return `sha256:` and the hex SHA-256 of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def pruned(fields: Fields, keep: Collection[str] = ()) -> Fields:
    """Return the members that are not empty; those in `keep` stay whatever they hold."""
    return {name: value for name, value in fields.items() if name in keep or value not in ("", 0, None, [], {}, False)}


def instant(microseconds: int) -> str:
    """Return a time as HELM prints it: UTC, no zeros at the end of the fraction."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    tail = f"{fraction:06d}".rstrip("0")
    return f"{whole}.{tail}Z" if tail else f"{whole}Z"


def printed_time(value: Json) -> str:
    """Return a time that was read, as HELM prints it again; nothing is the zero time.

    Raises:
        ValueError: not an RFC 3339 time.
    """
    if value in (None, ""):
        return ZERO_TIME
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"`{value}` is not a time")
    whole, fraction, zone = found.groups()
    tail = (fraction or "").rstrip("0")
    return f"{whole}{'.' + tail if tail else ''}{'Z' if zone == '+00:00' else zone}"


def seconds_of(text: str) -> float:
    """Return an RFC 3339 time as seconds since the epoch, to the microsecond.

    Raises:
        ValueError: not a time.
    """
    printed_time(text)
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()
