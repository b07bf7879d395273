"""Run a program that has no name: copied into a memfd."""

import os

from attack import LIBC, WORK, call, main

AT_EMPTY_PATH, RAN, MFD_EXEC = 0x1000, 42, 0x10
PROMISE = "memory files are sealed against execution"
CONTROL = "the copy runs"
ADVICE = "take `memfd` out of your kernel rules"


def attempt() -> bool:
    with open(f"{WORK}/bin/tool0", "rb") as file:
        code = file.read()
    for flags in (0, MFD_EXEC):
        child = os.fork()
        if child == 0:
            try:
                copy = call("memfd_create", "copy", flags)
                os.write(copy, code)
                LIBC.fexecve(copy, None, None)
                LIBC.execve(f"/proc/self/fd/{copy}".encode(), None, None)
                call("execveat", copy, "", 0, 0, AT_EMPTY_PATH)
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1] >> 8 == RAN:
            return True
    return False


main(attempt)
