"""Reach the control socket of a run: this one's, or another run's."""

import contextlib
import os
import socket

from attack import FACTS, WORK, main

PROMISE = "the runs' control sockets are out of reach"
CONTROL = "the stand-in's socket is reached"
ADVICE = "report it: sockets in the state directory are blocked in every run"


def attempt() -> bool:
    directory = f"{FACTS['state']}/control"
    names = [f"{directory}/{os.path.basename(FACTS['run'])}", f"{directory}/stand-in"]
    names += [f"{WORK}/../state/helm-sentry/control/stand-in", f"/proc/self/root{names[1]}"]
    for name in names:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(name)
            return True
    with socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
        server.bind(f"{directory}/planted")
        return True
    return False


main(attempt)
