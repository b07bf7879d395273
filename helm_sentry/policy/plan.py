"""The plan: which layer of this host holds which kind of operation. Pure: features and a policy go in.

A kind that nothing holds stops the run before it starts; a layer that is missing stops it unless the user accepts
that, and then every record says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from helm_sentry.operation import Kind
from helm_sentry.policy.compiler import stated_kinds
from helm_sentry.policy.lower import BPF_LSM, KERNEL, Held, Lowered, Obstacle
from helm_sentry.policy.lower import BROKER as BY_BROKER
from helm_sentry.policy.model import ExecMatch, KernelMatch, Policy
from helm_sentry.policy.rights import HOOKS, Grant

SECCOMP, PTRACE, KERNEL_TIER = "seccomp", "ptrace", "kernel"
BROKERS = {SECCOMP: "supervisor (seccomp)", PTRACE: "supervisor (ptrace)", KERNEL_TIER: "supervisor (seccomp)"}
LANDLOCK = "landlock"
VERIFIED = "exec verification (ptrace)"
RLIMIT = "rlimit"


class Host(Protocol):
    """What a plan needs to know about a host; `Features` is one."""

    @property
    def listener(self) -> bool:
        """A seccomp listener can be had."""

    @property
    def wait_killable(self) -> bool:
        """Calls in the supervisor's hands are interrupted by fatal signals only."""

    @property
    def landlock(self) -> int:
        """Landlock ABI."""

    @property
    def ptrace(self) -> bool:
        """Processes can be seized."""

    @property
    def tracing(self) -> bool:
        """A filter can stop a seized process at its calls, and they can be changed there."""

    @property
    def root(self) -> bool:
        """The supervisor runs as root."""

    @property
    def btf(self) -> bool:
        """The kernel describes its types."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a policy is held on one host.

    Attributes:
        tier: how calls reach the supervisor: `seccomp`, `ptrace`, or `kernel` where the kernel holds some kinds by
            itself and the others are notified.
        layers: for each kind of operation, what holds it, the deciding layer first.
        missing: sentences about layers that are not there but should be.
        fatal: sentences about what makes a run impossible.
        programs: path patterns the floor lets the kernel execute.
        held: in the kernel tier, who holds each kind, and why it is not the kernel.
        grants: in the kernel tier, the Landlock rights of the kinds that the kernel holds.
        mechanism: in the kernel tier, what holds them.
    """

    tier: str
    layers: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    fatal: tuple[str, ...]
    programs: tuple[str, ...]
    held: Mapping[Kind, Held] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    mechanism: str = ""

    @property
    def kernel(self) -> frozenset[Kind]:
        """The kinds that the kernel holds by itself: calls for them alone are not notified."""
        return frozenset(kind for kind, held in self.held.items() if held.by == KERNEL)

    def why_not(self, kind: str) -> tuple[str, ...]:
        """Why the kernel does not hold a kind by itself; empty where it does, and in the seccomp tier."""
        held = self.held.get(Kind(kind))
        return tuple(map(str, held.obstacles)) if held else ()

    @property
    def missing_layers(self) -> tuple[str, ...]:
        """Names of the layers that are not there."""
        return tuple(sentence.partition(":")[0] for sentence in self.missing)

    def canonical(self) -> dict[str, Any]:
        """Return the plan as plain JSON data."""
        data = {
            "tier": self.tier,
            "layers": {kind: list(layers) for kind, layers in self.layers.items()},
            "missing": list(self.missing),
            "programs": list(self.programs),
        }
        if self.tier == KERNEL_TIER:
            data["held"] = {
                str(kind): {"by": held.by, **({"because": list(map(str, held.obstacles))} if held.obstacles else {})}
                for kind, held in self.held.items()
            }
        return data


