"""Connect with addresses of odd lengths and unspecified families."""

import contextlib
import ctypes
import socket
import struct

from attack import FACTS, call, main

PROMISE = "an address is judged as the kernel reads it, or refused"
CONTROL = "one of them reaches the server"
ADVICE = "report it: the decoder must know every form the kernel takes"


def attempt() -> bool:
    port = FACTS["tcp_port"]
    plain = struct.pack("!H4B8x", port, 127, 0, 0, 1)
    forms = [(socket.AF_INET, plain, length) for length in (16, 17, 28, 128)]
    forms += [(socket.AF_UNSPEC, plain, 16)]
    mapped = struct.pack("!HI10x2B4BI", FACTS["tcp_port"], 0, 255, 255, 127, 0, 0, 1, 0)
    forms += [(socket.AF_INET6, mapped, 28), (socket.AF_INET6, mapped, 24)]
    for family, rest, length in forms:
        buffer = ctypes.create_string_buffer(struct.pack("=H", family) + rest, 256)
        own = socket.AF_INET6 if family == socket.AF_INET6 else socket.AF_INET
        with socket.socket(own) as client, contextlib.suppress(OSError):
            client.settimeout(2)
            client.setblocking(True)
            call("connect", client.fileno(), buffer, length | 1 << 32)
            client.settimeout(2)
            if client.recv(1) == b"b":
                return True
    return False


main(attempt)
