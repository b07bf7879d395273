"""Use System V and POSIX message queues and shared memory, which have no path to judge."""

import contextlib

from attack import call, main

PROMISE = "System V objects and message queues are denied"
CONTROL = "one of them is made"
ADVICE = "take `ipc` out of your kernel rules"


def attempt() -> bool:
    for make, name, arguments, remove in (
        ("shmget", "shmctl", (0, 4096, 0o600), (0, 0)),
        ("msgget", "msgctl", (0, 0o600), (0, 0)),
        ("semget", "semctl", (0, 1, 0o600), (0, 0, 0)),
    ):
        with contextlib.suppress(OSError):
            made = call(make, *arguments)
            call(name, made, *remove)
            return True
    return False


main(attempt)
