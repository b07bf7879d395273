"""Install a filter that allows everything over the supervisor's, then read a denied file."""

import ctypes
import struct

from attack import LIBC, SECRET, call, main, read

PR_SET_NO_NEW_PRIVS = 38
PROMISE = "filters only ever add up"
CONTROL = "the decoy is read"
ADVICE = "report it: an agent's own filter takes nothing away"


def attempt() -> bool:
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, *[ctypes.c_ulong(value) for value in (1, 0, 0, 0)])
    allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(struct.pack("=H6xQ", 1, ctypes.addressof(allow)))
    call("seccomp", 1, 0, program)
    return read(SECRET)


main(attempt)
