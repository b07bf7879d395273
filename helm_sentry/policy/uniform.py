"""Directories beneath which a policy decides alike, whatever a path is named there. Pure.

What a compiled receiver may decide by itself: it needs no rule to know that two paths are treated alike.
"""

from collections.abc import Iterator

from helm_sentry.operation import Kind
from helm_sentry.policy import pattern
from helm_sentry.policy.compiler import kinds
from helm_sentry.policy.engine import CompiledPolicy
from helm_sentry.policy.match import NONE
from helm_sentry.policy.model import Effect, ExecMatch, FileMatch, Policy, Rule, UnixMatch
from helm_sentry.policy.pattern import Pattern
from helm_sentry.policy.reach import may_match

KINDS = frozenset({Kind.FILE_READ, Kind.FILE_LIST, Kind.FILE_STAT})
"""Kinds that are decided by the path alone."""

_MOST_REMEMBERED = 4096
_BLOCK = ""  # sorts before every rule id: it counts whatever else matches


class Uniform:
    """Finds such directories in one policy.

    Args:
        policy: the policy; its ceilings count as well.
    """

    def __init__(self, policy: CompiledPolicy) -> None:
        self._policies = tuple(_layers(policy.policy))
        self._guarded = policy.guarded_kinds
        self._indexes: dict[Kind, tuple[_Index, ...]] = {}

    def above(self, kind: Kind, path: str) -> str | None:
        """Return the highest directory above a path such that all paths beneath it are decided as this one is.

        Args:
            kind: of the operation; None is returned for one that is not of `KINDS`, or is decided by circumstances.
            path: canonical.

        Returns:
            A canonical path that is not the root, or None.
        """
        if kind not in KINDS or kind in self._guarded:
            return None
        if kind not in self._indexes:
            self._indexes[kind] = tuple(_Index(policy.rules, kind) for policy in self._policies)
        indexes = self._indexes[kind]
        at = path.find("/", 1)
        while at > 0:
            if all(index.is_even(path[:at]) for index in indexes):
                return path[:at]
            at = path.find("/", at + 1)
        return None


class _Index:
    # The patterns of one policy for one kind, with the rules they belong to. Of several rules that allow, the one with
    # the smallest id is the decision; so a pattern changes nothing where a smaller one matches everything anyhow.

    def __init__(self, rules: tuple[Rule, ...], kind: Kind) -> None:
        self._trees: dict[str, str] = {}  # directories that are matched with all beneath, to the smallest id
        self._within: dict[str, str] = {}  # directories that have a pattern's prefix beneath them, likewise
        self._globs: list[tuple[Pattern, str]] = []
        self._even: dict[str, bool] = {}
        for wanted, rule in _patterns(rules, kind):
            for directory in wanted.ancestors:
                self._within[directory] = min(self._within.get(directory, NONE), rule)
            if wanted.rest == (None,):
                if rule != _BLOCK:
                    self._trees[wanted.prefix] = min(self._trees.get(wanted.prefix, NONE), rule)
            elif wanted.rest:
                self._globs.append((wanted, rule))

    def is_even(self, directory: str) -> bool:
        """Whether all beneath a directory is decided alike."""
        found = self._even.get(directory)
        if found is None:
            if len(self._even) >= _MOST_REMEMBERED:  # an agent makes up as many names as it likes
                self._even.clear()
            found = self._even[directory] = self._find_even(directory)
        return found

    def _find_even(self, directory: str) -> bool:
        base = min((self._trees.get(place, NONE) for place in _upwards(directory)), default=NONE)
        if self._within.get(directory, NONE) < base:
            return False
        return not any(rule < base and may_match(wanted, directory, True) for wanted, rule in self._globs)


def _upwards(directory: str) -> Iterator[str]:
    while directory:
        yield directory
        directory = directory.rpartition("/")[0]
    yield ""


def _layers(policy: Policy) -> Iterator[Policy]:
    yield policy
    for ceiling in policy.within:
        yield from _layers(ceiling)


def _patterns(rules: tuple[Rule, ...], kind: Kind) -> Iterator[tuple[Pattern, str]]:
    for rule in rules:
        if not rule.guarded and kind in kinds(rule) and isinstance(rule.match, FileMatch | ExecMatch | UnixMatch):
            for path in rule.match.paths:
                yield pattern.parse(path), _BLOCK if rule.effect is Effect.BLOCK else rule.id
