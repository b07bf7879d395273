"""A child rewrites the path of its parent's open in memory that both share."""

import os

from attack import WORK, call, main, read
from race import Race, shared_memory, until_won

PROMISE = "the path that was judged is the path that is used, whoever writes"
CONTROL = "the open gives the decoy"
ADVICE = "report it: arguments are copied once"


def attempt() -> bool:
    race = Race(f"{WORK}/hide1/secret", f"{WORK}/hide0/secret", shared_memory())
    racer = race.by_fork()
    try:
        return until_won(lambda: read(call("openat", -100, race.memory_pointer(), 0)))
    finally:
        os.kill(racer, 9)


main(attempt)
