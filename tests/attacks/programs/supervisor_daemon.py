"""Reach the daemon: its gRPC service, the socket that starts runs, its metrics; by path, link and descriptor."""

import contextlib
import os
import socket

from attack import FACTS, WORK, main

PROMISE = "the daemon's sockets are out of reach"
CONTROL = "the stand-in's sockets are reached"
ADVICE = "report it: sockets in the state directory are blocked in every run"


def attempt() -> bool:
    directory = f"{FACTS['state']}/daemon"
    with contextlib.suppress(FileExistsError):
        os.symlink(directory, f"{WORK}/daemon-link")
    for name in ("grpc", "runs", "metrics"):
        for place in (
            directory,
            f"{WORK}/daemon-link",
            f"/proc/self/root{directory}",
            f"{WORK}/../state/helm-sentry/daemon",
        ):
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.connect(f"{place}/{name}")
                return True
    with contextlib.suppress(OSError):
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{opened}/grpc")
        return True
    return False


main(attempt)
