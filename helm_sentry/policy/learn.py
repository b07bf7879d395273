"""From what runs did to the smallest readable policy that allows it. Pure.

Nothing that is secret or a door to the host is granted, however often it was used: it is listed instead.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from helm_sentry.decision import Decision, Reason
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import draft
from helm_sentry.policy.draft import Draft, Withheld
from helm_sentry.policy.engine import CompiledPolicy, compile_policy, decide
from helm_sentry.policy.explain import suggestion
from helm_sentry.policy.grants import MANY, Evidence, Grant, NameTree, Place
from helm_sentry.policy.loader import load
from helm_sentry.policy.observation import Observation, ObservedRun
from helm_sentry.policy.sensitive import CHANGES, danger

_HEADS = ("tmp", "workspace", "home")
_LOOKS = frozenset({Kind.FILE_READ, Kind.FILE_LIST})
_NETWORK = frozenset({Kind.NET_CONNECT, Kind.NET_SEND, Kind.NET_BIND})
_MANY_LOOKS = 3  # to see that a name is there gives little: fewer of them stand for a directory
_UNIX = frozenset({Kind.UNIX_CONNECT, Kind.UNIX_BIND})


@dataclass(frozen=True, slots=True)
class Seen:
    """One operation that the policy is to allow.

    Attributes:
        operation: what was done.
        place: its path as a policy writes it.
        evidence: where it was seen.
        made: the run itself had made the object, or a directory above it.
        root: for an object that the run made, the nearest directory that was there before.
    """

    operation: Operation
    place: Place
    evidence: Evidence
    made: bool
    root: Place | None = None


@dataclass(slots=True)
class _Sorted:
    granted: list[Seen] = field(default_factory=list)
    looked: list[Seen] = field(default_factory=list)
    withheld: dict[tuple[Kind, str], Withheld] = field(default_factory=dict)


def learn(runs: Sequence[ObservedRun], header: str) -> Draft:
    """Return a policy that allows what the runs did.

    Args:
        runs: dry runs; of an enforced run only what was allowed counts.
        header: gives the beginning of the policy file: schema, name, extends, environment.
    """
    bases = [compile_policy(load(header + "allow: []\n", "learn.yaml", run.variables)) for run in runs]
    found = _Sorted()
    for run, base in zip(runs, bases, strict=True):
        _sort(run, base, found)
    made = {seen.place for seen in found.granted if seen.made}
    result = _draft(runs, found, header, lambda head, names: Place(head, names) in made)
    return _complete(result, runs, found)


def _sort(run: ObservedRun, base: CompiledPolicy, found: _Sorted) -> None:
    """Tell what a run did apart: granted, only looked at, withheld."""
    heads = _heads(run.variables)
    made: set[str] = set()
    for observation in run.observations:
        if observation.decision.reason is Reason.BUILTIN:
            continue
        for operation in observation.operations:
            _sort_one(observation, operation, base, heads, made, found)
            if operation.kind is Kind.FILE_CREATE and observation.done:
                made.add(operation.path)


def _sort_one(
    observation: Observation,
    operation: Operation,
    base: CompiledPolicy,
    heads: Mapping[str, str],
    made: set[str],
    found: _Sorted,
) -> None:
    if decide(base, operation).allowed:
        return
    evidence = Evidence(
        1,
        {operation.target},
        {observation.run},
        (observation.run, observation.seq, observation.syscall),
    )
    ancestors = _lineage(operation.path)
    own = any(path in made for path in ancestors)
    why = "refused in the run too, and the program went on" if observation.refused else ""
    if observation.syscall.startswith(("access", "faccessat")) and operation.kind is Kind.EXEC:
        return  # a search through PATH asks this of every file it meets
    why = why or ("" if own else danger(operation))
    if why or not _can_be_granted(operation):
        key = (operation.kind, operation.target)
        known = found.withheld.setdefault(key, Withheld(operation, why or "no rule can allow it", Evidence()))
        known.evidence.add(evidence)
        return
    root = next((path for path in ancestors if path not in made), None) if own else None
    place = _place(operation.path, heads)
    made_now = own or (operation.kind is Kind.FILE_CREATE and observation.done)
    seen = Seen(operation, place, evidence, made_now, _place(root, heads) if root else None)
    (found.looked if operation.kind is Kind.FILE_STAT else found.granted).append(seen)


def _can_be_granted(operation: Operation) -> bool:
    kind = operation.kind
    if kind in _NETWORK:
        return bool(suggestion(operation))
    return bool(operation.path) and (kind.startswith("file.") or kind is Kind.EXEC or kind in _UNIX)


def _lineage(path: str) -> list[str]:
    """Return a path and the directories above it."""
    found = []
    while path and path != "/":
        found.append(path)
        path = path.rpartition("/")[0]
    return [*found, "/"]


def _heads(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables by the directory they stand for, the longest directory first."""
    known = {variables[name]: f"${{{name}}}" for name in reversed(_HEADS) if variables.get(name, "/") != "/"}
    return dict(sorted(known.items(), key=lambda entry: -len(entry[0])))


def _place(path: str, heads: Mapping[str, str]) -> Place:
    for directory, head in heads.items():
        if path == directory or path.startswith(directory + "/"):
            return Place(head, tuple(path[len(directory) :].split("/")[1:]))
    return Place("", tuple(path.split("/")[1:]) if path != "/" else ())


