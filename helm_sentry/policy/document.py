"""Policy text as a tree of plain nodes that know their place. The only module that imports yaml.

YAML is read without its surprises: every scalar is text (`no` is not a boolean, `12:30` is not a number), and
anchors, aliases, merge keys, tags and repeated keys are errors. JSON text goes the same way after a check
that it is JSON, so both report the same errors at the same kind of place. What a program wrote can be read without
places, in a fifth of the time.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, TypeVar

import yaml

from helm_sentry.errors import PolicyError

MAX_SIZE = 1024 * 1024
"""Bytes of text in one document."""

MAX_DEPTH = 16
"""Collections within collections; the deepest policy needs six."""

Value = TypeVar("Value")

# The C parser reads the shipped packs in a tenth of the time; both give the same events and the same places.
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

_MERGE = "<<"
_LAYOUT = {ord(char): None for char in "\t\n\r"}
_AS_BYTES = "or in a path write its bytes as `\\xHH`, without double quotes"
_TAB_INDENT = re.compile(r"^ *\t", re.MULTILINE)
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\t')
_JSON_ESCAPE = re.compile(r"\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|.)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a policy file, both numbers from 1; 0 where it is not known."""

    source: str
    line: int = 0
    column: int = 0

    def error(self, message: str) -> PolicyError:
        """Return the error that says `message` about this place."""
        return PolicyError(message, self.source, self.line, self.column)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A piece of text."""

    text: str
    place: Place

    def read(self, reader: Callable[[str], Value]) -> Value:
        """Return what `reader` makes of the text; its `ValueError` becomes an error about this place."""
        try:
            return reader(self.text)
        except ValueError as error:
            raise self.place.error(str(error)) from None


@dataclass(frozen=True, slots=True)
class Items:
    """A list of nodes."""

    items: "tuple[Node, ...]"
    place: Place


@dataclass(frozen=True, slots=True)
class Table:
    """Keys with their values, in the order written."""

    entries: "tuple[tuple[Scalar, Node], ...]"
    place: Place


Node: TypeAlias = Scalar | Items | Table


@lru_cache(maxsize=64)  # a standby has read the shipped policies before a run is forked from it
def parse(text: str, source: str) -> Node:
    """Return the tree of a policy text.

    Args:
        text: YAML, or JSON when `source` ends in `.json`.
        source: file or pack name, for errors.

    Raises:
        PolicyError: not YAML or JSON, or one of the parts of YAML that policies do without.
    """
    text = text.removeprefix("\ufeff")
    check_text(text, source)
    if source.endswith(".json"):
        _check_json(text, source)
        text = _JSON_TOKEN.sub(_yaml_token, text)
    elif tab := _TAB_INDENT.search(text):
        raise _place_at(text, tab.end() - 1, source).error("tab in the indentation; indent with spaces")
    try:
        return _Composer(text, source).document()
    except yaml.YAMLError as error:
        raise _yaml_error(error, source) from None


def parse_without_places(text: str, source: str) -> Node:
    """Return the tree that `parse` returns of a JSON text, its places left out.

    Raises:
        PolicyError: `parse` says what is wrong, and where.
    """
    nowhere = Place(source)
    check_text(text, source)
    try:
        # Whatever is no collection becomes its text, and a table its entries.
        value = json.loads(text, object_pairs_hook=tuple, parse_int=str, parse_float=str)
        return _placeless(value, nowhere, MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise nowhere.error(f"not json: {error}") from None


def _placeless(value: object, nowhere: Place, depth: int) -> Node:
    match value:
        case str() if value.isprintable() or not _hidden(value):
            return Scalar(value, nowhere)
        case bool() | None:
            return Scalar("null" if value is None else str(value).lower(), nowhere)
        case list() if depth:
            return Items(tuple([_placeless(item, nowhere, depth - 1) for item in value]), nowhere)
        case tuple() if depth and len(dict(value)) == len(value) and _MERGE not in dict(value):
            entries = [(_placeless(key, nowhere, 0), _placeless(item, nowhere, depth - 1)) for key, item in value]
            return Table(tuple(entries), nowhere)  # type: ignore[arg-type]  # keys are text
    raise ValueError  # an invisible character, a repeated or a merge key, too many levels, or no number


def check_text(text: str, source: str) -> None:
    """Require a text that is not too large and holds nothing invisible.

    Raises:
        PolicyError: it is, or does.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SIZE:
        raise PolicyError(f"larger than {MAX_SIZE // 1024} KiB; split it and join the parts with `extends`", source)
    if hidden := _hidden(text):
        place = _place_at(text, text.index(hidden), source)
        raise place.error(f"invisible character U+{ord(hidden):04X}; remove it, {_AS_BYTES}")


