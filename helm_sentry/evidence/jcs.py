"""RFC 8785 in full, for what others wrote. Pure.

What we sign ourselves keeps to the part of it that `audit/canonical.py` writes. HELM AI Kernel's receipts may hold
member names outside ASCII and numbers with a fraction; those it hashes as they were written, not as ECMAScript prints
them.

    loads(data)     a number with a fraction or an exponent becomes a `Literal`, which remembers how it was written
    dumps(value)    the canonical bytes; a plain float as ECMAScript prints it
"""

import json
import math
from decimal import Decimal
from typing import Any, NoReturn

from helm_sentry.audit.canonical import MAX_DEPTH, unique

_LARGEST = 2**53 - 1
_WIDEST, _SMALLEST = 21, -6  # decimal point within these: written out; beyond: with an exponent


class Literal(float):
    """A number as it was written.

    Attributes:
        text: how it was written.
    """

    text: str

    def __new__(cls, text: str) -> "Literal":
        """Return the number that a text stands for."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def loads(data: bytes) -> Any:
    """Return the value of JSON text, refusing text that readers could understand differently.

    Raises:
        ValueError: not JSON, a repeated member, or a value without a canonical form.
    """
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=unique, parse_float=Literal, parse_int=_integer, parse_constant=_constant
        )
    except RecursionError:
        raise ValueError("no canonical form: too many levels deep") from None
    dumps(value)
    return value


def dumps(value: Any) -> bytes:
    """Return the canonical bytes of a value.

    Raises:
        ValueError: it has no canonical form.
    """
    return _text(value, 0).encode()


def number(value: float) -> str:
    """Return a number as ECMAScript prints it.

    Raises:
        ValueError: not a finite number.
    """
    if not math.isfinite(value):
        raise ValueError(f"no canonical form for {value}")
    if value == 0:
        return "0"
    # repr gives the fewest digits that give the number back, as ECMAScript wants them.
    sign, places, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    digits, point = "".join(map(str, places)), len(places) + int(exponent)
    return "-" * sign + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """Return digits with the decimal point behind the first `point` of them."""
    if len(digits) <= point <= _WIDEST:
        return digits.ljust(point, "0")
    if 0 < point <= _WIDEST:
        return f"{digits[:point]}.{digits[point:]}"
    if _SMALLEST < point <= 0:
        return "0." + digits.rjust(len(digits) - point, "0")
    mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    return f"{mantissa}e{point - 1:+d}"


def _text(value: Any, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise ValueError(f"no canonical form: more than {MAX_DEPTH} levels deep")
    match value:
        case Literal():
            return value.text
        case float():
            return number(value)
        case None | bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case int() if abs(value) <= _LARGEST:
            return str(value)
        case list():
            return "[" + ",".join(_text(item, depth + 1) for item in value) + "]"
        case dict() if all(isinstance(name, str) for name in value):
            members = (f"{_text(name, 0)}:{_text(value[name], depth + 1)}" for name in sorted(value, key=_units))
            return "{" + ",".join(members) + "}"
    raise ValueError(f"no canonical form for {type(value).__name__} {value}")


def _units(name: str) -> bytes:
    return name.encode("utf-16-be")


def _integer(text: str) -> int:
    if len(text) > len(str(-_LARGEST)):
        raise ValueError("an integer that is too large")
    return int(text)


def _constant(text: str) -> NoReturn:
    raise ValueError(f"`{text}` is not JSON")
