"""Trace a child of one's own, whose calls could be changed after they were judged."""

import os

from attack import call, main

PTRACE_TRACEME = 0
PROMISE = "tracing is denied, also of one's own processes"
CONTROL = "the child is traced"
ADVICE = "report it: ptrace is denied"


def attempt() -> bool:
    child = os.fork()
    if child == 0:
        try:
            call("ptrace", PTRACE_TRACEME, 0, 0, 0)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


main(attempt)
