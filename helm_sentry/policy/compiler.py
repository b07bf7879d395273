"""From rules to indexes: for each kind of operation, what finds the rules that match. Built once for a policy."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.match import EndpointIndex, Found, KindIndex, MoveIndex, NameIndex, PathIndex
from helm_sentry.policy.model import (
    BindMatch,
    ConnectMatch,
    Effect,
    ExecMatch,
    FileMatch,
    Rule,
    SocketMatch,
    UnixMatch,
)

# To let a name be moved or linked is to let the object out from under the rule that blocks it.
_ESCAPES = frozenset({Kind.FILE_RENAME, Kind.FILE_LINK})
_MOVES = (Kind.FILE_RENAME, Kind.FILE_DELETE, Kind.FILE_CREATE)
# What takes a filled directory along: out from under a rule, or in under one with what it holds.
_FILLED = (Kind.FILE_RENAME, Kind.FILE_CREATE)

Finder: TypeAlias = Callable[[Operation], Found]
Finders: TypeAlias = Mapping[Kind, Finder]
Index = TypeVar("Index", PathIndex, EndpointIndex, NameIndex, KindIndex)


def finders(rules: Iterable[Rule], *, implied: bool = True) -> Finders:
    """Return what finds the rules that an operation matches.

    Args:
        rules: rules that allow and rules that block.
        implied: whether a rule also covers what it implies, such as looking at what may be read.

    Raises:
        ValueError: a path pattern that the loader would have refused.
    """
    compiler = _Compiler(implied)
    for rule in rules:
        compiler.add(rule)
    return compiler.finders()


def kinds(rule: Rule) -> frozenset[Kind]:
    """Return the kinds of operation that a rule decides, those it implies included."""
    return stated_kinds(rule) | _implied(rule)


def stated_kinds(rule: Rule) -> frozenset[Kind]:
    """Return the kinds of operation that a rule names."""
    match rule.match:
        case FileMatch(do=do):
            return do | {Kind.FILE_TRUNCATE} if Kind.FILE_WRITE in do else do  # whoever may write it may empty it
        case UnixMatch(do=do):
            return do
        case ExecMatch():
            return frozenset({Kind.EXEC})
        case ConnectMatch():
            return frozenset({Kind.NET_CONNECT, Kind.NET_SEND})
        case BindMatch():
            return frozenset({Kind.NET_BIND})
        case SocketMatch():
            return frozenset({Kind.NET_SOCKET})
    return rule.match.kinds


def _implied(rule: Rule) -> frozenset[Kind]:
    if not isinstance(rule.match, FileMatch | ExecMatch | UnixMatch):
        return frozenset()
    # Whoever may use a file may see that it is there.
    return frozenset({Kind.FILE_STAT}) if rule.effect is Effect.ALLOW else _ESCAPES


class _Compiler:
    def __init__(self, implied: bool) -> None:
        self._implied = implied
        self._kinds_of = kinds if implied else stated_kinds
        self._paths: dict[Kind, PathIndex] = {}
        self._endpoints: dict[Kind, EndpointIndex] = {}
        self._names: dict[Kind, NameIndex] = {}
        self._kinds: dict[Kind, KindIndex] = {}
        self._blocked: list[tuple[str, str]] = []  # pattern and id of every path that a block rule names

    def add(self, rule: Rule) -> None:
        match = rule.match
        if isinstance(match, FileMatch | ExecMatch | UnixMatch):
            self._add_paths(match.paths, rule)
        elif isinstance(match, ConnectMatch | BindMatch):
            for endpoints in _each(self._endpoints, self._kinds_of(rule), EndpointIndex):
                endpoints.add(match, rule.effect, rule.id)
        elif isinstance(match, SocketMatch):
            for names in _each(self._names, self._kinds_of(rule), NameIndex):
                for family in match.families:
                    names.add(family, rule.effect, rule.id)
        else:
            for kind in _each(self._kinds, self._kinds_of(rule), KindIndex):
                kind.add(rule.effect, rule.id)

    def finders(self) -> dict[Kind, Finder]:
        found: dict[Kind, Finder] = {}
        for paths in self._paths.values():
            paths.seal()
        for indexes in (self._paths, self._endpoints, self._names, self._kinds):
            found |= {kind: index.find for kind, index in indexes.items()}
        for kind in _MOVES if self._blocked else ():
            moves = MoveIndex(self._paths.setdefault(kind, PathIndex()))
            for path, rule in self._blocked:
                moves.add(pattern.parse(path), rule, wild=kind in _FILLED)  # one that is deleted is empty
            moves.seal()
            found[kind] = moves.find
        return found

    def _add_paths(self, paths: tuple[str, ...], rule: Rule) -> None:
        for path in paths:
            parsed = pattern.parse(path)
            for index in _each(self._paths, self._kinds_of(rule), PathIndex):
                index.add(parsed, rule.effect, rule.id)
            if not self._implied:
                continue
            if rule.effect is Effect.BLOCK:
                self._blocked.append((path, rule.id))
                continue
            stat = self._paths[Kind.FILE_STAT]
            for directory in (*parsed.ancestors, parsed.prefix or "/"):
                stat.add_path(directory, rule.effect, rule.id)


def _each(indexes: dict[Kind, Index], wanted: Iterable[Kind], make: Callable[[], Index]) -> list[Index]:
    return [indexes.setdefault(kind, make()) for kind in wanted]
