"""Read a denied file by openat2, which some filters forget."""

import ctypes
import os
import struct

from attack import AT_FDCWD, SECRET, call, main, read

PROMISE = "every call that opens is judged"
CONTROL = "openat2 gives the decoy"
ADVICE = "report it: openat2 must be judged like open"


def attempt() -> bool:
    how = ctypes.create_string_buffer(struct.pack("=QQQ", os.O_RDONLY, 0, 0), 24)
    return read(call("openat2", AT_FDCWD, SECRET, how, 24))


main(attempt)
