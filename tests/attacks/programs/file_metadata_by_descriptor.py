"""Change a file that may only be read through the descriptor it was opened with."""

import os

from attack import WORK, main

PROMISE = "a descriptor for reading is none for changing modes, times and attributes"
CONTROL = "one of the changes is made"
ADVICE = "report it: what fchmod and its like change is judged"


def attempt() -> bool:
    opened = os.open(f"{WORK}/readable", os.O_RDONLY)
    ways = (
        lambda: os.fchmod(opened, 0o777),
        lambda: os.fchown(opened, os.getuid(), os.getgid()),
        lambda: os.utime(opened, (1, 1)),
        lambda: os.setxattr(opened, "user.decoy", b"x"),
        lambda: os.utime(f"/proc/self/fd/{opened}", (1, 1)),
        lambda: os.chmod(f"/proc/self/fd/{opened}", 0o777),
        lambda: os.close(os.open(f"/proc/self/fd/{opened}", os.O_WRONLY)),
    )
    refused = 0
    for way in ways:
        try:
            way()
        except OSError:
            refused += 1
    return refused < len(ways)


main(attempt)
