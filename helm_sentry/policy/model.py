"""The policy as values: what a policy file means after its packs and variables are filled in.

`Policy.canonical()` gives the same meaning as plain JSON data; it is written to `policy.json`, hashed, and
read back by the loader to an equal `Policy`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network
from typing import Any, TypeAlias

from helm_sentry.decision import Verdict
from helm_sentry.operation import Kind

SCHEMA = "helm-sentry/policy/v1"
"""The schema of files that people write."""

EFFECTIVE_SCHEMA = "helm-sentry/effective-policy/v1"
"""The schema of `Policy.canonical()`: nothing to extend, no variables, ids with the name of their pack."""

FILE_KINDS: Mapping[str, Kind] = {kind.removeprefix("file."): kind for kind in Kind if kind.startswith("file.")}
"""File verbs by name."""

ALL_KINDS = frozenset(FILE_KINDS.values()) - {Kind.FILE_MKNOD}
"""What `all` means in an allow rule: a device node is a door past every path rule, so it must be named."""

UNIX_KINDS: Mapping[str, Kind] = {"connect": Kind.UNIX_CONNECT, "bind": Kind.UNIX_BIND}
"""Unix socket verbs by name."""

UNDECIDABLE_KINDS = frozenset({Kind.KERNEL_ABI, Kind.KERNEL_UNKNOWN})
"""Kernel operations that no rule can allow, because nobody can say what they would do."""

KERNEL_KINDS: Mapping[str, Kind] = {
    kind.removeprefix("kernel."): kind for kind in Kind if kind.startswith("kernel.") and kind not in UNDECIDABLE_KINDS
}
"""Kernel operations that a rule may name."""

PROTOCOLS = ("tcp", "udp")

ANY_PORT = (0, 65535)

Network: TypeAlias = IPv4Network | IPv6Network
PortRange: TypeAlias = tuple[int, int]


class Effect(StrEnum):
    """What a rule does to the operations it matches."""

    ALLOW = "allow"
    BLOCK = "block"
    CONTEXTUAL = "contextual"


@dataclass(frozen=True, slots=True)
class FileMatch:
    """Matches file operations by verb and path pattern."""

    do: frozenset[Kind]
    paths: tuple[str, ...]

    def canonical(self) -> dict[str, Any]:
        """Return the rule's `file:` part."""
        return {"file": {"do": _verbs(self.do), "paths": list(self.paths)}}


@dataclass(frozen=True, slots=True)
class ExecMatch:
    """Matches the start of programs by path pattern, argument vector and environment.

    Attributes:
        paths: path patterns.
        argv: text pattern of each argument, the program's own name first; a last `...` stands for any number of
            further ones. None: any arguments.
        environment: text pattern of a variable's name to that of its value; each must be there.
    """

    paths: tuple[str, ...]
    argv: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    def canonical(self) -> dict[str, Any]:
        """Return the rule's `exec:` part."""
        argv = {"argv": list(self.argv)} if self.argv is not None else {}
        environment = {"environment": dict(self.environment)} if self.environment else {}
        return {"exec": {"paths": list(self.paths)} | argv | environment}


@dataclass(frozen=True, slots=True)
class ConnectMatch:
    """Matches outgoing connections and datagrams by destination, port and protocol.

    Attributes:
        hosts: exact names, and `*.` before what all the names beneath it end in.
        addresses: networks.
        ports: inclusive ranges.
        protocols: of `tcp` and `udp`.
        own: loopback ports on which the run itself listens.
    """

    hosts: tuple[str, ...] = ()
    addresses: tuple[Network, ...] = ()
    ports: tuple[PortRange, ...] = (ANY_PORT,)
    protocols: frozenset[str] = frozenset(PROTOCOLS)
    own: bool = False

    def canonical(self) -> dict[str, Any]:
        """Return the rule's `connect:` part."""
        fields = {"hosts": list(self.hosts), "addresses": [str(network) for network in self.addresses]}
        given = {key: value for key, value in fields.items() if value}
        return {"connect": given | ({"own": True} if self.own else {}) | _transport(self.ports, self.protocols)}


