"""Canonical JSON text to values and back, by orjson. `standalone/codec.py` does the same without it."""

from typing import TypeAlias

import orjson

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json] | None"
Fields: TypeAlias = dict[str, Json]

# PASSTHROUGH turns leniency off: a subclass of str, a dataclass or a date is an error, not a guess.
_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)


def encode(value: Json) -> bytes:
    """Return the canonical bytes of a value that is known to have no float and only ASCII member names.

    Raises:
        ValueError: a string holds a surrogate, an integer is too large, or a type is not JSON's.
    """
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError as error:
        raise ValueError(f"no canonical form: {error}") from error


def decode(data: bytes) -> Json:
    """Return the value of JSON text; of a repeated member the last one.

    Raises:
        ValueError: not JSON.
    """
    value: Json = orjson.loads(data)
    return value
