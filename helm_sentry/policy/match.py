"""Compiled rules: indexes that find the rules an operation matches, however many rules there are.

Every index answers with two rule ids: the smallest among the block rules that match and the smallest among
the allow rules that match, each `NONE` when there is none. What the two mean is the engine's business.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, TypeAlias

from helm_sentry.operation import Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.model import BindMatch, ConnectMatch, Effect, Network, PortRange
from helm_sentry.policy.pattern import Pattern

NONE = "~"
"""Sorts after every rule id, so that the smallest of several answers is the answer."""

Found: TypeAlias = tuple[str, str]
"""Smallest matching block rule, smallest matching allow rule."""

NOTHING: Found = (NONE, NONE)

# IANA's special-purpose address registries, without what leads nowhere (the documentation networks stand for unknown
# addresses here). Of IPv6 only what is given out as unicast counts, less what may lead through a tunnel to anywhere.
_INNER = tuple(
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
_UNICAST6 = IPv6Network("2000::/3")
_TUNNELS = (IPv6Network("2001::/23"), IPv6Network("2002::/16"))  # protocol assignments with Teredo; 6to4


class _Branch:
    # What holds beneath one directory: trees rooted here, and globs whose literal part ends here.
    __slots__ = ("allow", "block", "globs", "sources")

    def __init__(self) -> None:
        self.block = self.allow = NONE
        self.sources: dict[Found, list[str]] = {}
        self.globs: tuple[tuple[re.Pattern[str], Found], ...] | None = None

    def compile(self) -> tuple[tuple[re.Pattern[str], Found], ...]:
        """Return its globs, those of one rule as one regular expression.

        Done when a path first leads here, which it does at few directories. Two threads may both do it.
        """
        self.globs = tuple((re.compile("|".join(sources)), rules) for rules, sources in self.sources.items())
        return self.globs


class PathIndex:
    """Path patterns of many rules. Filled, and from then on only read."""

    __slots__ = ("_branches", "_exact")

    def __init__(self) -> None:
        self._exact: dict[str, Found] = {}
        self._branches: dict[str, _Branch] = {}

    def add(self, wanted: Pattern, effect: Effect, rule: str) -> None:
        """Add a pattern of a rule."""
        if not wanted.rest:
            self.add_path(wanted.prefix, effect, rule)
        elif wanted.rest == (None,):
            branch = self._branch(wanted.prefix)
            branch.block, branch.allow = _smallest((branch.block, branch.allow), _found(effect, rule))
        else:
            self.add_regex(wanted.prefix, pattern.regex(wanted.rest), effect, rule)

    def add_path(self, path: str, effect: Effect, rule: str) -> None:
        """Add one path."""
        self._exact[path] = _smallest(self._exact.get(path, NOTHING), _found(effect, rule))

    def add_regex(self, prefix: str, regex: str, effect: Effect, rule: str) -> None:
        """Add a regular expression for what follows a directory."""
        self._branch(prefix).sources.setdefault(_found(effect, rule), []).append(regex)

    def find(self, operation: Operation) -> Found:
        """Return the rules that match the operation's path."""
        return self.find_path(operation.path)

    def find_path(self, path: str) -> Found:
        """Return the rules that match a canonical path."""
        # A name that is no path, such as `pipe:[7]` or nothing, must not reach the rules of the root.
        if path[:1] != "/":
            return NOTHING
        block, allow = self._exact.get(path, NOTHING)
        branches = self._branches
        place = path
        while True:
            branch = branches.get(place)
            if branch is not None:
                if branch.block < block:
                    block = branch.block
                if branch.allow < allow:
                    allow = branch.allow
                globs = branch.globs
                for regex, found in branch.compile() if globs is None else globs:
                    if regex.fullmatch(path, len(place)):
                        block, allow = min(block, found[0]), min(allow, found[1])
            if not place:
                return block, allow
            place = place[: place.rfind("/")]

    def _branch(self, prefix: str) -> _Branch:
        return self._branches.setdefault(prefix, _Branch())


class MoveIndex:
    """Path patterns for operations that take a whole directory along.

    To move a directory is to move what lies in it out from under the rules that name it. So a directory on
    the way to something a block rule names is blocked as well.
    """

    __slots__ = ("_passages", "_paths")

    def __init__(self, paths: PathIndex) -> None:
        self._paths, self._passages = paths, PathIndex()

    def add(self, blocked: Pattern, rule: str, *, wild: bool) -> None:
        """Add a pattern of a block rule.

        Args:
            blocked: the pattern.
            rule: id of its rule.
            wild: block also the directories that only a wildcard of the pattern leads through.
        """
        for directory in blocked.ancestors:
            self._passages.add_path(directory, Effect.BLOCK, rule)
        if wild and blocked.rest:
            self._passages.add_path(blocked.prefix or "/", Effect.BLOCK, rule)
            self._passages.add_regex(blocked.prefix, pattern.partial_regex(blocked.rest), Effect.BLOCK, rule)

    def find(self, operation: Operation) -> Found:
        """Return the rules that match the operation's path, or anything in the directory it names."""
        found = self._paths.find_path(operation.path)
        return _smallest(found, self._passages.find_path(operation.path)) if operation.directory else found


