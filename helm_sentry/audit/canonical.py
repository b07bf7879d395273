"""Canonical JSON: one value, one sequence of bytes.

RFC 8785 restricted so that a C encoder can produce it: member names are ASCII (sorting by byte is then
sorting by UTF-16 unit), numbers are integers below 2**53 in magnitude (no float to print in two ways) and
strings are Unicode without surrogates. Everything that is hashed or signed goes through this module.

    dumps(value)    checks the whole value; for everything that is signed or verified
    encode(value)   checks what the encoder checks for free; for records, which are built from known types
"""

import json
import re
from typing import NoReturn

from helm_sentry.audit.codec import Fields, Json, decode, encode

__all__ = ["MAX_DEPTH", "Fields", "Json", "dumps", "encode", "escape", "loads", "unescape", "unique"]

MAX_DEPTH = 64
"""Containers within containers; more is refused, so that no input can exhaust the stack."""

_SCALARS = frozenset({str, int, bool, type(None)})
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_ESCAPE = re.compile(b"%([0-9A-F]{2})")


def dumps(value: Json) -> bytes:
    """Return the canonical bytes of a value after checking all of it.

    Raises:
        ValueError: the value has no canonical form.
    """
    _check(value, 0)
    return encode(value)


def loads(data: bytes, *, canonical: bool = False) -> Json:
    """Return the value that JSON text stands for, refusing text that readers could understand differently.

    Args:
        data: UTF-8 text of one JSON value.
        canonical: accept only the bytes that `dumps` would give for the same value.

    Raises:
        ValueError: not JSON, a repeated member, a float, or another value without a canonical form.
    """
    if canonical:
        # The decoder lets repeated members and white space through; the bytes it came from then differ.
        value = decode(data)
        if dumps(value) != data:
            raise ValueError("not canonical JSON")
        return value
    value = _read(data)
    dumps(value)
    return value


def escape(text: str | bytes) -> str:
    """Return a path or argument as text: a byte that is not UTF-8 becomes `%XX`, a literal `%` becomes `%25`.

    Different byte strings give different texts, and UTF-8 without `%` is left as it is. A `str` is taken as
    `os.fsdecode` gives it.

    Raises:
        ValueError: a surrogate that does not stand for a byte.
    """
    if isinstance(text, str):
        if text.isascii() and "%" not in text:
            return text
        text = text.encode("utf-8", "surrogateescape")
    unicode = text.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
    return _ESCAPED_BYTE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", unicode)


def unescape(text: str) -> str:
    """Return the path or argument that `escape` was given, as `os.fsdecode` gives it.

    Raises:
        ValueError: not something that `escape` returns.
    """
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text.encode()).decode("utf-8", "surrogateescape")
    if escape(raw) != text:
        raise ValueError(f"`{text}` is not an escaped path")
    return raw


def _check(value: object, depth: int) -> None:
    if type(value) in _SCALARS:
        return
    if depth >= MAX_DEPTH:
        raise ValueError(f"no canonical form: more than {MAX_DEPTH} levels deep")
    if type(value) is dict:
        _check_names(value)
        children = list(value.values())
    elif type(value) is list:
        children = value
    else:
        raise ValueError(f"no canonical form for {type(value).__name__}")
    # Scalars, the bulk of every record, are passed over in C; Python walks containers only.
    if not _SCALARS.issuperset(map(type, children)):
        for child in children:
            if type(child) not in _SCALARS:
                _check(child, depth + 1)


def _check_names(members: dict[str, object]) -> None:
    if set(map(type, members)) - {str}:
        raise ValueError("no canonical form: a member name that is not text")
    if not "".join(members).isascii():
        raise ValueError("no canonical form: a member name outside ASCII")


def _read(data: bytes) -> Json:
    try:
        value: Json = json.loads(
            data.decode("utf-8"), object_pairs_hook=unique, parse_float=_no_float, parse_constant=_no_float
        )
    except RecursionError:
        raise ValueError("no canonical form: too many levels deep") from None
    return value


def unique(pairs: list[tuple[str, Json]]) -> Fields:
    """Return the members of an object that was read.

    Raises:
        ValueError: one is there twice.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"member `{next(name for name in names if names.count(name) > 1)}` is given twice")
    return members


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"`{text}` is not an integer")
