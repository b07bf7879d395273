"""Directories beneath which a policy decides alike, whatever a path is named there. Pure.

What a compiled receiver may decide by itself: it needs no rule to know that two paths are treated alike.
"""

from collections.abc import Iterator, Sequence

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.compiler import kinds
from helm_sentry.policy.engine import CompiledPolicy
from helm_sentry.policy.match import NONE
from helm_sentry.policy.model import Effect, ExecMatch, FileMatch, Policy, Rule, UnixMatch
from helm_sentry.policy.pattern import Pattern
from helm_sentry.policy.reach import matches_all_beneath, may_match

KINDS = frozenset(
    {
        *(Kind.FILE_READ, Kind.FILE_LIST, Kind.FILE_STAT),
        *(Kind.FILE_CREATE, Kind.FILE_WRITE, Kind.FILE_TRUNCATE, Kind.FILE_DELETE, Kind.FILE_RENAME),
    }
)
"""Kinds that are decided by the path alone, if they are no operation on a whole directory."""

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
        self._indexes: dict[tuple[Kind, bool], tuple[_Index, ...]] = {}

    def above(self, kind: Kind, path: str, *, tree: bool = False) -> str | None:
        """Return the highest directory above a path such that all paths beneath it are decided as this one is.

        Args:
            kind: of the operation; None is returned for one that is not of `KINDS`, or is decided by circumstances.
            path: canonical.
            tree: the operation reaches what lies beneath the path (`Operation.directory`); of these one that deletes.

        Returns:
            A canonical path that is not the root, or None.
        """
        if kind not in KINDS or kind in self._guarded or (tree and kind is not Kind.FILE_DELETE):
            return None
        if (kind, tree) not in self._indexes:
            self._indexes[kind, tree] = tuple(_Index(policy.rules, kind, tree) for policy in self._policies)
        indexes = self._indexes[kind, tree]
        at = path.find("/", 1)
        while at > 0:
            if all(index.is_even(path[:at]) for index in indexes):
                return path[:at]
            at = path.find("/", at + 1)
        return None

    def above_all(self, operations: Sequence[Operation]) -> str | None:
        """Return the highest directory above the paths of all operations that is one for each of them, or None."""
        found = [self.above(each.kind, each.path, tree=each.directory) for each in operations]
        # All beneath a directory that is beneath one of these is decided alike, too.
        lowest = max((directory or "" for directory in found), key=len, default="") if all(found) else ""
        return lowest if lowest and all(each.path.startswith(f"{lowest}/") for each in operations) else None


class _Index:
    # The patterns of one policy for one kind, with the rules they belong to. Of several rules that allow, the one with
    # the smallest id is the decision; so a pattern changes nothing where a smaller one matches everything anyhow.

    def __init__(self, rules: tuple[Rule, ...], kind: Kind, tree: bool) -> None:
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
        for directory in _leading_to_blocks(rules) if tree else ():
            self._within[directory] = _BLOCK

    def is_even(self, directory: str) -> bool:
        """Whether all beneath a directory is decided alike."""
        found = self._even.get(directory)
        if found is None:
            if len(self._even) >= _MOST_REMEMBERED:  # an agent makes up as many names as it likes
                self._even.clear()
            found = self._even[directory] = self._find_even(directory)
        return found

    def _find_even(self, directory: str) -> bool:
        trees = (self._trees.get(place, NONE) for place in _upwards(directory))
        globs = (rule for wanted, rule in self._globs if rule != _BLOCK and matches_all_beneath(wanted, directory))
        base = min(*trees, *globs, NONE)
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
        if kind in kinds(rule):
            for wanted in _parsed(rule):
                yield wanted, _BLOCK if rule.effect is Effect.BLOCK else rule.id


def _leading_to_blocks(rules: tuple[Rule, ...]) -> Iterator[str]:
    """Return the directories that hold one which may not be deleted, because it leads to what a block rule names."""
    for rule in rules:
        for wanted in _parsed(rule) if rule.effect is Effect.BLOCK else ():
            yield from wanted.ancestors[1:]


def _parsed(rule: Rule) -> list[Pattern]:
    by_path = isinstance(rule.match, FileMatch | ExecMatch | UnixMatch) and not rule.guarded
    return [pattern.parse(path) for path in rule.match.paths] if by_path else []  # type: ignore[union-attr]
