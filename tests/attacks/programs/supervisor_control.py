"""Reach a control socket in the supervisor's state directory."""

import contextlib
import socket

from attack import FACTS, WORK, main

PROMISE = "the supervisor's sockets are out of reach"
CONTROL = "the stand-in's socket is reached"
ADVICE = "report it: sockets in the state directory are blocked in every run"


def attempt() -> bool:
    path = f"{FACTS['state']}/control.sock"
    for name in (path, f"{WORK}/../state/helm-sentry/control.sock", f"/proc/self/root{path}"):
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(name)
            return True
    with socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
        server.bind(f"{FACTS['state']}/planted.sock")
        return True
    return False


main(attempt)
