"""Random sequences of socket operations: every call gives the same natively and supervised, and leaves the same tree.

SENTRY_DIFFERENTIAL_SOCKETS says how many operations; 10000 take three minutes.
"""

import contextlib
import ipaddress
import os
import random
import socket
import struct
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import (
    AT_FDCWD,
    EVERYTHING,
    STAT,
    UNMAPPED,
    Out,
    Raw,
    Ref,
    plus,
    text,
    words,
)
from tests.kernel.live_twins import Agent, live_twins
from tests.kernel.random_calls import Descriptor, Sequences, flat, run_sequences

pytestmark = pytest.mark.kernel

OPERATIONS = int(os.environ.get("SENTRY_DIFFERENTIAL_SOCKETS", "500"))
POLICY = f"""{EVERYTHING.rstrip()}
  - {{id: connect, connect: {{addresses: [loopback], ports: [any]}}}}
  - {{id: bind, bind: {{addresses: [any], ports: [any]}}}}
  - {{id: unix, unix: {{do: [connect, bind], paths: ["${{workspace}}/**"]}}}}
"""
IPV4, IPV6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
STREAM, DGRAM, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET
NONBLOCK, CLOEXEC = socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC
SO_RCVTIMEO, SO_SNDTIMEO = 20, 21  # <asm-generic/socket.h>
PATIENCE = struct.pack("=qq", 0, 20_000)  # how long a blocking call waits
PORTS = 3  # of its own that each side knows
NOT_EPHEMERAL = range(10_000, 30_000)
UNTOUCHED = b"\xee"
AUTOBOUND = 8  # length of an abstract address that the kernel picks
FASTOPEN = 0x20000000
SECOND_HALF = 32  # of an eight-byte word


class Ports:
    """The ports of the current example: each side has its own, and they are shown as the same."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.of: dict[str, list[int]] = {}
        self._kept: list[socket.socket] = []

    @cached_property
    def outside(self) -> socket.socket:
        """Takes connections on a port that is neither side's, of any protocol."""
        while True:
            made = socket.create_server(("::", 0), family=IPV6, dualstack_ipv6=True, backlog=512)
            made.setblocking(False)
            try:
                for protocol in (socket.IPPROTO_UDP, socket.IPPROTO_UDPLITE):
                    self._kept.append(socket.socket(IPV6, DGRAM, protocol))
                    self._kept[-1].bind(made.getsockname())
            except OSError:
                continue
            return made

    def clear_outside(self) -> None:
        """Close what earlier examples have connected to it."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.outside.accept()[0].close()

    def renew(self, *rooms: Path) -> None:
        """Choose ports that nobody has, and that no socket of an earlier example lingers on."""
        found = [port for port in random.SystemRandom().sample(NOT_EPHEMERAL, 200) if _is_free(port)]
        self.names.clear()
        self.clear_outside()
        self.names[self.outside.getsockname()[1]] = "a port of others"
        for at, room in enumerate(rooms):
            mine = found[at * PORTS : (at + 1) * PORTS]
            self.of[room.name] = mine
            self.names |= {port: f"port {index}" for index, port in enumerate(mine)}


def _is_free(port: int) -> bool:
    for kind in (STREAM, DGRAM):
        with socket.socket(IPV4, kind) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True


PORT = Ports()


def show_port(raw: bytes) -> str:
    port = int.from_bytes(raw, "big")
    return PORT.names.get(port, "any" if port > max(NOT_EPHEMERAL) else str(port))


def show_address(data: bytes) -> str:
    """Show what was written of a sockaddr; the ports of both sides look the same."""
    raw = data.rstrip(UNTOUCHED)
    if len(raw) < 4:
        return raw.hex()
    family = int.from_bytes(raw[:2], "little")
    if family in (IPV4, IPV6):
        return f"{family} {show_port(raw[2:4])} {raw[4:].hex()}"
    if family == UNIX and len(raw) == AUTOBOUND and not raw[2]:
        return "1 picked by the kernel"
    return f"{family} {text(raw[2:])}" + "~" * raw.endswith(b"\0")


def show_peer(data: bytes) -> str:
    """Show the address of a peer: of a Unix socket's no more than its last part, see docs/limitations.md."""
    shown = show_address(data)
    return f"1 {shown.rpartition('/')[2]}" if shown.startswith("1 ") and "/" in shown else shown


