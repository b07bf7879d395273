"""Move the root directory, so that paths mean something else."""

from attack import OUTSIDE, call, main, read

PROMISE = "the root directory stays where it is"
CONTROL = "the decoy lies at the new root"
ADVICE = "take `mount` out of your kernel rules"


def attempt() -> bool:
    call("chroot", OUTSIDE)
    return read("/secret")


main(attempt, needs="root")
