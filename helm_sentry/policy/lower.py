"""Lowering: which kinds of operation the kernel can hold by itself, and by which rules. Pure.

A kind goes to the kernel as a whole or stays with the broker as a whole: a call that is not notified cannot be looked
at later. It goes only if every rule that may decide it can be said in what the kernel's mechanism understands, so that
the kernel allows nothing that `decide` would not, and refuses nothing that `decide` would allow.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TypeAlias

from helm_sentry.decision import Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.compiler import kinds as kinds_of
from helm_sentry.policy.guard import Guard
from helm_sentry.policy.model import (
    BindMatch,
    ConnectMatch,
    Effect,
    ExecMatch,
    FileMatch,
    Network,
    Policy,
    PortRange,
    Rule,
    SocketMatch,
    UnixMatch,
)
from helm_sentry.policy.reach import covers, may_lead_through, may_match

KERNEL, BROKER = "kernel", "broker"

_MOVES = frozenset({Kind.FILE_RENAME, Kind.FILE_DELETE, Kind.FILE_CREATE})
_FILLED = frozenset({Kind.FILE_RENAME, Kind.FILE_CREATE})  # take what a directory holds along
_COUNTS = "run.counts."
_LATE = "it has an effect, which must be in the log first, and what the kernel reports is written there later"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRule:
    """A rule for paths: files, programs and named Unix sockets.

    Attributes:
        kinds: kinds of operation it decides.
        path: canonical path.
        prefix: it holds for all beneath as well.
        directory: it holds only for operations that reach what is beneath a directory.
        verdict: ALLOW or DENY.
        rule: id of the rule it comes from.
    """

    kinds: frozenset[Kind]
    path: str
    prefix: bool
    verdict: Verdict
    rule: str
    directory: bool = False

    def matches(self, operation: Operation) -> bool:
        """Whether it has a say about an operation."""
        if operation.kind not in self.kinds or (self.directory and not operation.directory):
            return False
        beneath = operation.path.startswith("/") and operation.path.startswith(self.path.rstrip("/") + "/")
        return operation.path == self.path or (self.prefix and beneath)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRule:
    """A rule for addresses; one that denies also holds for the unspecified address, which may become any.

    Attributes:
        kinds: kinds of operation it decides.
        network: addresses.
        ports: inclusive range.
        protocols: of `tcp` and `udp`.
        verdict: ALLOW or DENY.
        rule: id of the rule it comes from.
    """

    kinds: frozenset[Kind]
    network: Network
    ports: PortRange
    protocols: frozenset[str]
    verdict: Verdict
    rule: str

    def matches(self, operation: Operation) -> bool:
        """Whether it has a say about an operation."""
        if operation.kind not in self.kinds or operation.protocol not in self.protocols:
            return False
        address = ip_address(operation.address)
        meant = address in self.network or (self.verdict is Verdict.DENY and address.is_unspecified)
        return meant and self.ports[0] <= operation.port <= self.ports[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRule:
    """A rule for a whole kind, or for those operations of it that have a name, such as a socket family.

    Attributes:
        kinds: kinds of operation it decides.
        name: the operation's name, empty for all.
        verdict: ALLOW or DENY.
        rule: id of the rule it comes from.
    """

    kinds: frozenset[Kind]
    name: str
    verdict: Verdict
    rule: str

    def matches(self, operation: Operation) -> bool:
        """Whether it has a say about an operation."""
        return operation.kind in self.kinds and self.name in ("", operation.name)


KernelRule: TypeAlias = PathRule | AddressRule | NameRule


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why one rule, or the mechanism itself, keeps a kind with the broker.

    Attributes:
        rule: id of the rule, empty for the mechanism.
        reason: in words.
    """

    rule: str
    reason: str

    def __str__(self) -> str:
        return f"rule `{self.rule}` {self.reason}" if self.rule else self.reason


@dataclass(frozen=True, slots=True)
class Held:
    """Who holds one kind of operation.

    Attributes:
        by: `KERNEL` or `BROKER`.
        obstacles: what keeps it with the broker; empty for the kernel.
    """

    by: str
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def reason(self) -> str:
        """All obstacles in one line."""
        return "; ".join(map(str, self.obstacles))


