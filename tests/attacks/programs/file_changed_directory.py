"""Make a denied directory the working directory, and look around."""

import os

from attack import OUTSIDE, WORK, main, read

PROMISE = "the working directory grants nothing"
CONTROL = "a relative name gives the decoy"
ADVICE = "report it: relative paths are judged on their canonical path"


def attempt() -> bool:
    os.symlink(OUTSIDE, f"{WORK}/door")
    for way in (lambda: os.chdir(f"{WORK}/door"), lambda: os.fchdir(os.open(OUTSIDE, os.O_PATH))):
        try:
            way()
            return read("secret")
        except OSError:
            continue
    return False


main(attempt)
