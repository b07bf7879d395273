"""Walk out of the workspace with `..`, doubled slashes and a changed directory."""

import os

from attack import OUTSIDE, SECRET, WORK, main, read

PROMISE = "paths are judged in their canonical form"
CONTROL = "one of the spellings gives the decoy"
ADVICE = "report it: no spelling of a path may matter"


def attempt() -> bool:
    inside = f"{WORK}/hide1"
    ways = [f"{WORK}/../{os.path.basename(OUTSIDE)}/secret", f"//{SECRET}", f"{WORK}/./hide1/..//.{'/.' * 50}/../"]
    ways[-1] += f"{os.path.basename(OUTSIDE)}/secret"
    ways += [f"{inside}/../../{os.path.basename(OUTSIDE)}//secret"]
    os.chdir(inside)
    ways += [os.path.relpath(SECRET)]
    for way in ways:
        try:
            if read(way):
                return True
        except OSError:
            continue
    return False


main(attempt)