def make_plan(
    policy: Policy,
    host: Host,
    loaders: tuple[str, ...],
    tier: str = "auto",
    lowered: Lowered | None = None,
    grants: tuple[Grant, ...] = (),
) -> Plan:
    """Return how `policy` is held on `host`.

    Args:
        policy: the effective policy.
        host: what the host offers.
        loaders: dynamic loaders, which the kernel executes on a program's behalf.
        tier: the one that was asked for; `auto` for the quickest that the host has.
        lowered: what the kernel is to hold by itself, in the kernel tier.
        grants: the Landlock rights it takes.
    """
    if tier == "auto":
        tier = PTRACE if host.tracing and not host.listener else SECCOMP
    programs = {path for rule in policy.grants if isinstance(rule.match, ExecMatch) for path in rule.match.paths}
    lacking = _no_account(host) if lowered else ()
    if lowered and lacking:
        reasons = tuple(Obstacle("", reason) for reason in lacking)
        lowered, grants = Lowered(lowered.mechanism, dict.fromkeys(Kind, Held(BY_BROKER, reasons)), ()), ()
    kernel = lowered.kinds if lowered else frozenset()
    # The programs refuse the agent itself what the broker does for it.
    beneath = (HOOKS.name,) if lowered and lowered.mechanism == HOOKS.name else ()
    return Plan(
        tier=tier,
        layers={
            str(kind): (f"kernel ({lowered.mechanism})",)
            if lowered and kind in kernel
            else _layers(kind, host, tier) + (beneath if kind in BPF_LSM.kinds else ())
            for kind in Kind
        },
        missing=_missing(host),
        fatal=(*_fatal(policy, host, tier), *lacking),
        programs=tuple(sorted({*programs, *loaders})),
        held=lowered.held if lowered else {},
        grants=grants,
        mechanism=lowered.mechanism if lowered else "",
    )


def _no_account(host: Host) -> tuple[str, ...]:
    """Return why the log of what the kernel lets through could not be written."""
    reasons = [] if host.root else ["the kernel tier needs root, for the programs that report what the kernel allows"]
    reasons += [] if host.landlock else ["the kernel tier needs landlock, which holds what the broker does not see"]
    return (*reasons, *([] if host.btf else ["the kernel tier needs the kernel's description of its types (btf)"]))


def _layers(kind: Kind, host: Host, tier: str) -> tuple[str, ...]:
    layers = [BROKERS[tier]]
    if kind is Kind.EXEC:
        layers += [VERIFIED] if host.ptrace else []
        layers += [LANDLOCK] if host.landlock else []
    elif kind in (Kind.NET_CONNECT, Kind.NET_BIND):
        layers += [f"{LANDLOCK} (tcp)"] if host.landlock >= 4 else []
    elif kind is Kind.PROCESS_SIGNAL:
        layers += [LANDLOCK] if host.landlock >= 6 else []
    elif kind is Kind.PROCESS_TRACE or (kind.startswith("file.") and kind not in _NOT_IN_LANDLOCK):
        layers += [LANDLOCK] if host.landlock else []
    return tuple(layers)


# Landlock has no right for these; the broker alone holds them.
_NOT_IN_LANDLOCK = frozenset({Kind.FILE_STAT, Kind.FILE_CHMOD, Kind.FILE_CHOWN, Kind.FILE_UTIME, Kind.FILE_XATTR})


def _missing(host: Host) -> tuple[str, ...]:
    missing = []
    if not host.landlock:
        missing.append("landlock: the kernel has none, so there is no floor under the seccomp filter")
    return tuple(missing)


def _grants_listeners(policy: Policy) -> bool:
    matches = [rule.match for rule in policy.grants]
    return any(isinstance(match, KernelMatch) and Kind.KERNEL_SECCOMP in match.kinds for match in matches)


def _fatal(policy: Policy, host: Host, tier: str) -> tuple[str, ...]:
    fatal = []
    if tier == PTRACE and _grants_listeners(policy):
        fatal.append("`kernel.seccomp` cannot be allowed: an agent's own listener would be asked before the tracer")
    if tier != PTRACE and not host.listener:
        fatal.append("no seccomp listener can be had here: the kernel is too old, or a container already owns one")
    if tier == PTRACE and not host.tracing:
        fatal.append(
            "`--tier ptrace` is not possible: calls cannot be changed with ptrace here (it is made for x86_64 alone)"
        )
    if not host.ptrace:
        fatal.append("processes cannot be seized with ptrace here, so no exec could be verified")
    return tuple(fatal)


def table(policy: Policy, plan: Plan) -> str:
    """Return a Markdown table: for each rule and kind of operation it names, what holds it, and why not the kernel."""
    lines = ["| rule | effect | operation | held by | why not by the kernel |", "|---|---|---|---|---|"]
    for rule in policy.rules:
        for kind in sorted(stated_kinds(rule)):
            held = plan.held.get(kind)
            why = [each for each in held.obstacles if each.rule in ("", rule.id)] if held else []
            others = len(held.obstacles) - len(why) if held else 0
            words = "; ".join([*map(_escaped, why), *([f"{others} obstacles of other rules"] if others else [])])
            lines.append(f"| {rule.id} | {rule.effect} | `{kind}` | {', '.join(plan.layers[kind])} | {words} |")
    lines += [f"\nmissing: {sentence}" for sentence in plan.missing]
    return "\n".join([*lines, *(f"\nno run is possible here: {sentence}" for sentence in plan.fatal)])


def _escaped(obstacle: Obstacle) -> str:
    return str(obstacle).replace("|", "\\|")
