"""What the kernel counted for each TCP connection: sock_diag(7), readable without privilege.

The kernel tells of every TCP socket of the network namespace when it is destroyed, with its final counts. That is
the one moment at which a count is final: data leaves after the last write, and even after the last process is gone.
"""

import ipaddress
import socket
from collections.abc import Callable, Container, Iterator
from typing import NamedTuple

from helm_sentry.abi import flags, libc
from helm_sentry.abi.structs import INET_DIAG_MSG, INET_DIAG_REQ_V2, NLMSGHDR, TCP_INFO

_ROOM = 1 << 18
_QUEUE = 1 << 22  # bytes asked for; the kernel gives what net.core.rmem_max lets it
_ATTRIBUTE = 4  # sizeof(struct nlattr)


class Count(NamedTuple):
    """The kernel's account of one TCP socket.

    Attributes:
        cookie: SO_COOKIE of the socket.
        address: the other end, as numeric text; an IPv4-mapped IPv6 address is given as IPv4.
        port: port of the other end.
        sent: bytes of data that left, each counted once however often it was sent again.
        received: bytes that arrived in order; the other end's FIN counts as one.
        unsent: bytes the program has handed over that have not left.
    """

    cookie: int
    address: str
    port: int
    sent: int
    received: int
    unsent: int


class Destroyed:
    """Hears of every TCP socket that ends.

    Raises:
        OSError: the kernel has no sock_diag, or does not let this process listen.
    """

    def __init__(self) -> None:
        self._socket = _socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
        for group in flags.SKNLGRP_TCP_DESTROY:
            self._socket.setsockopt(flags.SOL_NETLINK, flags.NETLINK_ADD_MEMBERSHIP, group)

    def receive(self, wanted: Callable[[], Container[int]]) -> Iterator[Count]:
        """Wait for the next message and return what it and those behind it tell; the kernel may have dropped some.

        Args:
            wanted: returns the cookies of the sockets to tell of; asked when the kernel has told of some.
        """
        wait = 0
        while True:
            try:
                data = self._socket.recv(_ROOM, wait)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: more sockets ended than the queue could hold
                data = b""
            cookies = wanted()
            yield from (count for _, body in _messages(data) if (count := _count(body, cookies)))
            wait = socket.MSG_DONTWAIT


def open_connections() -> Iterator[Count]:
    """Return the account of every TCP connection that can still have something to send.

    Raises:
        OSError: as for `Destroyed`.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        yield from _dump(family)


def cookie_of(descriptor: int) -> int:
    """Return SO_COOKIE: a number that no other socket of this boot has."""
    return int.from_bytes(libc.socket_option(descriptor, socket.SOL_SOCKET, flags.SO_COOKIE, 8), "little")


def count_of(descriptor: int) -> tuple[int, int]:
    """Return the bytes sent and received so far by the connection of a TCP socket."""
    info = libc.socket_option(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
    _, received, _, sent, again = TCP_INFO.unpack(info)
    return sent - again, received


def _socket() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, flags.NETLINK_SOCK_DIAG)
    opened.bind((0, 0))  # one without an address is passed over when the kernel tells its listeners
    return opened


def _dump(family: int) -> Iterator[Count]:
    ask = INET_DIAG_REQ_V2.pack(family, socket.IPPROTO_TCP, 1 << flags.INET_DIAG_INFO - 1, flags.TCP_OPEN_STATES)
    header = NLMSGHDR.pack(NLMSGHDR.size + len(ask), flags.SOCK_DIAG_BY_FAMILY, flags.NLM_F_DUMP_REQUEST, 1, 0)
    with _socket() as asked:
        asked.send(header + ask)
        while True:
            for kind, body in _messages(asked.recv(_ROOM)):
                if kind in (flags.NLMSG_DONE, flags.NLMSG_ERROR):
                    return
                if count := _count(body):
                    yield count


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= NLMSGHDR.size:
        size, kind, *_ = NLMSGHDR.unpack_from(data)
        yield kind, data[NLMSGHDR.size : size]
        data = data[max(size + 3 & ~3, NLMSGHDR.size) :]


def _count(body: bytes, wanted: Container[int] | None = None) -> Count | None:
    """Read one `inet_diag_msg`; None for a kernel that does not count, and for others than TCP's and the wanted."""
    if len(body) < INET_DIAG_MSG.size:
        return None
    family, _, _, port, raw, cookie = INET_DIAG_MSG.unpack_from(body)
    if wanted is not None and cookie not in wanted:
        return None
    at = INET_DIAG_MSG.size
    while at + _ATTRIBUTE <= len(body):
        size, kind = (int.from_bytes(body[at + n : at + n + 2], "little") for n in (0, 2))
        if kind == flags.INET_DIAG_INFO and size >= _ATTRIBUTE + TCP_INFO.size:
            _, received, unsent, sent, again = TCP_INFO.unpack_from(body, at + _ATTRIBUTE)
            return Count(cookie, _address(family, raw), socket.ntohs(port), sent - again, received, unsent)
        at += max(size + 3 & ~3, _ATTRIBUTE)
    return None


def _address(family: int, raw: bytes) -> str:
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(raw[:4]))
    address = ipaddress.IPv6Address(raw)
    return str(address.ipv4_mapped or address)
