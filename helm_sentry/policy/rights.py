"""Lowering onto Landlock: which reading the kernel can hold by rights beneath objects that exist. Pure.

Landlock only allows, and only beneath objects that are there when a run begins. So reading goes to the kernel when
every rule for it names files and whole directories, and what no name is there for cannot be made during the run. What
has an effect stays with the broker: its record must be written first (docs/INVARIANTS.md), and nothing makes a call
that runs without notice wait for that.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from helm_sentry.abi.syscalls import HELD_KINDS
from helm_sentry.decision import Verdict
from helm_sentry.operation import Kind
from helm_sentry.policy import pattern
from helm_sentry.policy.compiler import kinds as kinds_of
from helm_sentry.policy.lower import BPF_LSM, BROKER, Held, KernelRule, Lowered, Mechanism, Obstacle, PathRule, lower
from helm_sentry.policy.model import ConnectMatch, Effect, FileMatch, Policy
from helm_sentry.policy.reach import may_match

_CHANGES = BPF_LSM.kinds - HELD_KINDS
_RIGHTS = frozenset(kind for kind in _CHANGES if kind.startswith("file.")) - {Kind.FILE_CHMOD, Kind.FILE_CHOWN}
LANDLOCK = Mechanism("landlock", HELD_KINDS, denies=False, own_processes=False, late=_RIGHTS)
_SHORTENED = Mechanism("landlock", frozenset({Kind.FILE_TRUNCATE}), denies=False, own_processes=False)
HOOKS = Mechanism("bpf lsm", HELD_KINDS, denies=True, own_processes=False, late=_CHANGES)


_OWN = "sentry/"  # rules of the supervisor itself
_TERMINALS = ("/dev/tty", "/dev/ptmx", "/dev/console", "/dev/pts")
_MAKING = frozenset({Kind.FILE_CREATE, Kind.FILE_LINK, Kind.FILE_RENAME, Kind.FILE_MKNOD})


@dataclass(frozen=True, slots=True)
class Place:
    """What is at a path when a run begins.

    Attributes:
        canonical: where the path leads when every link is followed.
        directory: it is a directory.
        device: it is a device.
    """

    canonical: str
    directory: bool = False
    device: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """Landlock rights on one object, and on all beneath it.

    Attributes:
        path: canonical path of the object.
        kinds: what may be done.
        device: it is a device.
    """

    path: str
    kinds: frozenset[Kind]
    device: bool = False


def named_paths(policy: Policy) -> frozenset[str]:
    """Return the paths that `lower_to_rights` must know the places of."""
    texts = [text for rule in policy.allow if isinstance(rule.match, FileMatch) for text in rule.match.paths]
    return frozenset(pattern.parse(text).prefix or "/" for text in texts)


def lower_to_rights(policy: Policy, places: Mapping[str, Place], floor: Iterable[Place]) -> Lowered:
    """Return what of a policy Landlock can hold.

    Args:
        policy: the effective policy, built-in rules included.
        places: what there is at `named_paths`; nothing where a path is absent.
        floor: what the floor lets be executed, and so be read.
    """
    programs = tuple(floor)

    def judge(kind: Kind, rules: tuple[KernelRule, ...]) -> Iterator[Obstacle]:
        paths = [rule for rule in rules if isinstance(rule, PathRule) and rule.verdict is Verdict.ALLOW]
        yield from _names_are_told(policy)
        yield from (obstacle for rule in paths for obstacle in _obstacles(policy, kind, rule, paths, places))
        if kind is Kind.FILE_READ:
            yield from _replaced_files(policy, paths)
            yield from _programs_as_files(paths, programs)

    return _both(lower(policy, LANDLOCK, judge))


def lower_to_hooks(policy: Policy) -> Lowered:
    """Return what of a policy the programs at the hooks of security modules are to hold in a run.

    They know every path, there or not, and what is blocked inside of what is allowed. But what has an effect stays
    with the broker here too, and so does what only the supervisor knows.
    """

    def judge(kind: Kind, rules: tuple[KernelRule, ...]) -> Iterator[Obstacle]:
        paths = [rule for rule in rules if isinstance(rule, PathRule) and rule.verdict is Verdict.ALLOW]
        yield from _names_are_told(policy)
        for rule in paths:
            yield from _processes(rule)
            yield from _known_to_the_supervisor(kind, rule)
        if kind is Kind.FILE_READ:
            yield from _replaced_files(policy, paths)

    return _both(lower(policy, HOOKS, judge))


def _both(lowered: Lowered) -> Lowered:
    """Return the same with both kinds or none."""
    if lowered.kinds >= HELD_KINDS or not lowered.kinds:
        return lowered
    # One of the two alone is of no use: an open does not say whether it wants a file or a directory.
    reason = Obstacle("", f"an open may find either, and {_other(lowered.kinds)} stays with the broker")
    held = {kind: Held(BROKER, (reason,)) if kind in lowered.kinds else held for kind, held in lowered.held.items()}
    return Lowered(lowered.mechanism, held, ())


def everything() -> tuple[Grant, ...]:
    """Return the rights that leave reading to the programs at the hooks."""
    return (Grant("/", HELD_KINDS, device=True),)


def grants(policy: Policy, lowered: Lowered, places: Mapping[str, Place]) -> tuple[Grant, ...]:
    """Return the rights that make Landlock allow what `lowered` allows, on what is there.

    Landlock looks for the right to truncate at every open, up to the root if it must, which doubles what it costs. So
    that is granted as well where the policy allows it without a condition; truncating stays with the broker.
    """
    found: dict[str, Grant] = {}
    wide = [rule for rule in lower(policy, _SHORTENED).rules if isinstance(rule, PathRule) and rule.prefix]
    shortened = [rule.path for rule in wide if rule.verdict is Verdict.ALLOW]
    for rule in lowered.rules:
        if not isinstance(rule, PathRule) or (place := places.get(rule.path)) is None:
            continue
        kinds = rule.kinds if place.directory else rule.kinds - {Kind.FILE_LIST}
        # A link has no canonical path, and what is read of a directory is its list, which has a rule of its own.
        if place.canonical == rule.path and kinds and (rule.prefix or not place.directory):
            known = found.get(rule.path, Grant(rule.path, frozenset(), place.device))
            if any(_within(known.path, path) for path in shortened):
                kinds |= _SHORTENED.kinds
            found[known.path] = replace(known, kinds=known.kinds | kinds)
    return tuple(found[path] for path in sorted(found))


def _other(kinds: frozenset[Kind]) -> Kind:
    return next(iter(HELD_KINDS - kinds))


def _names_are_told(policy: Policy) -> Iterator[Obstacle]:
    """Yield why the kernel may not say of every path whether it exists, which it does before it looks at rights."""
    plain = [rule for rule in policy.rules if not rule.guarded and Kind.FILE_STAT in kinds_of(rule)]
    public = any(
        rule.effect is Effect.ALLOW and isinstance(rule.match, FileMatch) and "/**" in rule.match.paths
        for rule in plain
        if isinstance(rule.match, FileMatch) and Kind.FILE_STAT in rule.match.do
    )
    if not public:
        yield Obstacle(
            "",
            "the kernel tells of every name whether it is there, and no rule `{do: [stat], paths: ['/**']}` allows it",
        )
    for rule in plain:
        # The supervisor's own directory is private by its mode; what names are in it is no secret that opens anything.
        if rule.effect is Effect.BLOCK and not rule.id.startswith(_OWN):
            yield Obstacle(rule.id, "blocks `stat`, and the kernel tells of every name whether it is there")


def _obstacles(
    policy: Policy, kind: Kind, rule: PathRule, others: list[PathRule], places: Mapping[str, Place]
) -> Iterator[Obstacle]:
    """Yield what speaks against a right for one path."""
    place = places.get(rule.path)
    yield from _processes(rule)
    if any(other.prefix and other.path != rule.path and _within(rule.path, other.path) for other in others):
        return  # another rule is wider, and is looked at itself
    if place is None or place.canonical != rule.path:
        if maker := _maker(policy, rule.path):
            yield Obstacle(rule.rule, f"names `{rule.path}`, which is not there yet and can be made by rule `{maker}`")
        return
    yield from _known_to_the_supervisor(kind, rule)
    if kind is Kind.FILE_LIST and place.directory and not rule.prefix:
        yield Obstacle(rule.rule, f"lists `{rule.path}` alone, and a right reaches all beneath it")


def _processes(rule: PathRule) -> Iterator[Obstacle]:
    if _among_processes(rule.path):
        yield Obstacle(
            rule.rule, f"reaches processes in `{rule.path}`, and only the supervisor knows which are the run's"
        )


def _known_to_the_supervisor(kind: Kind, rule: PathRule) -> Iterator[Obstacle]:
    """Yield what a rule reaches of which only the supervisor knows whether it is the run's own."""
    if rule.prefix and kind is Kind.FILE_READ and (terminal := _reached(rule.path, _TERMINALS)):
        yield Obstacle(rule.rule, f"reaches `{terminal}`, and only the supervisor knows which terminals are the run's")
    if not rule.prefix and kind is Kind.FILE_READ and any(_within(rule.path, each) for each in _TERMINALS):
        yield Obstacle(rule.rule, f"names `{rule.path}`, and only the supervisor knows which terminals are the run's")
    if rule.prefix and kind is Kind.FILE_READ and _within("/proc/self", rule.path):
        yield Obstacle(rule.rule, "reaches processes, and only the supervisor knows which are the run's")


