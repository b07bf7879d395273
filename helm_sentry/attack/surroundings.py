"""What is around an attack: servers, a terminal, another process of the user. They know what reached them."""

import json
import os
import select
import selectors
import socket
import threading
from contextlib import ExitStack, suppress
from typing import Any

from helm_sentry.attack.arena import Arena
from helm_sentry.attack.nursery import Nursery
from helm_sentry.intercept.process_tree import status_field

_FULL = 8  # connections, at most, that fill the queue of a server that accepts nobody


class Surroundings:
    """Servers, terminal and bystander of one arena; a context manager.

    Attributes:
        ports: by what they are for.
        bystander: process id.
        terminal: path of a terminal that belongs to nobody's session.
    """

    def __init__(self, arena: Arena, nursery: Nursery) -> None:
        self._arena, self._stack = arena, ExitStack()
        self._selector = selectors.DefaultSelector()
        self._wake, self._end = os.pipe()
        self._datagrams, self._receivers, self._receiving = 0, list[socket.socket](), threading.Lock()
        self.abstract = os.path.basename(arena.root)
        self.ports = self._internet()
        self._unix()
        self._master, slave = os.openpty()
        self.terminal = os.ttyname(slave)
        self._slave = slave
        self._process = nursery.start("bystander.py", [arena.path("outside/secret")])
        self.bystander = self._process.pid
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Surroundings":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        os.write(self._end, b"!")
        self._thread.join()
        self._process.kill()
        self._process.close()
        self._selector.close()
        self._stack.close()
        for descriptor in (self._master, self._slave, self._wake, self._end):
            os.close(descriptor)

    def told(self) -> dict[str, Any]:
        """Return what the bystander says of itself: where its decoys are. To be asked once."""
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def saw(self, witness: str) -> bool:
        """Whether something arrived since the last question.

        Args:
            witness: `datagram`, `terminal`, or `signal N`.
        """
        if witness == "datagram":
            with self._receiving:  # what has arrived has perhaps not been looked at
                for receiver in self._receivers:
                    with suppress(BlockingIOError):
                        while True:
                            self._answer(receiver, b"d")
                seen, self._datagrams = self._datagrams, 0
            return seen > 0
        if witness == "terminal":
            ready = select.select([self._master], [], [], 0)[0]
            return bool(ready) and b"decoy" in os.read(self._master, 4096)
        number = int(witness.removeprefix("signal "))
        pending = int(status_field(self.bystander, "ShdPnd"), 16) | int(status_field(self.bystander, "SigPnd"), 16)
        return bool(pending >> number - 1 & 1)

    def _internet(self) -> dict[str, int]:
        raced = self._pair("127.0.0.1", b"g", counted=False)
        self._pair("127.0.0.2", b"b", counted=True, port=raced)
        tcp = self._pair("127.0.0.1", b"b", counted=True)
        ports = {"raced_port": raced, "tcp_port": tcp, "udp_port": tcp, "tcp6_port": 0}
        with suppress(OSError):
            ports["tcp6_port"] = self._pair("::1", b"b", counted=True)
        return ports | {"hanging_port": self._hanging()}

    def _pair(self, address: str, letter: bytes, *, counted: bool, port: int = 0) -> int:
        """Listen for connections, which are answered with a letter, and for datagrams, on one port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = self._keep(socket.create_server((address, port), family=family))
        datagrams = self._keep(socket.socket(family, socket.SOCK_DGRAM))
        number = int(server.getsockname()[1])
        datagrams.bind((address, number))
        self._register(server, letter)
        self._register(datagrams, b"d" if counted else b"")
        return number

    def _hanging(self) -> int:
        """Return the port of a server whose queue is full."""
        server = self._keep(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(_FULL):
            client = self._keep(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        return int(server.getsockname()[1])

    def _unix(self) -> None:
        names: list[tuple[str, int, bytes]] = [
            (self._arena.path("outside/stream"), socket.SOCK_STREAM, b"b"),
            (self._arena.path("outside/seqpacket"), socket.SOCK_SEQPACKET, b"b"),
            (self._arena.path("outside/datagram"), socket.SOCK_DGRAM, b"d"),
            (self._arena.path("workspace/hide0/socket"), socket.SOCK_STREAM, b"b"),
            (self._arena.path("workspace/hide1/socket"), socket.SOCK_STREAM, b"g"),
            (self._arena.path("state/helm-sentry/control/stand-in"), socket.SOCK_STREAM, b"b"),
            (self._arena.path("state/helm-sentry/daemon/grpc"), socket.SOCK_STREAM, b"b"),
            (self._arena.path("state/helm-sentry/daemon/runs"), socket.SOCK_STREAM, b"b"),
            (self._arena.path("state/helm-sentry/daemon/metrics"), socket.SOCK_STREAM, b"b"),
            (self._arena.path("state/helm-sentry/standby/socket"), socket.SOCK_STREAM, b"b"),
            (f"\0{self.abstract}-stream", socket.SOCK_STREAM, b"b"),
            (f"\0{self.abstract}-datagram", socket.SOCK_DGRAM, b"d"),
        ]
        for name, kind, letter in names:
            server = self._keep(socket.socket(socket.AF_UNIX, kind))
            server.bind(name)
            if kind != socket.SOCK_DGRAM:
                server.listen(64)
            self._register(server, letter)

    def _keep(self, server: socket.socket) -> socket.socket:
        return self._stack.enter_context(server)

    def _register(self, server: socket.socket, letter: bytes) -> None:
        server.setblocking(False)
        self._receivers += [server] if letter == b"d" else []
        self._selector.register(server, selectors.EVENT_READ, (server, letter))

    def _serve(self) -> None:
        self._selector.register(self._wake, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._wake:
                    return
                with suppress(OSError), self._receiving:
                    self._answer(*key.data)

    def _answer(self, server: socket.socket, letter: bytes) -> None:
        if letter in (b"d", b""):
            server.recv(65536)
            self._datagrams += letter == b"d"
            return
        connection, _ = server.accept()
        with connection:
            connection.send(letter)
