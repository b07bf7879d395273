"""The decision. Block over allow over default deny; the order of rules never matters.

`decide` is pure and total: no clock, no file, no logger, and no exception. The same arguments give the same
decision.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.match import NONE, EndpointIndex, Found, KindIndex, MoveIndex, NameIndex, PathIndex
from helm_sentry.policy.model import (
    BindMatch,
    ConnectMatch,
    Effect,
    ExecMatch,
    FileMatch,
    KernelMatch,
    Policy,
    Rule,
    SocketMatch,
    UnixMatch,
)

_NO_RULE = Decision(Verdict.DENY, Reason.DEFAULT)
_FAILED = Decision(Verdict.DENY, Reason.SUPERVISOR_ERROR)

# To let a name be moved or linked is to let the object out from under the rule that blocks it.
_ESCAPES = frozenset({Kind.FILE_RENAME, Kind.FILE_LINK})
_MOVES = (Kind.FILE_RENAME, Kind.FILE_DELETE, Kind.FILE_CREATE)

Finder: TypeAlias = Callable[[Operation], Found]
Index = TypeVar("Index", PathIndex, EndpointIndex, NameIndex, KindIndex)


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision may depend on besides the operation; contextual rules will look here.

    Attributes:
        agent: what the policy states about the agent, such as its role.
    """

    agent: Mapping[str, str] = field(default_factory=dict, hash=False)


NO_CONTEXT = Context()


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy in the form that `decide` uses.

    Attributes:
        policy: what it was compiled from.
        finders: for each kind of operation that a rule mentions, what finds the rules.
        allows: the decision for each allow rule.
        blocks: the decision for each block rule.
    """

    policy: Policy
    finders: Mapping[Kind, Finder]
    allows: Mapping[str, Decision]
    blocks: Mapping[str, Decision]


def compile_policy(policy: Policy) -> CompiledPolicy:
    """Return the policy in the form that `decide` uses.

    Raises:
        ValueError: a path pattern that the loader would have refused.
    """
    compiler = _Compiler()
    for rule in policy.rules:
        compiler.add(rule)
    return CompiledPolicy(
        policy=policy,
        finders=compiler.finders(),
        allows={rule.id: Decision(Verdict.ALLOW, Reason.RULE, rule.id) for rule in policy.allow},
        blocks={rule.id: Decision(Verdict.DENY, Reason.BLOCK, rule.id) for rule in policy.block},
    )


def decide(policy: CompiledPolicy, operation: Operation, context: Context = NO_CONTEXT) -> Decision:
    """Return the decision for one operation.

    Never raises: an operation that cannot be decided is denied with the reason SUPERVISOR_ERROR.
    """
    try:
        find = policy.finders.get(operation.kind)
        if find is None:
            return _NO_RULE
        block, allow = find(operation)
        if block is not NONE:
            return policy.blocks[block]
        return _NO_RULE if allow is NONE else policy.allows[allow]
    except Exception:
        return _FAILED


def kinds(rule: Rule) -> frozenset[Kind]:
    """Return the kinds of operation that a rule decides, those it implies included."""
    match rule.match:
        case FileMatch(do=do) | UnixMatch(do=do):
            return do | _implied(rule)
        case ExecMatch():
            return frozenset({Kind.EXEC}) | _implied(rule)
        case ConnectMatch():
            return frozenset({Kind.NET_CONNECT, Kind.NET_SEND})
        case BindMatch():
            return frozenset({Kind.NET_BIND})
        case SocketMatch():
            return frozenset({Kind.NET_SOCKET})
        case KernelMatch(kinds=named):
            return named


def _implied(rule: Rule) -> frozenset[Kind]:
    # Whoever may use a file may see that it is there; whoever may write it may empty it.
    implied = {Kind.FILE_STAT} if rule.effect is Effect.ALLOW else set(_ESCAPES)
    if isinstance(rule.match, FileMatch) and Kind.FILE_WRITE in rule.match.do:
        implied.add(Kind.FILE_TRUNCATE)
    return frozenset(implied)


class _Compiler:
    def __init__(self) -> None:
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
            for endpoints in _each(self._endpoints, kinds(rule), EndpointIndex):
                endpoints.add(match, rule.effect, rule.id)
        elif isinstance(match, SocketMatch):
            for names in _each(self._names, kinds(rule), NameIndex):
                for family in match.families:
                    names.add(family, rule.effect, rule.id)
        else:
            for kind in _each(self._kinds, kinds(rule), KindIndex):
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
                # Only a rename takes a filled directory along; one that is made or removed is empty.
                moves.add(pattern.parse(path), rule, wild=kind is Kind.FILE_RENAME)
            moves.seal()
            found[kind] = moves.find
        return found

    def _add_paths(self, paths: tuple[str, ...], rule: Rule) -> None:
        for path in paths:
            parsed = pattern.parse(path)
            for index in _each(self._paths, kinds(rule), PathIndex):
                index.add(parsed, rule.effect, rule.id)
            if rule.effect is Effect.BLOCK:
                self._blocked.append((path, rule.id))
                continue
            stat = self._paths[Kind.FILE_STAT]
            for directory in (*parsed.ancestors, parsed.prefix or "/"):
                stat.add_path(directory, rule.effect, rule.id)


def _each(indexes: dict[Kind, Index], wanted: Iterable[Kind], make: Callable[[], Index]) -> list[Index]:
    return [indexes.setdefault(kind, make()) for kind in wanted]
