"""Connect to abstract Unix sockets of other programs of the user."""

import contextlib
import socket

from attack import FACTS, main

PROMISE = "abstract sockets of others are out of reach"
CONTROL = "one of the servers is reached"
ADVICE = "take the abstract name out of your unix rules"


def attempt() -> bool:
    name = f"\0{FACTS['abstract']}"
    for kind, suffix in ((socket.SOCK_STREAM, "-stream"), (socket.SOCK_DGRAM, "-datagram")):
        with socket.socket(socket.AF_UNIX, kind) as client, contextlib.suppress(OSError):
            client.connect(name + suffix)
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
            client.sendto(b"x", name + "-datagram")
            return True
    return False


main(attempt)
