"""Move a denied file to where an allow rule holds."""

import os

from attack import SECRET, WORK, main, read

PROMISE = "renaming needs the right to delete there and to create here"
CONTROL = "the moved file gives the decoy"
ADVICE = "take `rename` out of the rule that allows the file"


def attempt() -> bool:
    os.rename(SECRET, f"{WORK}/moved")
    return read(f"{WORK}/moved")


main(attempt)
