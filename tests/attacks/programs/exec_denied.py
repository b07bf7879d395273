"""Run a program outside of what exec rules allow: by path, link, descriptor and thread."""

import os
import threading
from collections.abc import Callable

from attack import AT_FDCWD, LIBC, OUTSIDE, WORK, call, main

AT_EMPTY_PATH, RAN = 0x1000, 42
TOOL = f"{OUTSIDE}/tool"
PROMISE = "only files that a rule names are executed"
CONTROL = "one of the ways runs it"
ADVICE = "narrow the exec rule that allows it"


def in_thread() -> None:
    thread = threading.Thread(target=lambda: LIBC.execve(TOOL.encode(), None, None))
    thread.start()
    thread.join()


def ways() -> list[Callable[[], object]]:
    place = f"{WORK}/tool-link"
    os.symlink(TOOL, place)
    return [
        lambda: os.execv(TOOL, ["tool"]),
        lambda: os.execv(place, ["tool"]),
        lambda: os.execv(f"/proc/self/root{TOOL}", ["tool"]),
        lambda: call("execveat", AT_FDCWD, TOOL, 0, 0, 0),
        lambda: call("execveat", os.open(OUTSIDE, os.O_PATH), "tool", 0, 0, 0),
        lambda: call("execveat", os.open(TOOL, os.O_PATH), "", 0, 0, AT_EMPTY_PATH),
        lambda: os.execv(f"{WORK}/../{os.path.basename(OUTSIDE)}/tool", ["tool"]),
        in_thread,
    ]


def attempt() -> bool:
    for way in ways():
        child = os.fork()
        if child == 0:
            try:
                way()
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == RAN:
            return True
    return False


main(attempt)
