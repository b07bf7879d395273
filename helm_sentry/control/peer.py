"""Who is at the other end of a Unix socket, by the kernel's word (SO_PEERCRED in unix(7))."""

import pwd
import socket
import struct
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("=iII")  # struct ucred in unix(7)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks.

    Attributes:
        pid: process id, 0 where it is not known.
        uid: user id, -1 for one that the kernel does not know.
        way: how it asks.
        title: name of one that the kernel does not know.
    """

    pid: int
    uid: int
    way: str = "command"
    title: str = ""

    @property
    def name(self) -> str:
        """The user's name, or the number of one who has none."""
        if self.title:
            return self.title
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end of a Unix socket; for the end that connected, who listens there."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return Peer(pid, uid)
