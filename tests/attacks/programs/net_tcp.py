"""Connect to a TCP server that no rule names, under every spelling of its address."""

import contextlib
import socket

from attack import FACTS, main

PROMISE = "addresses are judged as what they stand for"
CONTROL = "the server answers"
ADVICE = "narrow the connect rule that allows it"


def attempt() -> bool:
    port = FACTS["tcp_port"]
    names = [
        (socket.AF_INET, ("127.0.0.1", port)),
        (socket.AF_INET, ("0.0.0.0", port)),
        (socket.AF_INET, ("127.1", port)),
        (socket.AF_INET, ("2130706433", port)),
        (socket.AF_INET, ("localhost", port)),
        (socket.AF_INET6, ("::ffff:127.0.0.1", port)),
        (socket.AF_INET6, ("::1", FACTS["tcp6_port"])),
        (socket.AF_INET6, ("::", FACTS["tcp6_port"])),
        (socket.AF_INET6, ("::1", FACTS["tcp6_port"], 7, 0)),
    ]
    for family, name in names:
        with socket.socket(family) as client, contextlib.suppress(OSError):
            client.settimeout(2)
            client.connect(name)
            if client.recv(1) == b"b":
                return True
    return False


main(attempt)
