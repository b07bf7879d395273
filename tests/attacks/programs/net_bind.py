"""Take a port of all addresses, with and without bind, so that others can come in."""

import contextlib
import socket

from attack import main

PROMISE = "listening is judged, also where the kernel picks the port"
CONTROL = "one of the sockets listens"
ADVICE = "narrow the bind rule that allows every address"


def attempt() -> bool:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"), (socket.AF_INET, None)):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as server, contextlib.suppress(OSError):
                if address is not None:
                    server.bind((address, 0))
                if kind == socket.SOCK_STREAM:
                    server.listen(1)
                if address is not None or kind == socket.SOCK_STREAM:
                    return True
    return False


main(attempt)
