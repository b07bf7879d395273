"""Open a file that may only be read with O_RDONLY and O_TRUNC, which empties it."""

import os

from attack import WORK, main

PROMISE = "O_TRUNC is a write whatever the access mode says"
CONTROL = "the file is empty"
ADVICE = "report it: reading must not be enough for O_TRUNC"


def attempt() -> bool:
    os.open(f"{WORK}/readable", os.O_RDONLY | os.O_TRUNC)
    return os.stat(f"{WORK}/readable").st_size == 0


main(attempt)
