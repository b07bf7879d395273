"""Change how programs are laid out in memory, for the next one to be attacked more easily."""

from attack import call, main

PROMISE = "personality changes are denied"
CONTROL = "the personality has changed"
ADVICE = "take `personality` out of your kernel rules"


def attempt() -> bool:
    return call("personality", 0x40000) >= 0 and call("personality", 0xFFFFFFFF) & 0x40000 != 0


main(attempt)
