"""Which loopback ports belong to this run: what `connect: {own: true}` means.

A port number alone says nothing: it can be closed and taken by somebody else. A port is the run's own only while
every socket that listens on it is one the broker bound for this run, by socket inode.
"""

import os

from helm_sentry.abi import libc
from helm_sentry.decode import address as addresses
from helm_sentry.decode.address import Internet

_LISTENING = {
    "tcp": "0A",
    "udp": "07",
}  # <net/tcp_states.h>: TCP_LISTEN, TCP_CLOSE (an unconnected UDP socket)


class OwnPorts:
    """The sockets that this run has bound."""

    def __init__(self) -> None:
        self._inodes: dict[tuple[str, int], set[int]] = {}

    def add(self, descriptor: int, protocol: str) -> None:
        """Remember a socket that has just been bound or made to listen."""
        match addresses.parse(libc.socket_name(descriptor, peer=False)):
            case Internet(_, port) if port:
                self._inodes.setdefault((protocol, port), set()).add(os.fstat(descriptor).st_ino)

    def holds(self, address: str, port: int, protocol: str) -> bool:
        """Whether a connection to this address reaches a socket of this run and of nobody else."""
        ours = self._inodes.get((protocol, port))
        if not ours or not addresses.is_loopback(address):
            return False
        listening = _sockets_on(port, protocol)
        return bool(listening) and listening <= ours


def _sockets_on(port: int, protocol: str) -> set[int]:
    """Return the inodes of the sockets that wait on a port, from /proc/net (proc(5))."""
    found = set()
    for family in ("", "6"):
        try:
            with open(f"/proc/net/{protocol}{family}", encoding="ascii") as table:
                rows = [line.split() for line in table][1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        found |= {
            int(row[9])
            for row in rows
            if row[3] == _LISTENING[protocol] and int(row[1].rpartition(":")[2], 16) == port
        }
    return found
