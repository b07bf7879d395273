"""List a denied directory."""

import os

from attack import OUTSIDE, WORK, main

PROMISE = "names are given where a rule allows the directory to be listed"
CONTROL = "the listing names the decoy"
ADVICE = "take `list` out of the rule that allows the directory"


def attempt() -> bool:
    os.symlink(OUTSIDE, f"{WORK}/window")
    for place in (OUTSIDE, f"{WORK}/window/.", f"/proc/self/root{OUTSIDE}"):
        try:
            if "secret" in os.listdir(place):
                return True
        except OSError:
            continue
    return False


main(attempt)
