"""Read a denied file through a chain of links, the last of which is a directory."""

import os

from attack import OUTSIDE, WORK, main, read

PROMISE = "links do not lead past a rule"
CONTROL = "the chain gives the decoy"
ADVICE = "narrow the rule that allows the target of the last link"


def attempt() -> bool:
    os.symlink(os.path.dirname(OUTSIDE), f"{WORK}/above")
    for number in range(8):
        os.symlink(f"link{number - 1}" if number else "above", f"{WORK}/link{number}")
    return read(f"{WORK}/link7/{os.path.basename(OUTSIDE)}/./dir/../secret")


main(attempt)
