"""Build a tree elsewhere and rename it to a name that a block rule keeps free."""

import os

from attack import WORK, main

PROMISE = "a block rule holds for what does not exist yet"
CONTROL = "the planted tree is in place"
ADVICE = "report it: renaming onto a blocked name is a creation"


def attempt() -> bool:
    os.mkdir(f"{WORK}/build")
    with open(f"{WORK}/build/hook", "w") as file:
        file.write("planted")
    os.rename(f"{WORK}/build", f"{WORK}/protected")
    return os.path.exists(f"{WORK}/protected/hook")


main(attempt)