def _draft(
    runs: Sequence[ObservedRun], found: _Sorted, header: str, made: Callable[[str, tuple[str, ...]], bool]
) -> Draft:
    files = [seen for seen in found.granted if seen.operation.kind.startswith("file.")]
    kinds = {"look": _LOOKS, "change": CHANGES}
    grants = [
        grant
        for wanted in kinds.values()
        for grant in _patterns([seen for seen in files if seen.operation.kind in wanted], made)
    ]
    programs = [seen for seen in found.granted if seen.operation.kind is Kind.EXEC]
    return Draft(
        header=header,
        commands=tuple(run.command for run in runs),
        files=tuple(_joined(grants)),
        programs=(*_patterns([seen for seen in programs if seen.root is None], made, fold=False), *_built(programs)),
        sockets=tuple(_patterns([seen for seen in found.granted if seen.operation.kind in _UNIX], made, fold=False)),
        network=tuple(_endpoints(seen for seen in found.granted if seen.operation.kind in _NETWORK)),
        secrets=(),
        withheld=tuple(found.withheld.values()),
    )


def _patterns(
    some: Iterable[Seen], made: Callable[[str, tuple[str, ...]], bool], *, fold: bool = True, many: int = MANY
) -> Iterator[Grant]:
    trees: dict[str, NameTree] = {}
    for seen in some:
        tree = trees.setdefault(seen.place.head, NameTree(seen.place.head))
        tree.add(seen.place.names, seen.operation.kind, seen.evidence)
    for head in sorted(trees):
        yield from trees[head].grants(made, fold=fold, many=many)


def _built(some: Iterable[Seen]) -> Iterator[Grant]:
    """Programs that the run made: the floor is laid before they exist, so their nearest old directory is named."""
    found: dict[Place, Evidence] = {}
    for seen in some:
        if seen.root is not None:
            found.setdefault(seen.root, Evidence()).add(seen.evidence)
    for root, evidence in found.items():
        tree = NameTree(root.head)
        tree.add((*root.names, "\0**"), Kind.EXEC, evidence)
        for grant in tree.grants(lambda head, names: False, fold=False):
            yield Grant(grant.head, grant.pattern, grant.verbs, evidence, "made during the run, confidence medium")


def _joined(grants: Iterable[Grant]) -> Iterator[Grant]:
    """Join the grants of one pattern."""
    found: dict[str, list[Grant]] = {}
    for grant in grants:
        found.setdefault(grant.pattern, []).append(grant)
    for text, several in found.items():
        evidence = Evidence()
        for grant in several:
            evidence.add(grant.evidence)
        verbs = frozenset().union(*(grant.verbs for grant in several))
        remarks = dict.fromkeys(grant.remark for grant in several if grant.remark)
        yield Grant(several[0].head, text, verbs, evidence, "; ".join(remarks))


def _endpoints(some: Iterable[Seen]) -> Iterator[tuple[Operation, Evidence]]:
    found: dict[tuple[object, ...], tuple[Operation, Evidence]] = {}
    for seen in some:
        operation = seen.operation
        bind = operation.kind is Kind.NET_BIND
        name = "own" if operation.own and not bind else (operation.hosts or operation.address)
        port = 0 if operation.own and not bind else operation.port
        found.setdefault((bind, name, port, operation.protocol), (operation, Evidence()))[1].add(seen.evidence)
    yield from found.values()


def _complete(result: Draft, runs: Sequence[ObservedRun], found: _Sorted) -> Draft:
    """Add what the rules so far leave out: names that were only looked for, and whatever a guess missed."""
    result = _guarded(result, runs, found)
    left = [seen for seen, decision in _decided(result, runs, (*found.granted, *found.looked)) if not decision.allowed]
    exact = [
        Grant(seen.place.head, _exact(seen.place), frozenset({seen.operation.kind}), seen.evidence)
        for seen in left
        if seen.operation.kind.startswith("file.") and seen.operation.kind is not Kind.FILE_STAT
    ]
    looked = [seen for seen in left if seen.operation.kind is Kind.FILE_STAT]
    made = {seen.place for seen in found.granted if seen.made}
    names = [*_patterns(looked, lambda head, names: Place(head, names) in made, many=_MANY_LOOKS)]
    return draft.completed(result, tuple(_joined([*result.files, *exact])), tuple(names))


def _guarded(result: Draft, runs: Sequence[ObservedRun], found: _Sorted) -> Draft:
    """Add block rules for secrets, as far as they leave the program what it did."""
    guarded = draft.with_secrets(
        result,
        used=(seen.operation.path.rpartition("/")[2] for seen in found.granted),
        renamed=(_exact(seen.place) for seen in found.granted if seen.operation.kind is Kind.FILE_RENAME),
        made=(_exact(seen.place) for seen in found.granted if seen.made),
    )
    decided = _decided(guarded, runs, found.granted)
    return draft.without_secrets(guarded, {decision.rule for _, decision in decided if decision.reason is Reason.BLOCK})


def _decided(result: Draft, runs: Sequence[ObservedRun], some: Iterable[Seen]) -> Iterator[tuple[Seen, Decision]]:
    written = draft.text(result)
    compiled = [compile_policy(load(written, "learnt.yaml", run.variables)) for run in runs]
    for seen in some:
        yield seen, decide(compiled[min(seen.evidence.runs) - 1], seen.operation)


def _exact(place: Place) -> str:
    tree = NameTree(place.head)
    tree.add(place.names, Kind.FILE_STAT, Evidence())
    return next(tree.grants(lambda head, names: False, fold=False)).pattern