@dataclass(frozen=True, slots=True)
class Lowered:
    """A policy as far as the kernel holds it.

    Attributes:
        mechanism: what holds it.
        held: for each kind of operation, who holds it.
        rules: what the kernel is told. One that denies beats all that allow; what none allows is denied.
    """

    mechanism: str
    held: Mapping[Kind, Held]
    rules: tuple[KernelRule, ...]

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds that the kernel holds."""
        return frozenset(kind for kind, held in self.held.items() if held.by == KERNEL)

    def allows(self, operation: Operation) -> bool:
        """Whether the kernel allows an operation: what its programs must do, in Python."""
        if operation.kind not in self.kinds:
            return False
        verdicts = {rule.verdict for rule in self.rules if rule.matches(operation)}
        return verdicts == {Verdict.ALLOW}


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What can hold rules in the kernel.

    Attributes:
        name: for people.
        kinds: kinds it has hooks or rights for.
        denies: a rule that denies can lie inside one that allows.
        own_processes: it knows the run's own processes, which rules call /proc/self.
        late: kinds that it could judge, but whose effect would be there before their record.
    """

    name: str
    kinds: frozenset[Kind]
    denies: bool
    own_processes: bool
    late: frozenset[Kind] = frozenset()


# The hooks for these are given an entry of a file system, not where it is mounted, so not its path; a look has none.
_WITHOUT_A_MOUNT = frozenset({Kind.FILE_STAT, Kind.FILE_UTIME, Kind.FILE_XATTR})

BPF_LSM = Mechanism(
    name="bpf lsm",
    kinds=frozenset(kind for kind in Kind if kind.startswith("file.") and kind not in _WITHOUT_A_MOUNT)
    | {Kind.EXEC, Kind.NET_CONNECT, Kind.NET_BIND, Kind.NET_SEND, Kind.NET_SOCKET, Kind.UNIX_CONNECT, Kind.UNIX_BIND},
    denies=True,
    own_processes=True,
)
"""BPF programs at LSM hooks, with paths and addresses in maps."""

Judge: TypeAlias = Callable[[Kind, tuple[KernelRule, ...]], Iterator[Obstacle]]
"""Further obstacles of a mechanism for a kind, given the rules that would hold it."""


def lower(policy: Policy, mechanism: Mechanism, judge: Judge = lambda kind, rules: iter(())) -> Lowered:
    """Return what of a policy a mechanism can hold.

    Args:
        policy: the effective policy, built-in rules included.
        mechanism: what is to hold it.
        judge: yields what else speaks against holding a kind.
    """
    guarded = [Guard.of(rule) for rule in policy.rules if rule.guarded]
    plain = [rule for rule in policy.rules if not rule.guarded]
    held: dict[Kind, Held] = {}
    rules: list[KernelRule] = []
    for kind in Kind:
        mine = tuple(_rules_for(kind, plain))
        if kind not in mechanism.kinds:
            obstacles = [Obstacle("", _LATE if kind in mechanism.late else f"{mechanism.name} has nothing for it")]
        else:
            obstacles = [
                *([Obstacle("", "the run above sets a ceiling, which the supervisor knows")] if policy.within else []),
                *_depends(kind, guarded),
                *_inexpressible(kind, plain, mine, mechanism),
                *judge(kind, mine),
            ]
        held[kind] = Held(BROKER, tuple(dict.fromkeys(obstacles))) if obstacles else Held(KERNEL)
        rules += [] if obstacles else mine
    return Lowered(mechanism.name, held, _joined(rules))


def _joined(rules: list[KernelRule]) -> tuple[KernelRule, ...]:
    """Return rules that differ in their kinds alone as one."""
    kinds: dict[KernelRule, frozenset[Kind]] = {}
    for rule in rules:
        bare = _with_kinds(rule, frozenset())
        kinds[bare] = kinds.get(bare, frozenset()) | rule.kinds
    return tuple(_with_kinds(bare, all_of_them) for bare, all_of_them in kinds.items())


def _with_kinds(rule: KernelRule, kinds: frozenset[Kind]) -> KernelRule:
    return replace(rule, kinds=kinds)


def _depends(kind: Kind, guards: list[Guard]) -> Iterator[Obstacle]:
    """Yield the rules whose say depends on more than the object."""
    for guard in guards:
        if kind in guard.kinds:
            yield Obstacle(guard.rule.id, _dependence(guard.rule))
        if f"{_COUNTS}{kind}" in guard.asks_for:
            yield Obstacle(guard.rule.id, "counts such operations before they happen")


