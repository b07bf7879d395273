"""What the programs at security hooks read, as `bpf/include/lsm.h` lays it out, made from a lowered policy. Pure.

Paths become a tree: a node for every directory on the way to something a rule names, an edge for every name. Networks
become a table in which the most specific entry that holds an address carries all rules whose networks do, because the
kernel looks up one entry where `decide` looks at all rules.

A test compiles that header and compares every offset and number.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from os import fsdecode, fsencode

from helm_sentry.decision import Verdict
from helm_sentry.decode.address import FAMILIES
from helm_sentry.errors import FeatureError
from helm_sentry.operation import Kind
from helm_sentry.policy.lower import AddressRule, Lowered, NameRule, PathRule

NO_RULE, NAME_BYTES, PATH_BYTES, ENDPOINTS, FAMILY_ROWS, RULE_DEPTH = 0xFFFF, 256, 4096, 32, 64, 32
"""Bounds of the tables."""

CONTROL = struct.Struct("=QQII")
"""struct control: rename_lock, cgroup, mount_namespace, lossy."""

EDGE = struct.Struct(f"=II{NAME_BYTES}s")
"""struct edge: generation, node, name."""

FOUND = struct.Struct("=HH")
"""struct found: block, allow."""

NETWORK = struct.Struct("=IHBB16s")
"""struct network: length, generation, kind, version, address."""

ENDPOINT = struct.Struct("=HHHHH")
"""struct endpoint: low, high, protocols, blocks, rule."""

EVENT = struct.Struct("=QQIIIIII16sBBH4HI")
"""struct event: time, inode, device, pid, tid, number, generation, target, address, version, protocol, denied,
twice kind and rule, path."""

COUNTS = struct.Struct("=QQQQ")
"""struct counts of one processor: decided, denied, lost, crowded."""


class Number(IntEnum):
    """The kinds as the tables count them; those that end in TREE take along what a directory holds."""

    FILE_READ = 0
    FILE_LIST = 1
    FILE_WRITE = 2
    FILE_CREATE = 3
    FILE_CREATE_TREE = 4
    FILE_DELETE_TREE = 5
    FILE_RENAME = 6
    FILE_RENAME_TREE = 7
    FILE_LINK = 8
    FILE_TRUNCATE = 9
    FILE_CHMOD = 10
    FILE_CHOWN = 11
    FILE_MKNOD = 12
    EXEC = 13
    LOAD = 14
    UNIX_CONNECT = 15
    UNIX_BIND = 16
    NET_CONNECT = 17
    NET_SEND = 18
    NET_BIND = 19
    NET_SOCKET = 20
    FILE_UTIME = 21
    FILE_XATTR = 22
    PROCESS_SIGNAL = 23
    PROCESS_TRACE = 24
    KERNEL_BPF = 25
    KERNEL_CLOCK = 26
    KERNEL_IO_URING = 27
    KERNEL_IPC = 28
    KERNEL_MODULE = 29
    KERNEL_MOUNT = 30
    KERNEL_NAMESPACE = 31
    KERNEL_PERF = 32
    KERNEL_QUOTA = 33
    KERNEL_USERFAULTFD = 34
    KERNEL_WATCH = 35


PATH_KINDS = Number.UNIX_BIND + 1
"""How many of the kinds are decided by paths; they come first."""

NODE = struct.Struct(f"=II{4 * PATH_KINDS}H")
"""struct node: id, reserved, then for each path kind block and allow of the path itself; the same for all beneath."""

DENY, BY_RULES, ALLOW = 0, 1, 2
"""What becomes of a kind: enum treatment."""

_TREES = {
    Kind.FILE_CREATE: (Number.FILE_CREATE, Number.FILE_CREATE_TREE),
    Kind.FILE_RENAME: (Number.FILE_RENAME, Number.FILE_RENAME_TREE),
    Kind.FILE_DELETE: (None, Number.FILE_DELETE_TREE),
    # What may be executed may be mapped as code.
    Kind.EXEC: (Number.EXEC, Number.LOAD),
}
_PROTOCOLS = {"tcp": 1, "udp": 2}
# The broker decides these and has the agent's own call carried out.
_CONTINUED = frozenset({Kind.EXEC, Kind.NET_SOCKET})
_SAME_NAME = {str(kind).replace(".", "_").upper(): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Tables:
    """The rules of one generation.

    Attributes:
        rules: ids of rules; the tables name them by their places.
        edges: keys and values of the tree of paths.
        networks: keys and values of the table of networks.
        families: smallest blocking and allowing rule for each family of sockets.
        treatments: what becomes of each kind.
    """

    rules: tuple[str, ...]
    edges: Mapping[bytes, bytes]
    networks: Mapping[bytes, bytes]
    families: tuple[bytes, ...]
    treatments: tuple[int, ...]


def tables(lowered: Lowered, generation: int, loaders: Iterable[str], granted: frozenset[Kind] = frozenset()) -> Tables:
    """Return the tables for a policy.

    Args:
        lowered: the policy as far as the kernel holds it.
        generation: 0 or 1.
        loaders: paths that the kernel executes on a program's behalf.
        granted: kinds that the broker holds and lets the kernel carry out.

    Raises:
        FeatureError: more rules than the tables have room for.
    """
    rules = tuple(sorted({rule.rule for rule in lowered.rules}))
    if len(rules) >= NO_RULE:
        raise FeatureError(f"the kernel holds up to {NO_RULE} rules, not {len(rules)}")
    numbers = {rule: place for place, rule in enumerate(rules)}
    tree = _Tree(numbers)
    for rule in lowered.rules:
        if isinstance(rule, PathRule):
            tree.add(rule)
    for path in loaders:
        tree.allow_load(path)
    addresses = [rule for rule in lowered.rules if isinstance(rule, AddressRule)]
    return Tables(
        rules=rules,
        edges=dict(tree.edges(generation)),
        networks=dict(_networks(addresses, numbers, generation)),
        families=tuple(_families([rule for rule in lowered.rules if isinstance(rule, NameRule)], numbers)),
        treatments=tuple(_treatment(number, lowered, granted) for number in Number),
    )


def numbers_of(kind: Kind, directory: bool = False) -> tuple[Number, ...]:
    """Return the tables' numbers of a kind.

    Args:
        kind: the kind.
        directory: only of operations that reach what is beneath a directory.
    """
    if kind in _TREES:
        plain, tree = _TREES[kind]
        return (tree,) if directory or plain is None else (plain, tree)
    name = str(kind).replace(".", "_").upper()
    return (Number[name],) if name in Number.__members__ else ()


@dataclass(slots=True)
class _Node:
    number: int
    here: list[list[int]] = field(default_factory=lambda: [[NO_RULE, NO_RULE] for _ in range(PATH_KINDS)])
    beneath: list[list[int]] = field(default_factory=lambda: [[NO_RULE, NO_RULE] for _ in range(PATH_KINDS)])

    def packed(self) -> bytes:
        return NODE.pack(
            self.number, 0, *(rule for half in (self.here, self.beneath) for pair in half for rule in pair)
        )


class _Tree:
    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._numbers = numbers
        self._nodes: dict[tuple[int, bytes], _Node] = {(0, b""): _Node(1)}

    def add(self, rule: PathRule) -> None:
        node = self._node(rule.path)
        side = node.beneath if rule.prefix else node.here
        for kind in rule.kinds:
            for number in numbers_of(kind, rule.directory):
                _note(side[number], self._numbers[rule.rule], rule.verdict)

    def allow_load(self, path: str) -> None:
        _note(self._node(path).here[Number.LOAD], NO_RULE - 1, Verdict.ALLOW)

    def edges(self, generation: int) -> Iterator[tuple[bytes, bytes]]:
        for (parent, name), node in self._nodes.items():
            yield EDGE.pack(generation, parent, name), node.packed()

    def _node(self, path: str) -> _Node:
        node = self._nodes[(0, b"")]
        names = [name for name in fsencode(path).split(b"/") if name]
        if len(names) > RULE_DEPTH:
            raise FeatureError(f"the kernel holds rules for up to {RULE_DEPTH} names in a path, not `{path}`")
        for name in names:
            if len(name) >= NAME_BYTES:
                raise FeatureError(f"no file has a name as long as one in `{path}`")
            key = node.number, name
            node = self._nodes.setdefault(key, _Node(len(self._nodes) + 1))
        return node


def _note(pair: list[int], rule: int, verdict: Verdict) -> None:
    place = 1 if verdict is Verdict.ALLOW else 0
    pair[place] = min(pair[place], rule)


def _networks(rules: list[AddressRule], numbers: Mapping[str, int], generation: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield an entry for each network that a rule names, and for the unspecified address, which may become any."""
    for kind in (Kind.NET_CONNECT, Kind.NET_SEND, Kind.NET_BIND):
        mine = [rule for rule in rules if kind in rule.kinds]
        named = {rule.network for rule in mine} | {ip_network("0.0.0.0/32"), ip_network("::/128")} if mine else set()
        for network in named:
            found = [_endpoint(rule, numbers) for rule in mine if _says_something(rule, network)]
            if len(found) > ENDPOINTS:
                raise FeatureError(f"more than {ENDPOINTS} rules hold for `{network}`")
            value = b"".join(sorted(found)).ljust(ENDPOINTS * ENDPOINT.size, b"\0")
            key = NETWORK.pack(
                32 + network.prefixlen, generation, numbers_of(kind)[0], network.version, network.network_address.packed
            )
            yield key, len(found).to_bytes(4, "little") + value


