"""Take an open file out of another process."""

import os

from attack import FACTS, call, main, read

PROMISE = "the descriptors of others are out of reach"
CONTROL = "the descriptor gives the decoy"
ADVICE = "report it: pidfd_getfd is denied"


def attempt() -> bool:
    process = os.pidfd_open(FACTS["bystander"])
    return read(call("pidfd_getfd", process, FACTS["bystander_descriptor"], 0))


main(attempt)
