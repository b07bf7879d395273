"""Read a denied file through a symbolic link."""

import os

from attack import SECRET, WORK, main, read

PROMISE = "links do not lead past a rule"
CONTROL = "the link gives the decoy"
ADVICE = "narrow the rule that allows the link's target"


def attempt() -> bool:
    os.symlink(SECRET, f"{WORK}/link")
    return read(f"{WORK}/link")


main(attempt)