# The first character that nobody can see: a control character, a blank that is no space, a mark that changes
# the direction of writing. It can make a rule look like another, and parsers disagree about line ends.
def _hidden(text: str) -> str:
    if text.translate(_LAYOUT).isprintable():
        return ""
    return next(char for char in text if not char.isprintable() and ord(char) not in _LAYOUT)


def _check_json(text: str, source: str) -> None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise PolicyError(f"not json: {_lower_first(error.msg)}", source, error.lineno, error.colno) from None
    except RecursionError:
        raise PolicyError(f"nested deeper than {MAX_DEPTH} levels", source) from None


# JSON that YAML parsers read differently, put in YAML's words. Tokens keep their length: places stay true.
def _yaml_token(match: re.Match[str]) -> str:
    found = match[0]
    return " " if found == "\t" else _JSON_ESCAPE.sub(_yaml_escape, found).ljust(len(found))


def _yaml_escape(match: re.Match[str]) -> str:
    if match[1]:
        pair = bytes.fromhex(match[1] + match[2]).decode("utf-16-be")
        return f"\\U{ord(pair):08x}"
    return "/" if match[0] == "\\/" else match[0]


def _place_at(text: str, offset: int, source: str) -> Place:
    return Place(source, text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def _yaml_error(error: yaml.YAMLError, source: str) -> PolicyError:
    said = vars(error)  # an error of the reader has none of these
    mark = said.get("problem_mark") or said.get("context_mark")
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    problem = _lower_first(said.get("problem") or said.get("context") or str(error))
    hint = "; quote text that contains `: `" if "mapping values" in problem else ""
    return PolicyError(f"not yaml: {problem}{hint}", source, line, column)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


class _Composer:
    # Builds nodes from parse events, which know the anchors, aliases and tags that a composed tree has lost.

    def __init__(self, text: str, source: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._source = source

    def document(self) -> Node:
        self._next()  # the start of the stream
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise Place(self._source, 1, 1).error("empty; a policy begins with `schema: helm-sentry/policy/v1`")
        if isinstance(event, yaml.DocumentStartEvent) and event.tags:
            raise self._place(event).error("a `%TAG` line; policies use no tags")
        root = self._node(self._next(), MAX_DEPTH)
        self._next()  # the end of the document
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._place(event).error("a second document; write one policy in one file")
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        place = self._place(event)
        if not isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent):
            raise place.error("an alias; use `variables` for text that repeats")
        if event.anchor is not None:
            raise place.error(f"anchor `&{event.anchor}`; use `variables` for text that repeats")
        if event.tag is not None:
            raise place.error(f"tag `{event.tag}`; policies use no tags, remove it")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, place)
        if not depth:
            raise place.error(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(tuple(self._items(depth - 1)), place)
        return Table(tuple(self._entries(depth - 1)), place)

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            yield self._node(event, depth)

    def _entries(self, depth: int) -> Iterator[tuple[Scalar, Node]]:
        seen: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth)
            if not isinstance(key, Scalar):
                raise key.place.error("a key that is not a word")
            if key.text == _MERGE:
                raise key.place.error("merge key `<<`; use `extends` or `variables`")
            if key.text in seen:
                raise key.place.error(f"key `{key.text}` is already given on line {seen[key.text]}")
            seen[key.text] = key.place.line
            yield key, self._node(self._next(), depth)

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Scalar:
        # An escape may stand for a character that the text itself must not hold.
        if hidden := _hidden(event.value):
            raise place.error(f"invisible character U+{ord(hidden):04X}; remove it, {_AS_BYTES}")
        return Scalar(event.value, place)

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self._source, mark.line + 1, mark.column + 1) if mark else Place(self._source)
