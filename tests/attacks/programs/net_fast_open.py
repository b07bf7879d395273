"""Connect without connect: TCP Fast Open through sendto and sendmsg."""

import contextlib
import socket

from attack import FACTS, main

MSG_FASTOPEN = 0x20000000
PROMISE = "sending with MSG_FASTOPEN is a connect"
CONTROL = "the server answers"
ADVICE = "report it: MSG_FASTOPEN is judged as a connect"


def attempt() -> bool:
    name = ("127.0.0.1", FACTS["tcp_port"])
    for way in (
        lambda client: client.sendto(b"x", MSG_FASTOPEN, name),
        lambda client: client.sendmsg([b"x"], [], MSG_FASTOPEN, name),
    ):
        with socket.socket() as client, contextlib.suppress(OSError):
            way(client)
            client.settimeout(2)
            if client.recv(1) == b"b":
                return True
    return False


main(attempt)