def address_out(size: int, show: Callable[[bytes], object] = show_address) -> Out:
    return Out(size, show, UNTOUCHED * size)


def length_out(size: int) -> Out:
    return Out(4, lambda data: int.from_bytes(data, "little"), struct.pack("=i", size))


def seed(root: Path) -> None:
    """A few places for the names of sockets."""
    (root / "d").mkdir()
    (root / "a").write_text("a")
    for name, target in (("l", "s"), ("m", "d"), ("u", "nowhere"), ("o", "o")):
        (root / name).symlink_to(target)
    (root / "shut").mkdir()
    (root / "shut").chmod(0o600)


class Given(tuple[Any, ...]):
    """An address and a length to go with it, in memory of the agent."""


# Addresses: bytes, or what makes them for a side that has ports of its own.
numbers = st.sampled_from([*["p0"] * 6, *["p1"] * 4, "p2", "0", "1"])
HOSTS = {
    IPV4: ["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "0.0.0.0"],  # noqa: S104
    IPV6: ["::1", "::1", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"],
}
FOREIGN = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"]  # of no interface: for bind alone
NAMES = ["s", "s", "s", "t", "d/s", "l", "m/s", "./s", "u", "o", "a", "d", "d/", "s/", "a/s", "missing/s", "shut/s", "n" * 108, ".."]  # fmt: skip


def internet(host: str, number: str, scope: int = 0) -> Callable[[Agent], bytes]:
    packed = ipaddress.ip_address(host)

    def made(agent: Agent) -> bytes:
        if number == "outside":
            port = PORT.outside.getsockname()[1]
        else:
            port = PORT.of[agent.room.name][int(number[1:])] if number.startswith("p") else int(number)
        if packed.version == 4:
            return struct.pack("=H2s4s8x", IPV4, port.to_bytes(2, "big"), packed.packed)
        return struct.pack("=H2sI16sI", IPV6, port.to_bytes(2, "big"), 0, packed.packed, scope)

    return made


def local(name: str, tail: bytes = b"") -> Callable[[Agent], bytes]:
    return lambda agent: struct.pack("=H", UNIX) + os.fsencode(name.replace("TREE", str(agent.tree))) + tail


def fixed(raw: bytes) -> Callable[[Agent], bytes]:
    return lambda agent: raw


def address_of(family: int) -> Any:
    return st.one_of(cut_of(family), st.builds(local, st.sampled_from(["TREE/s", "TREE/d/s"]))) if family == UNIX else cut_of(family)  # fmt: skip


def cut_of(family: int) -> Any:
    """Addresses that may be cut short: a path from the root would then name what no rule of this test allows."""
    if family == UNIX:
        return st.builds(local, st.sampled_from(NAMES), st.sampled_from([b"", b"\0", b"\0", b"\0junk"]))
    return st.builds(internet, st.sampled_from(HOSTS[family]), numbers)


def of_every_family(strategy: Callable[[int], Any]) -> Any:
    return st.one_of(*[families.flatmap(strategy) for _ in range(3)], odd)


families = st.sampled_from([IPV4, IPV4, IPV6, UNIX, UNIX])
odd_ones = [fixed(struct.pack("=H", family) + bytes(26)) for family in (socket.AF_UNSPEC, 99, socket.AF_NETLINK)]
odd = st.sampled_from([*odd_ones, fixed(b"")])
# Of their own length: longer, or bound, they are abstract names, which no rule allows.
no_name = st.sampled_from([fixed(b"\1\0"), fixed(b"\1")])
addresses, cut = of_every_family(address_of), of_every_family(cut_of)
foreign = st.builds(internet, st.sampled_from(FOREIGN), numbers)
# Not the length of a family alone: for a Unix socket that is an abstract name, or none.
odd_lengths = st.sampled_from([0, 1, 15, 16, 23, 24, 27, 28, 109, 110, 111, 128, 129, -1, 1 << 31])


def pair(made: Callable[[Agent], bytes], length: int | None) -> tuple[Any, Any]:
    """An address and its length, as two arguments."""
    return (
        lambda agent: made(agent).ljust(130, b"\0"),
        (lambda agent: len(made(agent))) if length is None else length,
    )


# Both sides reach it, so neither may bind it.
outside_kinds = st.sampled_from([(IPV4, STREAM), (IPV4, STREAM), (IPV6, STREAM), (IPV4, DGRAM)])
outside_places = outside_kinds.flatmap(
    lambda kind: st.tuples(st.just(kind), st.builds(internet, st.sampled_from(HOSTS[kind[0]]), st.just("outside")))
)
lengths = st.one_of(st.none(), st.none(), st.none(), st.none(), odd_lengths)
targets = st.one_of(
    st.builds(pair, cut, lengths),
    st.builds(pair, st.one_of(addresses, addresses, addresses, no_name), st.none()),
    st.builds(pair, outside_places.map(lambda place: place[1]), st.none()),
    st.just((UNMAPPED, 16)),
    st.just((0, 0)),
)
nobody = st.just((0, 0))  # but the peer
destinations = st.one_of(nobody, targets)
bindings = st.one_of(
    st.builds(pair, st.one_of(cut, cut, cut, foreign), lengths),
    st.builds(pair, st.one_of(addresses, addresses, addresses, foreign), st.none()),
    st.just((UNMAPPED, 16)),
    st.just((0, 0)),
)
fds = st.one_of(st.integers(0, 3), st.integers(0, 8)).map(Descriptor)
wrong_fds = st.sampled_from([-1, 9999, AT_FDCWD, 1 << 32 | 9999])
descriptors = st.one_of(*[fds] * 9, wrong_fds)
payloads = st.sampled_from(
    [(b"x", 1), (b"hello", 5), (b"", 0), (b"p" * 3000, 3000), (b"q" * 70_000, 70_000), (UNMAPPED, 4), (0, 0)]
)
send_flags = st.sampled_from(
    [0, 0, 0, socket.MSG_NOSIGNAL, socket.MSG_DONTWAIT, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, socket.MSG_MORE, socket.MSG_EOR,
     socket.MSG_OOB, socket.MSG_CONFIRM, 0x1000000, 0x8000000, 1 << 31]
)  # fmt: skip
receive_flags = st.sampled_from(
    [0, 0, socket.MSG_DONTWAIT, socket.MSG_DONTWAIT, socket.MSG_PEEK, socket.MSG_TRUNC, socket.MSG_OOB, socket.MSG_ERRQUEUE, socket.MSG_WAITALL]
)  # fmt: skip
kinds = st.sampled_from([(IPV4, STREAM), (IPV4, DGRAM), (IPV6, STREAM), (IPV6, DGRAM), (UNIX, STREAM), (UNIX, DGRAM), (UNIX, SEQPACKET)])  # fmt: skip
kind_flags = st.sampled_from([0, 0, NONBLOCK, NONBLOCK, CLOEXEC, NONBLOCK | CLOEXEC])
strange_kinds = st.sampled_from(
    [(UNIX, 7, 0), (UNIX, 0, 0), (UNIX, STREAM, 5), (UNIX, STREAM, 1), (UNIX, STREAM | 0x100, 0), (IPV4, STREAM | 0x100, 0), (IPV4, STREAM, 6),
     (IPV6, DGRAM, 17), (IPV4, DGRAM, socket.IPPROTO_UDPLITE), (IPV6, DGRAM, socket.IPPROTO_UDPLITE)]
)  # fmt: skip
places = kinds.flatmap(lambda kind: st.tuples(st.just(kind), address_of(kind[0])))
rooms = st.sampled_from([128, 128, 128, 28, 16, 10, 2, 0, -1])
SETTINGS = [
    (socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.SOL_SOCKET, socket.SO_OOBINLINE),
    (socket.SOL_SOCKET, socket.SO_PASSCRED), (socket.SOL_SOCKET, 999),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), (socket.IPPROTO_IPV6, 25), (socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IP, 11),
    (socket.IPPROTO_IP, 999), (socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.IPPROTO_TCP, socket.TCP_FASTOPEN), (999, 1),
]  # fmt: skip
GETTINGS = [socket.SO_ERROR, socket.SO_ERROR, socket.SO_TYPE, socket.SO_ACCEPTCONN, socket.SO_PROTOCOL, socket.SO_DOMAIN, socket.SO_REUSEADDR]  # fmt: skip


def setting(which: tuple[int, int], value: int, size: int) -> tuple[Any, ...]:
    return (*which, struct.pack("=iii", value, 0, 0), size)


def header(
    target: tuple[Any, Any], payload: tuple[Any, int], parts: int, control: Raw | int, size: int
) -> Callable[[Agent], Raw]:
    """A msghdr with its payload in `parts` buffers of the same content."""

    def made(agent: Agent) -> Raw:
        name, length = (each(agent) if callable(each) else each for each in target)
        vector = words(*[part for _ in range(parts) for part in payload]) if parts else 0
        return words(name, length & 0xFFFFFFFF, vector, parts, control, size, 0)

    return made


def headers(made: list[Callable[[Agent], Raw]]) -> Callable[[Agent], Raw]:
    """An array of struct mmsghdr."""

    def many(agent: Agent) -> Raw:
        return Raw(f"[{','.join(f'{each(agent).word[1:-1]},i0' for each in made)}]")

    return many


plain_headers = st.builds(header, destinations, payloads, st.sampled_from([1, 1, 2, 0]), st.just(0), st.just(0))
OPERATION_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "bind": (descriptors, bindings),
    "connect": (descriptors, targets),
    "listen": (descriptors, st.sampled_from([0, 1, 5, -1, 1 << 31])),
    "getsockname": (descriptors, st.builds(lambda n: (address_out(max(n, 1)), length_out(n)), rooms)),
    "getpeername": (descriptors, st.builds(lambda n: (address_out(max(n, 1)), length_out(n)), rooms)),
    "sendto": (descriptors, payloads, send_flags, destinations),
    "sendmsg": (descriptors, plain_headers, send_flags),
    "sendmmsg": (descriptors, st.lists(plain_headers, min_size=1, max_size=3).map(lambda m: (headers(m), len(m))), send_flags),
    "recvfrom": (descriptors, st.sampled_from([(Out(16), 16), (Out(1), 1), (Out(1), 0), (UNMAPPED, 4)]), receive_flags,
                 st.sampled_from([(address_out(128, show_peer), Out(4, lambda data: "", struct.pack("=i", 128))), (0, 0)])),
    "shutdown": (descriptors, st.sampled_from([0, 1, 2, 3])),
    "getsockopt": (descriptors, st.just(socket.SOL_SOCKET), st.sampled_from(GETTINGS), st.just(Out(4)), st.just(length_out(4))),
    "setsockopt": (descriptors, st.builds(setting, st.sampled_from(SETTINGS), st.sampled_from([0, 1, 1, 64, -1]), st.sampled_from([4, 4, 0, 1, 12]))),
    "dup": (fds,), "close": (descriptors,), "fstat": (descriptors, st.just(Out(144, lambda data: data[24:28].hex()))),
    "fcntl": (descriptors, st.sampled_from([(3, 0), (4, os.O_NONBLOCK), (4, 0), (1, 0)])),
    "ioctl": (descriptors, st.just(0x541B), st.just(Out(4))),  # FIONREAD
    "read": (descriptors, st.just(Out(8)), st.just(8)), "write": (descriptors, st.just(b"written"), st.just(7)),
    "unlink": (st.sampled_from(["s", "t", "d/s", "l"]),), "rename": (st.sampled_from(["s", "t"]), st.sampled_from(["t", "d/s", "s"])),
    "chmod": (st.sampled_from(["s", "d"]), st.sampled_from([0, 0o777, 0o755, 0o200])), "umask": (st.sampled_from([0, 0o22, 0o77, 0o777]),),
    "chdir": (st.sampled_from(["d", "..", "."]),), "stat": (st.sampled_from(["s", "t", "d/s"]), st.just(STAT)),
}  # fmt: skip
MESSAGES = ("sendto", "sendmsg", "sendmmsg")
messages = st.sampled_from(MESSAGES).flatmap(lambda name: st.tuples(st.just(name), *OPERATION_ARGUMENTS[name][1:]))
receptions = st.tuples(*OPERATION_ARGUMENTS["recvfrom"][1:])
COMMON = ("connect", "bind", "listen", "sendto", "sendmsg", "getsockname", "getpeername", "recvfrom", "getsockopt")
operations = st.sampled_from(sorted(OPERATION_ARGUMENTS) + list(COMMON) * 2).flatmap(
    lambda name: st.tuples(st.just(name), *OPERATION_ARGUMENTS[name])
)


