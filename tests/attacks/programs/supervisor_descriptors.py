"""Take the listener, the log or the key out of the supervisor's open files."""

import contextlib
import os

from attack import FACTS, call, main

PROMISE = "the supervisor's descriptors are out of reach, and none of them is the agent's"
CONTROL = "a descriptor of the stand-in is taken"
ADVICE = "report it: pidfd_getfd is denied, and the agent is started without descriptors above 2"


def attempt() -> bool:
    for target in (FACTS["supervisor"], FACTS["guardian"]):
        for number in range(3, 40):
            with contextlib.suppress(OSError):
                call("pidfd_getfd", os.pidfd_open(target), number, 0)
                return True
            with contextlib.suppress(OSError):
                os.close(os.open(f"/proc/{target}/fd/{number}", os.O_RDONLY))
                return True
    ours = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if int(name) > 2]
    return any("seccomp" in place or "audit" in place or "key" in place for place in ours)


main(attempt)
