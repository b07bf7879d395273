"""From rules to indexes: for each kind of operation, what finds the rules that match. Built once for a policy."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.match import EndpointIndex, Found, KindIndex, MoveIndex, NameIndex, PathIndex
from helm_sentry.policy.model import (
    BindMatch,
    ConnectMatch,
    Effect,
    ExecMatch,
    FileMatch,
    KernelMatch,
    Rule,
    SocketMatch,
    UnixMatch,
)
from helm_sentry.policy.pattern import Pattern

# To let a name be moved or linked is to let the object out from under the rule that blocks it.
_ESCAPES = frozenset({Kind.FILE_RENAME, Kind.FILE_LINK})
_MOVES = (Kind.FILE_RENAME, Kind.FILE_DELETE, Kind.FILE_CREATE)
# What takes a filled directory along: out from under a rule, or in under one with what it holds.
_FILLED = (Kind.FILE_RENAME, Kind.FILE_CREATE)
_PATHS = (FileMatch, ExecMatch, UnixMatch)

Finder: TypeAlias = Callable[[Operation], Found]
Finders: TypeAlias = Mapping[Kind, Finder]
_Blocked: TypeAlias = list[tuple[Pattern, str]]  # what block rules name, with their ids


def finders(rules: Iterable[Rule], *, implied: bool = True) -> Finders:
    """Return what finds the rules that an operation matches.

    The index of a kind is built when the first operation of that kind is looked up: a run meets few kinds.

    Args:
        rules: rules that allow and rules that block.
        implied: whether a rule also covers what it implies, such as looking at what may be read.

    Raises:
        ValueError: a path pattern that the loader would have refused.
    """
    by_kind: dict[Kind, list[Rule]] = {}
    blocked: _Blocked = []
    for rule in rules:
        patterns = _patterns(rule)
        for kind in kinds(rule) if implied else stated_kinds(rule):
            by_kind.setdefault(kind, []).append(rule)
        if implied and rule.effect is Effect.BLOCK:
            blocked += [(one, rule.id) for one in patterns]
    found: dict[Kind, Finder] = {}
    for kind in {*by_kind, *(_MOVES if blocked else ())}:
        builder = _Builder(kind, by_kind.get(kind, []), blocked if kind in _MOVES else [], implied)
        found[kind] = _built_at_first(found, builder)
    return found


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
    if not isinstance(rule.match, _PATHS):
        return frozenset()
    # Whoever may use a file may see that it is there.
    return frozenset({Kind.FILE_STAT}) if rule.effect is Effect.ALLOW else _ESCAPES


def _built_at_first(found: dict[Kind, Finder], builder: "_Builder") -> Finder:
    def find(operation: Operation) -> Found:
        # Two threads may both build it: the same rules give the same index.
        finder = found[builder.kind] = builder.build()
        return finder(operation)

    return find


class _Builder(NamedTuple):
    # The rules of one kind, and how its finder is made of them.
    kind: Kind
    rules: list[Rule]
    blocked: _Blocked
    implied: bool

    def build(self) -> Finder:
        match self.rules[0].match if self.rules else None:  # no kind is decided by rules of two sorts
            case ConnectMatch() | BindMatch():
                return self._endpoints().find
            case SocketMatch():
                return self._names().find
            case KernelMatch():
                return self._every().find
        paths = self._paths()
        return self._moves(paths).find if self.blocked else paths.find

    def _paths(self) -> PathIndex:
        index = PathIndex()
        for rule in self.rules:
            leads = self.implied and self.kind is Kind.FILE_STAT and rule.effect is Effect.ALLOW
            for wanted in _patterns(rule):
                index.add(wanted, rule.effect, rule.id)
                # Whoever may use something may see the directories that lead to it.
                for directory in (*wanted.ancestors, wanted.prefix or "/") if leads else ():
                    index.add_path(directory, rule.effect, rule.id)
        return index

    def _moves(self, paths: PathIndex) -> MoveIndex:
        moves = MoveIndex(paths)
        for wanted, rule in self.blocked:
            moves.add(wanted, rule, wild=self.kind in _FILLED)  # one that is deleted is empty
        return moves

    def _endpoints(self) -> EndpointIndex:
        index = EndpointIndex()
        destined = [(rule.match, rule) for rule in self.rules if isinstance(rule.match, ConnectMatch | BindMatch)]
        for match, rule in destined:
            index.add(match, rule.effect, rule.id)
        return index

    def _names(self) -> NameIndex:
        index = NameIndex()
        for rule in self.rules:
            for family in rule.match.families if isinstance(rule.match, SocketMatch) else ():
                index.add(family, rule.effect, rule.id)
        return index

    def _every(self) -> KindIndex:
        index = KindIndex()
        for rule in self.rules:
            index.add(rule.effect, rule.id)
        return index


def _patterns(rule: Rule) -> list[Pattern]:
    return [pattern.parse(path) for path in rule.match.paths] if isinstance(rule.match, _PATHS) else []
