"""Delete a denied directory."""

import os

from attack import OUTSIDE, main

PROMISE = "what no rule names is not deleted"
CONTROL = "the directory is gone"
ADVICE = "take `delete` out of the rule that allows the directory"


def attempt() -> bool:
    os.rmdir(f"{OUTSIDE}/empty")
    return True


main(attempt)
