"""A thread rewrites the address of a connect."""

import ctypes
import socket
import struct

from attack import FACTS, call, main
from race import Race, until_won

PROMISE = "the address that was judged is the address that is used"
CONTROL = "the forbidden server answers"
ADVICE = "report it: addresses are copied once"


def name(last: int) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4B8x", FACTS["raced_port"], 127, 0, 0, last)


def attempt() -> bool:
    race = Race(name(1), name(2))
    race.by_thread()

    def reach() -> bool:
        with socket.socket() as client:
            call("connect", client.fileno(), ctypes.c_void_p(race.address), 16)
            client.settimeout(2)
            return client.recv(1) == b"b"

    return until_won(reach)


main(attempt)
