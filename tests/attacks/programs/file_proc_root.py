"""Read a denied file through /proc/self/root, /proc/PID/root and /proc/PID/cwd."""

import os

from attack import FACTS, OUTSIDE, SECRET, main, read

PROMISE = "the links of /proc lead to canonical paths, which are judged"
CONTROL = "one of the links gives the decoy"
ADVICE = "take /proc out of your rules: the base pack allows what programs need of it"


def attempt() -> bool:
    ways = [f"/proc/{each}/root{SECRET}" for each in ("self", "thread-self", os.getppid(), FACTS["bystander"])]
    ways += [f"/proc/self/cwd/{os.path.relpath(SECRET)}", f"/proc/{FACTS['bystander']}/cwd{SECRET}"]
    ways += [f"/proc/../proc/self/root/proc/self/root{OUTSIDE}/dir/../secret"]
    for way in ways:
        try:
            if read(way):
                return True
        except OSError:
            continue
    return False


main(attempt)
