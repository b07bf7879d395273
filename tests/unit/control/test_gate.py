"""The gate: everybody who may come in is served at once, and nobody waits for somebody else's end."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from helm_sentry.control.gate import MOST_PEERS, Gate, listen, private_directory, stranger
from helm_sentry.control.peer import Peer

PATIENCE = 30.0


class Place:
    """A gate whose visitors are answered when they are let go."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(str(directory))
        self.path = str(directory / "gate")
        self.go, self.inside, self.refused = threading.Event(), threading.Semaphore(0), list[str]()
        self.gate = Gate(listen(self._directory, "gate"), lambda peer: "", self._serve, self.refused.append)

    def _serve(self, connection: socket.socket, peer: Peer) -> None:
        assert peer.pid == os.getpid()
        self.inside.release()
        assert self.go.wait(PATIENCE)
        connection.sendall(b"!")

    def visitor(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(self.path)
        return client

    def come_in(self, count: int) -> list[socket.socket]:
        clients = [self.visitor() for _ in range(count)]
        for _ in clients:
            assert self.inside.acquire(timeout=PATIENCE)
        return clients


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.go.set()
    made.gate.close()


def answers(clients: list[socket.socket]) -> bytes:
    said = b"".join(client.recv(9) for client in clients)
    for client in clients:
        client.close()
    return said


def test_all_are_served_at_once_and_no_more_than_there_is_room_for(place):
    clients = [each for _ in range(4) for each in place.come_in(MOST_PEERS // 4)]
    with place.visitor() as late:
        assert late.recv(9) == b""
    assert "too many connections" in place.refused[0]
    place.go.set()
    assert answers(clients) == b"!" * MOST_PEERS
    assert answers(place.come_in(MOST_PEERS)) == b"!" * MOST_PEERS  # there is room again


def test_threads_that_served_many_do_not_stay(place):
    clients = place.come_in(20)
    place.go.set()
    assert answers(clients) == b"!" * 20
    for _ in range(200):
        assert answers(place.come_in(1)) == b"!"
        if sum(thread.name == "gate" for thread in threading.enumerate()) <= 4:
            return
    raise AssertionError(threading.enumerate())


def test_a_closed_gate_lets_nobody_in_and_ends_its_threads(place):
    (inside,) = place.come_in(1)
    threading.Timer(0.01, place.go.set).start()
    place.gate.close()
    assert answers([inside]) == b"!"
    with pytest.raises(ConnectionRefusedError):
        place.visitor()
    for thread in threading.enumerate():
        if thread.name == "gate":
            thread.join(PATIENCE)
    assert "gate" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("peer", "roots", "users", "why"),
    [
        (Peer(os.getppid(), os.geteuid() + 7), (), (), "not the user of this run"),
        (Peer(os.getppid(), os.geteuid() + 7), (), (os.geteuid() + 7,), ""),
        (Peer(0, os.geteuid()), (), (), "not a process that can be known"),
        (Peer(os.getpid(), os.geteuid()), (), (), "not a process that can be known"),
        (Peer(os.getppid(), os.geteuid()), (os.getppid(),), (), "the agent itself"),
        (Peer(os.getppid(), os.geteuid()), (), (), ""),
    ],
)
def test_who_is_turned_away(peer, roots, users, why):
    assert stranger(peer, roots, users) == why
