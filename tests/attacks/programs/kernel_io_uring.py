"""Set up io_uring, whose requests pass by every filter."""

import ctypes

from attack import call, main

PROMISE = "io_uring is kernel surface, and denied"
CONTROL = "the ring is there"
ADVICE = "take `io_uring` out of your kernel rules"


def attempt() -> bool:
    return call("io_uring_setup", 2, ctypes.create_string_buffer(120)) >= 0


main(attempt, needs="io_uring")
