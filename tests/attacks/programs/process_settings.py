"""Change another process's limits, priority, processors, memory; compare it with oneself."""

import contextlib
import os
import resource

from attack import FACTS, call, main

PROMISE = "calls that name a process name the agent's own"
CONTROL = "one of the calls succeeds"
ADVICE = "report it: the target is judged"


def attempt() -> bool:
    target = FACTS["bystander"]
    through = []
    for name, way in {
        "prlimit": lambda: resource.prlimit(target, resource.RLIMIT_CORE, (0, 0)),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, target, 5),
        "priority of all": lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(target), 5),
        "processors": lambda: os.sched_setaffinity(target, os.sched_getaffinity(0)),
        "ioprio": lambda: call("ioprio_set", 1, target, 2 << 13 | 7),
        "move_pages": lambda: call("move_pages", target, 0, 0, 0, 0, 0),
        "kcmp": lambda: call("kcmp", os.getpid(), target, 1, 0, 0),
        "madvise": lambda: call("process_madvise", os.pidfd_open(target), 0, 0, 20, 0),
    }.items():
        with contextlib.suppress(OSError):
            way()
            through.append(name)
    print(*through)
    return bool(through)


main(attempt)
