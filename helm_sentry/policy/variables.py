"""Variables of a policy file: `${name}` stands for a text, `$${` for the characters `${`."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from helm_sentry.policy import pattern, values
from helm_sentry.policy.document import Scalar

Value = TypeVar("Value")

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})

MAX_LENGTH = 65536
"""Characters of a text with its variables filled in, so that variables made of variables stay small."""

_REFERENCE = re.compile(r"\$(\$\{|\{([^}]*)\}?)")


class Variables:
    """What `${name}` stands for in one file.

    A variable of the run (`workspace`) is a literal path: in a pattern its special characters lose their
    meaning. A variable of the file is a piece of the file's own text, and may be a pattern.

    Attributes:
        enabled: whether the file has variables at all; an effective policy has none.
    """

    def __init__(self, run: Mapping[str, str], *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._run = run
        self._plain = dict(run)
        self._quoted = {name: pattern.quote(text) for name, text in run.items()}

    def define(self, name: Scalar, text: Scalar) -> None:
        """Add a variable of the file. It may use the variables defined before it."""
        if name.read(values.variable_name) in self._run:
            raise name.place.error(f"variable `{name.text}` is set by the run; choose another name")
        plain = text.read(lambda written: self._expand(written, self._plain))
        self._quoted[name.text] = text.read(lambda written: self._expand(written, self._quoted))
        self._plain[name.text] = plain

    def plain(self, scalar: Scalar, reader: Callable[[str], Value]) -> Value:
        """Return what `reader` makes of the text with its variables filled in as they are."""
        return scalar.read(lambda text: reader(_utf8(self._expand(text, self._plain))))

    def path(self, scalar: Scalar) -> str:
        """Return the checked path pattern that the text stands for."""
        return scalar.read(lambda text: values.path(self._expand(text, self._quoted)))

    def _expand(self, text: str, known: Mapping[str, str]) -> str:
        def replace(match: re.Match[str]) -> str:
            if match[2] is None:
                return "${"
            if not match[0].endswith("}"):
                raise ValueError("`${` has no `}`; write `${name}`, or `$${` for the characters")
            if match[2] not in known:
                raise ValueError(values.unknown("variable", match[2], known))
            return known[match[2]]

        expanded = _REFERENCE.sub(replace, text) if self.enabled else text
        if len(expanded) > MAX_LENGTH:
            raise ValueError(f"longer than {MAX_LENGTH} characters with its variables filled in")
        return expanded


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = pattern.printable(text)
        raise ValueError(f"`{shown}` is not utf-8, which only a path may be without") from None
    return text
