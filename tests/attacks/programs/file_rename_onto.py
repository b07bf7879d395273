"""Overwrite a denied file by renaming another one onto it."""

import os

from attack import OUTSIDE, WORK, main

PROMISE = "what no rule lets be written is not replaced either"
CONTROL = "the file outside has new contents"
ADVICE = "take `rename` and `create` out of the rule that allows the directory"


def attempt() -> bool:
    with open(f"{WORK}/planted", "w") as file:
        file.write("planted")
    os.rename(f"{WORK}/planted", f"{OUTSIDE}/victim")
    return True


main(attempt)
