r"""Path patterns: what a policy author writes after `paths:`.

    *        any characters within one name, none included; also names that begin with a dot
    ?        one character within a name
    [a-z]    one character of a set, [!a-z] one that is not in it
    **       alone between slashes: any number of names, none included; `dir/**` is dir and all beneath it
    \c       the character c itself
    \xHH     the byte HH, for names that are not UTF-8 or hold control characters

A pattern matches a whole canonical path. Bytes that are not UTF-8 are surrogate-escaped
(as `os.fsdecode` does). Texts that are no paths, such as arguments, have patterns without `**`; there `*` and `?`
match a slash as well.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

MAX_LENGTH = 16384
"""Characters of a pattern: a path of 4096 bytes with every byte escaped."""

MAX_WILD_NAMES = 64
"""Names from the first wildcard on; bounds the depth of the regular expression."""

DEEP = "**"

_TOKEN = re.compile(
    r"(?s:\\x(?P<hex>[0-9a-fA-F]{2})|\\(?P<literal>.)|(?P<stars>\*+)|(?P<one>\?)"
    r"|(?P<set>\[(?P<not>!?)(?P<members>(?:\\.|[^\]\\])+)\])|(?P<plain>.))"
)
_MEMBER = re.compile(r"(?s:(\\x[0-9a-fA-F]{2}|\\.|.)(?:-(\\x[0-9a-fA-F]{2}|\\.|[^\]\\]))?)")
_PLAIN = re.compile(r"[\w/.,:@%+=~ -]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Component:
    """One name of a pattern, between slashes.

    Attributes:
        literal: the only name that matches, or None when several may.
        regex: regular expression for the name. It never backtracks once it has matched: the agent chooses the
            names it is tried on, and must not be able to make that slow.
    """

    literal: str | None
    regex: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern.

    Attributes:
        text: the pattern as written.
        prefix: leading names that contain no wildcard, as a path; empty for the root directory.
        rest: what follows the prefix, None standing for `**`; empty for an exact path.
    """

    text: str
    prefix: str
    rest: tuple[Component | None, ...]

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The directories above the prefix, the root last."""
        found, place = [], self.prefix
        while place := place.rpartition("/")[0]:
            found.append(place)
        return (*found, "/") if self.prefix.strip("/") else ()


@lru_cache(maxsize=1024)
def parse(text: str) -> Pattern:
    """Return the parsed pattern.

    Raises:
        ValueError: not absolute, or it can match no path; the text says what to write instead.
    """
    if not text.startswith("/"):
        raise ValueError(f"path `{text}` is not absolute; begin it with `/` or `${{workspace}}/`")
    if len(text) > MAX_LENGTH:
        raise ValueError("path is longer than any path can be")
    names = re.split("/+", text)[1:]
    if names == [""]:
        return Pattern(text, "/", ())
    _check_names(text, names)
    components = [None if name == DEEP else _component(name) for name in names]
    return _split(text, [one for at, one in enumerate(components) if one or not at or components[at - 1]])


@lru_cache(maxsize=1024)
def compile_text(text: str) -> re.Pattern[str]:
    """Return the regular expression for a pattern of texts that are no paths; it is to match the whole text.

    Raises:
        ValueError: not a pattern; the text says what to write instead.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"pattern is longer than {MAX_LENGTH} characters")
    runs, word = [""], ""
    for token in _TOKEN.finditer(text):
        if (char := _literal(token, text)) is not None:
            word += char
            continue
        runs[-1] += re.escape(_joined(word))
        word = ""
        if token["stars"]:
            runs.append("")
        else:
            runs[-1] += "." if token["one"] else _set(token, text)
    runs[-1] += re.escape(_joined(word))
    first, *others = runs
    middle = "".join(f"(?>.*?{run})" for run in others[:-1])
    return re.compile(f"(?s:{first}{middle}{'.*' + others[-1] if others else ''})")


def quote(path: str) -> str:
    """Return the pattern that matches this path and no other, in printable characters."""
    if _PLAIN.fullmatch(path):
        return path
    return "".join(f"\\{char}" if char in "*?[\\" else _visible(char) for char in path)


def printable(text: str) -> str:
    r"""Return text fit for a terminal: control characters and bytes that are not UTF-8 as `\xHH`."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join("\\\\" if char == "\\" else _visible(char) for char in text)


def regex(rest: tuple[Component | None, ...]) -> str:
    """Return the regular expression for what follows a pattern's prefix, slash included."""
    parts, run = [], ""
    for component in rest[:-1] if rest[-1] is None else rest:
        if component is None:
            # The first place where the names between two `**` fit is as good as any later one.
            parts.append(run)
            run = ""
        else:
            run += "/" + component.regex
    if rest[-1] is None:
        return _runs([*parts, run]) + "(?s:/.*)?"
    if not parts:
        return run
    return _runs(parts) + "(?:/[^/]+)*" + run


