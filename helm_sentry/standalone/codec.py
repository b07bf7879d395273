"""Stands in for `audit/codec.py` where there is no orjson: the same text and refusals, by the standard library.

`dumps` of `audit/canonical.py` sees to floats and names; what is left here are sizes and surrogates.
"""

import json
from typing import Any, TypeAlias

Json: TypeAlias = Any
Fields: TypeAlias = dict[str, Any]

_LARGEST = 2**53 - 1
_LONGEST = 20  # characters of an integer that orjson reads as one


def encode(value: Json) -> bytes:
    """Return the canonical bytes of a value.

    Raises:
        ValueError: a string holds a surrogate, an integer is too large, or a type is not JSON's.
    """
    _check(value)
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"no canonical form: {error}") from error


def decode(data: bytes) -> Json:
    """Return the value of JSON text; of a repeated member the last one.

    Raises:
        ValueError: not JSON.
    """
    try:
        return json.loads(data.decode(), parse_int=_integer, parse_constant=_constant)
    except RecursionError:
        raise ValueError("too many levels deep") from None


def _check(value: Json) -> None:
    if type(value) is int and abs(value) > _LARGEST:
        raise ValueError(f"no canonical form: {value} is too large")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check(inner)


def _integer(text: str) -> int:
    if len(text) > _LONGEST:
        raise ValueError("an integer that is too large")
    return int(text)


def _constant(text: str) -> Any:
    raise ValueError(f"`{text}` is not JSON")
