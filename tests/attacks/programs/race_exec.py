"""Another process rewrites the path of an exec."""

import os
import time

from attack import LIBC, SECONDS, WORK, main
from race import Race, shared_memory

FORBIDDEN = 42
PROMISE = "a program that is not the judged one is killed before its first instruction"
CONTROL = "the forbidden program runs"
ADVICE = "report it: what runs is compared with what was approved"


def attempt() -> bool:
    race = Race(f"{WORK}/bin/tool1", f"{WORK}/bin/tool0", shared_memory())
    race.by_thread()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        child = os.fork()
        if child == 0:
            LIBC.execve(race.memory_pointer(), None, None)
            os._exit(1)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == FORBIDDEN:
            return True
    return False


main(attempt)
