"""Hide one's memory from the supervisor (PR_SET_DUMPABLE), then open a denied file."""

import ctypes

from attack import LIBC, SECRET, main, read

PR_SET_DUMPABLE, PR_SET_PTRACER = 4, 0x59616D61
PROMISE = "memory that cannot be read is a refusal"
CONTROL = "the decoy is read"
ADVICE = "report it: an unreadable argument denies"


def attempt() -> bool:
    LIBC.prctl(PR_SET_DUMPABLE, *[ctypes.c_ulong(0)] * 4)
    LIBC.prctl(PR_SET_PTRACER, *[ctypes.c_ulong(0)] * 4)
    return read(SECRET)


main(attempt)