class _Endpoint(NamedTuple):
    # The conditions of a network rule that hold whatever its destination is.
    found: Found
    ports: tuple[PortRange, ...]
    protocols: frozenset[str]

    def accepts(self, operation: Operation) -> bool:
        port = operation.port
        return operation.protocol in self.protocols and any(low <= port <= high for low, high in self.ports)


class EndpointIndex:
    """Network rules by destination: host name, network, or the run's own ports."""

    __slots__ = ("_blocks", "_hosts", "_networks", "_own", "_suffixes")

    def __init__(self) -> None:
        self._hosts: dict[str, list[_Endpoint]] = {}
        self._suffixes: dict[str, list[_Endpoint]] = {}  # `example.com` of `*.example.com`
        # By version and prefix length: a look-up for each length in use, however many networks there are.
        self._networks: dict[int, dict[int, dict[int, list[_Endpoint]]]] = {4: {}, 6: {}}
        self._own: list[_Endpoint] = []
        self._blocks: list[_Endpoint] = []

    def add(self, wanted: ConnectMatch | BindMatch, effect: Effect, rule: str) -> None:
        """Add the match of a rule."""
        endpoint = _Endpoint(_found(effect, rule), wanted.ports, wanted.protocols)
        for network in wanted.addresses:
            self._add_network(network, endpoint)
        if wanted.addresses and effect is Effect.BLOCK:
            self._blocks.append(endpoint)
        if isinstance(wanted, ConnectMatch):
            for host in wanted.hosts:
                known = self._suffixes if host.startswith("*.") else self._hosts
                known.setdefault(host.removeprefix("*."), []).append(endpoint)
            if wanted.own:
                self._own.append(endpoint)

    def find(self, operation: Operation) -> Found:
        """Return the rules that match the operation's address, names, port and protocol."""
        found = NOTHING
        for endpoint in self._candidates(operation):
            if endpoint.accepts(operation):
                found = _smallest(found, endpoint.found)
        return found

    def _candidates(self, operation: Operation) -> list[_Endpoint]:
        candidates = list(self._own) if operation.own else []
        for host in operation.hosts:
            name = host.lower().removesuffix(".")
            candidates += self._hosts.get(name, ())
            if self._suffixes:
                candidates += self._beneath(name, operation.address)
        version, address = _numeric(operation.address)
        # The kernel replaces the unspecified address by one of its own choice: any block may be meant.
        if not address:
            candidates += self._blocks
        width = 32 if version == 4 else 128
        for length, networks in self._networks[version].items():
            candidates += networks.get(address >> (width - length), ())
        return candidates

    def _beneath(self, name: str, address: str) -> Iterator[_Endpoint]:
        public = is_public(address)
        while name:
            name = name.partition(".")[2]
            for endpoint in self._suffixes.get(name, ()):
                # Whoever owns a name beneath the suffix says which address it has, and the agent chooses the name.
                if public or endpoint.found[0] is not NONE:
                    yield endpoint

    def _add_network(self, network: Network, endpoint: _Endpoint) -> None:
        bits = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
        version = 4 if isinstance(network, IPv4Network) else 6
        self._networks[version].setdefault(network.prefixlen, {}).setdefault(bits, []).append(endpoint)


class NameIndex:
    """Rules by the operation's name, such as a socket family."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[str, Found] = {}

    def add(self, name: str, effect: Effect, rule: str) -> None:
        """Add a name of a rule."""
        self._names[name] = _smallest(self._names.get(name, NOTHING), _found(effect, rule))

    def find(self, operation: Operation) -> Found:
        """Return the rules that name the operation's name."""
        return self._names.get(operation.name, NOTHING)


class KindIndex:
    """Rules that match every operation of one kind."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found = NOTHING

    def add(self, effect: Effect, rule: str) -> None:
        """Add a rule."""
        self._found = _smallest(self._found, _found(effect, rule))

    def find(self, operation: Operation) -> Found:
        """Return the rules for the kind."""
        return self._found


def _found(effect: Effect, rule: str) -> Found:
    return (rule, NONE) if effect is Effect.BLOCK else (NONE, rule)


def _smallest(one: Found, other: Found) -> Found:
    return min(one[0], other[0]), min(one[1], other[1])


@lru_cache(maxsize=4096)
def is_public(address: str) -> bool:
    """Whether an address belongs to no inner network: what `*.` in a rule may lead to."""
    numeric = ip_address(address)
    if isinstance(numeric, IPv6Address):
        return numeric in _UNICAST6 and not any(numeric in network for network in _TUNNELS)
    return not any(numeric in network for network in _INNER)


@lru_cache(maxsize=4096)
def _numeric(address: str) -> tuple[int, int]:
    return (6, int(IPv6Address(address))) if ":" in address else (4, int(IPv4Address(address)))
