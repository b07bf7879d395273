"""A thread rewrites the path of a chdir."""

import os

from attack import WORK, call, main
from race import Race, until_won_by_children

PROMISE = "a thread that strays into another directory is killed before it runs on"
CONTROL = "the working directory is the hidden one"
ADVICE = "report it: chdir is verified after the fact"


def attempt() -> bool:
    race = Race(f"{WORK}/hide1", f"{WORK}/hide0")

    def stray() -> bool:
        if not started:
            race.by_thread()
            started.append(True)
        call("chdir", race.memory_pointer())
        return os.getcwd().endswith("hide0")

    started: list[bool] = []
    return until_won_by_children(stray)


main(attempt)