class Sockets(Sequences):
    """One example: both sides without a socket, call by call."""

    openers = frozenset({"socket", "accept4", "dup"})

    def __init__(self) -> None:
        PORT.renew(self.twins.native.room, self.twins.supervised.room)
        super().__init__()

    def plant(self, root: Path) -> None:
        seed(root)

    def patient(self, flags: int) -> None:
        """Let no call on the newest socket wait for long."""
        if not flags & NONBLOCK:
            for option in (SO_RCVTIMEO, SO_SNDTIMEO):
                self.make("setsockopt", Descriptor(0), socket.SOL_SOCKET, option, PATIENCE, len(PATIENCE))

    def open(self, family: int, kind: int, flags: int, protocol: int = 0) -> None:
        if isinstance(self.make("socket", family, kind | flags, protocol)[0], int):
            self.patient(flags)

    @rule(kind=st.one_of(kinds, kinds, strange_kinds), flags=kind_flags)
    def opened(self, kind: tuple[int, ...], flags: int) -> None:
        self.open(*kind[:2], flags, *kind[2:])

    @rule(place=places, flags=kind_flags, backlog=st.sampled_from([0, 1, 5]), reuse=st.booleans())
    def served(self, place: tuple[tuple[int, int], Any], flags: int, backlog: int, reuse: bool) -> None:
        self.serve(place, flags, backlog, reuse=reuse)

    def serve(self, place: tuple[tuple[int, int], Any], flags: int, backlog: int, *, reuse: bool) -> None:
        """A socket with a name, that takes connections if it can."""
        self.open(*place[0], flags)
        if reuse:
            self.make("setsockopt", Descriptor(0), socket.SOL_SOCKET, socket.SO_REUSEADDR, struct.pack("=i", 1), 4)
        self.make("bind", Descriptor(0), *pair(place[1], None))
        self.make("listen", Descriptor(0), backlog)
        self.named_as(Descriptor(0))

    @rule(place=st.one_of(places, outside_places), flags=kind_flags)
    def connected(self, place: tuple[tuple[int, int], Any], flags: int) -> None:
        self.reach(place, flags)

    def reach(self, place: tuple[tuple[int, int], Any], flags: int) -> None:
        """A socket that goes to some address, twice."""
        self.open(*place[0], flags)
        for _ in range(2):
            self.make("connect", Descriptor(0), *pair(place[1], None))
        self.settle(Descriptor(0))
        self.named_as(Descriptor(0))

    @initialize(place=places, flags=kind_flags, other_flags=kind_flags)
    def begun(self, place: tuple[tuple[int, int], Any], flags: int, other_flags: int) -> None:
        self.join(place, flags, other_flags)

    @rule(place=places, flags=kind_flags, other_flags=kind_flags)
    def joined(self, place: tuple[tuple[int, int], Any], flags: int, other_flags: int) -> None:
        self.join(place, flags, other_flags)

    def join(self, place: tuple[tuple[int, int], Any], flags: int, other_flags: int) -> None:
        """A socket with a name, one that is connected to it, and what the first one accepts."""
        self.serve(place, flags, 1, reuse=True)
        self.reach(place, other_flags)
        if place[0][1] != DGRAM:
            self.accept(Descriptor(1), other_flags, peer=True)

    @rule(fd=fds, flags=kind_flags, peer=st.booleans())
    def accepted(self, fd: Descriptor, flags: int, peer: bool) -> None:
        self.accept(fd, flags, peer)

    def accept(self, fd: Descriptor, flags: int, peer: bool) -> None:
        where = (address_out(128, show_peer), Out(4, lambda data: "", struct.pack("=i", 128))) if peer else (0, 0)
        if isinstance(self.make("accept4", fd, *where, flags)[0], int):
            self.patient(flags)
            self.named_as(Descriptor(0))

    @rule(fd=fds, other=fds, message=messages, received=receptions)
    def talked(self, fd: Descriptor, other: Descriptor, message: tuple[Any, ...], received: tuple[Any, ...]) -> None:
        """A message, and a look whether it has arrived."""
        self.make(message[0], fd, *flat(message[1:]))
        self.make("recvfrom", other, *flat(received))

    @rule(fd=fds, other=fds, ending=st.sampled_from(["close", "shutdown", "shutdown"]), how=st.sampled_from([0, 1, 2]))
    def ended(self, fd: Descriptor, other: Descriptor, ending: str, how: int) -> None:
        """An end of a connection, and what its other end makes of that."""
        self.make(ending, fd, *([how] if ending == "shutdown" else []))
        for name, *arguments in (("recvfrom", Out(4), 4, socket.MSG_DONTWAIT, 0, 0), ("sendto", b"x", 1, 0, 0, 0)):
            self.make(name, other, *arguments)
        self.make("getsockopt", other, socket.SOL_SOCKET, socket.SO_ERROR, Out(4), length_out(4))

    @rule(
        fd=fds,
        to=destinations,
        payload=payloads,
        passed=fds,
        level=st.sampled_from([1, 1, 2]),
        kind=st.sampled_from([1, 1, 3]),
    )
    def passed(
        self, fd: Descriptor, to: tuple[Any, Any], payload: tuple[Any, int], passed: Descriptor, level: int, kind: int
    ) -> None:
        """A message with a descriptor."""
        other = self.real(passed)
        rights = words(20, level | kind << SECOND_HALF, other if isinstance(other, Ref | int) else 0)
        self.make("sendmsg", fd, header(to, payload, 1, rights, 24), 0)

    @rule(fd=fds)
    def polled(self, fd: Descriptor) -> None:
        ref = self.real(fd)
        for events in (1, 4):
            if isinstance(ref, Ref):
                self.make("poll", words(plus(ref, events << SECOND_HALF)), 1, 0)

    @rule(operation=operations)
    def called(self, operation: tuple[Any, ...]) -> None:
        self.make(operation[0], *flat(operation[1:]))
        if operation[0] == "connect":
            self.settle(operation[1])
        elif operation[0] == "bind":
            self.named_as(operation[1])

    def settle(self, fd: Descriptor) -> None:
        """Give a connection that has begun the time that the other side of this machine takes to answer."""
        ref = self.real(fd)
        if isinstance(ref, Ref):
            self.make("poll", words(plus(ref, 4 << SECOND_HALF)), 1, 20)

    def named_as(self, fd: Descriptor) -> None:
        for name in ("getsockname", "getpeername"):
            self.make(name, fd, address_out(128), length_out(128))


def test_random_sequences(sandbox: Sandbox, victims: Path) -> None:
    with live_twins(sandbox, victims / "file_calls", POLICY) as twins:
        print(f"{run_sequences(Sockets, twins, OPERATIONS)} operations")
