"""Servers on this machine that answer programs in the benchmarks, each in a process of its own."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

ANSWER = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def http_server(delay: float) -> Iterator[int]:
    """Answer every request after `delay` seconds; gives the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server, _process(lambda: _answer(server, delay)):
        yield server.getsockname()[1]


@contextmanager
def sink(kind: socket.SocketKind) -> Iterator[int]:
    """Take connections or datagrams and throw them away; gives the port."""
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            server.listen(512)
        with _process(lambda: _swallow(server, kind)):
            yield server.getsockname()[1]


@contextmanager
def _process(body) -> Iterator[None]:
    child = os.fork()
    if child == 0:
        try:
            body()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _answer(server: socket.socket, delay: float) -> None:
    while True:
        peer, _ = server.accept()
        with peer:
            peer.recv(4096)
            if delay:
                time.sleep(delay)  # the distance
            peer.sendall(ANSWER)


def _swallow(server: socket.socket, kind: socket.SocketKind) -> None:
    while True:
        if kind == socket.SOCK_STREAM:
            server.accept()[0].close()
        else:
            server.recv(65536)
