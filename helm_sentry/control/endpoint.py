"""The control socket of a run: a line of JSON asks, lines of JSON answer, the last one says `ok` or `error`.

    <state>/control/<run id>      mode 0600 in a directory of mode 0700, gone when the run has ended

Who may connect: `control/gate.py`. One of those who may can ask for somebody else, as the daemon does for its own
callers, in the request's `for`; records then name both.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from helm_sentry.audit.canonical import Fields
from helm_sentry.control.gate import Gate, listen, private_directory, stranger
from helm_sentry.control.peer import Peer
from helm_sentry.errors import SentryError, UsageError

MOST_BYTES = 4 << 20
"""Of a request."""

_PATIENCE = 10.0  # seconds for a request to arrive, or for an answer to be taken

Service = Callable[[Peer, Fields], Iterator[Fields]]
"""Serves one request; raises SentryError with a sentence for the one who asked."""


class TooLong(UsageError):
    """A request does not end."""


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
        self._services, self._name, self._on_refusal = services, name, on_refusal
        self._directory = private_directory(directory)
        refuses = partial(stranger, roots=(guardian,))
        self._gate = Gate(listen(self._directory, name), refuses, self._serve, on_refusal)

    def close(self) -> None:
        """Take the socket away; whoever is being answered gets the rest."""
        with contextlib.suppress(OSError):  # a name that stays behind, on a disk that fails, answers nobody
            os.unlink(self._name, dir_fd=self._directory)
        self._gate.close()

    def _serve(self, connection: socket.socket, peer: Peer) -> None:
        connection.settimeout(_PATIENCE)
        for answer in self._answers(connection, peer):
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _answers(self, connection: socket.socket, peer: Peer) -> Iterator[Fields]:
        try:
            request = read_request(connection)
            service = self._services.get(str(request.get("do")))
            if service is None:
                raise UsageError(f"this run does not know `{request.get('do')}`")
            yield from service(_spoken_for(peer, request), request)
        except TooLong as error:
            self._on_refusal(f"process {peer.pid} of user {peer.uid}: {error}")
            yield {"error": str(error), "status": error.exit_status}
            return
        except SentryError as error:
            yield {"error": str(error), "status": error.exit_status}
            return
        yield {"ok": True}


def _spoken_for(peer: Peer, request: Fields) -> Peer:
    """Return who asks through a peer, or the peer itself."""
    match request.get("for"):
        case None:
            return peer
        case {"pid": int(pid), "uid": int(uid), "name": str(title)}:
            return Peer(pid, uid, f"grpc through process {peer.pid}", title)
    raise UsageError("`for` has pid, uid and name")


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
        if len(line) > MOST_BYTES:
            raise TooLong(f"a request has at most {MOST_BYTES} bytes")
        if not part:
            raise UsageError("a request is one line of JSON")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise UsageError("a request is one line of JSON")
    return fields
