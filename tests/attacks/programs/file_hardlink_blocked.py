"""Link a file that a block rule names to where an allow rule holds."""

import os

from attack import WORK, main, read

PROMISE = "a block rule also blocks linking what it names"
CONTROL = "the new name gives the decoy"
ADVICE = "report it: block rules hold whatever an allow rule permits"


def attempt() -> bool:
    os.link(f"{WORK}/hide0/secret", f"{WORK}/twin")
    return read(f"{WORK}/twin")


main(attempt)
