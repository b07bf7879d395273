"""Reach the sockets that start runs and tell of them: the daemon's and the standby's; by path, link and descriptor."""

import contextlib
import os
import socket

from attack import FACTS, WORK, main

PROMISE = "the daemon's and the standby's sockets are out of reach"
CONTROL = "the stand-in's sockets are reached"
ADVICE = "report it: sockets in the state directory are blocked in every run"


def attempt() -> bool:
    for directory, names in (("daemon", ("grpc", "runs", "metrics")), ("standby", ("socket",))):
        if reached(f"{FACTS['state']}/{directory}", directory, names):
            return True
    return False


def reached(directory: str, base: str, names: tuple[str, ...]) -> bool:
    with contextlib.suppress(FileExistsError):
        os.symlink(directory, f"{WORK}/{base}-link")
    for name in names:
        for place in (
            directory,
            f"{WORK}/{base}-link",
            f"/proc/self/root{directory}",
            f"{WORK}/../state/helm-sentry/{base}",
        ):
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.connect(f"{place}/{name}")
                return True
    with contextlib.suppress(OSError):
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{opened}/{names[0]}")
        return True
    return False


main(attempt)
