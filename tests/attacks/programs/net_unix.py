"""Connect to Unix sockets that no rule names: stream, datagram, seqpacket, through a link and a short path."""

import contextlib
import os
import socket

from attack import OUTSIDE, WORK, main

PROMISE = "named sockets are judged by their path"
CONTROL = "one of the servers is reached"
ADVICE = "narrow the unix rule that allows it"


def attempt() -> bool:
    os.symlink(f"{OUTSIDE}/stream", f"{WORK}/socket-link")
    ways = [(socket.SOCK_STREAM, f"{OUTSIDE}/stream"), (socket.SOCK_STREAM, f"{WORK}/socket-link")]
    ways += [(socket.SOCK_SEQPACKET, f"{OUTSIDE}/seqpacket"), (socket.SOCK_DGRAM, f"{OUTSIDE}/datagram")]
    for kind, path in ways:
        for sendto in (False, True) if kind == socket.SOCK_DGRAM else (False,):
            with socket.socket(socket.AF_UNIX, kind) as client, contextlib.suppress(OSError):
                if sendto:
                    client.sendto(b"x", path)
                else:
                    client.connect(path)
                return True
    return False


main(attempt)
