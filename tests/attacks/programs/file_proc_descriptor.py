"""Go from an open directory's entry in /proc/self/fd to a denied file above it."""

import os

from attack import SECRET, WORK, main, read, read_at

PROMISE = "a descriptor gives no way out of what it was opened for"
CONTROL = "one of the ways gives the decoy"
ADVICE = "report it: paths through descriptors are judged where they end"


def attempt() -> bool:
    opened = os.open(WORK, os.O_RDONLY | os.O_DIRECTORY)
    way = os.path.relpath(SECRET, WORK)
    ways = [lambda: read(f"/proc/self/fd/{opened}/{way}"), lambda: read(f"/dev/fd/{opened}/{way}")]
    ways += [lambda: read_at(way, opened), lambda: read(f"/proc/thread-self/fd/{opened}/{way}")]
    for each in ways:
        try:
            if each():
                return True
        except OSError:
            continue
    return False


main(attempt)
