"""Lease a file, so that others who open it wait."""

import fcntl
import os

from attack import WORK, main

PROMISE = "leases and directory notices are kernel surface, and denied"
CONTROL = "the lease is taken"
ADVICE = "take `lease` out of your kernel rules"


def attempt() -> bool:
    with open(f"{WORK}/leased", "w") as file:
        file.write("x")
    opened = os.open(f"{WORK}/leased", os.O_RDONLY)
    return fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_RDLCK) == 0


main(attempt, needs="a file system with leases")