@dataclass(frozen=True, slots=True)
class BindMatch:
    """Matches local addresses and ports that a socket is given; port 0 lets the kernel pick one."""

    addresses: tuple[Network, ...]
    ports: tuple[PortRange, ...] = (ANY_PORT,)
    protocols: frozenset[str] = frozenset(PROTOCOLS)

    def canonical(self) -> dict[str, Any]:
        """Return the rule's `bind:` part."""
        addresses = [str(network) for network in self.addresses]
        return {"bind": {"addresses": addresses} | _transport(self.ports, self.protocols)}


@dataclass(frozen=True, slots=True)
class UnixMatch:
    """Matches named Unix sockets by verb and path pattern."""

    do: frozenset[Kind]
    paths: tuple[str, ...]

    def canonical(self) -> dict[str, Any]:
        """Return the rule's `unix:` part."""
        return {"unix": {"do": _verbs(self.do), "paths": list(self.paths)}}


@dataclass(frozen=True, slots=True)
class SocketMatch:
    """Matches the creation of sockets by address family."""

    families: tuple[str, ...]

    def canonical(self) -> dict[str, Any]:
        """Return the rule's `socket:` part."""
        return {"socket": {"families": list(self.families)}}


@dataclass(frozen=True, slots=True)
class KernelMatch:
    """Matches kernel operations by kind."""

    kinds: frozenset[Kind]

    def canonical(self) -> dict[str, Any]:
        """Return the rule's `kernel:` part."""
        return {"kernel": _verbs(self.kinds)}


Matcher: TypeAlias = FileMatch | ExecMatch | ConnectMatch | BindMatch | UnixMatch | SocketMatch | KernelMatch


