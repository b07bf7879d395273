"""Install a seccomp listener of one's own, which would be asked instead of the supervisor."""

import ctypes
import struct

from attack import LIBC, call, main

PR_SET_NO_NEW_PRIVS, NEW_LISTENER = 38, 8
PROMISE = "no filter of the agent's own is asked before the supervisor"
CONTROL = "the listener is there"
ADVICE = "take `seccomp` out of your kernel rules"


def attempt() -> bool:
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, *[ctypes.c_ulong(value) for value in (1, 0, 0, 0)])
    allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(struct.pack("=H6xQ", 1, ctypes.addressof(allow)))
    return call("seccomp", 1, NEW_LISTENER, program) >= 0


main(attempt)
