"""Names that will be others the next time: versions, temporary names, hashes, numbers. Pure.

A guess about one name is stated with its confidence: `high` when several different names of the form were seen,
`medium` when the form is unmistakable, `low` when it might be the program's own word.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from helm_sentry.policy import pattern


class Confidence(StrEnum):
    """How sure a generalisation is."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Form:
    """What a name is an instance of.

    Attributes:
        glob: pattern for one name.
        what: what varies in it, in words.
        confidence: how sure that is after one such name.
    """

    glob: str
    what: str
    confidence: Confidence

    def after(self, names: int) -> Confidence:
        """Return how sure it is after so many different names."""
        return Confidence.HIGH if names > 1 else self.confidence


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HASH = re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{12,}(?![0-9a-zA-Z])")
_PYTHON_TEMPORARY = re.compile(r"(?<![0-9a-z_])(tmp|pip-[a-z-]+-|pymp-)([a-z0-9_]{8})(?![0-9a-z_])")
_COMPILER_TEMPORARY = re.compile(r"(cc)([A-Za-z0-9]{6})(\.\w+|-\w+)?")
_TEMPORARY_TAIL = re.compile(r"(.*[-_.])([A-Za-z0-9]{6,12})(\.[a-z]{1,8})?")
_VERSION = re.compile(r"(?<![0-9.])\d+(?:\.\d+)+")
_NUMBER = re.compile(r"(?<![0-9A-Za-z])\d{3,}(?![0-9A-Za-z])")
_DIGITS = "[0-9]*"
_SURE = (
    (_UUID, "uuid", Confidence.HIGH),
    (_HASH, "hash", Confidence.MEDIUM),
    (_VERSION, "version", Confidence.MEDIUM),
)
# Where one part of a name surely varies, long numbers and dates beside it do too.
_WITHIN = re.compile(
    f"{_UUID.pattern}|{_HASH.pattern}|{_VERSION.pattern}|(?<![0-9A-Za-z])[0-9]{{2,}}(?:[-T:][0-9]{{2,}})*"
)


def form(name: str) -> Form | None:
    """Return what a name is an instance of, None for a name that stands for itself."""
    if found := _PYTHON_TEMPORARY.search(name):
        glob = pattern.quote(name[: found.start(2)]) + "?" * len(found[2]) + pattern.quote(name[found.end() :])
        return Form(glob, "temporary name", Confidence.MEDIUM)
    if found := _COMPILER_TEMPORARY.fullmatch(name):
        return Form(f"{found[1]}??????{pattern.quote(found[3] or '')}", "temporary name", Confidence.MEDIUM)
    for varies, what, confidence in _SURE:
        if (found := varies.search(name)) and not found[0].isalpha():
            return Form(_replaced(name, _WITHIN), what, confidence)
    if (found := _TEMPORARY_TAIL.fullmatch(name)) and _looks_random(found[2]):
        glob = pattern.quote(found[1]) + "?" * len(found[2]) + pattern.quote(found[3] or "")
        return Form(glob, "temporary name", Confidence.LOW)
    if name.isdigit() or _NUMBER.search(name):
        return Form(_DIGITS if name.isdigit() else _replaced(name, _NUMBER), "number", Confidence.LOW)
    return None


def _replaced(name: str, varies: re.Pattern[str]) -> str:
    parts, end = [], 0
    for found in varies.finditer(name):
        parts += [pattern.quote(name[end : found.start()]), _glob(found[0])]
        end = found.end()
    return "".join([*parts, pattern.quote(name[end:])])


def _glob(text: str) -> str:
    if _UUID.fullmatch(text):
        return "?" * 8 + "-????" * 3 + "-" + "?" * 12
    if _HASH.fullmatch(text) and not text.isdigit():
        return "[0-9a-f]" + "?" * (len(text) - 1)
    return _DIGITS


def _looks_random(text: str) -> bool:
    # mkstemp(3) draws from letters and digits: words have neither digits between letters nor capitals within.
    lower, upper, digit = (any(map(test, text)) for test in (str.islower, str.isupper, str.isdigit))
    return (upper and (lower or digit) and not text[1:].islower()) or bool(re.search(r"[a-z]\d+[a-z]|\d[a-z]+\d", text))