def _says_something(rule: AddressRule, network: IPv4Network | IPv6Network) -> bool:
    if rule.network.version == network.version and network.subnet_of(rule.network):  # type: ignore[arg-type]
        return True
    return rule.verdict is Verdict.DENY and network.num_addresses == 1 and network.network_address.is_unspecified


def _endpoint(rule: AddressRule, numbers: Mapping[str, int]) -> bytes:
    protocols = sum(_PROTOCOLS[name] for name in rule.protocols)
    return ENDPOINT.pack(*rule.ports, protocols, rule.verdict is Verdict.DENY, numbers[rule.rule])


def _families(rules: list[NameRule], numbers: Mapping[str, int]) -> Iterator[bytes]:
    found = [[NO_RULE, NO_RULE] for _ in range(FAMILY_ROWS)]
    for rule in rules:
        if Kind.NET_SOCKET in rule.kinds:
            for row in [FAMILIES.index(rule.name)] if rule.name else range(FAMILY_ROWS):
                _note(found[row], numbers[rule.rule], rule.verdict)
    yield from (FOUND.pack(*pair) for pair in found)


def _treatment(number: Number, lowered: Lowered, granted: frozenset[Kind]) -> int:
    if number in (Number.PROCESS_SIGNAL, Number.PROCESS_TRACE):
        return BY_RULES  # one's own processes
    if number is Number.LOAD:
        return BY_RULES if {Kind.FILE_READ, Kind.EXEC} <= lowered.kinds else ALLOW  # else judged when it was opened
    kind = _SAME_NAME[number.name.removesuffix("_TREE")]
    if kind in lowered.kinds:
        return BY_RULES
    return ALLOW if kind in _CONTINUED or kind in granted else DENY