def _maker(policy: Policy, path: str) -> str:
    """Return the rule that may let an agent make something at or above a path, empty when none does."""
    for rule in policy.grants:
        making = isinstance(rule.match, FileMatch) and kinds_of(rule) & _MAKING
        patterns = [pattern.parse(text) for text in rule.match.paths] if isinstance(rule.match, FileMatch) else []
        if making and any(may_match(each, place, False) for each in patterns for place in _upwards(path)):
            return rule.id
    return ""


def _upwards(path: str) -> Iterator[str]:
    while path not in ("", "/"):
        yield path
        path = path.rpartition("/")[0]


def _replaced_files(policy: Policy, paths: list[PathRule]) -> Iterator[Obstacle]:
    """Yield why some files must come from the supervisor, which hands out others in their place."""
    for rule in policy.rules:
        if isinstance(rule.match, ConnectMatch) and rule.match.hosts and _allowed("/etc/hosts", False, paths):
            yield Obstacle(rule.id, "names hosts, so `/etc/hosts` is the supervisor's own")
        if isinstance(rule.match, ConnectMatch) and any(host.startswith("*.") for host in rule.match.hosts):
            yield Obstacle(rule.id, "names domains, so `/etc/resolv.conf` is the supervisor's own")


def _programs_as_files(paths: list[PathRule], floor: Iterable[Place]) -> Iterator[Obstacle]:
    """Yield why the floor would let be read what no rule does: the kernel needs to read what it executes."""
    for place in floor:
        if not _allowed(place.canonical, place.directory, paths):
            yield Obstacle(
                "", f"`{place.canonical}` may be executed, which takes the right to read it, and no rule gives that"
            )


def _allowed(path: str, tree: bool, paths: list[PathRule]) -> bool:
    return any(_within(path, rule.path) if rule.prefix else rule.path == path and not tree for rule in paths)


def _reached(directory: str, paths: Iterable[str]) -> str:
    return next((path for path in paths if _within(path, directory) or _within(directory, path)), "")


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _among_processes(path: str) -> bool:
    first = path.removeprefix("/proc/").partition("/")[0] if path.startswith("/proc/") else ""
    return first.isdigit() or first in ("self", "thread-self", "net", "mounts")