def partial_regex(rest: tuple[Component | None, ...]) -> str:
    """Return the regular expression for the rest of a directory that may have matches beneath it."""
    named = [component.regex for component in takewhile(lambda component: component is not None, rest) if component]
    inner = "(?s:/.*)?" if len(named) < len(rest) else ""
    for name in reversed(named if inner else named[:-1]):
        inner = f"(?:/{name}{inner})?"
    return inner


def _runs(parts: list[str]) -> str:
    return parts[0] + "".join(f"(?>(?:/[^/]+)*?{run})" for run in parts[1:])


def _split(text: str, components: list[Component | None]) -> Pattern:
    prefix = ""
    for at, component in enumerate(components):
        if component is None or component.literal is None:
            if len(components) - at > MAX_WILD_NAMES:
                raise ValueError(f"path `{text}` has more than {MAX_WILD_NAMES} names from its first wildcard on")
            return Pattern(text, prefix, tuple(components[at:]))
        prefix += "/" + component.literal
    return Pattern(text, prefix, ())


def _check_names(text: str, names: list[str]) -> None:
    if names[-1] == "":
        bare = text.rstrip("/")
        raise ValueError(f"path `{text}` ends in a slash; write `{bare}` or, with all beneath it, `{bare}/**`")
    for name in names:
        if name in (".", ".."):
            raise ValueError(f"path `{text}` contains `{name}`, which no canonical path does; write it out")
        if DEEP in name and name != DEEP and _has_deep(name):
            raise ValueError(f"`{name}` can match nothing: `**` stands alone between slashes, as in `/a/**/b*`")


def _has_deep(name: str) -> bool:
    return any(len(token["stars"] or "") > 1 for token in _TOKEN.finditer(name))


@lru_cache(maxsize=4096)
def _component(name: str) -> Component:
    if _PLAIN.fullmatch(name):  # most names: every character stands for itself
        return Component(name, _component_regex([re.escape(name)]))
    runs, literal = [""], True
    word = ""  # literal characters not yet written: bytes that follow each other may be one UTF-8 character
    for token in _TOKEN.finditer(name):
        if (char := _literal(token, name)) is not None:
            word += char
            continue
        runs[-1] += re.escape(_joined(word))
        word, literal = "", False
        if token["stars"]:
            runs.append("")
        else:
            runs[-1] += "[^/]" if token["one"] else "(?!/)" + _set(token, name)
    runs[-1] += re.escape(_joined(word))
    return Component(_joined(word) if literal else None, _component_regex(runs))


def _component_regex(runs: list[str]) -> str:
    # Between stars stand runs of fixed length: the leftmost fit of each run but the last is as good as any.
    if runs == ["", ""]:
        return "(?>[^/]+)"  # a lone star, which is never the empty name after the root's slash
    if len(runs) == 1:
        return f"(?>{runs[0]}(?=/|\\Z))"
    middle = "".join(f"(?>[^/]*?{run})" for run in runs[1:-1])
    return f"(?>{runs[0]}{middle}[^/]*{runs[-1]}(?=/|\\Z))"


def _literal(token: re.Match[str], name: str) -> str | None:
    if token["hex"]:
        return _byte(token["hex"])
    if token["literal"]:
        return _escaped(token["literal"])
    if token["plain"] == "[":
        raise ValueError(f"`{name}` has a `[` without its `]`; write `\\[` for the character")
    if token["plain"] == "\\":
        raise ValueError(f"`{name}` ends in a backslash; write `\\\\` for the character")
    return token["plain"]


def _byte(digits: str) -> str:
    value = int(digits, 16)
    if value in (0, ord("/")):
        raise ValueError(f"`\\x{digits}` can be part of no name")
    return chr(value) if value < 0x80 else chr(0xDC00 + value)


def _escaped(char: str) -> str:
    if char.isalnum():
        raise ValueError(f"`\\{char}` is not an escape; write `{char}`, or `\\xHH` for a byte")
    return char


def _joined(word: str) -> str:
    return word.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _set(token: re.Match[str], name: str) -> str:
    members = token["members"]
    if members[0] == "^":
        raise ValueError(f"`{name}` has a set that begins with `^`; write `[!...]`, or `\\^` for the character")
    if "[:" in "[" + members:
        raise ValueError(f"`{name}` has a named set; write its characters, as in `[a-z]`")
    source = ""
    for member in _MEMBER.finditer(members):
        first, last = _member(member[1]), _member(member[2] or member[1])
        if first > last:
            raise ValueError(f"`{name}` has the empty range `{member[0]}`; write it the other way round")
        source += f"{re.escape(first)}-{re.escape(last)}"
    return f"[{'^' if token['not'] else ''}{source}]"


def _member(text: str) -> str:
    if text.startswith("\\x") and len(text) == 4:
        return _byte(text[2:])
    return _escaped(text[1]) if text[0] == "\\" and len(text) == 2 else text


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    data = bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else char.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in data)
