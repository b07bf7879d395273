"""Empty a denied file."""

import os

from attack import OUTSIDE, main

PROMISE = "what no rule lets be written is not truncated either"
CONTROL = "the file is empty"
ADVICE = "take `truncate` out of the rule that allows the file"


def attempt() -> bool:
    os.truncate(f"{OUTSIDE}/victim", 0)
    return True


main(attempt)
