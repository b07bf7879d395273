"""Attach to another process of the user."""

import contextlib

from attack import FACTS, call, main

PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_DETACH = 16, 0x4206, 17
PROMISE = "tracing is denied"
CONTROL = "the process is traced"
ADVICE = "report it: ptrace is denied"


def attempt() -> bool:
    for request in (PTRACE_SEIZE, PTRACE_ATTACH):
        with contextlib.suppress(OSError):
            return call("ptrace", request, FACTS["bystander"], 0, 0) == 0
    return False


main(attempt)
