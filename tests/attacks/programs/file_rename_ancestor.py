"""Move the directory around a blocked file, so that its path matches no block rule any more."""

import os

from attack import WORK, main, read

PROMISE = "the directories above what a block rule names stay where they are"
CONTROL = "under its new name the directory gives the decoy"
ADVICE = "report it: a block rule holds its directories in place"


def attempt() -> bool:
    os.rename(f"{WORK}/hide0", f"{WORK}/shown")
    return read(f"{WORK}/shown/secret")


main(attempt)
