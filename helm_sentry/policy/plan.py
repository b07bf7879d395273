"""The plan: which layer of this host holds which kind of operation. Pure: features and a policy go in.

A kind that nothing holds stops the run before it starts; a layer that is missing stops it unless the user accepts
that, and then every record says so.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from helm_sentry.operation import Kind
from helm_sentry.policy.model import ExecMatch, KernelMatch, Policy

SECCOMP, PTRACE = "seccomp", "ptrace"
BROKERS = {SECCOMP: "supervisor (seccomp)", PTRACE: "supervisor (ptrace)"}
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


@dataclass(frozen=True, slots=True)
class Plan:
    """How a policy is held on one host.

    Attributes:
        tier: how calls reach the supervisor: `seccomp` or `ptrace`.
        layers: for each kind of operation, what holds it, the deciding layer first.
        missing: sentences about layers that are not there but should be.
        fatal: sentences about what makes a run impossible.
        programs: path patterns the floor lets the kernel execute.
    """

    tier: str
    layers: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    fatal: tuple[str, ...]
    programs: tuple[str, ...]

    @property
    def missing_layers(self) -> tuple[str, ...]:
        """Names of the layers that are not there."""
        return tuple(sentence.partition(":")[0] for sentence in self.missing)

    def canonical(self) -> dict[str, Any]:
        """Return the plan as plain JSON data."""
        return {
            "tier": self.tier,
            "layers": {kind: list(layers) for kind, layers in self.layers.items()},
            "missing": list(self.missing),
            "programs": list(self.programs),
        }


def make_plan(policy: Policy, host: Host, loaders: tuple[str, ...], tier: str = "auto") -> Plan:
    """Return how `policy` is held on `host`.

    Args:
        policy: the effective policy.
        host: what the host offers.
        loaders: dynamic loaders, which the kernel executes on a program's behalf.
        tier: the one that was asked for; `auto` for the quickest that the host has.
    """
    if tier == "auto":
        tier = PTRACE if host.tracing and not host.listener else SECCOMP
    programs = {path for rule in policy.grants if isinstance(rule.match, ExecMatch) for path in rule.match.paths}
    return Plan(
        tier=tier,
        layers={str(kind): _layers(kind, host, tier) for kind in Kind},
        missing=_missing(host),
        fatal=_fatal(policy, host, tier),
        programs=tuple(sorted({*programs, *loaders})),
    )


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
    if tier == SECCOMP and not host.listener:
        fatal.append("no seccomp listener can be had here: the kernel is too old, or a container already owns one")
    if tier == PTRACE and not host.tracing:
        fatal.append("calls cannot be intercepted with ptrace here, so `--tier ptrace` is not possible")
    if not host.ptrace:
        fatal.append("processes cannot be seized with ptrace here, so no exec could be verified")
    return tuple(fatal)
