"""Create the file that a block rule names and that is not there yet."""

import os

from attack import WORK, main

PROMISE = "a block rule holds for what does not exist yet"
CONTROL = "the file is there"
ADVICE = "report it: a block rule needs no file to hold"


def attempt() -> bool:
    os.mkdir(f"{WORK}/protected")
    with open(f"{WORK}/protected/hook", "w") as file:
        file.write("planted")
    return True


main(attempt)
