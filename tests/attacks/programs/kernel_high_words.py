"""Fill the upper half of 32-bit arguments, which the kernel ignores and a careless filter does not."""

import contextlib
import os

from attack import call, main

HIGH, NEWUSER, SIGCHLD, ADDR_NO_RANDOMIZE = 1 << 32, 0x10000000, 17, 0x40000
PROMISE = "a test looks at the bits that the kernel looks at"
CONTROL = "one of the calls succeeds"
ADVICE = "report it: the table says how many bits count"


def attempt() -> bool:
    with contextlib.suppress(OSError):
        call("personality", HIGH | ADDR_NO_RANDOMIZE)
        return True
    with contextlib.suppress(OSError):
        if call("clone", HIGH | NEWUSER | SIGCHLD, 0, 0, 0, 0) == 0:
            os._exit(0)
        return True
    return False


main(attempt)
