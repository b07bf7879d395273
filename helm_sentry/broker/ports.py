"""What this run has bound: the loopback ports that `connect: {own: true}` means, and the names of Unix sockets.

A port number alone says nothing: it can be closed and taken by somebody else. A port is the run's own only while
every socket that listens on it is one the broker bound for this run, by socket inode.
"""

import os
from collections.abc import Callable

from helm_sentry.abi import libc
from helm_sentry.broker.unix_names import UnixNames
from helm_sentry.decode import address as addresses
from helm_sentry.decode.address import Internet

_MOST_SOCKETS = 16  # remembered for one port before the closed ones are dropped
# Where the kernel lists sockets by protocol: UDP-Lite, judged as UDP, has ports of its own.
_TABLES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6", "udplite", "udplite6")}
_LISTENING = "0A"  # <net/tcp_states.h> TCP_LISTEN


class OwnPorts:
    """The sockets that this run has bound.

    Attributes:
        unix: names of its Unix sockets.
        first: told of a port and protocol that become the run's own for the first time, before the caller knows.
    """

    def __init__(self) -> None:
        self.first: Callable[[int, str], None] = _nobody
        self.unix = UnixNames()
        self._inodes: dict[tuple[str, int], set[int]] = {}

    def add(self, descriptor: int, protocol: str) -> None:
        """Remember an internet socket that has just been given a port."""
        match addresses.parse(libc.socket_name(descriptor, peer=False)):
            case Internet(_, port) if port:
                if (protocol, port) not in self._inodes:
                    self._inodes[protocol, port] = set()
                    self.first(port, protocol)
                ours = self._inodes[protocol, port]
                inode = os.fstat(descriptor).st_ino
                if len(ours) >= _MOST_SOCKETS and inode not in ours:
                    ours &= _sockets_on(port, protocol)  # those that are closed by now are of no use
                ours.add(inode)

    def has_been(self, port: int, protocol: str) -> bool:
        """Whether a port is, or once was, the run's own."""
        return (protocol, port) in self._inodes

    def bound(self, descriptor: int, port: int, protocol: str) -> bool:
        """Whether a socket got its port from the broker, so that the port has been judged."""
        return os.fstat(descriptor).st_ino in self._inodes.get((protocol, port), ())

    def holds(self, address: str, port: int, protocol: str) -> bool:
        """Whether a connection to this address reaches a socket of this run and of nobody else."""
        ours = self._inodes.get((protocol, port))
        if not ours or not addresses.is_loopback(address):
            return False
        waiting = _sockets_on(port, protocol)
        return bool(waiting) and waiting <= ours


def _nobody(port: int, protocol: str) -> None:
    """Stand where nobody asks which ports the run has."""


def _sockets_on(port: int, protocol: str) -> set[int]:
    """Return the inodes of the sockets that what is sent to a port may reach, from /proc/net (proc(5))."""
    found = set()
    for name in _TABLES.get(protocol, ()):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as table:
                rows = [line.split() for line in table][1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6 or UDP-Lite
        found |= {
            int(row[9])
            for row in rows
            # A datagram may reach a connected socket too.
            if (protocol == "udp" or row[3] == _LISTENING) and int(row[1].rpartition(":")[2], 16) == port
        }
    return found
