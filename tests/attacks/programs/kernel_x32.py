"""Open a denied file through the x32 numbers of the system call table."""

import platform

from attack import SECRET, NotPossible, main, raw

X32 = 0x40000000
PROMISE = "another ABI's calls are refused"
CONTROL = "the file opens"
ADVICE = "report it: the filter refuses numbers with bit 30 set"


def attempt() -> bool:
    if platform.machine() != "x86_64":
        raise NotPossible("only x86-64 has this door")
    return raw(X32 | 257, -100, SECRET, 0) >= 0


main(attempt, needs="x32")
