"""The control socket of a run: a line of JSON asks, lines of JSON answer, the last one says `ok` or `error`.

    <state>/control/<run id>      mode 0600 in a directory of mode 0700, gone when the run has ended

Only the user who runs the supervisor, and root, may connect: the kernel says who it is (SO_PEERCRED in unix(7)). The
agent may not, even as the same user: its policy closes the state directory, and whoever descends from the run's
guardian is turned away, as is the supervisor itself, in whose name an agent's connections are made.
"""

import contextlib
import json
import os
import pwd
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from helm_sentry.audit.canonical import Fields
from helm_sentry.errors import SentryError, UsageError
from helm_sentry.intercept.process_tree import parent_of

MOST_BYTES = 4 << 20
"""Of a request."""

_MOST_PEERS = 64
_PATIENCE = 10.0  # seconds for a request to arrive, or for an answer to be taken
_CREDENTIALS = struct.Struct("=iII")  # struct ucred in unix(7)
_MOST_ANCESTORS = 1024


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, by the kernel's word."""

    pid: int
    uid: int

    @property
    def name(self) -> str:
        """The user's name, or the number of one who has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


Service = Callable[[Peer, Fields], Iterator[Fields]]
"""Serves one request; raises SentryError with a sentence for the one who asked."""


class Endpoint:
    """Serves a run's control socket on threads of its own.

    Args:
        directory: where the socket is made.
        name: its name there.
        guardian: process whose descendants are turned away.
        services: by the request's `do`.
        on_refusal: called with a sentence about a peer that was turned away.

    Raises:
        OSError: the socket cannot be made.
    """

    def __init__(
        self,
        directory: str,
        name: str,
        guardian: int,
        services: Mapping[str, Service],
        on_refusal: Callable[[str], None],
    ) -> None:
        self._guardian, self._services, self._on_refusal = guardian, services, on_refusal
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # A path in the state directory may be longer than the 107 bytes that fit into an address.
        self._socket.bind(address(self._directory, name))
        os.chmod(name, 0o600, dir_fd=self._directory)
        self._socket.listen(_MOST_PEERS)
        self._places = threading.BoundedSemaphore(_MOST_PEERS)
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        """Take the socket away; whoever is connected is served to the end."""
        with contextlib.suppress(OSError):  # a name that stays behind, on a disk that fails, answers nobody
            os.unlink(self._name, dir_fd=self._directory)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            peer = peer_of(connection)
            if (why := self._stranger(peer)) or not self._places.acquire(blocking=False):
                self._on_refusal(f"process {peer.pid} of user {peer.uid}: {why or 'too many connections'}")
                connection.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(connection, peer), name="peer", daemon=True).start()
            except RuntimeError:  # no more threads
                self._places.release()
                connection.close()

    def _stranger(self, peer: Peer) -> str:
        """Return why a peer may not ask anything, empty when it may."""
        if peer.uid not in (0, os.geteuid()):
            return "not the user of this run"
        if peer.pid <= 0 or peer.pid == os.getpid():
            return "not a process that can be known"
        return "the agent itself" if _descends(peer.pid, self._guardian) else ""

    def _serve(self, connection: socket.socket, peer: Peer) -> None:
        with connection:
            try:
                connection.settimeout(_PATIENCE)
                for answer in self._answers(connection, peer):
                    connection.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                return  # the peer is gone, or does not read
            finally:
                self._places.release()

    def _answers(self, connection: socket.socket, peer: Peer) -> Iterator[Fields]:
        try:
            request = read_request(connection)
            service = self._services.get(str(request.get("do")))
            if service is None:
                raise UsageError(f"this run does not know `{request.get('do')}`")
            yield from service(peer, request)
        except SentryError as error:
            yield {"error": str(error), "status": error.exit_status}
            return
        yield {"ok": True}


def address(directory: int, name: str) -> str:
    """Return the address of a socket in an open directory, however long the directory's own path is."""
    return f"/proc/self/fd/{directory}/{name}"


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end of a Unix socket."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return Peer(pid, uid)


def read_request(connection: socket.socket) -> Fields:
    """Return the request on a connection.

    Raises:
        UsageError: it is no line with a JSON object, or too long.
        OSError: it did not come in time.
    """
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(65536)
        line += part
        if not part or len(line) > MOST_BYTES:
            raise UsageError("a request is one line of JSON")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise UsageError("a request is one line of JSON")
    return fields


def _descends(pid: int, ancestor: int) -> bool:
    """Whether a process comes from another one, as far as can be seen; what cannot be seen might."""
    for _ in range(_MOST_ANCESTORS):
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
        try:
            pid = parent_of(pid)
        except ProcessLookupError:
            return True
    return True