@dataclass(frozen=True, slots=True)
class Event:
    """A decision that the kernel made.

    Attributes:
        allowed: whether the operation was carried out.
        opinions: kinds that were asked for, and the rule that decided each, empty when none did.
        path: canonical path of the object, empty when it has none.
        device: st_dev of the object.
        inode: st_ino of the object.
        pid: process.
        tid: thread.
        number: port, signal, or flags of an open.
        address: numeric IP address, empty when there is none.
        protocol: `tcp`, `udp`, or empty.
        target: process that is signalled or traced.
        time: nanoseconds since the machine was started.
    """

    allowed: bool
    opinions: tuple[tuple[Number, str], ...]
    path: str
    device: int
    inode: int
    pid: int
    tid: int
    number: int
    address: str
    protocol: str
    target: int
    time: int


def event(data: bytes, rules: tuple[tuple[str, ...], tuple[str, ...]]) -> Event:
    """Return the decision in a ring buffer's record.

    Args:
        data: the record.
        rules: the ids of rules of both generations.
    """
    start = len(data) - EVENT.size
    time, inode, device, pid, tid, number, generation, target, *rest = EVENT.unpack_from(data, start)
    address, version, protocol, denied, *opinions, length = rest
    known = rules[generation & 1]
    path = data[start - length : start]
    return Event(
        allowed=not denied,
        opinions=tuple(
            (Number(kind), known[rule] if rule < len(known) else "")
            for kind, rule in zip(opinions[::2], opinions[1::2], strict=True)
            if kind < len(Number)
        ),
        path="" if path == b"\0" else fsdecode(path),
        device=(device & 0xFFFFF & 0xFF) | (device >> 20) << 8 | (device & 0xFFF00) << 12,
        inode=inode,
        pid=pid,
        tid=tid,
        number=number,
        address=_address(version, address),
        protocol={1: "tcp", 2: "udp"}.get(protocol, ""),
        target=target,
        time=time,
    )


def _address(version: int, address: bytes) -> str:
    if version == 4:
        return str(IPv4Address(address[:4]))
    if version == 6:
        return str(IPv6Address(address))
    return ""
