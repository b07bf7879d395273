"""Give a denied file a second name inside the workspace."""

import os

from attack import SECRET, WORK, main, read

PROMISE = "an object cannot be linked out from under its rule"
CONTROL = "the new name gives the decoy"
ADVICE = "take `link` out of the rule that allows the file"


def attempt() -> bool:
    os.link(SECRET, f"{WORK}/twin")
    return read(f"{WORK}/twin")


main(attempt)
