"""Stop the supervisor, so that it decides nothing any more."""

import contextlib
import os
import signal

from attack import FACTS, main

PROMISE = "the agent cannot signal its supervisor"
CONTROL = "the stand-in is stopped"
ADVICE = "report it: Landlock's signal scope and the supervisor both refuse"


def attempt() -> bool:
    for target in (FACTS["supervisor"], FACTS["guardian"]):
        for number in (signal.SIGSTOP, signal.SIGTSTP):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(os.pidfd_open(target), number)
                os.kill(target, signal.SIGCONT)
                return True
    return False


main(attempt)
