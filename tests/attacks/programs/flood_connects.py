"""Hang many connects at a server that accepts nobody, then read a denied file."""

import contextlib
import socket
import threading

from attack import FACTS, SECRET, main, read

WAITING = 100
PROMISE = "connects that hang hold up no other call"
CONTROL = "the decoy is read"
ADVICE = "report it: the receiver never waits"


def hang() -> None:
    with contextlib.suppress(OSError):
        client = socket.socket()
        client.connect(("127.0.0.1", FACTS["hanging_port"]))
        client.recv(1)


def attempt() -> bool:
    for _ in range(WAITING):
        threading.Thread(target=hang, daemon=True).start()
    return read(SECRET)


main(attempt)
