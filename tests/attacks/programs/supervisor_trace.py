"""Trace the supervisor, or read its memory, where the key lies."""

import contextlib
import os

from attack import FACTS, call, main

PTRACE_SEIZE = 0x4206
PROMISE = "the supervisor's memory is out of reach"
CONTROL = "the stand-in's memory opens"
ADVICE = "report it: the supervisor is not dumpable, and /proc of it is blocked"


def attempt() -> bool:
    for target in (FACTS["supervisor"], FACTS["guardian"]):
        with contextlib.suppress(OSError):
            os.close(os.open(f"/proc/{target}/mem", os.O_RDONLY))
            return True
        with contextlib.suppress(OSError):
            os.close(os.open(f"/proc/{target}/maps", os.O_RDONLY))
            return True
        with contextlib.suppress(OSError):
            call("ptrace", PTRACE_SEIZE, target, 0, 0)
            return True
    return False


main(attempt)
