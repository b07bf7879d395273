"""Have a pipe and a terminal signal another process when there is something to read."""

import contextlib
import fcntl
import os

from attack import FACTS, main

NUMBER = 42
WITNESS = f"signal {NUMBER}"
F_SETSIG = 10
PROMISE = "signals that the kernel sends for the agent stay with the agent"
CONTROL = "the signal waits at the other process"
ADVICE = "use Linux 6.12 or newer: Landlock's signal scope holds this"


def attempt() -> bool:
    asked = False
    for pair in (os.pipe, os.openpty):
        with contextlib.suppress(OSError):
            hear, say = pair()
            fcntl.fcntl(hear, fcntl.F_SETOWN, FACTS["bystander"])
            fcntl.fcntl(hear, F_SETSIG, NUMBER)
            fcntl.fcntl(hear, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            os.write(say, b"x\n")
            asked = True
    return asked


main(attempt)
