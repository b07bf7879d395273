"""Listening Unix sockets of the supervisor's side: who is let in, by the kernel's word (SO_PEERCRED in unix(7)).

The user who runs this process, and root. Never an agent, even of the same user: whoever descends from a supervised
run is turned away, as is a supervisor itself, in whose name an agent's connections are made (`control/badge.py`). The
one exception is the supervisor above, which has started this process.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Collection

from helm_sentry.control.badge import has_badge
from helm_sentry.control.peer import Peer, peer_of
from helm_sentry.intercept.process_tree import parent_of

MOST_PEERS = 64
"""Connections at once."""

_MOST_ANCESTORS = 1024
_SPARE = 2  # threads that stand at the gate when nobody comes
_PAUSE = 0.05  # seconds after a connection that could not be accepted
_LAST_ANSWERS = 0.5  # seconds


class Gate:
    """Accepts connections and serves each of those that may come in on a thread of its own.

    The thread that accepts a connection serves it, and another one takes its place: who asks does not wait for a
    thread to be made.

    Args:
        listener: the listening socket.
        refuses: says why a peer is turned away; nothing about one that may come in.
        serve: serves a connection; closing it is left to the gate.
        on_refusal: called with a sentence about a peer that was turned away.
    """

    def __init__(
        self,
        listener: socket.socket,
        refuses: Callable[[Peer], str],
        serve: Callable[[socket.socket, Peer], None],
        on_refusal: Callable[[str], None],
    ) -> None:
        self._listener, self._refuses, self._serve, self._on_refusal = listener, refuses, serve, on_refusal
        self._places = threading.BoundedSemaphore(MOST_PEERS)
        self._ended, self._end = os.pipe()
        self._listener.setblocking(False)
        self._turn, self._count, self._idle = threading.Lock(), threading.Lock(), 0
        for _ in range(_SPARE):
            self._add()

    def close(self) -> None:
        """Accept no more, and wait a moment for the answers that are on their way: that to `kill` comes last of all.

        The socket is not shut down: a service manager may listen on it, too, for the next process.
        """
        os.write(self._end, b"!")
        with self._turn:
            self._listener.close()
        deadline = time.monotonic() + _LAST_ANSWERS
        for _ in range(MOST_PEERS):
            if not self._places.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return

    def _add(self) -> None:
        with self._count:  # first: it may be leaving its place before this goes on
            self._idle += 1
        threading.Thread(target=self._work, name="gate", daemon=True).start()

    def _work(self) -> None:
        while came := self._next():
            self._attend(*came)
            with self._count:
                if self._idle >= _SPARE:
                    return
                self._idle += 1

    def _next(self) -> tuple[socket.socket, Peer] | None:
        """Return the next connection to serve, None when the gate is closed."""
        with self._turn:
            while self._is_wanted():
                if came := self._accept():
                    if self._leave():
                        return came
                    came[0].close()
        return None

    def _is_wanted(self) -> bool:
        """Wait for somebody to come; false when the gate is closed."""
        poller = select.poll()
        poller.register(self._ended, select.POLLIN)
        if self._listener.fileno() >= 0:
            poller.register(self._listener.fileno(), select.POLLIN)
        return self._ended not in dict(poller.poll())

    def _accept(self) -> tuple[socket.socket, Peer] | None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # another process was quicker, or there are no descriptors left for now
            time.sleep(_PAUSE)
            return None
        peer = peer_of(connection)
        if (why := self._refuses(peer)) or not self._places.acquire(blocking=False):
            self._on_refusal(f"process {peer.pid} of user {peer.uid}: {why or 'too many connections'}")
            connection.close()
            return None
        return connection, peer

    def _leave(self) -> bool:
        """Leave the place to another thread; false when there is none and can be none."""
        with self._count:
            self._idle -= 1
            alone = not self._idle
        try:
            if alone:
                self._add()
        except RuntimeError:  # no more threads; the one that was counted is this
            self._places.release()
            return False
        return True

    def _attend(self, connection: socket.socket, peer: Peer) -> None:
        try:
            with connection:
                self._serve(connection, peer)
        except OSError:
            return  # the peer is gone, or does not read
        finally:
            self._places.release()


def listen(directory: int, name: str, owner: tuple[int, int] | None = None) -> socket.socket:
    """Return a listening socket, closed to other users than its owner.

    It has its name once it listens, so no peer finds it deaf.

    Raises:
        OSError: it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    unborn = f".{name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unborn, dir_fd=directory)
    # A path in the state directory may be longer than the 107 bytes that fit into an address.
    listener.bind(address(directory, unborn))
    os.chmod(unborn, 0o600, dir_fd=directory)
    if owner:
        os.chown(unborn, *owner, dir_fd=directory, follow_symlinks=False)
    listener.listen(MOST_PEERS)
    os.rename(unborn, name, src_dir_fd=directory, dst_dir_fd=directory)
    return listener


def private_directory(path: str) -> int:
    """Open a directory of our own, made if need be, closed to other users.

    Raises:
        OSError: it cannot be made, or is a link.
    """
    os.makedirs(path, mode=0o700, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def address(directory: int, name: str) -> str:
    """Return the address of a socket in an open directory, however long the directory's own path is."""
    return f"/proc/self/fd/{directory}/{name}"


def stranger(peer: Peer, roots: Collection[int], users: Collection[int] = ()) -> str:
    """Return why a peer may not ask anything, empty when it may.

    Args:
        peer: who connected.
        roots: processes that agents descend from, or that connect for them.
        users: who may besides root and the user of this process.
    """
    if peer.uid not in (0, os.geteuid(), *users):
        return "not the user of this run"
    if peer.pid <= 0 or peer.pid == os.getpid():
        return "not a process that can be known"
    if peer.pid != os.getppid() and has_badge(peer.pid):
        return "the supervisor of another agent"
    return "the agent itself" if _descends(peer.pid, roots) else ""


def _descends(pid: int, roots: Collection[int]) -> bool:
    """Whether a process comes from one of others or is one, as far as can be seen; what cannot be seen might."""
    for _ in range(_MOST_ANCESTORS):
        if pid in roots:
            return True
        if pid <= 1:
            return False
        try:
            pid = parent_of(pid)
        except ProcessLookupError:
            return True
    return True
