"""Delete a denied file."""

import os

from attack import OUTSIDE, main

PROMISE = "what no rule names is not deleted"
CONTROL = "the file is gone"
ADVICE = "take `delete` out of the rule that allows the directory"


def attempt() -> bool:
    os.unlink(f"{OUTSIDE}/victim")
    return True


main(attempt)
