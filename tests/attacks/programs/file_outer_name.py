"""Reach a directory whose name begins with the name of an allowed one."""

from attack import WORK, main, read

PROMISE = "a rule for a directory is none for its namesakes"
CONTROL = "the neighbour's file gives the decoy"
ADVICE = "write `/**` behind the directory in your rule, not `*`"


def attempt() -> bool:
    return read(f"{WORK}foo/secret")


main(attempt)
