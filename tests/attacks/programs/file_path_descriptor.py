"""Open a denied file with O_PATH, then turn that into one that can be read."""

import os

from attack import SECRET, main, read

PROMISE = "O_PATH opens are judged, and give no more than they say"
CONTROL = "the descriptor opens again for reading"
ADVICE = "report it: opening a path descriptor anew is judged by what it refers to"


def attempt() -> bool:
    opened = os.open(SECRET, os.O_PATH)
    return os.fstat(opened).st_size > 0 or read(f"/proc/self/fd/{opened}")


main(attempt)
