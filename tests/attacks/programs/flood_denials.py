"""Be refused many thousand times, then read a denied file."""

import contextlib
import os

from attack import FACTS, SECRET, main, read

PROMISE = "refusals do not wear out"
CONTROL = "the decoy is read at once"
ADVICE = "report it: every call is decided"


def attempt() -> bool:
    for _ in range(FACTS["denials"]):
        with contextlib.suppress(OSError):
            opened = os.open(SECRET, os.O_RDONLY)
            return read(opened)
    return False


main(attempt)
