"""From the names that were seen to few patterns: a tree of names, with the forms of names in place of names. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from helm_sentry.operation import Kind
from helm_sentry.policy import pattern
from helm_sentry.policy.generalise import Confidence, Form, form

MANY = 8
"""So many different names in one place are taken for all of its names."""

_SEVERAL = 3
# Directories in which unrelated things lie side by side, and how deep below the root a pattern must begin there.
_SHARED = {"etc": 3, "var": 3, "home": 4, "root": 3, "usr": 3, "run": 3, "lib": 3}
_NEVER = frozenset({"proc", "sys", "dev", "boot"})


@dataclass(slots=True)
class Evidence:
    """What a grant rests on.

    Attributes:
        times: operations seen.
        names: different names seen.
        runs: runs they were seen in.
        first: run and record of the first, and its syscall.
    """

    times: int = 0
    names: set[str] = field(default_factory=set)
    runs: set[int] = field(default_factory=set)
    first: tuple[int, int, str] = (1 << 60, 0, "")

    def add(self, other: "Evidence") -> None:
        """Take in what another grant rested on."""
        self.times += other.times
        self.names |= other.names
        self.runs |= other.runs
        self.first = min(self.first, other.first)


@dataclass(frozen=True, slots=True)
class Place:
    """A path as a policy writes it.

    Attributes:
        head: `${workspace}`, `${tmp}`, `${home}` or nothing.
        names: the names beneath it.
    """

    head: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """A pattern with what may be done to what it matches.

    Attributes:
        head: variable the pattern begins with, or nothing.
        pattern: the whole pattern, as it stands in a policy.
        verbs: kinds of operation.
        evidence: what it rests on.
        remark: how it was generalised and how sure that is; empty when it is exact.
    """

    head: str
    pattern: str
    verbs: frozenset[Kind]
    evidence: Evidence
    remark: str = ""


class _Node:
    __slots__ = ("children", "evidence", "forms", "verbs")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.verbs: set[Kind] = set()
        self.evidence = Evidence()
        self.forms: dict[str, Form] = {}  # of the children that stand for several names, by glob

    def ends(self) -> "Iterator[_Node]":
        if self.verbs:
            yield self
        for child in self.children.values():
            yield from child.ends()


class NameTree:
    """Names that were seen, beneath one head."""

    def __init__(self, head: str) -> None:
        self._head, self._root = head, _Node()

    def add(self, names: tuple[str, ...], kind: Kind, evidence: Evidence) -> None:
        """Add one sighting."""
        node = self._root
        for name in names:
            node = node.children.setdefault(name, _Node())
        node.verbs.add(kind)
        node.evidence.add(evidence)

    def grants(
        self, made: Callable[[str, tuple[str, ...]], bool], *, fold: bool = True, many: int = MANY
    ) -> Iterator[Grant]:
        """Yield the patterns for everything that was added.

        Args:
            made: whether the runs themselves made what is at a place.
            fold: let one pattern stand for a directory in which many names were seen.
            many: how many those are.
        """
        self._merge(self._root, (), made)
        yield from self._below(self._root, (), (), many if fold else 0)

    def _merge(self, node: _Node, names: tuple[str, ...], made: Callable[[str, tuple[str, ...]], bool]) -> None:
        """Put one child for the form of their names in the place of several children."""
        known: dict[str, list[tuple[str, Form]]] = {}
        for name in node.children:
            if found := form(name):
                known.setdefault(found.glob, []).append((name, found))
        for glob, members in known.items():
            name, found = members[0]
            sure = found.after(len(members)) is not Confidence.LOW or made(self._head, (*names, name))
            if sure:
                merged = _Node()
                for member, _ in members:
                    _absorb(merged, node.children.pop(member))
                node.children[f"\0{glob}"] = merged
                node.forms[f"\0{glob}"] = Form(found.glob, found.what, found.after(len(members)))
        for name, child in node.children.items():
            self._merge(child, (*names, name), made)

    def _below(self, node: _Node, names: tuple[str, ...], remarks: tuple[str, ...], many: int) -> Iterator[Grant]:
        ends = list(node.ends())
        if many and self._is_one(node, names, len(ends), many):
            yield self._folded(node, names, ends, remarks)
            return
        if node.verbs:
            yield Grant(self._head, self._text(names), frozenset(node.verbs), node.evidence, "; ".join(remarks))
        for name, child in node.children.items():
            known = node.forms.get(name)
            remark = (f"`{known.glob}` for a {known.what}, confidence {known.confidence}",) if known else ()
            yield from self._below(child, (*names, name), (*remarks, *remark), many)

    def _is_one(self, node: _Node, names: tuple[str, ...], count: int, many: int) -> bool:
        if self._head == "${tmp}":  # the run's own, removed at its end
            return True
        if not foldable(self._head, names) or count < many:
            return False
        return len(node.children) >= _SEVERAL

    def _folded(self, node: _Node, names: tuple[str, ...], ends: list[_Node], remarks: tuple[str, ...]) -> Grant:
        evidence, verbs = Evidence(), set[Kind]()
        for end in ends:
            evidence.add(end.evidence)
            verbs |= end.verbs
        flat = not node.verbs and all(not child.children for child in node.children.values())
        own = self._head == "${tmp}"
        sure = "the run's own directory" if own else f"{len(ends)} names, confidence {_confidence(len(ends))}"
        remark = f"all {'in' if flat and not own else 'below'} it: {sure}"
        text = self._text((*names, "\0*" if flat and not own else "\0**"))
        return Grant(self._head, text, frozenset(verbs), evidence, "; ".join((*remarks, remark)))

    def _text(self, names: tuple[str, ...]) -> str:
        return self._head + "".join(f"/{written(name)}" for name in names) or "/"


def foldable(head: str, names: tuple[str, ...]) -> bool:
    """Return whether one pattern may stand for everything beneath a place."""
    if head in ("${workspace}", "${tmp}"):
        return True
    if head:
        return len(names) >= 2
    return bool(names) and names[0] not in _NEVER and len(names) >= _SHARED.get(names[0], 2)


def written(name: str) -> str:
    """Return a name of the tree as a pattern has it."""
    return name[1:] if name.startswith("\0") else pattern.quote(name).replace("${", "$${")


def _confidence(count: int) -> Confidence:
    return Confidence.HIGH if count >= 4 * MANY else Confidence.MEDIUM


def _absorb(target: _Node, source: _Node) -> None:
    target.verbs |= source.verbs
    target.evidence.add(source.evidence)
    for name, child in source.children.items():
        _absorb(target.children.setdefault(name, _Node()), child)
