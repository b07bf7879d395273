"""A thread rewrites the path of an open with O_PATH, which the kernel has to carry out."""

import os

from attack import WORK, call, main
from race import Race, until_won_by_children

PROMISE = "a path descriptor that strays is found before its process runs on"
CONTROL = "the descriptor refers to the hidden file"
ADVICE = "report it: path descriptors are verified after the fact"


def attempt() -> bool:
    race = Race(f"{WORK}/hide1/secret", f"{WORK}/hide0/secret")
    judged = os.stat(f"{WORK}/hide1/secret").st_ino
    started: list[bool] = []

    def stray() -> bool:
        if not started:
            race.by_thread()
            started.append(True)
        opened = call("openat", -100, race.memory_pointer(), os.O_PATH)
        try:
            return os.fstat(opened).st_ino != judged
        finally:
            os.close(opened)

    return until_won_by_children(stray)


main(attempt)
