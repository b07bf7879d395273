"""A thread rewrites the path of a file that is being moved."""

from attack import WORK, call, main, read
from race import Race, until_won

PROMISE = "the file that was judged is the file that is moved"
CONTROL = "the decoy has moved"
ADVICE = "report it: renames work on held directories"


def attempt() -> bool:
    race = Race(f"{WORK}/hide1/token", f"{WORK}/hide0/token")
    race.by_thread()

    def move() -> bool:
        call("renameat", -100, race.memory_pointer(), -100, f"{WORK}/moved")
        if read(f"{WORK}/moved"):
            return True
        call("renameat", -100, f"{WORK}/moved", -100, f"{WORK}/hide1/token")
        return False

    return until_won(move)


main(attempt)
