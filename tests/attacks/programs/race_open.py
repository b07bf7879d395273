"""A thread rewrites the path of an open."""

from attack import WORK, call, main, read
from race import Race, until_won

PROMISE = "the path that was judged is the path that is used"
CONTROL = "the open gives the decoy"
ADVICE = "report it: arguments are copied once"


def attempt() -> bool:
    race = Race(f"{WORK}/hide1/secret", f"{WORK}/hide0/secret")
    race.by_thread()
    return until_won(lambda: read(call("openat", -100, race.memory_pointer(), 0)))


main(attempt)