def _dependence(rule: Rule) -> str:
    if rule.when:
        return "has a condition"
    if rule.limit:
        return "has a limit"
    return "holds for some programs only" if rule.programs else "looks at arguments or environment"


def _rules_for(kind: Kind, plain: list[Rule]) -> Iterator[KernelRule]:
    """Yield what can be said of the rules for one kind."""
    mine = frozenset({kind})
    for rule in plain:
        verdict = Verdict.DENY if rule.effect is Effect.BLOCK else Verdict.ALLOW
        if isinstance(rule.match, FileMatch | ExecMatch | UnixMatch):
            for text in rule.match.paths:
                yield from _path_rules(kind, pattern.parse(text), rule.id, verdict, kind in kinds_of(rule))
        elif kind not in kinds_of(rule):
            continue
        elif isinstance(rule.match, ConnectMatch | BindMatch):
            for network in rule.match.addresses:
                for ports in rule.match.ports:
                    yield AddressRule(
                        kinds=mine,
                        network=network,
                        ports=ports,
                        protocols=rule.match.protocols,
                        verdict=verdict,
                        rule=rule.id,
                    )
        else:
            for name in rule.match.families if isinstance(rule.match, SocketMatch) else ("",):
                yield NameRule(kinds=mine, name=name, verdict=verdict, rule=rule.id)


def _path_rules(kind: Kind, wanted: pattern.Pattern, rule: str, verdict: Verdict, named: bool) -> Iterator[PathRule]:
    """Yield what one pattern of a rule means for a kind, as `compiler.finders` has it."""

    def say(path: str, *, prefix: bool = False, directory: bool = False) -> PathRule:
        return PathRule(
            kinds=frozenset({kind}), path=path, prefix=prefix, directory=directory, verdict=verdict, rule=rule
        )

    tree = wanted.rest == (None,)
    if named and (tree or not wanted.rest):
        yield say(wanted.prefix or "/", prefix=tree)
    if named and kind is Kind.FILE_STAT and verdict is Verdict.ALLOW:
        yield from (say(directory) for directory in (*wanted.ancestors, wanted.prefix or "/"))
    if kind in _MOVES and verdict is Verdict.DENY:
        yield from (say(directory, directory=True) for directory in wanted.ancestors)
        if kind in _FILLED and wanted.rest:
            yield say(wanted.prefix or "/", prefix=tree, directory=True)


def _inexpressible(
    kind: Kind, plain: list[Rule], lowered: tuple[KernelRule, ...], mechanism: Mechanism
) -> Iterator[Obstacle]:
    """Yield the rules of which something could not be said."""
    allowed = [rule for rule in lowered if isinstance(rule, PathRule) and rule.verdict is Verdict.ALLOW]
    for rule in plain:
        match = rule.match
        if isinstance(match, ConnectMatch) and kind in kinds_of(rule):
            if match.hosts:
                yield Obstacle(rule.id, "names hosts, whose addresses the supervisor looks up")
            if match.own:
                yield Obstacle(rule.id, "means the run's own servers, which the supervisor knows")
        if isinstance(match, FileMatch | ExecMatch | UnixMatch):
            for text in match.paths:
                if reason := _why_not(kind, rule, pattern.parse(text), allowed, mechanism):
                    yield Obstacle(rule.id, reason)


def _why_not(
    kind: Kind, rule: Rule, wanted: pattern.Pattern, allowed: list[PathRule], mechanism: Mechanism
) -> str | None:
    simple = not wanted.rest or wanted.rest == (None,)
    named = kind in kinds_of(rule)
    if rule.effect is Effect.ALLOW:
        if not named:
            return None
        if not mechanism.own_processes and _names_own_processes(wanted):
            return f"names `{wanted.text}`: which processes are the run's own only the supervisor knows"
        if not simple and not any(covers(one.path, one.prefix, wanted) for one in allowed):
            return f"names `{wanted.text}`, which is neither one path nor a whole directory"
        return None
    for one in allowed:
        meets = named and may_match(wanted, one.path, one.prefix)
        passes = kind in _FILLED and not simple and may_lead_through(wanted, one.path, one.prefix)
        if (meets and not (simple and mechanism.denies)) or passes:
            return f"blocks `{wanted.text}` inside `{one.path}`, which rule `{one.rule}` allows"
    return None


def _names_own_processes(wanted: pattern.Pattern) -> bool:
    return may_match(wanted, "/proc/self", True)