@dataclass(frozen=True, slots=True)
class Budget:
    """How often a rule may be used.

    Attributes:
        count: operations.
        per: seconds in which they are counted, 0 for the whole run.
    """

    count: int
    per: int = 0

    def canonical(self) -> dict[str, str]:
        """Return the rule's `limit:` part."""
        return {"count": str(self.count)} | ({"per": f"{self.per}s"} if self.per else {})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: an id that appears in decisions, an effect, what it matches and when it holds.

    Attributes:
        id: its name in decisions.
        effect: what it does.
        match: what it matches.
        note: a word to the reader.
        programs: path patterns; the rule holds for these programs and what they start. Empty: for all.
        limit: how often it may be used, None for ever.
        when: the condition of a contextual rule, in CEL.
        otherwise: what a contextual rule says when its condition is false, DENY or ESCALATE.
    """

    id: str
    effect: Effect
    match: Matcher
    note: str = ""
    programs: tuple[str, ...] = ()
    limit: Budget | None = None
    when: str = ""
    otherwise: Verdict = Verdict.DENY

    @property
    def guarded(self) -> bool:
        """Whether more than the operation's object decides if the rule holds."""
        selective = isinstance(self.match, ExecMatch) and bool(self.match.argv is not None or self.match.environment)
        return selective or bool(self.programs or self.limit or self.when)

    def canonical(self) -> dict[str, Any]:
        """Return the rule as plain data."""
        given: dict[str, Any] = {"id": self.id}
        given |= {"note": self.note} if self.note else {}
        given |= {"programs": list(self.programs)} if self.programs else {}
        given |= self.match.canonical()
        given |= {"limit": self.limit.canonical()} if self.limit else {}
        return given | ({"when": self.when, "otherwise": self.otherwise.lower()} if self.when else {})


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of a run; None leaves the host's.

    Attributes:
        wall_time: seconds until the run is ended.
        memory: bytes.
        processes: processes and threads.
        open_files: descriptors of each process.
        file_size: bytes of each file.
        cpu_time: seconds of processor time of each process.
    """

    wall_time: int | None = None
    memory: int | None = None
    processes: int | None = None
    open_files: int | None = None
    file_size: int | None = None
    cpu_time: int | None = None

    def canonical(self) -> dict[str, str]:
        """Return the limits that are set, with their units."""
        units = {
            "wall_time": "s",
            "cpu_time": "s",
            "memory": "B",
            "file_size": "B",
            "processes": "",
            "open_files": "",
        }
        values = {name: getattr(self, name) for name in units}
        return {name: f"{value}{units[name]}" for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Environment:
    """The agent's environment variables: those passed through by name or glob, and those set."""

    pass_: tuple[str, ...] = ()
    set_: Mapping[str, str] = field(default_factory=dict, hash=False)

    def select(self, outer: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a run started from `outer`; what is set wins over what is passed."""
        passed = {key: value for key, value in outer.items() if any(fnmatchcase(key, glob) for glob in self.pass_)}
        return passed | dict(self.set_)

    def canonical(self) -> dict[str, Any]:
        """Return the environment as plain data."""
        return {"pass": list(self.pass_), "set": dict(self.set_)}


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that is decided about a run before it starts.

    Attributes:
        name: the policy's own name.
        source: file or pack it came from; says nothing about its meaning and takes no part in comparisons.
        agent: what the policy states about the agent, such as its role.
        allow: rules that allow.
        block: rules that deny whatever another rule allows.
        contextual: rules that allow while their condition is true, and deny or escalate while it is false.
        limits: resource limits.
        environment: environment variables.
        files: all files it was read from, packs left out; takes no part in comparisons either.
        on_witness_gap: `record` or `deny`: what becomes of a run whose second witness disagrees with the log.
        within: ceilings; what one of them denies is denied. Only an effective policy has any.
    """

    name: str
    source: str = field(default="", compare=False)
    agent: Mapping[str, str] = field(default_factory=dict, hash=False)
    allow: tuple[Rule, ...] = ()
    block: tuple[Rule, ...] = ()
    limits: Limits = Limits()
    environment: Environment = Environment()
    contextual: tuple[Rule, ...] = ()
    files: tuple[str, ...] = field(default=(), compare=False)
    on_witness_gap: str = "record"
    within: tuple["Policy", ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules of its own."""
        return self.allow + self.block + self.contextual

    @property
    def every_rule(self) -> tuple[Rule, ...]:
        """All rules, those of its ceilings too."""
        return self.rules + tuple(rule for ceiling in self.within for rule in ceiling.rules)

    @property
    def grants(self) -> tuple[Rule, ...]:
        """The rules that may allow something."""
        return self.allow + self.contextual

    def canonical(self) -> dict[str, Any]:
        """Return the effective policy as plain JSON data, which the loader reads back to an equal policy."""
        return {
            "schema": EFFECTIVE_SCHEMA,
            "name": self.name,
            "agent": dict(self.agent),
            "allow": [rule.canonical() for rule in self.allow],
            "block": [rule.canonical() for rule in self.block],
            "limits": self.limits.canonical(),
            "environment": self.environment.canonical(),
            **({"contextual": [rule.canonical() for rule in self.contextual]} if self.contextual else {}),
            **({} if self.on_witness_gap == "record" else {"on_witness_gap": self.on_witness_gap}),
            **({"within": [ceiling.canonical() for ceiling in self.within]} if self.within else {}),
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the effective policy in canonical JSON, as `sha256:` and hex."""
        # Keys are ASCII and numbers are text, so this is RFC 8785 without a canonicaliser.
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _verbs(kinds: Iterable[Kind]) -> list[str]:
    return sorted(kind.partition(".")[2] for kind in kinds)


def _transport(ports: tuple[PortRange, ...], protocols: frozenset[str]) -> dict[str, Any]:
    ranges = [str(low) if low == high else f"{low}-{high}" for low, high in ports]
    return {"ports": ranges, "protocols": sorted(protocols)}
