"""Kill the supervisor and the guardian."""

import contextlib
import signal

from attack import FACTS, call, main

PROMISE = "the agent cannot signal its supervisor"
CONTROL = "the stand-in is killed"
ADVICE = "report it: Landlock's signal scope and the supervisor both refuse"


def attempt() -> bool:
    for target in (FACTS["supervisor"], FACTS["guardian"]):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
            with contextlib.suppress(OSError):
                call("kill", target, number)
                return True
            with contextlib.suppress(OSError):
                call("tgkill", target, target, number)
                return True
    return False


main(attempt)
