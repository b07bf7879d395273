"""Fork many processes that all ask at once and end in the middle of it."""

import contextlib
import os
import signal

from attack import SECRET, main, read

PROCESSES, ROUNDS = 40, 3
PROMISE = "a caller that dies leaves nothing behind, and nobody else its answer"
CONTROL = "one of the processes gets the decoy"
ADVICE = "report it: answers go to the call they belong to"


def ask() -> None:
    while True:
        with contextlib.suppress(OSError):
            if read(SECRET):
                os._exit(42)


def attempt() -> bool:
    for _ in range(ROUNDS):
        children = []
        for _ in range(PROCESSES):
            child = os.fork()
            if child == 0:
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                ask()
            children.append(child)
        if any(os.waitpid(child, 0)[1] >> 8 == 42 for child in children):
            return True
    return False


main(attempt)
