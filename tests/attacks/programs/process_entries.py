"""Read what /proc tells about another process: memory map, environment, open files, working directory."""

import contextlib
import os

from attack import FACTS, main

PROMISE = "/proc shows the agent its own processes"
CONTROL = "one of the entries opens"
ADVICE = "take /proc out of your rules: the base pack allows what programs need of it"


def attempt() -> bool:
    place = f"/proc/{FACTS['bystander']}"
    opened = []
    for name in ("maps", "environ", "auxv", "stack", "cmdline", "status", f"fd/{FACTS['bystander_descriptor']}"):
        with contextlib.suppress(OSError):
            os.close(os.open(f"{place}/{name}", os.O_RDONLY))
            opened.append(name)
    for name in ("cwd", "root", "exe"):
        with contextlib.suppress(OSError):
            os.readlink(f"{place}/{name}")
            opened.append(name)
    with contextlib.suppress(OSError):
        os.listdir(f"{place}/fd")
        opened.append("fd")
    print(*opened)
    return bool(opened)


main(attempt)
